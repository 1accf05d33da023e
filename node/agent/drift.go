package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"danm.io/danm/node/guard"
	"danm.io/danm/node/plan"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// drift brings the kernel back to the last confirmed plan. Class-none steps are repaired at once; others go through a
// submission of the confirmed plan, with its window.
func (a *Agent) drift(ctx context.Context, gs guard.Status, wanted *model.NodeState) (time.Duration, string) {
	if gs.Confirmed == nil {
		return a.opts.Interval, ""
	}
	start := time.Now()
	desired := gs.Confirmed.Desired
	same := wanted != nil && wanted.Digest == gs.Confirmed.Digest
	if same {
		desired.Peers = wanted.Peers // class none and part of no digest: always the newest
	}
	o, err := a.observe(ctx, desired)
	if err != nil { // unknown is not empty: nothing is repaired on a guess
		return time.Second, err.Error()
	}
	p := plan.Diff(desired, o)
	a.m.blocked.Set(float64(len(p.Blocked)))
	fighting := a.fights.skip(start)
	a.m.fights.Set(float64(len(fighting)))
	if p.Empty() || onlySkipped(p, fighting) {
		return a.opts.Interval, driftText(fighting, p)
	}
	out, err := a.opts.Guard.Repair(ctx, desired, fighting)
	a.observed = nil
	for _, s := range out.Steps {
		a.m.repairs.Inc()
		a.repaired.Add(1)
		if a.fights.note(s.ID, time.Now()) {
			a.log.Error("another program fights over it, left alone for a while", "object", s.ID, "reason", string(diag.DriftFight))
		}
	}
	if len(out.Steps) > 0 {
		a.m.repairSeconds.Observe(time.Since(start).Seconds())
	}
	if err != nil && !errors.Is(err, guard.ErrBusy) {
		return time.Second, err.Error()
	}
	if same && len(out.Rest) > 0 && !slices.ContainsFunc(out.Rest, func(s plan.Step) bool { return slices.Contains(fighting, s.ID) }) {
		return a.resubmit(ctx, *wanted, out.Rest)
	}
	return a.opts.Interval, driftText(fighting, p)
}

// resubmit asks for steps above class none, once for the same steps and Pods: what is held stays held until one of them
// changes. Fights are kept out of windows too.
func (a *Agent) resubmit(ctx context.Context, st model.NodeState, rest []plan.Step) (time.Duration, string) {
	key := fmt.Sprint(rest, a.knownPods())
	if key == a.heldKey {
		return a.opts.Interval, fmt.Sprintf("%s: %d steps, first %s", diag.StepsWaiting, len(rest), rest[0])
	}
	a.heldKey = ""
	pause, problem := a.apply(ctx, st)
	for _, s := range a.executed {
		a.fights.note(s.ID, time.Now())
	}
	if len(a.executed) == 0 {
		a.heldKey = key
	}
	return pause, problem
}

func onlySkipped(p plan.Plan, skip []plan.ObjectID) bool {
	if len(p.Claims)+len(p.Released) > 0 {
		return false
	}
	for _, s := range p.Steps {
		if !slices.Contains(skip, s.ID) {
			return false
		}
	}
	return true
}

func driftText(fighting []plan.ObjectID, p plan.Plan) string {
	switch {
	case len(fighting) > 0:
		return fmt.Sprintf("%s: %d objects, first %s", diag.DriftFight, len(fighting), fighting[0])
	case len(p.Blocked) > 0:
		return fmt.Sprintf("%d objects are blocked, first %s: %s", len(p.Blocked), p.Blocked[0].ID, p.Blocked[0].Reason)
	}
	return ""
}
