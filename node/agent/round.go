package agent

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"danm.io/danm/node/guard"
	"danm.io/danm/node/ledger"
	"danm.io/danm/node/plan"
	"danm.io/danm/node/state"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// soon is the pause when something is known to be under way.
const soon = 200 * time.Millisecond

// maxAway bounds the backoff towards a guard that does not answer.
const maxAway = 5 * time.Second

// round does what is to be done now, all of it from what is read now, and says when to look again at the latest.
func (a *Agent) round(ctx context.Context) time.Duration {
	pause, problem := a.step(ctx)
	old := a.problem.Swap(&problem)
	if problem != "" && (old == nil || *old != problem) { // once a change, not once a round
		a.log.Warn("round", "reason", problem)
	}
	a.mend(ctx)
	a.offer(ctx)
	a.writeCNIConf()
	a.report(ctx, problem)
	return pause
}

func (a *Agent) step(ctx context.Context) (time.Duration, string) {
	wanted, problem := a.wanted()
	st, err := a.opts.Guard.Status(ctx)
	a.seen.Store(&seen{guard: st, guardErr: err, wanted: wanted})
	if err != nil {
		a.m.guardUp.Set(0)
		a.awayFor = min(max(2*a.awayFor, soon), maxAway)
		return a.awayFor, string(diag.GuardAway) + ": " + err.Error()
	}
	a.m.guardUp.Set(1)
	a.awayFor, a.bootID = 0, st.BootID
	a.m.held.Set(float64(len(st.Held)))
	a.recall(st, wanted)
	switch {
	case st.Phase.Open(): // not ours, or we would be waiting for it in apply
		a.baseline = nil
		return soon, "a plan is neither confirmed nor reverted yet"
	case st.Undone != nil && st.Undone.Verdict == guard.Undecided:
		a.judge(ctx, *st.Undone)
		return soon, problem
	case st.Paused:
		return a.opts.Interval, "the guard is paused"
	}
	if wanted != nil && (st.Confirmed == nil || st.Confirmed.Digest != wanted.Digest) {
		pause, refused := a.mayApply(st, *wanted)
		if pause == 0 {
			return a.apply(ctx, *wanted)
		}
		drift, _ := a.drift(ctx, st, wanted)
		return min(pause, drift), refused
	}
	if st.Confirmed == nil {
		return a.opts.Interval, problem
	}
	pause, driftProblem := a.drift(ctx, st, wanted)
	if problem == "" {
		problem = driftProblem
	}
	return pause, problem
}

// mend gives attached Pods their interfaces back whose host link was deleted by other hands and is there again.
func (a *Agent) mend(ctx context.Context) {
	if a.opts.Attachments == nil {
		return
	}
	n, err := a.opts.Attachments.Mend(ctx)
	a.m.mended.Add(float64(n))
	if err != nil {
		a.sayOnce(&a.mendProblem, "interfaces of Pods are not all there again", err)
	}
}

// wanted is the state to reach, nil if there is none that can be used: then what was confirmed stays.
func (a *Agent) wanted() (*model.NodeState, string) {
	snap, err := a.dir.Load()
	refused := err != nil && !errors.Is(err, state.ErrNone) || len(snap.Refused) > 0
	a.m.stateRefused.Set(boolean(refused))
	switch {
	case errors.Is(err, state.ErrNone):
		return nil, "no state written yet"
	case err != nil:
		return nil, err.Error()
	case snap.State.Node != a.opts.Node:
		return nil, nodeError(a.opts.Node, snap.State.Node).Error()
	case len(snap.Refused) > 0:
		return &snap.State, "using the last good state: " + snap.Refused[0].String()
	}
	return &snap.State, ""
}

// recall sets what Pods are attached by from what the guard has confirmed, after a restart of either.
func (a *Agent) recall(st guard.Status, wanted *model.NodeState) {
	if st.Confirmed == nil {
		return
	}
	for _, s := range []*model.NodeState{wanted, a.memory.Confirmed, a.memory.Candidate} {
		if s != nil && s.Node == a.opts.Node && s.Digest == st.Confirmed.Digest {
			a.adopt(*s)
			return
		}
	}
}

// mayApply says how long to wait before the plan is tried (again), 0 = now.
func (a *Agent) mayApply(st guard.Status, wanted model.NodeState) (time.Duration, string) {
	r, tried := st.Refusals[wanted.Digest]
	if !tried {
		return 0, ""
	}
	if r.Guilty || r.Attempts >= guard.MaxAttempts {
		return a.opts.Interval, string(diag.PlanQuarantined) + ": " + r.Reason
	}
	if st.Undone == nil || st.Undone.Digest != wanted.Digest {
		return 0, ""
	}
	wait := a.opts.RetryBase << (r.Attempts - 1)
	if left := time.Until(st.Undone.At.Add(wait)); left > 0 && left <= wait { // beyond: the clock was set back
		return left, string(diag.PlanReverted) + ": " + st.Undone.Reason
	}
	return 0, ""
}

// observe is the kernel, as far as desired needs it, together with the ledger.
func (a *Agent) observe(ctx context.Context, desired plan.Desired) (plan.Observed, error) {
	owned, err := ledger.Load(a.opts.StateDir)
	if err != nil {
		return plan.Observed{}, err
	}
	o, err := a.opts.Kernel.Observe(ctx, plan.SysctlKeys(desired, owned)...)
	o.Owned = owned
	if err == nil {
		a.observed = &o
		a.learnNames(plan.KernelNames(desired, o))
		var functions map[string]string
		if withPools(desired.Plan, owned) {
			functions = cardsOf(o)
		}
		a.functions.Store(&functions)
	}
	return o, err
}

// learnNames remembers what the kernel calls devices that the plan finds by a match. One that is away, in a Pod or pulled out, keeps
// the name that it had.
func (a *Agent) learnNames(seen map[string]string) {
	next := map[string]string{}
	if old := a.names.Load(); old != nil {
		if len(seen) == 0 {
			return
		}
		maps.Copy(next, *old)
	}
	maps.Copy(next, seen)
	a.names.Store(&next)
}

// named is a state with the kernel's names of the devices that Pods stand on; false if those are not known yet.
func named(st model.NodeState, names *map[string]string) (model.NodeState, bool) {
	matched := map[string]bool{}
	for _, l := range st.Plan.Links {
		matched[l.Name] = l.Match != nil
	}
	copied := false
	for i := range st.Networks {
		device := st.Networks[i].Device
		if !matched[device] {
			continue
		}
		if names == nil {
			return model.NodeState{}, false
		}
		name, known := (*names)[device]
		if !known || name == device {
			continue
		}
		if !copied { // the state is shared
			st.Networks, copied = slices.Clone(st.Networks), true
		}
		st.Networks[i].Device = name
	}
	return st, true
}

func boolean(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
