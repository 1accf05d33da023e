package mirror

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"danm.io/danm/node/guard"
	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
	"danm.io/danm/spec/nodeplan"
)

// View is what the node knows of itself, as the agent tells it.
type View struct {
	Guard     guard.Status
	GuardErr  error
	Wanted    *model.NodeState // in the state directory
	Confirmed *model.NodeState // what Pods are attached by
	Problem   string           // why the agent's last round did not come to its end
	Repairs   int64
	Hardware  []model.NIC
	Underlays map[string]string // addresses by device
	Addresses []v1alpha1.AddressUse
	Attached  map[string]int32 // interfaces of Pods by network
}

// maxSpaces is how many the API takes; a status that is too long would be refused as a whole.
const maxSpaces = 2048

// The phases of a NodePlan's status.
const (
	phaseApplied    = "Applied"
	phaseApplying   = "Applying"
	phaseRolledBack = "RolledBack"
	phaseBlocked    = "Blocked"
	phaseDegraded   = "Degraded"
	phaseRefused    = "Refused"
)

// report is the status of a NodePlan. It is pure; old is what the API has. mirrorErr is why the newest plan did not reach
// the state directory.
func report(p *v1alpha1.NodePlan, v View, mirrorErr error) v1alpha1.NodePlanStatus {
	out := *p.Status.DeepCopy()
	out.ObservedGeneration, out.Drift, out.Hardware = p.Generation, v.Repairs, hardware(v.Hardware)
	out.Underlays, out.Addresses, out.Attached = v.Underlays, v.Addresses[:min(len(v.Addresses), maxSpaces)], v.Attached
	if len(v.Attached) == 0 {
		out.Attached = nil
	}
	before := out.Applied
	out.Observed, out.Applied = applied(v.Wanted, out.Observed), applied(v.Confirmed, out.Applied)
	if past(before, out.Applied, out.Refused) {
		out.Refused = nil
	}
	if !nodeplan.Withheld(p) {
		out.Refused = refused(v, out.Refused)
	}
	out.Phase, out.Reason = phase(v, out, mirrorErr)
	conditions(&out, p.Generation, v)
	return out
}

// past says whether the node has gone on from a plan that it undid: to another revision, be it with the plan that it had all along.
func past(before, now *v1alpha1.AppliedPlan, r *v1alpha1.RefusedPlan) bool {
	return r != nil && before != nil && now != nil && before.Revision != now.Revision && now.Revision != r.Revision && now.Digest != r.Digest
}

func applied(st *model.NodeState, old *v1alpha1.AppliedPlan) *v1alpha1.AppliedPlan {
	if st == nil {
		return old
	}
	l := bundleLayer(st)
	if l == nil {
		return nil
	}
	return &v1alpha1.AppliedPlan{Revision: l.Revision, Short: v1alpha1.ShortID(l.Revision), Digest: l.Digest, Segments: l.Segments, Plan: st.Digest}
}

func bundleLayer(st *model.NodeState) *model.LayerRef {
	i := slices.IndexFunc(st.Layers, func(l model.LayerRef) bool { return l.Name == nodeplan.LayerBundle })
	if i < 0 {
		return nil
	}
	return &st.Layers[i]
}

// refused is the plan that the guard holds something against: the wanted one, or the one undone last. The layer behind a
// plan's digest is known of the wanted state, and of what was reported before.
func refused(v View, old *v1alpha1.RefusedPlan) *v1alpha1.RefusedPlan {
	if v.GuardErr != nil {
		return old
	}
	if w := v.Wanted; w != nil {
		if r, ok := v.Guard.Refusals[w.Digest]; ok {
			if l := blamed(w, v.Confirmed); l != nil {
				return &v1alpha1.RefusedPlan{Digest: l.Digest, Plan: w.Digest, Revision: l.Revision, Guilty: r.Guilty, Attempts: r.Attempts, Reason: clip(r.Reason)}
			}
		}
	}
	if old == nil {
		return nil
	}
	r, still := v.Guard.Refusals[old.Plan]
	if !still || !undoneLast(v.Guard) {
		return nil
	}
	out := *old
	out.Guilty, out.Attempts = r.Guilty, r.Attempts
	return &out
}

// blamed is the layer that a refused plan has new: the api's only if the bundle's is the confirmed one.
func blamed(wanted, confirmed *model.NodeState) *model.LayerRef {
	l := bundleLayer(wanted)
	if l == nil || confirmed == nil {
		return l
	}
	if c := bundleLayer(confirmed); c != nil && c.Digest == l.Digest {
		for i := range wanted.Layers {
			if wanted.Layers[i].Name == nodeplan.LayerAPI {
				return &wanted.Layers[i]
			}
		}
	}
	return l
}

