package hostlinks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"danm.io/danm/reconcile/apply"
	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/model"
	"danm.io/danm/spec/segment"
)

// LabelLayer marks segments of the api layer.
const LabelLayer = "danm.io/layer"

const (
	layerAPI = "api"
	// atOnce writes are under way: an answer takes milliseconds, most of them waiting for etcd.
	atOnce = 16
	// calm is how long events are gathered before a round: people make networks in batches.
	calm = 200 * time.Millisecond
	// every is how often the loop looks when nothing wakes it, and how soon a definition that was installed is noticed.
	every = time.Minute
)

// Reconciler is the loop. It has one task, whatever woke it. Client reads from a cache, APIReader does not.
type Reconciler struct {
	Client    client.Client
	APIReader client.Reader
	Recorder  events.EventRecorder
	Metrics   *Metrics

	definitions definitions
	decoded     map[string]model.Segment
}

// Reconcile is one round over everything.
func (r *Reconciler) Reconcile(ctx context.Context, _ ctrl.Request) (ctrl.Result, error) {
	if err := r.round(ctx); err != nil {
		return ctrl.Result{}, err
	}
	return ctrl.Result{RequeueAfter: every}, nil
}

// world is what one round has read.
type world struct {
	nodes    corev1.NodeList
	plans    v1alpha1.NodePlanList
	segments v1alpha1.PlanSegmentList
	peers    v1alpha1.FabricPeersList
	configs  danmv1.TenantConfigList
	bundles  v1alpha1.NetworkBundleList
	objects  []listed
}

func (r *Reconciler) round(ctx context.Context) error {
	var w world
	for _, list := range []client.ObjectList{&w.nodes, &w.plans, &w.segments, &w.peers, &w.configs, &w.bundles} {
		if err := r.Client.List(ctx, list); err != nil {
			return apply.Reason(fmt.Sprintf("list %T", list), err)
		}
	}
	var err error
	if w.objects, err = r.objects(ctx, rendered(w.bundles.Items)); err != nil {
		return err
	}
	in := Input{Plans: w.plans.Items, Segments: r.decode(w.segments.Items), Configs: w.configs.Items}
	for i := range w.objects {
		if o := &w.objects[i]; o.bundle == "" && !o.leaving() {
			in.Objects = append(in.Objects, o.Object)
		}
	}
	start := time.Now()
	d, err := Decide(in)
	r.Metrics.decided(len(in.Objects), d, time.Since(start))
	if err != nil {
		return err
	}
	return errors.Join(r.publish(ctx, w, d), r.keepPeers(ctx, w.peers.Items, d.Peers), r.tell(ctx, w.objects, d), r.collect(ctx))
}

// decode reads segments once: they never change.
func (r *Reconciler) decode(list []v1alpha1.PlanSegment) map[string]model.Segment {
	out := make(map[string]model.Segment, len(list))
	for i := range list {
		name := list[i].Name
		if s, ok := r.decoded[name]; ok {
			out[name] = s
		} else if s, err := segment.Decode(name, []byte(list[i].Data)); err == nil {
			out[name] = s
		}
	}
	r.decoded = out
	return out
}

// publish writes segments, and then the layers that name them. Nodes without a plan get one when there is something to say: their
// agents report what cards there are in it.
func (r *Reconciler) publish(ctx context.Context, w world, d Decision) error {
	there := map[string]bool{}
	for i := range w.segments.Items {
		there[w.segments.Items[i].Name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(d.Segments)) {
		if there[name] {
			continue
		}
		_, data := segment.Encode(d.Segments[name])
		s := &v1alpha1.PlanSegment{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{LabelLayer: layerAPI}}, Data: string(data)}
		if err := r.Client.Create(ctx, s, client.FieldOwner(v1alpha1.FieldManager)); err != nil && !apierrors.IsAlreadyExists(err) {
			return apply.Reason("PlanSegment "+name, err)
		}
	}
	failed := make([]error, len(w.plans.Items))
	known := map[string]bool{}
	var all errgroup.Group
	all.SetLimit(atOnce)
	for i := range w.plans.Items {
		p := &w.plans.Items[i]
		known[p.Name] = true
		if want, decided := d.Layers[p.Name]; decided && !equality.Semantic.DeepEqual(want, p.Spec.Layers.API) {
			all.Go(func() error {
				failed[i] = apply.Reason("NodePlan "+p.Name, r.tellNode(ctx, p, want))
				return nil
			})
		}
	}
	_ = all.Wait() // every plan is tried
	if needed(w.objects) {
		failed = append(failed, r.invite(ctx, w.nodes.Items, known))
	}
	failed = append(failed, r.dismiss(ctx, w))
	return errors.Join(failed...)
}

