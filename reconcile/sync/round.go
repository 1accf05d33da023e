package sync

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

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
	if m.good != nil && desired.Free(*m.good, w.Others) != nil { // another bundle was first, by the two's age
		m.good = nil
	}
	err = r.acceptable(ctx, nb, m, w)
	if err == nil && (newNumbers(nb, m.rendering) || !m.looked && len(m.rendering.Assignments) > 0) {
		if err := r.choose(ctx, nb, m, from); err != nil {
			m.worldSum = [32]byte{}
			return m.good, err
		}
		err = r.acceptable(ctx, nb, m, w) // it has rendered again
	}
	r.diagnose(nb, m.rendering.Diags)
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

// acceptable is why the newest rendering is not to be published: numbers are chosen for none that is not.
func (r *Reconciler) acceptable(ctx context.Context, nb *v1alpha1.NetworkBundle, m *memory, w desired.World) error {
	if m.err != nil {
		return m.err
	}
	if err := desired.Acceptable(nb, m.rendering, w.Others); err != nil {
		return err
	}
	return publish.Adoptable(ctx, r.Client, m.rendering.Objects, nb.Status.Inventory)
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
	err := read(ctx, c, &in.Nodes, &in.Plans, &in.Bundles, &in.Tenants, &in.Cluster, &in.Networks, &in.Danm)
	if err != nil {
		return desired.World{}, err
	}
	return in.World(nb), nil
}

func read(ctx context.Context, c client.Reader, lists ...client.ObjectList) error {
	for _, list := range lists {
		if err := c.List(ctx, list); err != nil {
			return apply.Reason(fmt.Sprintf("list %T", list), err)
		}
	}
	return nil
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
