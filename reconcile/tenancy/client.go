package tenancy

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/model"
	"danm.io/danm/spec/segment"
	"danm.io/danm/spec/tenancy"
)

// statusManager owns the condition Assigned: server-side apply takes away what a manager no longer names, so it is not the
// manager under which another loop applies other conditions.
const statusManager = "danm-controller-tenancy"

// live is the API server.
type live struct {
	reader client.Reader
	client client.Client
	told   func(n *danmv1.TenantNetwork, c metav1.Condition)
	judged func(c *danmv1.TenantConfig, v ConfigVerdict)
}

func (l live) read(ctx context.Context) (Input, error) { return read(ctx, l.reader) }

// read lists the networks first, as Input asks.
func read(ctx context.Context, r client.Reader) (Input, error) {
	var networks danmv1.TenantNetworkList
	var configs danmv1.TenantConfigList
	var bundles v1alpha1.NetworkBundleList
	var cluster danmv1.ClusterNetworkList
	var danm danmv1.DanmNetList
	for _, list := range []client.ObjectList{&networks, &configs, &bundles, &cluster, &danm} {
		if err := r.List(ctx, list); err != nil {
			return Input{}, fmt.Errorf("list %T: %w", list, err)
		}
	}
	return Input{Networks: networks.Items, Configs: configs.Items, Bundles: bundles.Items, Cluster: cluster.Items, Danm: danm.Items}, nil
}

// links are the numbers of links in the api layer of any node plan. A segment that is missing or unreadable is an error: its
// links are not known to be gone.
func (l live) links(ctx context.Context) (map[tenancy.Number]bool, error) {
	r := l.reader
	var plans v1alpha1.NodePlanList
	if err := r.List(ctx, &plans); err != nil {
		return nil, fmt.Errorf("list NodePlans: %w", err)
	}
	out, seen := map[tenancy.Number]bool{}, map[string]bool{}
	for i := range plans.Items {
		layer := plans.Items[i].Spec.Layers.API
		if layer == nil {
			continue
		}
		for _, name := range layer.Segments {
			if seen[name] {
				continue
			}
			seen[name] = true
			stored := &v1alpha1.PlanSegment{}
			if err := r.Get(ctx, client.ObjectKey{Name: name}, stored); err != nil {
				return nil, fmt.Errorf("PlanSegment %s of NodePlan %s: %w", name, plans.Items[i].Name, err)
			}
			s, err := segment.Decode(name, []byte(stored.Data))
			if err != nil {
				return nil, fmt.Errorf("PlanSegment %s: %w", name, err)
			}
			for _, link := range s.Links {
				if n, ok := numberOf(link.Link); ok {
					out[n] = true
				}
			}
		}
	}
	return out, nil
}

func numberOf(l model.Link) (tenancy.Number, bool) {
	switch {
	case l.Kind == model.VLAN:
		return tenancy.NumberOf(tenancy.VLAN, l.Parent, int64(l.VLANID)), true
	case l.Kind == model.VXLAN && l.VXLAN != nil:
		return tenancy.NumberOf(tenancy.VXLAN, l.Parent, int64(l.VXLAN.VNI)), true
	}
	return tenancy.Number{}, false
}

func (l live) condition(ctx context.Context, v Verdict) error {
	n := v.Network
	had := conditionOf(n)
	conditions := []metav1.Condition{}
	if had != nil {
		conditions = append(conditions, *had)
	}
	now := v.set(&conditions)
	raw, err := runtime.DefaultUnstructuredConverter.ToUnstructured(&now)
	if err != nil {
		return fmt.Errorf("encode condition: %w", err)
	}
	u := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": danmv1.APIVersion, "kind": danmv1.KindTenantNetwork,
		"metadata": map[string]any{"namespace": n.Namespace, "name": n.Name, "uid": string(n.UID), "resourceVersion": n.ResourceVersion},
		"status":   map[string]any{"conditions": []any{raw}},
	}}
	err = l.client.Status().Apply(ctx, client.ApplyConfigurationFromUnstructured(u), client.FieldOwner(statusManager), client.ForceOwnership)
	if err != nil {
		return gone("TenantNetwork "+n.Namespace+"/"+n.Name, err)
	}
	if l.told != nil && (had == nil || had.Reason != now.Reason || had.Status != now.Status) {
		l.told(n, now)
	}
	return nil
}

func (l live) reserve(ctx context.Context, c *danmv1.TenantConfig, list []danmv1.ReservedNumber) error {
	c = c.DeepCopy()
	c.Status.Reserved = list
	return gone("reserve in TenantConfig "+c.Name, l.client.Status().Update(ctx, c, client.FieldOwner(v1alpha1.FieldManager)))
}

func (l live) write(ctx context.Context, w Write) error {
	n := w.Network.DeepCopy()
	from := client.MergeFromWithOptions(n.DeepCopy(), client.MergeFromWithOptimisticLock{})
	o := &n.Spec.Options
	if w.Device != "" {
		o.Device = w.Device
	}
	if w.VLAN != 0 {
		o.Vlan = w.VLAN
	}
	if w.VXLAN != 0 {
		o.Vxlan = w.VXLAN
	}
	return gone("write the number into TenantNetwork "+n.Namespace+"/"+n.Name, l.client.Patch(ctx, n, from, client.FieldOwner(v1alpha1.FieldManager)))
}

func (l live) judge(ctx context.Context, c *danmv1.TenantConfig, v ConfigVerdict) error {
	now := c.DeepCopy()
	v.apply(now)
	if err := l.client.Status().Update(ctx, now, client.FieldOwner(v1alpha1.FieldManager)); err != nil {
		return gone("status of TenantConfig "+c.Name, err)
	}
	if l.judged != nil {
		l.judged(c, v)
	}
	return nil
}

// gone makes an object that was deleted meanwhile a conflict, too: what was decided upon is not there any more.
func gone(what string, err error) error {
	if apierrors.IsNotFound(err) {
		err = apierrors.NewConflict(danmv1.GroupVersion.WithResource("objects").GroupResource(), what, err)
	}
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}