func (r *Reconciler) tellNode(ctx context.Context, p *v1alpha1.NodePlan, want *v1alpha1.Layer) error {
	next := p.DeepCopy()
	next.Spec.Layers.API = want
	err := r.Client.Patch(ctx, next, client.MergeFromWithOptions(p, client.MergeFromWithOptimisticLock{}), client.FieldOwner(v1alpha1.FieldManager))
	if err == nil {
		r.Metrics.wrote()
	}
	return client.IgnoreNotFound(err)
}

func needed(objects []listed) bool {
	return slices.ContainsFunc(objects, func(o listed) bool { return o.bundle == "" && !o.leaving() })
}

// invite makes an empty plan for each node that has none.
func (r *Reconciler) invite(ctx context.Context, nodes []corev1.Node, known map[string]bool) error {
	for i := range nodes {
		name := nodes[i].Name
		if known[name] {
			continue
		}
		err := r.Client.Create(ctx, &v1alpha1.NodePlan{ObjectMeta: metav1.ObjectMeta{Name: name}}, client.FieldOwner(v1alpha1.FieldManager))
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return apply.Reason("NodePlan "+name, err)
		}
	}
	return nil
}

// dismiss deletes plans that no bundle has, or one that is no more, of nodes that have left the cluster.
func (r *Reconciler) dismiss(ctx context.Context, w world) error {
	here, bundles := map[string]bool{}, map[string]bool{}
	for i := range w.nodes.Items {
		here[w.nodes.Items[i].Name] = true
	}
	for i := range w.bundles.Items {
		bundles[w.bundles.Items[i].Name] = true
	}
	for i := range w.plans.Items {
		p := &w.plans.Items[i]
		if bundles[p.Spec.Bundle] || here[p.Name] {
			continue
		}
		if err := r.APIReader.Get(ctx, client.ObjectKey{Name: p.Name}, &corev1.Node{}); !apierrors.IsNotFound(err) {
			continue // the cache may be young
		}
		if err := client.IgnoreNotFound(r.Client.Delete(ctx, p)); err != nil {
			return apply.Reason("NodePlan "+p.Name, err)
		}
	}
	return nil
}

// keepPeers makes the FabricPeers what they should be. Nodes read all of them, so there are no others.
func (r *Reconciler) keepPeers(ctx context.Context, have []v1alpha1.FabricPeers, want []model.FabricPeers) error {
	old := map[string]*v1alpha1.FabricPeers{}
	for i := range have {
		old[have[i].Name] = &have[i]
	}
	var failed []error
	for _, p := range want {
		o := peersObject(p)
		live := old[o.Name]
		delete(old, o.Name)
		var err error
		switch {
		case live == nil:
			err = r.Client.Create(ctx, o, client.FieldOwner(v1alpha1.FieldManager))
		case !equality.Semantic.DeepEqual(live.Spec, o.Spec):
			o.ResourceVersion, o.Labels = live.ResourceVersion, live.Labels
			err = r.Client.Update(ctx, o, client.FieldOwner(v1alpha1.FieldManager))
		}
		failed = append(failed, apply.Reason("FabricPeers "+o.Name, err))
	}
	for name, o := range old {
		failed = append(failed, apply.Reason("FabricPeers "+name, client.IgnoreNotFound(r.Client.Delete(ctx, o))))
	}
	return errors.Join(failed...)
}

