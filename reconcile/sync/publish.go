package sync

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"danm.io/danm/reconcile/apply"
	"danm.io/danm/reconcile/desired"
	"danm.io/danm/reconcile/fail"
	"danm.io/danm/reconcile/publish"
	"danm.io/danm/reconcile/status"
	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// publish takes one step towards the rendering. What a later step needs is recorded before it: the inventory before objects,
// the wave before node plans.
func (r *Reconciler) publish(ctx context.Context, nb *v1alpha1.NetworkBundle, d *desired.Rendering) (status.Outcome, time.Duration) {
	known, err := r.plans(ctx)
	if err != nil {
		return failed(err, string(diag.APIUnavailable)), 0
	}
	ended, err := r.ended(ctx, nb, known)
	if err != nil {
		return failed(err, string(diag.APIUnavailable)), 0
	}
	in := input(nb, d, known)
	in.Ended, in.Now, in.Patience = ended, r.Now(), d.Bundle.ConfirmTimeout+r.Patience
	decision := publish.Decide(in)
	nb.Status.Rollout, nb.Status.Quarantined = &decision.Rollout, decision.Quarantined
	nb.Status.Nodes = fmt.Sprintf("%d/%d", decision.Confirmed, decision.Planned)
	r.Metrics.rollout(nb.Name, decision)
	had := len(nb.Status.Inventory)
	if decision.Phase != publish.Quarantined {
		nb.Status.Inventory = publish.Union(nb.Status.Inventory, d.References)
	}
	if err := r.save(ctx, nb); err != nil {
		return failed(apply.Reason("NetworkBundle "+nb.Name, stale(err)), string(diag.APIUnavailable)), 0
	}
	if len(nb.Status.Inventory) > had { // of two that record an object at one moment the later sees the earlier
		others, err := r.others(ctx, nb)
		if err == nil {
			err = desired.Free(*d, others)
		}
		if err != nil {
			return failed(err, string(diag.APIUnavailable)), 0
		}
	}
	if decision.Culprit == nil { // in every round: one that somebody deleted is missed by the next agent that starts
		if err := publish.Segments(ctx, r.Client, d.Rendered.Segments); err != nil {
			return failed(err, string(diag.APIUnavailable)), 0
		}
	}
	if len(decision.Writes) > 0 {
		if err := publish.Plans(ctx, r.Client, nb.Name, known, decision.Writes); err != nil {
			return failed(err, string(diag.APIUnavailable)), 0
		}
		r.Metrics.published(nb.Name, len(decision.Writes))
	}
	if decision.Phase == publish.Complete {
		if err := r.complete(ctx, nb, d, known); err != nil {
			return failed(err, string(diag.APIUnavailable)), 0
		}
	}
	return conclude(nb, d, decision), decision.After
}

func (r *Reconciler) plans(ctx context.Context) (map[string]*v1alpha1.NodePlan, error) {
	var list v1alpha1.NodePlanList
	if err := r.Client.List(ctx, &list); err != nil {
		return nil, apply.Reason("list NodePlans", err)
	}
	out := make(map[string]*v1alpha1.NodePlan, len(list.Items))
	for i := range list.Items {
		out[list.Items[i].Name] = &list.Items[i]
	}
	return out, nil
}

// ended are the bundles that plans name and that are no more. The API server itself is asked: a cache may have a plan before its bundle.
func (r *Reconciler) ended(ctx context.Context, nb *v1alpha1.NetworkBundle, known map[string]*v1alpha1.NodePlan) (map[string]bool, error) {
	out := map[string]bool{}
	for _, p := range known {
		if owner := p.Spec.Bundle; owner != "" && owner != nb.Name {
			out[owner] = true
		}
	}
	for _, from := range []client.Reader{r.Client, r.APIReader} {
		if len(out) == 0 {
			break
		}
		var list v1alpha1.NetworkBundleList
		if err := from.List(ctx, &list); err != nil {
			return nil, apply.Reason("list NetworkBundles", err)
		}
		for i := range list.Items {
			delete(out, list.Items[i].Name)
		}
	}
	return out, nil
}

