package blocks

import (
	"context"
	"fmt"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/model"
	"danm.io/danm/spec/segment"
)

// mirrored is on the mirror Pod of a static Pod: the UID that a CNI plugin was told.
const mirrored = "kubernetes.io/config.mirror"

// look reads what every decision is made upon, from the cache. The objects are the cache's own: nobody changes them.
func (r *Reconciler) look(ctx context.Context) (World, error) {
	w := World{Now: r.now(), Options: r.Options, Nodes: map[string]bool{}, Leases: map[string]*coordinationv1.Lease{}, Wrote: r.wrote}
	var nodes corev1.NodeList
	var leases coordinationv1.LeaseList
	var blocks v1alpha1.IPBlockList
	for _, list := range []client.ObjectList{&nodes, &blocks} {
		if err := r.Client.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
			return w, fmt.Errorf("list %T: %w", list, err)
		}
	}
	if err := r.Client.List(ctx, &leases, client.InNamespace(r.Namespace), client.UnsafeDisableDeepCopy); err != nil {
		return w, fmt.Errorf("list Leases: %w", err)
	}
	w.Blocks = blocks.Items
	for i := range nodes.Items {
		w.Nodes[nodes.Items[i].Name] = true
	}
	for i := range leases.Items {
		if node, ok := strings.CutPrefix(leases.Items[i].Name, LeasePrefix); ok {
			w.Leases[node] = &leases.Items[i]
		}
	}
	if err := r.plans(ctx, r.Client, &w); err != nil {
		return w, err
	}
	w.Lost = lost(r.planned, w)
	if w.Lost.Before(r.lost) {
		w.Lost = r.lost
	}
	r.lost, r.planned = w.Lost, map[string]bool{}
	for i := range w.Plans {
		r.planned[w.Plans[i].Name] = true
	}
	return w, nil
}

// lost is when a node last was without a plan that it had, or that it has now: what it reports stands in the new one after a while.
func lost(before map[string]bool, w World) time.Time {
	var at time.Time
	now := map[string]bool{}
	for i := range w.Plans {
		now[w.Plans[i].Name] = true
		if born := w.Plans[i].CreationTimestamp.Time; born.After(at) {
			at = born
		}
	}
	for node := range before {
		if w.Nodes[node] && !now[node] {
			return w.Now
		}
	}
	return at
}

// plans reads plans, their segments and the networks.
func (r *Reconciler) plans(ctx context.Context, from client.Reader, w *World) error {
	var plans v1alpha1.NodePlanList
	var segments v1alpha1.PlanSegmentList
	var danm danmv1.DanmNetList
	var tenant danmv1.TenantNetworkList
	var cluster danmv1.ClusterNetworkList
	for _, list := range []client.ObjectList{&plans, &segments, &danm, &tenant, &cluster} { // a plan's segments are there before it
		if err := from.List(ctx, list, client.UnsafeDisableDeepCopy); err != nil {
			return fmt.Errorf("list %T: %w", list, err)
		}
	}
	w.Plans, w.Networks = plans.Items, nil
	w.Segments = map[string]model.Segment{}
	for i := range segments.Items {
		p := &segments.Items[i]
		s, known := r.decoded[p.Name]
		if !known {
			var err error
			if s, err = segment.Decode(p.Name, []byte(p.Data)); err != nil {
				continue
			}
		}
		w.Segments[p.Name] = s
	}
	r.decoded = w.Segments
	add := func(kind string, o client.Object, spec *danmv1.NetworkSpec, status *danmv1.NetworkStatus) {
		n := Network{Kind: kind, Object: o, Spec: spec, Status: status}
		if t := o.GetDeletionTimestamp(); t != nil {
			n.Deleted = t.Time
		}
		w.Networks = append(w.Networks, n)
	}
	for i := range danm.Items {
		o := &danm.Items[i]
		add(danmv1.KindDanmNet, o, &o.Spec, &o.Status)
	}
	for i := range tenant.Items {
		o := &tenant.Items[i]
		add(danmv1.KindTenantNetwork, o, &o.Spec, &o.Status)
	}
	for i := range cluster.Items {
		o := &cluster.Items[i]
		add(danmv1.KindClusterNetwork, o, &o.Spec, &o.Status)
	}
	return nil
}