func peersObject(p model.FabricPeers) *v1alpha1.FabricPeers {
	out := &v1alpha1.FabricPeers{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%d", strings.ToLower(p.Fabric), p.Shard)},
		Spec:       v1alpha1.FabricPeersSpec{Fabric: p.Fabric, Shard: p.Shard},
	}
	for _, n := range p.Nodes {
		out.Spec.Nodes = append(out.Spec.Nodes, v1alpha1.FabricPeer{Node: n.Node, Address: n.Address.String()})
	}
	return out
}

// collect deletes segments of the api layer that no plan names any more. It asks the API itself: a cache may not know the
// newest plan.
func (r *Reconciler) collect(ctx context.Context) error {
	var segments v1alpha1.PlanSegmentList
	if err := r.Client.List(ctx, &segments, client.MatchingLabels{LabelLayer: layerAPI}); err != nil || len(segments.Items) == 0 {
		return apply.Reason("list PlanSegments", err)
	}
	var cached, plans v1alpha1.NodePlanList
	if err := r.Client.List(ctx, &cached); err != nil {
		return apply.Reason("list NodePlans", err)
	}
	if len(unused(segments.Items, cached.Items)) == 0 {
		return nil
	}
	if err := r.APIReader.List(ctx, &plans); err != nil {
		return apply.Reason("list NodePlans", err)
	}
	for _, s := range unused(segments.Items, plans.Items) {
		if err := client.IgnoreNotFound(r.Client.Delete(ctx, s)); err != nil {
			return apply.Reason("PlanSegment "+s.Name, err)
		}
	}
	return nil
}

func unused(segments []v1alpha1.PlanSegment, plans []v1alpha1.NodePlan) (out []*v1alpha1.PlanSegment) {
	used := map[string]bool{}
	for i := range plans {
		for _, l := range []*v1alpha1.Layer{plans[i].Spec.Layers.Bundle, plans[i].Spec.Layers.API, plans[i].Spec.LastGood} {
			if l != nil {
				for _, name := range l.Segments {
					used[name] = true
				}
			}
		}
	}
	for i := range segments {
		if !used[segments[i].Name] {
			out = append(out, &segments[i])
		}
	}
	return out
}

// tell says in each network's Ready condition what became of it.
func (r *Reconciler) tell(ctx context.Context, objects []listed, d Decision) error {
	var failed []error
	for i := range objects {
		o := &objects[i]
		if o.Deleting { // who keeps it says why
			continue
		}
		if !o.status { // a NetworkAttachmentDefinition has none: an event is all there is
			r.event(o, nil, d.Verdicts[o.Key()])
			continue
		}
		want := condition(o, d)
		if have := o.ready(); have != nil && have.Status == want.Status && have.Reason == want.Reason && have.Message == want.Message && have.ObservedGeneration == want.ObservedGeneration {
			continue
		}
		if have := o.ready(); have != nil && have.Status == want.Status {
			want.LastTransitionTime = have.LastTransitionTime
		}
		failed = append(failed, apply.Reason(o.Key(), r.write(ctx, o, want)))
		r.event(o, o.ready(), d.Verdicts[o.Key()])
	}
	return errors.Join(failed...)
}

// write applies the one condition that is this loop's: others have their own field managers.
func (r *Reconciler) write(ctx context.Context, o *listed, c metav1.Condition) error {
	raw, err := json.Marshal(c)
	if err != nil {
		return err
	}
	var m map[string]any
	if err := json.Unmarshal(raw, &m); err != nil {
		return err
	}
	u := o.reference()
	u.Object["status"] = map[string]any{"conditions": []any{m}, "observedGeneration": c.ObservedGeneration}
	err = r.Client.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.FieldOwner("danm-hostlinks"), client.ForceOwnership)
	return client.IgnoreNotFound(err)
}

func (r *Reconciler) event(o *listed, before *metav1.Condition, v Verdict) {
	if r.Recorder == nil || v.Code == "" || before != nil && before.Reason == string(v.Code) && before.Message == v.Message {
		return
	}
	if !o.status && r.definitions.said(o.Key(), v) {
		return
	}
	r.Recorder.Eventf(o.object, nil, corev1.EventTypeWarning, string(v.Code), "Judge", "%.900s", v.Message)
}
