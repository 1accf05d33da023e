package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"danm.io/danm/node/guard"
	"danm.io/danm/node/plan"
	"danm.io/danm/node/probe"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// probePause is the pause between two runs of the probes in a window.
const probePause = 200 * time.Millisecond

// apply submits the state's plan and sees it through its window: confirmed, or reverted by the guard.
func (a *Agent) apply(ctx context.Context, st model.NodeState) (time.Duration, string) {
	a.failing, a.executed = "", nil
	a.baseline = a.passing(ctx, st)
	desired := plan.Desired{Plan: st.Plan, Peers: st.Peers}
	o, err := a.observe(ctx, desired)
	if err != nil { // who has virtual functions depends on which there are
		return time.Second, err.Error()
	}
	if cards := ending(plan.Diff(desired, o).Steps, o); len(cards) > 0 { // nobody is to get one between the question who has them and the answer
		a.withhold(cards)
		defer a.lift()
	}
	out, err := a.opts.Guard.Submit(ctx, guard.Submission{
		Desired: desired, Digest: st.Digest, Revision: st.Revision,
		ConfirmTimeout: st.ConfirmTimeout, Pods: a.pods(ctx), Disruptive: st.Disruptive,
	})
	a.executed, a.observed = out.Steps, nil
	a.m.blocked.Set(float64(len(out.Blocked)))
	a.m.held.Set(float64(len(out.Held)))
	switch {
	case errors.Is(err, guard.ErrStepFailed):
		a.m.plans.WithLabelValues("reverted").Inc()
		a.baseline = nil // no probe has spoken against it
		return soon, string(diag.PlanReverted) + ": " + err.Error()
	case err != nil:
		a.m.plans.WithLabelValues("refused").Inc()
		return a.opts.RetryBase, err.Error()
	case out.Confirmed:
		a.adopt(st)
		a.m.plans.WithLabelValues("confirmed").Inc()
		return a.opts.Interval, blockedText(out)
	}
	deadline := time.Now().Add(out.Left) // on a clock that does not jump
	if err := a.window(ctx, st, deadline); err != nil {
		a.m.plans.WithLabelValues("reverted").Inc()
		a.awaitRevert(ctx, deadline)
		return soon, string(diag.PlanReverted) + ": " + err.Error()
	}
	a.adopt(st)
	a.m.plans.WithLabelValues("confirmed").Inc()
	return soon, blockedText(out)
}

// blockedText names what the plan leaves undone.
func blockedText(out guard.Outcome) string {
	switch {
	case len(out.Blocked) > 0:
		return fmt.Sprintf("%d objects are blocked, first %s: %s", len(out.Blocked), out.Blocked[0].ID, out.Blocked[0].Reason)
	case len(out.Held) > 0:
		return fmt.Sprintf("%s: %d steps, first %s for %v", diag.StepsWaiting, len(out.Held), out.Held[0], out.Held[0].Pods)
	}
	return ""
}

// passing are the probes that pass now. Only these may speak against the plan that is applied next.
func (a *Agent) passing(ctx context.Context, st model.NodeState) []model.Probe {
	passed := []model.Probe{}
	for i, r := range a.probes(ctx, st, st.Probes) {
		if r.Err == nil {
			passed = append(passed, st.Probes[i])
		} else {
			a.log.Info("probe does not count", "probe", r.Name, "reason", r.Err)
		}
	}
	return passed
}

func (a *Agent) probes(ctx context.Context, st model.NodeState, probes []model.Probe) []probe.Result {
	if len(probes) == 0 {
		return nil
	}
	return a.opts.Probe(ctx, probes, probe.Env{Source: st.Source, Gateways: a.gateways})
}

// window ends with a confirmation, or with the reason why there was none by the deadline.
func (a *Agent) window(ctx context.Context, st model.NodeState, deadline time.Time) error {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	var since time.Time
	for {
		err := a.verdict(ctx, st)
		switch {
		case ctx.Err() != nil && err == nil:
			err = ctx.Err()
		case err != nil:
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		}
		if err == nil && (len(a.baseline) == 0 || time.Since(since) >= a.opts.Settle) {
			a.failing = ""
			return a.confirm(ctx, st)
		}
		sleep(ctx, probePause)
		if ctx.Err() != nil {
			return fmt.Errorf("no confirmation within %s: %w", st.ConfirmTimeout, errors.Join(err, ctx.Err()))
		}
	}
}