func input(nb *v1alpha1.NetworkBundle, d *desired.Rendering, known map[string]*v1alpha1.NodePlan) publish.Input {
	in := publish.Input{Bundle: nb.Name, Revision: d.Revision, Rollout: d.Bundle.Rollout, Previous: nb.Status.Rollout, Quarantined: nb.Status.Quarantined}
	for _, n := range d.Nodes {
		if !d.Owns(n.Name, nb.Name, known[n.Name]) {
			continue
		}
		wanted := d.Rendered.Layers[n.Name]
		if !d.Grouped[n.Name] { // it keeps nothing, not even networks that need no link
			wanted.Segments, wanted.Underlays, wanted.Addresses = nil, nil, nil
		}
		in.Nodes = append(in.Nodes, publish.Node{Name: n.Name, Labels: n.Labels, Plan: known[n.Name], Wanted: wanted})
	}
	return in
}

// complete brings the objects that users see, takes away what is gone, and says so.
func (r *Reconciler) complete(ctx context.Context, nb *v1alpha1.NetworkBundle, d *desired.Rendering, known map[string]*v1alpha1.NodePlan) error {
	written, err := publish.Objects(ctx, r.Client, d.Objects)
	r.Metrics.published(nb.Name, written)
	if err != nil {
		return err
	}
	gone := publish.Gone(nb.Status.Inventory, d.References)
	if nb.Spec.Prune == nil || *nb.Spec.Prune {
		left, err := r.prune(ctx, nb, gone)
		nb.Status.Inventory = publish.Union(d.References, left)
		if err != nil {
			return err
		}
		if err := r.prunePlans(ctx, nb, d, known); err != nil {
			return err
		}
	} else {
		nb.Status.Inventory = d.References
	}
	if err := r.release(ctx, nb, d, known); err != nil {
		return err
	}
	nb.Status.Assignments = d.Assignments
	if nb.Status.RolledOut == nil || nb.Status.RolledOut.Name != d.Revision {
		if err := r.collect(ctx, nb, d.Rendered.Segments); err != nil {
			return err
		}
	}
	nb.Status.RolledOut = revision(d.Revision, metav1.NewTime(r.Now()), nb.Status.RolledOut)
	nb.Status.Version = d.Bundle.Version
	return nil
}

// others is what other bundles have this moment.
func (r *Reconciler) others(ctx context.Context, nb *v1alpha1.NetworkBundle) (desired.Others, error) {
	bundles, err := r.bundlesNow(ctx)
	if err != nil {
		return desired.Others{}, err
	}
	return desired.OthersThan(nb, bundles, nil), nil
}

func (r *Reconciler) bundlesNow(ctx context.Context) ([]v1alpha1.NetworkBundle, error) {
	var list v1alpha1.NetworkBundleList
	err := r.APIReader.List(ctx, &list)
	return list.Items, apply.Reason("list NetworkBundles", err)
}

// prune deletes what is gone, but for what another bundle has recorded; what could not be deleted is left.
func (r *Reconciler) prune(ctx context.Context, nb *v1alpha1.NetworkBundle, gone []v1alpha1.ObjectReference) (left []v1alpha1.ObjectReference, err error) {
	if len(gone) == 0 {
		return nil, nil
	}
	others, err := r.others(ctx, nb)
	if err != nil {
		return gone, err
	}
	return publish.Prune(ctx, r.Client, nb.Name, others.Prunable(gone))
}

// release lets nodes go that are in no group any more, once nothing of the bundle is left on them: another bundle may have them.
func (r *Reconciler) release(ctx context.Context, nb *v1alpha1.NetworkBundle, d *desired.Rendering, known map[string]*v1alpha1.NodePlan) error {
	nothing := model.NodePlan{}.Digest()
	for _, n := range d.Nodes {
		p := known[n.Name]
		if d.Grouped[n.Name] || p == nil || p.Spec.Bundle != nb.Name {
			continue
		}
		l, a := p.Spec.Layers.Bundle, p.Status.Applied
		if l == nil || a == nil || l.Digest != nothing || a.Digest != nothing || len(l.Segments)+len(a.Segments) > 0 {
			continue
		}
		if err := r.letGo(ctx, p); err != nil {
			return err
		}
	}
	return nil
}

