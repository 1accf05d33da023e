package sync

import (
	"context"
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"danm.io/danm/spec/api/v1alpha1"
)

// Setup makes the loop part of a manager. What wakes it: the NetworkBundle itself (not its status), node plans of it, labels of
// nodes, and its ConfigMaps.
func (r *Reconciler) Setup(m ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(m).
		Named("networkbundle").
		For(&v1alpha1.NetworkBundle{}, builder.WithPredicates(predicate.Or[client.Object](predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{}))).
		Watches(&v1alpha1.NodePlan{}, handler.EnqueueRequestsFromMapFunc(r.bundleOfPlan), builder.WithPredicates(progress)).
		Watches(&corev1.Node{}, handler.EnqueueRequestsFromMapFunc(r.everyBundle), builder.WithPredicates(labelsChanged)).
		Watches(&corev1.ConfigMap{}, handler.EnqueueRequestsFromMapFunc(r.bundlesOfConfigMap)).
		WithOptions(controller.Options{MaxConcurrentReconciles: 4, ReconciliationTimeout: 2 * time.Minute, RateLimiter: pause()}).
		Complete(r)
}

// progress is true of what rollouts and renderings look at: the rest of a plan's status, drift above all, changes often.
var progress = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	a, okA := e.ObjectOld.(*v1alpha1.NodePlan)
	b, okB := e.ObjectNew.(*v1alpha1.NodePlan)
	if !okA || !okB || a.Generation != b.Generation || !maps.Equal(a.Annotations, b.Annotations) {
		return true
	}
	x, y := a.Status, b.Status
	return x.HandledRetry != y.HandledRetry || !equality.Semantic.DeepEqual(
		[]any{x.Applied, x.Refused, x.Hardware, x.Underlays}, []any{y.Applied, y.Refused, y.Hardware, y.Underlays})
}}

// labelsChanged is true of nodes that come, go, or are labelled otherwise; their heartbeats are not.
var labelsChanged = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	return !maps.Equal(e.ObjectOld.GetLabels(), e.ObjectNew.GetLabels())
}}

// bundleOfPlan is the plan's bundle; of a plan that is gone, too, since it is made again.
func (r *Reconciler) bundleOfPlan(_ context.Context, o client.Object) []reconcile.Request {
	if p, ok := o.(*v1alpha1.NodePlan); ok && p.Spec.Bundle != "" {
		return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: p.Spec.Bundle}}}
	}
	return nil
}

func (r *Reconciler) everyBundle(ctx context.Context, _ client.Object) []reconcile.Request {
	return r.bundles(ctx, func(*v1alpha1.NetworkBundle) bool { return true })
}

func (r *Reconciler) bundlesOfConfigMap(ctx context.Context, o client.Object) []reconcile.Request {
	return r.bundles(ctx, func(b *v1alpha1.NetworkBundle) bool {
		m := b.Spec.ConfigMaps
		return m != nil && m.Namespace == o.GetNamespace() && labels.SelectorFromSet(m.Selector).Matches(labels.Set(o.GetLabels()))
	})
}

func (r *Reconciler) bundles(ctx context.Context, which func(*v1alpha1.NetworkBundle) bool) []reconcile.Request {
	var list v1alpha1.NetworkBundleList
	if err := r.Client.List(ctx, &list); err != nil {
		return nil // the interval will
	}
	var out []reconcile.Request
	for i := range list.Items {
		if which(&list.Items[i]) {
			out = append(out, reconcile.Request{NamespacedName: types.NamespacedName{Name: list.Items[i].Name}})
		}
	}
	return out
}

// pause grows from one failure to the next, and not beyond a minute: what was away for a night is noticed soon in the morning.
func pause() workqueue.TypedRateLimiter[reconcile.Request] {
	return workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](100*time.Millisecond, time.Minute)
}
