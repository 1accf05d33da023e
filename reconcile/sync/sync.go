package sync

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"danm.io/danm/reconcile/apply"
	"danm.io/danm/reconcile/desired"
	"danm.io/danm/reconcile/fail"
	"danm.io/danm/reconcile/source"
	"danm.io/danm/reconcile/status"
	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/spec/diag"
)

// Condition types of a NetworkBundle beside status.Ready and its companions.
const (
	ConditionFetched   = "Fetched"
	ConditionRendered  = "Rendered"
	ConditionRolledOut = "RolledOut"
)

// DefaultInterval is spec.interval where the object has none.
const DefaultInterval = time.Minute

// Reconciler is the loop. Client reads from a cache, APIReader does not.
type Reconciler struct {
	Client              client.Client
	APIReader           client.Reader
	Recorder            events.EventRecorder
	Namespace           string   // of Secrets
	ConfigMapNamespaces []string // that bundles may be read from
	CacheDir            string
	Patience            time.Duration // how long nodes may take to confirm, beyond the bundle's confirmTimeout
	Numbers             sync.Locker   // held while VLAN ids and VNIs are chosen; shared with tenancy
	Now                 func() time.Time
	Metrics             *Metrics

	mu    sync.Mutex
	bench map[string]*memory // by name of the NetworkBundle
}

// memory saves work, no more: losing it costs a fetch and a rendering.
type memory struct {
	uid        string
	generation int64
	request    string
	snap       *source.Snapshot
	endpoint   string
	fetchErr   error
	pause      time.Duration // before the next look after a failure
	fetchedAt  time.Time
	worldSum   [32]byte
	rendering  desired.Rendering
	err        error
	good       *desired.Rendering // the newest without an error
	looked     bool               // the recorded numbers were held against the other registries
}

// Reconcile is one round of one NetworkBundle.
func (r *Reconciler) Reconcile(ctx context.Context, req ctrl.Request) (ctrl.Result, error) {
	nb := &v1alpha1.NetworkBundle{}
	if err := r.Client.Get(ctx, req.NamespacedName, nb); err != nil {
		return ctrl.Result{}, client.IgnoreNotFound(err)
	}
	if !nb.DeletionTimestamp.IsZero() {
		return r.remove(ctx, nb)
	}
	if err := r.mark(ctx, nb, func() { controllerutil.AddFinalizer(nb, v1alpha1.Finalizer) }); err != nil {
		return again(err)
	}
	if err := r.lift(ctx, nb); err != nil {
		return again(err)
	}
	old := nb.Status.DeepCopy()
	outcome, after := r.round(ctx, nb)
	if f := outcome.Failure; f != nil && !f.Terminal && apierrors.IsConflict(f.Err) { // nobody has to hear of it
		return again(f.Err)
	}
	if f := outcome.Failure; f != nil && errors.Is(f.Err, errStale) {
		return ctrl.Result{RequeueAfter: soon}, nil // no failure, and nothing to tell: the status could not be saved either
	}
	status.Conclude(&nb.Status.Conditions, nb.Generation, outcome)
	nb.Status.ObservedGeneration = nb.Generation
	r.Metrics.concluded(nb.Name, outcome)
	r.tell(nb, old, outcome)
	if err := r.save(ctx, nb); err != nil {
		return again(err)
	}
	f := outcome.Failure
	switch {
	case f != nil && f.After > 0:
		after = min(after, f.After)
	case f != nil && !f.Terminal:
		return ctrl.Result{}, f // with growing pauses
	}
	return ctrl.Result{RequeueAfter: max(after, 100*time.Millisecond)}, nil
}

// mark writes what change does to nb's metadata, and nothing else: an update would write the spec anew, in another form (1m is 1m0s
// to Go), and take that field away from whoever applies the NetworkBundle.
func (r *Reconciler) mark(ctx context.Context, nb *v1alpha1.NetworkBundle, change func()) error {
	before := nb.DeepCopy()
	if change(); equality.Semantic.DeepEqual(before.ObjectMeta, nb.ObjectMeta) {
		return nil
	}
	status := nb.Status // the answer has the API's
	from := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	err := r.Client.Patch(ctx, nb, from, client.FieldOwner(v1alpha1.FieldManager))
	nb.Status = status
	return err
}

// again looks once more soon when the object changed meanwhile: the cache was behind, and its event may have come already.
func again(err error) (ctrl.Result, error) {
	if apierrors.IsConflict(err) {
		return ctrl.Result{RequeueAfter: soon}, nil
	}
	return ctrl.Result{}, client.IgnoreNotFound(err)
}