// letGo makes a plan nobody's; the node keeps what it has.
func (r *Reconciler) letGo(ctx context.Context, p *v1alpha1.NodePlan) error {
	next := p.DeepCopy()
	next.Spec.Bundle, next.Spec.LastGood = "", nil
	delete(next.Labels, v1alpha1.LabelBundle)
	err := r.Client.Patch(ctx, next, client.MergeFromWithOptions(p, client.MergeFromWithOptimisticLock{}), client.FieldOwner(v1alpha1.FieldManager))
	if client.IgnoreNotFound(err) != nil {
		return apply.Reason("NodePlan "+p.Name, err)
	}
	return nil
}

// prunePlans deletes plans of nodes that have left the cluster.
func (r *Reconciler) prunePlans(ctx context.Context, nb *v1alpha1.NetworkBundle, d *desired.Rendering, known map[string]*v1alpha1.NodePlan) error {
	for name, p := range known {
		if _, here := d.Rendered.Layers[name]; here || p.Spec.Bundle != nb.Name {
			continue
		}
		err := r.APIReader.Get(ctx, client.ObjectKey{Name: name}, &corev1.Node{}) // the cache may be young
		if err == nil {
			continue
		}
		if client.IgnoreNotFound(err) != nil {
			return apply.Reason("Node "+name, err)
		}
		if err := client.IgnoreNotFound(r.Client.Delete(ctx, p)); err != nil {
			return apply.Reason("NodePlan "+name, err)
		}
	}
	return nil
}

func (r *Reconciler) collect(ctx context.Context, nb *v1alpha1.NetworkBundle, wanted []v1alpha1.PlanSegment) error {
	bundles, err := r.bundlesNow(ctx)
	if err != nil {
		return err
	}
	var plans v1alpha1.NodePlanList
	if err := r.APIReader.List(ctx, &plans); err != nil {
		return apply.Reason("list NodePlans", err)
	}
	return publish.CollectSegments(ctx, r.Client, nb.Name, bundles, plans.Items, wanted)
}

// conclude is what a decision means for people.
func conclude(nb *v1alpha1.NetworkBundle, d *desired.Rendering, decision publish.Decision) status.Outcome {
	rollout := decision.Rollout
	progress := fmt.Sprintf("%s: wave %d, %d of %d nodes done", v1alpha1.ShortRevision(d.Revision), rollout.Wave, rollout.Done, rollout.Total)
	late := len(rollout.Late) > 0
	if late { // passed over, and not done
		progress += "; late: " + some(rollout.Late)
	}
	reason, message := string(diag.RolledOut), fmt.Sprintf("%s on %s nodes", v1alpha1.ShortRevision(d.Revision), nb.Status.Nodes)
	switch {
	case decision.Phase != publish.Complete:
		reason, message = string(decision.Phase), progress
	case late:
		reason, message = string(diag.NodesLate), message+"; late: "+some(rollout.Late)
	}
	status.Set(&nb.Status.Conditions, nb.Generation, ConditionRolledOut, decision.Phase == publish.Complete && !late, reason, message)
	switch decision.Phase {
	case publish.Quarantined, publish.Reverting:
		q := decision.Culprit
		err := fmt.Errorf("%s cut off node %s: %s", v1alpha1.ShortRevision(q.Revision), q.Node, q.Reason)
		if decision.Phase == publish.Reverting {
			return status.Outcome{Failure: &fail.Failure{Reason: string(diag.Reverting), After: time.Second, Err: err}}
		}
		return status.Outcome{Failure: &fail.Failure{Reason: string(diag.RevisionQuarantined), Terminal: true, Err: err}}
	case publish.Rolling, publish.Soaking:
		return status.Outcome{Progress: string(decision.Phase), Message: progress}
	}
	if len(decision.Others) > 0 {
		return status.Outcome{Failure: &fail.Failure{Reason: string(diag.NodeOwnedByOther), Terminal: true,
			Err: errors.New("nodes of another NetworkBundle: " + some(decision.Others))}}
	}
	return status.Outcome{Reason: reason, Message: message}
}

