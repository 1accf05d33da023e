package live

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/model"
)

// leases is where DANM's Leases are.
const (
	leaseNamespace = "danm-system"
	leasePrefix    = "danm-node-"
)

// Addresses is what the API says of addresses at one moment.
type Addresses struct {
	Blocks    []v1alpha1.IPBlock
	Plans     []v1alpha1.NodePlan
	Networks  []model.Network // of all plans, each once
	Endpoints []danmv1.DanmEp
	Nodes     []corev1.Node
	Leases    map[string]coordinationv1.Lease // by node
	// Unknown is why Endpoints or Leases are not known, nil if they are.
	Unknown error
}

var (
	leaseKind = coordinationv1.SchemeGroupVersion.WithResource("leases")
	podKind   = corev1.SchemeGroupVersion.WithResource("pods")
	nodeKind  = corev1.SchemeGroupVersion.WithResource("nodes")
)

// Addresses lists everything that says who has which address. It writes nothing.
func (c *Client) Addresses(ctx context.Context) (Addresses, error) {
	out := Addresses{Leases: map[string]coordinationv1.Lease{}}
	for try := 1; ; try++ {
		err := errors.Join(list(ctx, c, ours("ipblocks"), &out.Blocks), list(ctx, c, ours("nodeplans"), &out.Plans), list(ctx, c, nodeKind, &out.Nodes))
		if err != nil {
			return out, firstOf(err)
		}
		segments, err := c.segments(ctx, out.Plans)
		if errors.Is(err, errMoving) && try < 3 {
			continue
		}
		if err != nil {
			return out, err
		}
		out.Networks = networksOf(segments)
		break
	}
	if err := list(ctx, c, danms("danmeps"), &out.Endpoints); err != nil {
		if !apierrors.IsForbidden(err) && !apierrors.IsNotFound(err) {
			return out, err
		}
		out.Unknown = err
	}
	leases, err := c.Leases(ctx)
	if err != nil && !apierrors.IsForbidden(err) {
		return out, err
	}
	out.Leases, out.Unknown = leases, errors.Join(out.Unknown, err)
	return out, nil
}

func networksOf(segments map[string]model.Segment) (out []model.Network) {
	seen := map[string]bool{}
	for _, s := range segments {
		for _, n := range s.Networks {
			if key := string(n.Kind) + "/" + n.Key(); !seen[key] {
				seen[key] = true
				out = append(out, n)
			}
		}
	}
	slices.SortFunc(out, func(a, b model.Network) int {
		return strings.Compare(string(a.Kind)+"/"+a.Key(), string(b.Kind)+"/"+b.Key())
	})
	return out
}

// Leases are the nodes' signs of life, by node.
func (c *Client) Leases(ctx context.Context) (map[string]coordinationv1.Lease, error) {
	var all []coordinationv1.Lease
	if err := listIn(ctx, c, c.api.Resource(leaseKind).Namespace(leaseNamespace), "leases in "+leaseNamespace, &all); err != nil {
		return nil, err
	}
	out := map[string]coordinationv1.Lease{}
	for _, l := range all {
		if node, ok := strings.CutPrefix(l.Name, leasePrefix); ok {
			out[node] = l
		}
	}
	return out, nil
}

// Lease reads the Lease of a node, and its Node, nil if there is none.
func (c *Client) Lease(ctx context.Context, node string) (*coordinationv1.Lease, *corev1.Node, error) {
	l := &coordinationv1.Lease{}
	u, err := c.api.Resource(leaseKind).Namespace(leaseNamespace).Get(ctx, leasePrefix+node, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		l = nil
	case err != nil:
		return nil, nil, c.explain("get lease "+leasePrefix+node, err)
	default:
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, l); err != nil {
			return nil, nil, fmt.Errorf("lease %s: %w", leasePrefix+node, err)
		}
	}
	u, err = c.api.Resource(nodeKind).Get(ctx, node, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return l, nil, nil
	}
	if err != nil {
		return nil, nil, c.explain("get node "+node, err)
	}
	n := &corev1.Node{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, n); err != nil {
		return nil, nil, fmt.Errorf("node %s: %w", node, err)
	}
	return l, n, nil
}

