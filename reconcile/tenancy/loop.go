package tenancy

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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
	"danm.io/danm/reconcile/status"
	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
)

// Reconciler is the loop. Client reads from a cache, APIReader does not; what is given out is decided on the latter alone.
type Reconciler struct {
	Client    client.Client
	APIReader client.Reader
	Recorder  events.EventRecorder
	Numbers   sync.Locker // held while numbers are chosen; shared with sync
	Metrics   *Metrics

	mu    sync.Mutex
	pause time.Time // until when nothing is chosen, after a yield
}

// Pauses: after a yield, and while node plans still have links of networks that are gone.
const (
	shortest = 50 * time.Millisecond
	longest  = 500 * time.Millisecond
	linksGo  = 5 * time.Second
	refused  = 30 * time.Second // the API would not take a number, which no event of ours tells when it does
)

// Setup makes the loop part of a manager. Everything that it reads wakes it, as one request.
func (r *Reconciler) Setup(m ctrl.Manager) error {
	all := handler.EnqueueRequestsFromMapFunc(func(context.Context, client.Object) []reconcile.Request {
		return []reconcile.Request{{NamespacedName: types.NamespacedName{Name: "tenancy"}}}
	})
	return ctrl.NewControllerManagedBy(m).
		Named("tenancy").
		Watches(&danmv1.TenantNetwork{}, all, builder.WithPredicates(networkChanged)).
		Watches(&danmv1.TenantConfig{}, all).
		Watches(&danmv1.ClusterNetwork{}, all, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&danmv1.DanmNet{}, all, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&v1alpha1.NetworkBundle{}, all, builder.WithPredicates(numbersChanged)).
		Watches(&v1alpha1.NodePlan{}, all, builder.WithPredicates(linksChanged)).
		WithOptions(controller.Options{MaxConcurrentReconciles: 1, ReconciliationTimeout: 2 * time.Minute, RateLimiter: limiter()}).
		Complete(r)
}

// limiter grows from one failure to the next, and not beyond a minute: what was away for a night is noticed soon in the morning.
func limiter() workqueue.TypedRateLimiter[reconcile.Request] {
	return workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](100*time.Millisecond, time.Minute)
}

// networkChanged is false of updates that touch neither the spec nor what is ours: other loops write the status, too.
var networkChanged = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	old, was := e.ObjectOld.(*danmv1.TenantNetwork)
	now, is := e.ObjectNew.(*danmv1.TenantNetwork)
	return !was || !is || old.Generation != now.Generation || old.UID != now.UID || old.DeletionTimestamp.IsZero() != now.DeletionTimestamp.IsZero() ||
		!equality.Semantic.DeepEqual(old.Labels, now.Labels) || !equality.Semantic.DeepEqual(conditionOf(old), conditionOf(now))
}}

// numbersChanged is true of bundles that record other numbers, or other objects: whose a network is depends on the latter.
var numbersChanged = predicate.Funcs{UpdateFunc: func(e event.UpdateEvent) bool {
	old, was := e.ObjectOld.(*v1alpha1.NetworkBundle)
	now, is := e.ObjectNew.(*v1alpha1.NetworkBundle)
	return !was || !is || !equality.Semantic.DeepEqual(old.Status.Assignments, now.Status.Assignments) || !equality.Semantic.DeepEqual(old.Status.Inventory, now.Status.Inventory)
}}

// linksChanged is true of plans whose api layer is another.
var linksChanged = predicate.Funcs{
	CreateFunc: func(event.CreateEvent) bool { return false },
	UpdateFunc: func(e event.UpdateEvent) bool {
		old, was := e.ObjectOld.(*v1alpha1.NodePlan)
		now, is := e.ObjectNew.(*v1alpha1.NodePlan)
		return !was || !is || !equality.Semantic.DeepEqual(old.Spec.Layers.API, now.Spec.Layers.API)
	},
}

// Reconcile is one round of everything. The cache only tells whether there is something to do.
func (r *Reconciler) Reconcile(ctx context.Context, _ ctrl.Request) (ctrl.Result, error) {
	if rest := r.rest(); rest > 0 {
		return ctrl.Result{RequeueAfter: rest}, nil
	}
	seen, err := read(ctx, r.Client)
	if err != nil {
		return ctrl.Result{}, apply.Reason("read for tenancy", err)
	}
	if d := Decide(seen); idle(seen, d) {
		r.Metrics.round(d, seen, 0, nil)
		return ctrl.Result{}, nil
	}
	r.Numbers.Lock()
	out, err := round(ctx, live{reader: r.APIReader, client: r.Client, told: r.told, judged: r.judged})
	r.Numbers.Unlock()
	r.Metrics.round(out.last, out.input, out.yielded, err)
	if out.yielded > 0 {
		return ctrl.Result{RequeueAfter: r.rests()}, nil
	}
	if err != nil && (onlyConflicts(err) || errors.Is(err, errTooBusy)) {
		return ctrl.Result{RequeueAfter: shortest + rand.N(shortest)}, nil //nolint:gosec // a pause is no secret
	}
	if err == nil && out.last.Orphans {
		return ctrl.Result{RequeueAfter: linksGo}, nil
	}
	if err == nil && out.last.Steps() {
		return ctrl.Result{RequeueAfter: refused}, nil
	}
	return ctrl.Result{}, err
}

// rests begins a pause of random length: two that yielded to each other must not choose again in step.
func (r *Reconciler) rests() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	d := shortest + rand.N(longest-shortest) //nolint:gosec // a pause is no secret
	r.pause = time.Now().Add(d)
	return d
}

func (r *Reconciler) rest() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Until(r.pause)
}

// told makes an event of what is new on a network.
func (r *Reconciler) told(n *danmv1.TenantNetwork, c metav1.Condition) {
	if r.Recorder == nil {
		return
	}
	kind := corev1.EventTypeNormal
	if c.Status == metav1.ConditionFalse {
		kind = corev1.EventTypeWarning
	}
	r.Recorder.Eventf(n, nil, kind, c.Reason, "Assign", "%.900s", c.Message)
}

// judged makes an event of a TenantConfig that became another kind of thing, not of its counts.
func (r *Reconciler) judged(old *danmv1.TenantConfig, v ConfigVerdict) {
	if r.Recorder == nil {
		return
	}
	now := old.DeepCopy()
	v.apply(now)
	was, is := meta.FindStatusCondition(old.Status.Conditions, status.Ready), meta.FindStatusCondition(now.Status.Conditions, status.Ready)
	if (was == nil || was.Reason != is.Reason) && is.Status == metav1.ConditionFalse {
		r.Recorder.Eventf(old, nil, corev1.EventTypeWarning, is.Reason, "Judge", "%.900s", is.Message)
	}
	was, is = meta.FindStatusCondition(old.Status.Conditions, ConditionOverlapping), meta.FindStatusCondition(now.Status.Conditions, ConditionOverlapping)
	if was == nil && is != nil {
		r.Recorder.Eventf(old, nil, corev1.EventTypeWarning, is.Reason, "Judge", "%.900s", is.Message)
	}
}