func some(names []string) string {
	const shown = 5
	if len(names) <= shown {
		return strings.Join(names, ", ")
	}
	return strings.Join(names[:shown], ", ") + fmt.Sprintf(" and %d more", len(names)-shown)
}

// lift forgets a quarantine that people named, and lets every node that holds the plan guilty forget it, too: one that did not
// would have it quarantined again.
func (r *Reconciler) lift(ctx context.Context, nb *v1alpha1.NetworkBundle) error {
	digest, ok := nb.Annotations[v1alpha1.AnnotationRetry]
	if !ok {
		return nil
	}
	known, err := r.plans(ctx)
	if err != nil {
		return err
	}
	for _, p := range holders(nb, known, digest) {
		next := p.DeepCopy()
		if next.Annotations == nil {
			next.Annotations = map[string]string{}
		}
		// Another try of the same plan is another request.
		next.Annotations[v1alpha1.AnnotationRetry] = digest + " " + r.Now().UTC().Format(time.RFC3339)
		if err := r.Client.Patch(ctx, next, client.MergeFrom(p), client.FieldOwner(v1alpha1.FieldManager)); client.IgnoreNotFound(err) != nil {
			return apply.Reason("NodePlan "+p.Name, err)
		}
	}
	nb.Status.Quarantined = slices.DeleteFunc(nb.Status.Quarantined, func(q v1alpha1.QuarantinedPlan) bool { return q.Digest == digest })
	if err := r.save(ctx, nb); err != nil {
		return err
	}
	return r.mark(ctx, nb, func() { delete(nb.Annotations, v1alpha1.AnnotationRetry) })
}

// holders are the plans of nodes that hold a quarantined digest guilty and have not been asked yet to forget it.
func holders(nb *v1alpha1.NetworkBundle, known map[string]*v1alpha1.NodePlan, digest string) (out []*v1alpha1.NodePlan) {
	if !slices.ContainsFunc(nb.Status.Quarantined, func(q v1alpha1.QuarantinedPlan) bool { return q.Digest == digest }) {
		return nil
	}
	first := func(name string) bool { // it may have another verdict by now, and its guard still hold this one
		return slices.ContainsFunc(nb.Status.Quarantined, func(q v1alpha1.QuarantinedPlan) bool { return q.Digest == digest && q.Node == name })
	}
	for _, name := range slices.Sorted(maps.Keys(known)) {
		p := known[name]
		asked := p.Annotations[v1alpha1.AnnotationRetry]
		if under := asked != p.Status.HandledRetry && strings.HasPrefix(asked, digest+" "); under || p.Spec.Bundle != nb.Name {
			continue
		}
		if refused := p.Status.Refused; refused != nil && refused.Digest == digest || first(name) {
			out = append(out, p)
		}
	}
	return out
}

// tell makes events of what is new: what people look for with kubectl describe.
func (r *Reconciler) tell(nb *v1alpha1.NetworkBundle, old *v1alpha1.NetworkBundleStatus, o status.Outcome) {
	if r.Recorder == nil {
		return
	}
	if name(nb.Status.Fetched) != name(old.Fetched) {
		r.Recorder.Eventf(nb, nil, corev1.EventTypeNormal, "Fetched", "Fetch", "revision %s", nb.Status.Fetched.Short)
	}
	if name(nb.Status.RolledOut) != name(old.RolledOut) {
		r.Recorder.Eventf(nb, nil, corev1.EventTypeNormal, string(diag.RolledOut), "RollOut", "revision %s on %s nodes", nb.Status.RolledOut.Short, nb.Status.Nodes)
	}
	if o.Failure == nil {
		return
	}
	for _, c := range old.Conditions {
		if c.Type == status.Ready && c.Reason == o.Failure.Reason && c.Message == nb.Status.Conditions[slices.IndexFunc(nb.Status.Conditions, func(c metav1.Condition) bool { return c.Type == status.Ready })].Message {
			return
		}
	}
	r.Recorder.Eventf(nb, nil, corev1.EventTypeWarning, o.Failure.Reason, "Sync", "%.900s", o.Failure.Error())
}

func name(r *v1alpha1.Revision) string {
	if r == nil {
		return ""
	}
	return r.Name
}