// undoneLast says whether the newest thing that happened to the node is a revert.
func undoneLast(g guard.Status) bool {
	return g.Undone != nil && (g.Confirmed == nil || g.Confirmed.Digest != g.Undone.Digest && !g.Confirmed.T0.After(g.Undone.At))
}

const maxReason = 500

func clip(s string) string {
	if len(s) > maxReason {
		return strings.ToValidUTF8(s[:maxReason], "") + "..."
	}
	return s
}

func phase(v View, st v1alpha1.NodePlanStatus, mirrorErr error) (string, string) {
	switch {
	case mirrorErr != nil:
		return phaseRefused, clip(mirrorErr.Error())
	case v.GuardErr != nil:
		return phaseDegraded, clip(string(diag.GuardAway) + ": " + v.GuardErr.Error())
	case v.Guard.Phase.Open():
		return phaseApplying, ""
	case st.Refused != nil:
		return phaseRolledBack, clip(v1alpha1.ShortID(st.Refused.Revision) + ": " + st.Refused.Reason)
	case v.Wanted == nil || v.Confirmed == nil || v.Wanted.Digest != v.Confirmed.Digest:
		return phaseApplying, clip(v.Problem)
	case v.Guard.Confirmed != nil && len(v.Guard.Confirmed.Blocked) > 0:
		b := v.Guard.Confirmed.Blocked
		return phaseBlocked, clip(fmt.Sprintf("%d objects, first %s: %s", len(b), b[0].ID, b[0].Reason))
	case v.Problem != "":
		return phaseDegraded, clip(v.Problem)
	}
	return phaseApplied, ""
}

func conditions(st *v1alpha1.NodePlanStatus, generation int64, v View) {
	set := func(name string, is bool, reason string) {
		c := metav1.Condition{Type: name, Status: metav1.ConditionFalse, ObservedGeneration: generation, Reason: reason, Message: st.Reason}
		if is {
			c.Status = metav1.ConditionTrue
		}
		meta.SetStatusCondition(&st.Conditions, c)
	}
	is := st.Phase == phaseApplied || st.Phase == phaseBlocked || st.Phase == phaseDegraded && v.Wanted != nil && v.Confirmed != nil && v.Wanted.Digest == v.Confirmed.Digest
	set("Applied", is, st.Phase)
	set("Blocked", st.Phase == phaseBlocked, st.Phase)
	set("Degraded", st.Phase == phaseDegraded, st.Phase)
	set("RolledBack", st.Phase == phaseRolledBack, st.Phase)
	set("Ready", st.Phase == phaseApplied, st.Phase)
	for name, is := range map[string]bool{"Reconciling": st.Phase == phaseApplying, "Stalled": st.Phase == phaseRolledBack || st.Phase == phaseRefused || st.Phase == phaseBlocked} {
		if is {
			set(name, true, st.Phase)
		} else {
			meta.RemoveStatusCondition(&st.Conditions, name)
		}
	}
}

func hardware(cards []model.NIC) []v1alpha1.NIC {
	var out []v1alpha1.NIC
	for _, c := range cards {
		out = append(out, v1alpha1.NIC(c))
	}
	return out
}

// calm is the status to write now: counts of addresses and Pods, which change all the time, wait for their turn unless
// somebody waits for them: a network that is not used any more, or is again, a space in which nothing is free any more.
func calm(old, next v1alpha1.NodePlanStatus, sinceWritten time.Duration) v1alpha1.NodePlanStatus {
	if sinceWritten >= countsEvery {
		return next
	}
	held := next
	if sinceWritten < driftEvery {
		held.Drift = old.Drift
	}
	if !usedOtherwise(old, next) {
		held.Addresses, held.Attached = old.Addresses, old.Attached
	}
	if equality.Semantic.DeepEqual(held, old) {
		return old
	}
	return next // there is something to write anyway
}

// usedOtherwise says whether the status tells of a network or space that began or ceased to be used, or ran out.
func usedOtherwise(old, next v1alpha1.NodePlanStatus) bool {
	if len(old.Attached) != len(next.Attached) || len(old.Addresses) != len(next.Addresses) {
		return true
	}
	for n := range next.Attached {
		if _, had := old.Attached[n]; !had {
			return true
		}
	}
	for i, u := range next.Addresses {
		if o := old.Addresses[i]; o.Space != u.Space || o.Stray != u.Stray || (o.Free == 0) != (u.Free == 0) || (o.Frozen == 0) != (u.Frozen == 0) {
			return true
		}
	}
	return false
}
