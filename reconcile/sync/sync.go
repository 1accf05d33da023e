package sync

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
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
	"danm.io/danm/reconcile/publish"
	"danm.io/danm/reconcile/source"
	"danm.io/danm/reconcile/source/snapshot"
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

// round is fetch, render, publish. It changes nb's status and says when to look again at the latest.
func (r *Reconciler) round(ctx context.Context, nb *v1alpha1.NetworkBundle) (status.Outcome, time.Duration) {
	every := interval(nb)
	if nb.Spec.Suspend {
		return status.Outcome{Reason: string(diag.Suspended), Message: "suspended; what is rolled out stays"}, every
	}
	m := r.memory(nb)
	fetchErr := r.fetch(ctx, nb, m)
	every = max(every-r.Now().Sub(m.fetchedAt), time.Second)
	if m.snap == nil {
		return failed(fetchErr, string(diag.APIUnavailable)), every
	}
	good, renderErr := r.render(ctx, nb, m)
	if good == nil {
		return failed(cmp.Or(renderErr, fetchErr), string(diag.APIUnavailable)), every
	}
	outcome, after := r.publish(ctx, nb, good)
	if after > 0 {
		every = min(every, after)
	}
	for _, err := range []error{fetchErr, renderErr} { // what is published is not the newest
		if err != nil && outcome.Failure == nil {
			outcome = failed(err, string(diag.APIUnavailable))
		}
	}
	return outcome, every
}

func failed(err error, otherwise string) status.Outcome {
	return status.Outcome{Failure: fail.Of(err, otherwise)}
}

// fetch brings the newest snapshot into memory when it is time, and says which one is there: what an earlier round could not
// save is said again.
func (r *Reconciler) fetch(ctx context.Context, nb *v1alpha1.NetworkBundle, m *memory) error {
	request := nb.Annotations[v1alpha1.AnnotationRequestedAt]
	due := m.fetchedAt.IsZero() || m.generation != nb.Generation || m.request != request || nb.Spec.ConfigMaps != nil ||
		r.Now().Sub(m.fetchedAt) >= interval(nb)
	if m.fetchErr != nil && nb.Spec.ConfigMaps == nil { // events of nodes must not hammer a repository that is away
		due = due || r.Now().Sub(m.fetchedAt) >= m.pause
		if !due {
			return m.fetchErr
		}
	}
	if due {
		start := r.Now()
		f, endpoint, err := r.open(ctx, nb)
		var snap source.Snapshot
		if err == nil {
			snap, err = f.Fetch(ctx)
		}
		m.fetchedAt, m.generation, m.request, m.fetchErr = r.Now(), nb.Generation, request, err
		r.Metrics.fetched(nb.Name, err, r.Now().Sub(start))
		if err != nil {
			m.pause = min(max(2*m.pause, time.Second), interval(nb), time.Minute)
			if code := snapshot.Code(err); code != "" {
				err = fail.Waiting(string(code), 0, err)
			}
			m.fetchErr = err
			status.Set(&nb.Status.Conditions, nb.Generation, ConditionFetched, false, fail.Of(err, string(diag.APIUnavailable)).Reason, err.Error())
			return err
		}
		m.snap, m.endpoint, m.pause = &snap, endpoint, 0
	}
	nb.Status.HandledRequest = request
	nb.Status.Fetched = revision(m.snap.Revision, metav1.NewTime(m.fetchedAt), nb.Status.Fetched)
	status.Set(&nb.Status.Conditions, nb.Generation, ConditionFetched, true, "Fetched", nb.Status.Fetched.Short)
	return nil
}

// render returns the newest rendering that can be published, and why it is not that of the newest revision.
func (r *Reconciler) render(ctx context.Context, nb *v1alpha1.NetworkBundle, m *memory) (*desired.Rendering, error) {
	w, err := r.world(ctx, r.Client, nb)
	if err != nil {
		return m.good, err
	}
	from := publish.Origin{Bundle: nb.Name, Revision: m.snap.Revision, Endpoint: m.endpoint}
	if sum := w.Sum(from); sum != m.worldSum || m.err != nil && m.rendering.Revision == "" {
		start := time.Now()
		m.rendering, m.err = desired.Decide(*m.snap, from, w)
		m.worldSum = sum
		r.Metrics.rendered(nb.Name, m.err, time.Since(start))
	}
	if m.err == nil && (newNumbers(nb, m.rendering) || !m.looked && len(m.rendering.Assignments) > 0) {
		if err := r.choose(ctx, nb, m, from); err != nil {
			m.worldSum = [32]byte{}
			return m.good, err
		}
	}
	r.diagnose(nb, m.rendering.Diags)
	err = m.err
	if err == nil {
		err = desired.Acceptable(nb, m.rendering)
	}
	if err != nil {
		status.Set(&nb.Status.Conditions, nb.Generation, ConditionRendered, false, fail.Of(err, string(diag.BundleInvalid)).Reason, err.Error())
		return m.good, err
	}
	good := m.rendering
	m.good = &good
	nb.Status.Rendered = revision(m.snap.Revision, metav1.NewTime(r.Now()), nb.Status.Rendered)
	status.Set(&nb.Status.Conditions, nb.Generation, ConditionRendered, true, "Rendered", nb.Status.Rendered.Short)
	return m.good, nil
}