// verdict is nil when all counting probes pass; without any, when the kernel is as the plan wants it.
func (a *Agent) verdict(ctx context.Context, st model.NodeState) error {
	began := time.Now()
	results := a.probes(ctx, st, a.baseline)
	if d, ok := ctx.Deadline(); ok && !time.Now().Before(d) {
		return context.DeadlineExceeded // cut off by the window's end, which is no answer
	}
	if took := time.Since(began); took > longest(a.baseline)+probeSlack {
		// This process was stopped or starved: that probes ran out of time says nothing about the plan.
		return fmt.Errorf("the probes took %s, no wonder that they fail", took.Round(time.Millisecond))
	}
	for _, r := range results {
		if r.Err != nil {
			a.m.probeFailures.WithLabelValues(r.Name).Inc()
			a.failing = r.Name
			return r.Err
		}
	}
	if len(a.baseline) > 0 {
		return nil
	}
	desired := plan.Desired{Plan: st.Plan, Peers: st.Peers}
	o, err := a.observe(ctx, desired)
	if err != nil {
		return err
	}
	gs, err := a.opts.Guard.Status(ctx)
	if err != nil {
		return err
	}
	held := map[plan.ObjectID]bool{}
	for _, s := range gs.Held {
		held[s.ID] = true
	}
	for _, s := range plan.Diff(desired, o).Steps {
		if !comesLater(s) && !held[s.ID] {
			return fmt.Errorf("after the apply the kernel still needs %s", s)
		}
	}
	return nil
}

// comesLater says whether a step is drift's to make, whenever the card is ready for it: interfaces of new virtual functions come when their
// driver has them, and rates are taken when there is a carrier.
func comesLater(s plan.Step) bool {
	return s.Op == plan.SetVF && (s.Property == "mtu" || s.Property == "rate")
}

// probeSlack is how much longer than their timeouts the probes of a process that is awake take at most.
const probeSlack = 250 * time.Millisecond

// longest is the longest timeout; probes run at once.
func longest(probes []model.Probe) time.Duration {
	d := time.Duration(0)
	for _, p := range probes {
		if p.Timeout <= 0 {
			p.Timeout = probe.DefaultTimeout
		}
		d = max(d, p.Timeout)
	}
	return d
}

func (a *Agent) confirm(ctx context.Context, st model.NodeState) error {
	if err := a.propose(st); err != nil {
		return err
	}
	return a.opts.Guard.Confirm(ctx, st.Digest)
}

// awaitRevert waits until the guard has restored what was before.
func (a *Agent) awaitRevert(ctx context.Context, deadline time.Time) {
	for time.Now().Before(deadline.Add(2 * time.Second)) {
		if st, err := a.opts.Guard.Status(ctx); ctx.Err() != nil || err == nil && !st.Phase.Open() {
			return
		}
		sleep(ctx, soon)
	}
}

// judge runs the probes again after a revert: if those that passed before the plan and failed under it pass again, the
// plan is guilty. A revert that this process did not see, or without a failed probe, says nothing.
func (a *Agent) judge(ctx context.Context, u guard.Undone) {
	verdict, failing := guard.Inconclusive, a.failing
	if st, err := a.dir.Read(); err == nil && len(a.baseline) > 0 && failing != "" && st.Digest == u.Digest {
		verdict = guard.Guilty
		for _, r := range a.probes(ctx, st, a.baseline) {
			if r.Err != nil {
				verdict = guard.Inconclusive
			}
		}
	}
	a.baseline, a.failing = nil, ""
	if err := a.opts.Guard.Judge(ctx, u.Digest, verdict, failing); err != nil {
		a.log.Warn("verdict is not recorded", "reason", err)
		return
	}
	a.m.verdicts.WithLabelValues(string(verdict)).Inc()
	a.log.Warn("plan was reverted", "digest", u.Digest, "revision", u.Revision, "reason", u.Reason, "verdict", verdict, "probe", failing)
}

// gateways are the default gateways of the main table as the kernel has them now.
func (a *Agent) gateways(ctx context.Context) ([]probe.Gateway, error) {
	o, err := a.opts.Kernel.Observe(ctx)
	if err != nil {
		return nil, err
	}
	var out []probe.Gateway
	for _, r := range o.Routes {
		main := r.Table == 0 || r.Table == 254
		if main && r.To.Bits() == 0 && r.Via != (netip.Addr{}) && r.Dev != "" {
			out = append(out, probe.Gateway{Link: r.Dev, Addr: r.Via})
		}
	}
	return out, nil
}
