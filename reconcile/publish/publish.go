package publish

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"danm.io/danm/reconcile/apply"
	"danm.io/danm/reconcile/fail"
	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/spec/diag"
)

// Segments creates those that are not there. They never change, so what is there is right.
func Segments(ctx context.Context, c client.Client, segments []v1alpha1.PlanSegment) error {
	for i := range segments {
		s := segments[i].DeepCopy()
		err := c.Get(ctx, client.ObjectKeyFromObject(s), &v1alpha1.PlanSegment{})
		if err == nil {
			continue
		}
		if apierrors.IsNotFound(err) {
			err = c.Create(ctx, s, client.FieldOwner(v1alpha1.FieldManager))
		}
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return apply.Reason("PlanSegment "+s.Name, err)
		}
	}
	return nil
}

// Plans carries out the writes of a decision. Each is guarded by the version that the decision was made upon: a plan that
// changed meanwhile is an error, and the next round decides anew.
func Plans(ctx context.Context, c client.Client, bundle string, known map[string]*v1alpha1.NodePlan, writes []Write) error {
	const atOnce = 16 // an API server's answer takes milliseconds, most of them waiting for etcd
	failed := make([]error, len(writes))
	var all errgroup.Group
	all.SetLimit(atOnce)
	for i, w := range writes {
		all.Go(func() error {
			failed[i] = apply.Reason("NodePlan "+w.Node, write(ctx, c, bundle, known[w.Node], w))
			return nil
		})
	}
	_ = all.Wait() // every write is tried
	return first(failed)
}

func write(ctx context.Context, c client.Client, bundle string, old *v1alpha1.NodePlan, w Write) error {
	if old == nil {
		p := &v1alpha1.NodePlan{Spec: v1alpha1.NodePlanSpec{Bundle: bundle, Layers: v1alpha1.Layers{Bundle: &w.Layer}, LastGood: w.LastGood}}
		p.Name = w.Node
		p.Labels = map[string]string{v1alpha1.LabelBundle: v1alpha1.LabelValue(bundle)}
		return c.Create(ctx, p, client.FieldOwner(v1alpha1.FieldManager))
	}
	p := old.DeepCopy()
	if p.Labels == nil {
		p.Labels = map[string]string{}
	}
	p.Labels[v1alpha1.LabelBundle] = v1alpha1.LabelValue(bundle)
	p.Spec.Bundle, p.Spec.Layers.Bundle, p.Spec.LastGood = bundle, &w.Layer, w.LastGood
	return c.Update(ctx, p, client.FieldOwner(v1alpha1.FieldManager))
}

// Objects applies every object and says how many were written. It tries them all; the error has the first ten problems.
func Objects(ctx context.Context, c client.Client, objects []*unstructured.Unstructured) (written int, err error) {
	var failed []error
	missing := map[string]error{} // kinds that the API server does not know: asking again for each object takes its time
	for _, o := range objects {
		kind := o.GroupVersionKind().String()
		if missing[kind] != nil {
			continue
		}
		changed, err := apply.Apply(ctx, c, o)
		if f := fail.Of(err, ""); f != nil && f.Reason == string(diag.DefinitionMissing) {
			missing[kind] = err
		}
		if changed {
			written++
		}
		if failed = append(failed, err); ctx.Err() != nil {
			break
		}
	}
	return written, first(failed)
}

// Adoptable says which objects that are not in the inventory are there, and others' who do not let go of them; the error has the first
// ten. Nodes would have the bundle's network under the name of another before that showed.
func Adoptable(ctx context.Context, c client.Client, objects []*unstructured.Unstructured, inventory []v1alpha1.ObjectReference) error {
	mine := map[v1alpha1.ObjectReference]bool{}
	for _, ref := range inventory {
		mine[ref] = true
	}
	var failed []error
	for _, o := range objects {
		if !mine[apply.Reference(o)] {
			failed = append(failed, apply.Adoptable(ctx, c, o))
		}
	}
	return first(failed)
}

// Prune deletes objects and returns those that could not be: they stay in the inventory.
func Prune(ctx context.Context, c client.Client, bundle string, gone []v1alpha1.ObjectReference) (left []v1alpha1.ObjectReference, err error) {
	var failed []error
	for _, r := range gone {
		if err := apply.Delete(ctx, c, r, bundle); err != nil {
			left, failed = append(left, r), append(failed, err)
		}
	}
	return left, first(failed)
}

// first keeps an error readable.
func first(all []error) error {
	const shown = 10
	var out []error
	for _, err := range all {
		if err != nil {
			out = append(out, err)
		}
	}
	if len(out) > shown {
		more := len(out) - shown
		out = append(out[:shown:shown], fmt.Errorf("and %d more", more))
	}
	return errors.Join(out...)
}

// CollectSegments deletes segments that no node plan names any more: the bundle's, and those of bundles that are no more. bundles are
// all that there are.
func CollectSegments(ctx context.Context, c client.Client, bundle string, bundles []v1alpha1.NetworkBundle, plans []v1alpha1.NodePlan, wanted []v1alpha1.PlanSegment) error {
	used := map[string]bool{}
	for i := range plans {
		for _, l := range []*v1alpha1.Layer{plans[i].Spec.Layers.Bundle, plans[i].Spec.Layers.API, plans[i].Spec.LastGood} {
			if l == nil {
				continue
			}
			for _, name := range l.Segments {
				used[name] = true
			}
		}
	}
	for _, s := range wanted {
		used[s.Name] = true
	}
	var list v1alpha1.PlanSegmentList
	if err := c.List(ctx, &list, client.HasLabels{v1alpha1.LabelBundle}); err != nil {
		return apply.Reason("list PlanSegments", err)
	}
	others := map[string]bool{}
	for i := range bundles {
		if bundles[i].Name != bundle {
			others[v1alpha1.LabelValue(bundles[i].Name)] = true
		}
	}
	for i := range list.Items {
		if s := &list.Items[i]; !used[s.Name] && !others[s.Labels[v1alpha1.LabelBundle]] {
			if err := c.Delete(ctx, s); err != nil && !apierrors.IsNotFound(err) {
				return apply.Reason("PlanSegment "+s.Name, err)
			}
		}
	}
	return nil
}
