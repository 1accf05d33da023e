package blocks

import (
	"context"
	"maps"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/event"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"danm.io/danm/reconcile/apply"
	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/model"
)

// Reconciler is the loop. It has one task, whatever woke it. Client reads from a cache, APIReader does not.
type Reconciler struct {
	Client    client.Client
	APIReader client.Reader
	Recorder  events.EventRecorder
	Metrics   *Metrics
	Namespace string // of the nodes' Leases
	Options   Options
	Now       func() time.Time // nil: time.Now

	decoded map[string]model.Segment
	planned map[string]bool      // nodes that had a plan the last time
	lost    time.Time            // when a node had lost its plan, and what it had reported with it
	wrote   map[string]time.Time // statuses, by Action.Key
	read    map[string]time.Time // what satisfy read
}

const (
	// calm is how long events are gathered before a round. A node that asks for an address waits for five seconds.
	calm = 100 * time.Millisecond
	// again is the pause after a round in which somebody else was faster: longer than a cache is usually behind.
	again = 200 * time.Millisecond
	// passes bounds how often one round reads more.
	passes = 4
)

// everything is the loop's one task.
var everything = reconcile.Request{NamespacedName: types.NamespacedName{Name: "everything"}}

type queue = workqueue.TypedRateLimitingInterface[reconcile.Request]

// wake asks for a round a little later: what comes meanwhile is served by the same one.
var wake = handler.Funcs{
	CreateFunc:  func(_ context.Context, _ event.CreateEvent, q queue) { q.AddAfter(everything, calm) },
	UpdateFunc:  func(_ context.Context, _ event.UpdateEvent, q queue) { q.AddAfter(everything, calm) },
	DeleteFunc:  func(_ context.Context, _ event.DeleteEvent, q queue) { q.AddAfter(everything, calm) },
	GenericFunc: func(_ context.Context, _ event.GenericEvent, q queue) { q.AddAfter(everything, calm) },
}

// Setup makes the loop part of a manager.
func (r *Reconciler) Setup(m ctrl.Manager) error {
	return ctrl.NewControllerManagedBy(m).
		Named("blocks").
		Watches(&v1alpha1.IPBlock{}, wake).
		Watches(&v1alpha1.NodePlan{}, wake, builder.WithPredicates(reportedOtherwise)).
		Watches(&danmv1.DanmNet{}, wake).
		Watches(&danmv1.TenantNetwork{}, wake).
		Watches(&danmv1.ClusterNetwork{}, wake).
		Watches(&coordinationv1.Lease{}, wake, builder.WithPredicates(heldOtherwise)).
		Watches(&corev1.Node{}, wake, builder.WithPredicates(predicate.Funcs{UpdateFunc: func(event.UpdateEvent) bool { return false }})).
		WithOptions(controller.Options{MaxConcurrentReconciles: 1, ReconciliationTimeout: 2 * time.Minute, RateLimiter: limiter()}).
		Complete(r)
}

// limiter grows from one failure to the next, and not beyond a minute: what was away for a night is noticed soon in the morning.
func limiter() workqueue.TypedRateLimiter[reconcile.Request] {
	return workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](100*time.Millisecond, time.Minute)
}

// reportedOtherwise is true of plans that say something else of networks, addresses or Pods.
var reportedOtherwise = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	a, okA := e.ObjectOld.(*v1alpha1.NodePlan)
	b, okB := e.ObjectNew.(*v1alpha1.NodePlan)
	return !okA || !okB || a.Generation != b.Generation ||
		!equality.Semantic.DeepEqual([]any{a.Status.Addresses, a.Status.Attached}, []any{b.Status.Addresses, b.Status.Attached})
}}

// heldOtherwise is true of leases that come, go, change hands, or that a person says something of; renewals wake nobody.
var heldOtherwise = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	a, okA := e.ObjectOld.(*coordinationv1.Lease)
	b, okB := e.ObjectNew.(*coordinationv1.Lease)
	return !okA || !okB || !equality.Semantic.DeepEqual(a.Spec.HolderIdentity, b.Spec.HolderIdentity) ||
		a.Annotations[AnnotationPoweredOff] != b.Annotations[AnnotationPoweredOff]
}}

// Reconcile is one round of everything: look, decide, read what is missing, decide again, act.
func (r *Reconciler) Reconcile(ctx context.Context, _ ctrl.Request) (ctrl.Result, error) {
	if r.wrote == nil {
		r.wrote, r.read = map[string]time.Time{}, map[string]time.Time{}
	}
	maps.DeleteFunc(r.wrote, func(_ string, at time.Time) bool { return r.now().Sub(at) > time.Hour })
	start := time.Now()
	d, rest, err := r.decide(ctx)
	if err != nil {
		r.Metrics.round(d, time.Since(start), err)
		return ctrl.Result{}, apply.Reason("addresses", err)
	}
	done, err := r.act(ctx, d.Actions, start)
	r.Metrics.round(d, time.Since(start), err)
	if err != nil && !expected(err) {
		return ctrl.Result{}, apply.Reason("addresses", err)
	}
	o := r.Options.withDefaults()
	after := min(o.Look, positive(rest, o.Look))
	if !d.Next.IsZero() {
		after = min(after, max(d.Next.Sub(r.now()), again))
	}
	if err != nil || len(done) > 0 { // a watch may be slower than this round
		after = min(after, again)
	}
	return ctrl.Result{RequeueAfter: after}, nil
}

func positive(d, otherwise time.Duration) time.Duration {
	if d <= 0 {
		return otherwise
	}
	return d
}

// decide reads and decides until nothing more can be read now.
func (r *Reconciler) decide(ctx context.Context) (d Decision, rest time.Duration, err error) {
	w, err := r.look(ctx)
	if err != nil {
		return d, 0, err
	}
	for range passes {
		if d = Decide(w); !d.Needs.Any() {
			break
		}
		read, wait, err := r.satisfy(ctx, d.Needs, &w)
		if err != nil {
			return d, 0, err
		}
		if rest = wait; !read {
			break
		}
	}
	return d, rest, nil
}

func (r *Reconciler) now() time.Time {
	if r.Now != nil {
		return r.Now()
	}
	return time.Now()
}
