package guard

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"danm.io/danm/node/plan"
)

// Repair heals drift: it executes the class-none steps towards the last confirmed plan, among them those of Peers, which
// may be newer than the plan. No window, no digest. Steps above class none come back as Rest and need a submission; objects
// in skip are left alone. ErrNotConfirmed if the plan is not the confirmed one.
func (g *Guard) Repair(ctx context.Context, d plan.Desired, skip []plan.ObjectID) (Outcome, error) {
	g.op.Lock()
	defer g.op.Unlock()
	j := g.journal()
	switch {
	case g.closed || j.Paused:
		return Outcome{}, ErrPaused
	case j.Phase.Open():
		return Outcome{}, ErrBusy
	case j.Confirmed == nil || j.Confirmed.Digest != d.Plan.Digest():
		return Outcome{}, ErrNotConfirmed
	}
	_, p, err := g.diff(ctx, d)
	if err != nil {
		return Outcome{}, err
	}
	now, rest := plan.Repairs(p)
	now.Steps = slices.DeleteFunc(now.Steps, func(s plan.Step) bool { return slices.Contains(skip, s.ID) })
	out := Outcome{Confirmed: true, Rest: rest.Steps, Blocked: p.Blocked}
	if err := g.ledger.Claim(p.Claims); err != nil {
		return out, err
	}
	var failed []error
	if out.Steps, err = g.run(ctx, "repair", now.Steps, allOfThem); err != nil {
		failed = append(failed, err)
	} else if len(rest.Steps) == 0 && len(skip) == 0 {
		failed = append(failed, g.ledger.Release(p.Released))
	}
	if !slices.Equal(j.Confirmed.Desired.Peers, d.Peers) { // the plan applied after a reboot needs the newest peers
		tx := *j.Confirmed
		tx.Desired.Peers = d.Peers
		j.Confirmed = &tx
		failed = append(failed, g.save(j))
	}
	return out, errors.Join(failed...)
}

// restoreConfirmed applies the last confirmed plan with all its steps but those that would hurt attached Pods.
func (g *Guard) restoreConfirmed(ctx context.Context, j journal) ([]plan.Step, error) {
	before, p, err := g.diff(ctx, j.Confirmed.Desired)
	if err != nil {
		return nil, err
	}
	run, held := hold(p.Steps, before, g.knownPods(), j.Confirmed.Disruptive)
	g.setHeld(held)
	if err := g.ledger.Claim(p.Claims); err != nil {
		return nil, err
	}
	done, err := g.run(ctx, "restore", run, allOfThem)
	if err == nil && len(held) == 0 {
		err = g.ledger.Release(p.Released)
	}
	return done, err
}

// knownPods are those of the last submission and those that the agent has reported since.
func (g *Guard) knownPods() map[string][]string {
	out := maps.Clone(attachedThen(g.opts))
	if out == nil {
		out = map[string][]string{}
	}
	for key, names := range g.pods {
		out[key] = append(slices.Clone(out[key]), names...)
	}
	return out
}

// Restore goes back to the last confirmed plan now, also while paused: it reverts an open window, or applies the confirmed
// plan again. It returns the steps it executed in the latter case.
func (g *Guard) Restore(ctx context.Context) ([]plan.Step, error) {
	g.op.Lock()
	defer g.op.Unlock()
	j := g.journal()
	if j.Phase.Open() {
		g.revert(context.WithoutCancel(ctx), j, "restored by hand")
		if g.journal().Phase.Open() {
			return nil, errors.New("revert is not complete yet; it goes on in the background")
		}
		return nil, nil
	}
	if j.Confirmed == nil {
		return nil, ErrNotConfirmed
	}
	return g.restoreConfirmed(ctx, j)
}

// Pause stops kernel writes until Resume; durable. A window that is open still ends by Confirm or by its revert.
func (g *Guard) Pause(context.Context) error  { return g.setPaused(true) }
func (g *Guard) Resume(context.Context) error { return g.setPaused(false) }

func (g *Guard) setPaused(paused bool) error {
	return g.update(func(j *journal) error { j.Paused = paused; return nil })
}

// Judge records the agent's verdict on the newest revert. Guilty quarantines the digest.
func (g *Guard) Judge(_ context.Context, digest string, v Verdict, probe string) error {
	return g.update(func(j *journal) error {
		if j.Undone == nil || j.Undone.Digest != digest || j.Undone.Verdict != Undecided {
			return fmt.Errorf("judge %s: no undecided revert of it", digest)
		}
		u := *j.Undone
		u.Verdict, u.Probe = v, probe
		j.Undone = &u
		if v == Guilty {
			r := j.Refusals[digest]
			r.Guilty, r.Reason = true, fmt.Sprintf("probe %s failed under this plan and passes without it", probe)
			j.Refusals[digest] = r
		}
		return nil
	})
}

// Retry forgets what is held against a digest, or against all if it is "". It fails if nothing is held against the digest.
func (g *Guard) Retry(_ context.Context, digest string) error {
	return g.update(func(j *journal) error {
		if digest == "" {
			clear(j.Refusals)
			return nil
		}
		if _, held := j.Refusals[digest]; !held {
			return fmt.Errorf("nothing is held against %s; refused are: %s", digest, strings.Join(slices.Sorted(maps.Keys(j.Refusals)), ", "))
		}
		delete(j.Refusals, digest)
		return nil
	})
}

func (g *Guard) update(change func(*journal) error) error {
	g.op.Lock()
	defer g.op.Unlock()
	j := g.journal()
	if err := change(&j); err != nil {
		return err
	}
	return g.save(j)
}

// Status is the guard's journal as others may see it.
type Status struct {
	Phase     Phase              `json:"phase"`
	BootID    string             `json:"bootID"`
	Paused    bool               `json:"paused,omitempty"`
	Confirmed *Transaction       `json:"confirmed,omitempty"`
	Pending   *Transaction       `json:"pending,omitempty"` // without its undo
	Undone    *Undone            `json:"undone,omitempty"`
	Refusals  map[string]Refusal `json:"refusals,omitempty"`
	Held      []plan.Step        `json:"held,omitempty"` // waiting until their Pods are gone
	Trouble   string             `json:"trouble,omitempty"`
	Until     time.Time          `json:"until,omitzero"` // of the open window
}

// Status never waits for an operation under way.
func (g *Guard) Status(context.Context) (Status, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	j := g.j.clone()
	st := Status{Phase: j.Phase, BootID: j.BootID, Paused: j.Paused, Confirmed: j.Confirmed, Undone: j.Undone,
		Refusals: j.Refusals, Held: g.held, Trouble: g.trouble}
	if j.Pending != nil {
		tx := *j.Pending
		tx.Before = nil
		st.Pending, st.Until = &tx, tx.T0.Add(tx.Timeout)
	}
	return st, nil
}