const soon = 200 * time.Millisecond

// errStale says that the round was about a NetworkBundle that somebody has changed since.
var errStale = errors.New("the NetworkBundle changed meanwhile")

// stale makes a conflict over the NetworkBundle itself errStale.
func stale(err error) error {
	if apierrors.IsConflict(err) {
		return fmt.Errorf("%w: %w", errStale, err)
	}
	return err
}

// save writes the status if it is another one than the API has; nb carries the version it was read with.
func (r *Reconciler) save(ctx context.Context, nb *v1alpha1.NetworkBundle) error {
	live := &v1alpha1.NetworkBundle{}
	if err := r.Client.Get(ctx, client.ObjectKeyFromObject(nb), live); err != nil {
		return client.IgnoreNotFound(err)
	}
	if live.ResourceVersion == nb.ResourceVersion && equality.Semantic.DeepEqual(live.Status, nb.Status) {
		return nil
	}
	return r.Client.Status().Update(ctx, nb, client.FieldOwner(v1alpha1.FieldManager))
}

func (r *Reconciler) memory(nb *v1alpha1.NetworkBundle) *memory {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.bench == nil {
		r.bench = map[string]*memory{}
	}
	m := r.bench[nb.Name]
	if m == nil || m.uid != string(nb.UID) {
		m = &memory{uid: string(nb.UID)}
		r.bench[nb.Name] = m
	}
	return m
}

func interval(nb *v1alpha1.NetworkBundle) time.Duration {
	if nb.Spec.Interval == nil || nb.Spec.Interval.Duration <= 0 {
		return DefaultInterval
	}
	return nb.Spec.Interval.Duration
}

// remove ends a NetworkBundle: what it made is deleted if it says so. Nodes keep their links in either case.
func (r *Reconciler) remove(ctx context.Context, nb *v1alpha1.NetworkBundle) (ctrl.Result, error) {
	if !controllerutil.ContainsFinalizer(nb, v1alpha1.Finalizer) {
		return ctrl.Result{}, nil
	}
	if nb.Spec.Prune == nil || *nb.Spec.Prune {
		if err := r.clear(ctx, nb); err != nil {
			f := fail.Of(err, string(diag.Deleting))
			status.Conclude(&nb.Status.Conditions, nb.Generation, status.Outcome{Failure: &fail.Failure{Reason: string(diag.Deleting), Err: f.Err}})
			return ctrl.Result{}, errors.Join(err, r.save(ctx, nb))
		}
	}
	r.mu.Lock()
	delete(r.bench, nb.Name)
	r.mu.Unlock()
	r.Metrics.forget(nb.Name)
	if err := os.RemoveAll(filepath.Join(r.CacheDir, string(nb.UID))); err != nil {
		log.FromContext(ctx).Info("cache not removed", "reason", err.Error())
	}
	return again(r.mark(ctx, nb, func() { controllerutil.RemoveFinalizer(nb, v1alpha1.Finalizer) }))
}

func (r *Reconciler) clear(ctx context.Context, nb *v1alpha1.NetworkBundle) error {
	left, err := r.prune(ctx, nb, nb.Status.Inventory)
	nb.Status.Inventory = left
	if err != nil {
		return err
	}
	var plans v1alpha1.NodePlanList
	if err := r.APIReader.List(ctx, &plans); err != nil {
		return apply.Reason("list NodePlans", err)
	}
	for i := range plans.Items {
		p := &plans.Items[i]
		if p.Spec.Bundle != nb.Name {
			continue
		}
		if p.Spec.Layers.API != nil || len(p.Status.Attached) > 0 { // others' networks and who is attached stand in it, too
			if err := r.letGo(ctx, p); err != nil {
				return err
			}
			continue
		}
		if err := client.IgnoreNotFound(r.Client.Delete(ctx, p, client.Preconditions{UID: &p.UID, ResourceVersion: &p.ResourceVersion})); err != nil {
			return apply.Reason("NodePlan "+p.Name, err)
		}
	}
	return r.collect(ctx, nb, nil)
}

func revision(name string, now metav1.Time, old *v1alpha1.Revision) *v1alpha1.Revision {
	if old != nil && old.Name == name {
		return old
	}
	return &v1alpha1.Revision{Name: name, Short: v1alpha1.ShortRevision(name), At: now}
}