// newNumbers says whether the rendering gives numbers that are not on record yet.
func newNumbers(nb *v1alpha1.NetworkBundle, d desired.Rendering) bool {
	return slices.ContainsFunc(d.Assignments, func(a v1alpha1.Assignment) bool { return !slices.Contains(nb.Status.Assignments, a) })
}

// choose renders again upon what the API has this moment, with nobody else choosing, and records the numbers by a write that
// fails if the record changed: only then are they used.
func (r *Reconciler) choose(ctx context.Context, nb *v1alpha1.NetworkBundle, m *memory, from publish.Origin) error {
	r.Numbers.Lock()
	defer r.Numbers.Unlock()
	live := &v1alpha1.NetworkBundle{}
	if err := r.APIReader.Get(ctx, client.ObjectKeyFromObject(nb), live); err != nil {
		return apply.Reason("NetworkBundle "+nb.Name, err)
	}
	if live.ResourceVersion != nb.ResourceVersion {
		return fail.Waiting(string(diag.APIUnavailable), time.Second, errStale)
	}
	w, err := r.world(ctx, r.APIReader, nb)
	if err != nil {
		return err
	}
	if m.rendering, m.err = desired.Decide(*m.snap, from, w); m.err != nil {
		return nil // told by the caller
	}
	if m.looked = false; newNumbers(nb, m.rendering) {
		nb.Status.Assignments = merge(nb.Status.Assignments, m.rendering.Assignments)
		if err := r.Client.Status().Update(ctx, nb, client.FieldOwner(v1alpha1.FieldManager)); err != nil {
			return apply.Reason("record numbers", stale(err))
		}
	}
	return r.look(ctx, nb, m)
}

// merge is old with now on top: a number stays taken until the rollout that frees it is complete.
func merge(old, now []v1alpha1.Assignment) []v1alpha1.Assignment {
	out := slices.Clone(now)
	for _, a := range old {
		if !slices.ContainsFunc(now, func(b v1alpha1.Assignment) bool { return a.Network == b.Network }) {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, func(a, b v1alpha1.Assignment) int { return strings.Compare(a.Network, b.Network) })
	return out
}

// world reads what rendering depends on.
func (r *Reconciler) world(ctx context.Context, c client.Reader, nb *v1alpha1.NetworkBundle) (desired.World, error) {
	var in desired.Lists
	for _, list := range []client.ObjectList{&in.Nodes, &in.Plans, &in.Bundles, &in.Tenants} {
		if err := c.List(ctx, list); err != nil {
			return desired.World{}, apply.Reason(fmt.Sprintf("list %T", list), err)
		}
	}
	return in.World(nb), nil
}

// diagnose puts the first ten problems into the status.
func (r *Reconciler) diagnose(nb *v1alpha1.NetworkBundle, list diag.List) {
	const shown = 10
	nb.Status.Diagnostics, nb.Status.DiagnosticsTotal = nil, len(list)
	for _, d := range list[:min(shown, len(list))] {
		text, _, _ := strings.Cut(d.String(), "\n")
		nb.Status.Diagnostics = append(nb.Status.Diagnostics, text)
	}
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
	left, err := publish.Prune(ctx, r.Client, nb.Name, nb.Status.Inventory)
	nb.Status.Inventory = left
	if err != nil {
		return err
	}
	var plans v1alpha1.NodePlanList
	if err := r.APIReader.List(ctx, &plans); err != nil {
		return apply.Reason("list NodePlans", err)
	}
	var rest []v1alpha1.NodePlan
	for i := range plans.Items {
		p := &plans.Items[i]
		if p.Spec.Bundle != nb.Name {
			rest = append(rest, *p)
			continue
		}
		if err := client.IgnoreNotFound(r.Client.Delete(ctx, p)); err != nil {
			return apply.Reason("NodePlan "+p.Name, err)
		}
	}
	return publish.CollectSegments(ctx, r.Client, nb.Name, rest, nil)
}

func revision(name string, now metav1.Time, old *v1alpha1.Revision) *v1alpha1.Revision {
	if old != nil && old.Name == name {
		return old
	}
	return &v1alpha1.Revision{Name: name, Short: v1alpha1.ShortRevision(name), At: now}
}