// AnnotateLease writes annotations on a node's Lease, if it is still the one that was read: of the same version, unless that is "".
func (c *Client) AnnotateLease(ctx context.Context, l *coordinationv1.Lease, annotations map[string]string) error {
	metadata := map[string]any{"uid": l.UID, "annotations": annotations}
	if l.ResourceVersion != "" {
		metadata["resourceVersion"] = l.ResourceVersion
	}
	patch, err := json.Marshal(map[string]any{"metadata": metadata})
	if err != nil {
		return fmt.Errorf("encode the annotation: %w", err)
	}
	_, err = c.api.Resource(leaseKind).Namespace(leaseNamespace).Patch(ctx, l.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: "danmctl"})
	if apierrors.IsConflict(err) {
		return fmt.Errorf("annotate lease %s: it was written meanwhile, so its node lives: %w", l.Name, err)
	}
	if err != nil {
		return c.explainWrite("annotate lease "+l.Name, "patch of leases in "+leaseNamespace, err)
	}
	return nil
}

// Pod says whether a Pod is there, by its name, or, with name "", whether any Pod of the namespace has the UID.
func (c *Client) Pod(ctx context.Context, namespace, name, uid string) (found bool, err error) {
	if name != "" {
		u, err := c.api.Resource(podKind).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return false, nil
		}
		if err != nil {
			return false, c.explainWrite("get Pod "+namespace+"/"+name, "get of pods", err)
		}
		return uid == "" || string(u.GetUID()) == uid, nil
	}
	page, err := c.api.Resource(podKind).Namespace(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return false, c.explainWrite("list Pods", "list of pods", err)
	}
	for i := range page.Items {
		if string(page.Items[i].GetUID()) == uid {
			return true, nil
		}
	}
	return false, nil
}

// PutHeld replaces the list of imported addresses of an orphan, if it is still the one that was read.
func (c *Client) PutHeld(ctx context.Context, b *v1alpha1.IPBlock, held []v1alpha1.IPHolder) error {
	if held == nil {
		held = []v1alpha1.IPHolder{}
	}
	return c.patchBlock(ctx, b, map[string]any{"spec": map[string]any{"held": held}})
}

// RemoveBlock takes DANM's finalizer from an IPBlock and deletes it, if it is still the one that was read.
func (c *Client) RemoveBlock(ctx context.Context, b *v1alpha1.IPBlock) error {
	rest := slices.DeleteFunc(slices.Clone(b.Finalizers), func(f string) bool { return f == v1alpha1.IPFinalizer })
	if len(rest) == 0 {
		rest = []string{}
	}
	if len(rest) != len(b.Finalizers) {
		if err := c.patchBlock(ctx, b, map[string]any{"metadata": map[string]any{"finalizers": rest}}); err != nil {
			return err
		}
	}
	err := c.api.Resource(ours("ipblocks")).Delete(ctx, b.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &b.UID}})
	if err != nil && !apierrors.IsNotFound(err) {
		return c.explainWrite("delete IPBlock "+b.Name, "delete of ipblocks", err)
	}
	return nil
}

func (c *Client) patchBlock(ctx context.Context, b *v1alpha1.IPBlock, change map[string]any) error {
	meta, _ := change["metadata"].(map[string]any)
	if meta == nil {
		meta = map[string]any{}
		change["metadata"] = meta
	}
	meta["uid"], meta["resourceVersion"] = b.UID, b.ResourceVersion
	patch, err := json.Marshal(change)
	if err != nil {
		return fmt.Errorf("encode the change: %w", err)
	}
	if _, err = c.api.Resource(ours("ipblocks")).Patch(ctx, b.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: "danmctl"}); err != nil {
		return c.explainWrite("write IPBlock "+b.Name, "patch of ipblocks", err)
	}
	return nil
}

// explainWrite is explain for what danm-viewer does not allow.
func (c *Client) explainWrite(what, right string, err error) error {
	if apierrors.IsForbidden(err) {
		return fmt.Errorf("%s: %w; it needs %s, which danm-viewer has not", what, err, right)
	}
	return c.explain(what, err)
}