// satisfy reads what a decision asked for, from the API server itself. What was read a moment ago is not read again: then the
// answer is false, and rest says when it may be.
func (r *Reconciler) satisfy(ctx context.Context, need Needs, w *World) (read bool, rest time.Duration, err error) {
	again := func(what string, every time.Duration) bool {
		left := r.read[what].Add(every).Sub(w.Now)
		if left > 0 {
			if rest == 0 || left < rest {
				rest = left
			}
			return false
		}
		r.read[what] = w.Now
		read = true
		return true
	}
	o := r.Options.withDefaults()
	if len(need.Nodes) > 0 {
		if err := r.signs(ctx, need.Nodes, w); err != nil {
			return false, 0, err
		}
		read = true
	}
	if w.Endpoints == nil && (need.Endpoints && again("endpoints", o.Look/60) || need.Users && again("users", o.Look)) {
		if w.Endpoints, err = r.endpoints(ctx); err != nil {
			return false, 0, err
		}
	}
	if need.Fresh && !w.Fresh && again("fresh", o.Look/60) {
		if err := r.plans(ctx, r.APIReader, w); err != nil {
			return false, 0, err
		}
		w.Fresh = true
	}
	if need.Pods && w.Pods == nil && again("pods", rarely*o.Look) {
		if w.Pods, err = r.pods(ctx); err != nil {
			return false, 0, err
		}
	}
	if need.Sets && w.Sets == nil && again("sets", rarely*o.Look) {
		if w.Sets, err = r.sets(ctx); err != nil {
			return false, 0, err
		}
	}
	return read, rest, nil
}

// signs asks for nodes and their leases.
func (r *Reconciler) signs(ctx context.Context, names []string, w *World) error {
	if w.Signs == nil {
		w.Signs = map[string]Sign{}
	}
	for _, name := range names {
		var s Sign
		node := &metav1.PartialObjectMetadata{}
		node.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("Node"))
		err := r.APIReader.Get(ctx, client.ObjectKey{Name: name}, node)
		if s.Node = err == nil; err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("read Node %s: %w", name, err)
		}
		lease := &coordinationv1.Lease{}
		err = r.APIReader.Get(ctx, client.ObjectKey{Namespace: r.Namespace, Name: LeasePrefix + name}, lease)
		switch {
		case err == nil:
			s.Lease = lease
		case !apierrors.IsNotFound(err):
			return fmt.Errorf("read Lease %s%s: %w", LeasePrefix, name, err)
		}
		w.Signs[name] = s
	}
	return nil
}

const (
	page   = 2000
	rarely = 5 // times Look: all Pods of a cluster are read, and nobody waits for it
)

// fromBefore selects DanmEps that no agent of ours published, which nothing but they themselves tells of; what nodes publish now is in their journals and
// reports, and could be more than is good for anybody's memory.
const fromBefore = "!" + danmv1.LabelSandbox

// endpoints are all DanmEps from before; not nil.
func (r *Reconciler) endpoints(ctx context.Context) ([]danmv1.DanmEp, error) {
	out := []danmv1.DanmEp{}
	old, err := labels.Parse(fromBefore)
	if err != nil {
		return nil, err
	}
	for next := ""; ; {
		var list danmv1.DanmEpList
		if err := r.APIReader.List(ctx, &list, client.MatchingLabelsSelector{Selector: old}, client.Limit(page), client.Continue(next)); err != nil {
			return nil, fmt.Errorf("list DanmEps: %w", err)
		}
		out = append(out, list.Items...)
		if next = list.Continue; next == "" {
			return out, nil
		}
	}
}

func (r *Reconciler) pods(ctx context.Context) (*Pods, error) {
	out := &Pods{UIDs: map[string]bool{}, Names: map[string]bool{}}
	for next := ""; ; {
		list := &metav1.PartialObjectMetadataList{}
		list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("PodList"))
		if err := r.APIReader.List(ctx, list, client.Limit(page), client.Continue(next)); err != nil {
			return nil, fmt.Errorf("list Pods: %w", err)
		}
		for i := range list.Items {
			p := &list.Items[i]
			out.UIDs[string(p.UID)] = true
			if uid := p.Annotations[mirrored]; uid != "" {
				out.UIDs[uid] = true
			}
			out.Names[p.Namespace+"/"+p.Name] = true
		}
		if next = list.Continue; next == "" {
			return out, nil
		}
	}
}

func (r *Reconciler) sets(ctx context.Context) (map[string]StatefulSet, error) {
	out := map[string]StatefulSet{}
	for next := ""; ; {
		var list appsv1.StatefulSetList
		if err := r.APIReader.List(ctx, &list, client.Limit(page), client.Continue(next)); err != nil {
			return nil, fmt.Errorf("list StatefulSets: %w", err)
		}
		for i := range list.Items {
			spec := &list.Items[i].Spec
			s := StatefulSet{Namespace: list.Items[i].Namespace, Name: list.Items[i].Name, Replicas: 1}
			if spec.Replicas != nil {
				s.Replicas = *spec.Replicas
			}
			if spec.Ordinals != nil {
				s.Start = spec.Ordinals.Start
			}
			out[string(list.Items[i].UID)] = s
		}
		if next = list.Continue; next == "" {
			return out, nil
		}
	}
}
