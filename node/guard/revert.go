package guard

import (
	"context"
	"errors"
	"fmt"
	"time"

	"danm.io/danm/node/plan"
)

// revertRounds is how often a revert is tried before its caller is answered; afterwards it goes on in the background.
const revertRounds = 3

// revertPause is the pause between two rounds, within the two seconds a revert may take.
const revertPause = 200 * time.Millisecond

// revert takes the pending transaction back. What cannot be undone at once is retried in the background, with the phase
// staying Reverting, so that nothing else is applied on top of it.
func (g *Guard) revert(ctx context.Context, j journal, reason string) {
	if g.timer != nil {
		g.timer.Stop()
	}
	g.log.Warn("reverting", "digest", j.Pending.Digest, "revision", j.Pending.Revision, "reason", reason)
	j.Phase, j.Reason = Reverting, reason
	if err := g.save(j); err != nil {
		g.log.Error("revert runs ahead of the journal", "reason", err)
		g.set(j)
	}
	if err := g.revertRetry(ctx, j); err != nil {
		go g.revertLater(context.WithoutCancel(ctx))
	}
}

func (g *Guard) revertRetry(ctx context.Context, j journal) error {
	var err error
	for range revertRounds {
		if err = g.revertOnce(ctx, j); err == nil {
			g.setTrouble("")
			return nil
		}
		g.setTrouble("revert: " + err.Error())
		g.log.Error("revert is not complete", "reason", err)
		time.Sleep(revertPause)
	}
	return err
}

// revertLater goes on until it is done or the guard is closed.
func (g *Guard) revertLater(ctx context.Context) {
	for {
		time.Sleep(revertPause)
		g.op.Lock()
		j := g.journal()
		if g.closed || j.Phase != Reverting || g.revertRetry(ctx, j) == nil {
			g.op.Unlock()
			return
		}
		g.op.Unlock()
	}
}

// revertOnce brings back the observation from before the transaction, verifies it by observing again, takes back the
// claims and closes the journal, in this order: whatever is interrupted is repeated.
func (g *Guard) revertOnce(ctx context.Context, j journal) error {
	if err := g.undo(ctx, *j.Pending); err != nil {
		return err
	}
	if err := g.ledger.Replace(j.Pending.Before.Owned); err != nil {
		return err
	}
	return g.finish(j, Undecided)
}

func (g *Guard) undo(ctx context.Context, tx Transaction) error {
	asked := plan.SysctlKeys(tx.Desired, tx.Before.Owned) // as for Before
	now, err := g.opts.Kernel.Observe(ctx, asked...)
	if err != nil {
		return fmt.Errorf("observe: %w", err)
	}
	_, failed := g.run(ctx, "undo", plan.Revert(*tx.Before, now, tx.Steps), allOfThem)
	if now, err = g.opts.Kernel.Observe(ctx, asked...); err != nil {
		return errors.Join(failed, fmt.Errorf("observe: %w", err))
	}
	if left := plan.Revert(*tx.Before, now, tx.Steps); len(left) > 0 {
		return errors.Join(failed, fmt.Errorf("%d objects differ from before, first %s", len(left), left[0]))
	}
	return nil
}

// finish ends the pending transaction as undone and counts the attempt, unless it ended before its first kernel write: that
// was not the plan's fault. It may be called again after an error.
func (g *Guard) finish(j journal, v Verdict) error {
	tx := j.Pending
	j = j.clone()
	r := j.Refusals[tx.Digest]
	if !tx.T0.IsZero() {
		r.Revision, r.Reason = tx.Revision, j.Reason
		r.Attempts++
		j.Refusals[tx.Digest] = r
	}
	j.Undone = &Undone{Digest: tx.Digest, Revision: tx.Revision, Reason: j.Reason, At: time.Now(), Verdict: v}
	j.Phase, j.Pending, j.Reason, j.BootID = j.rest(), nil, "", g.opts.BootID
	if err := g.save(j); err != nil {
		return err
	}
	g.log.Warn("reverted", "digest", tx.Digest, "revision", tx.Revision, "attempts", r.Attempts)
	return nil
}

// recover is the first act of a new process.
func (g *Guard) recover(ctx context.Context) error {
	j := g.journal()
	rebooted := j.BootID != "" && j.BootID != g.opts.BootID
	switch {
	case j.Phase.Open() && rebooted:
		// The kernel forgot both the plan and what was before it: undoing would destroy what the boot set up.
		if err := g.ledger.Replace(j.Pending.Before.Owned); err != nil {
			return err
		}
		j.Reason = "the node was rebooted inside the window"
		if err := g.finish(j, Inconclusive); err != nil {
			return err
		}
	case j.Phase.Open():
		reason := j.Reason
		if reason == "" {
			reason = "the guard ended inside the window"
		}
		g.revert(ctx, j, reason)
		return nil
	case !rebooted:
		return nil
	}
	j = g.journal()
	j.BootID = g.opts.BootID
	if !j.Paused && j.Confirmed != nil {
		if _, err := g.restoreConfirmed(ctx, j); err != nil {
			g.setTrouble("apply the last confirmed plan after the reboot: " + err.Error())
			g.log.Error("last confirmed plan is not complete", "reason", err)
		}
	}
	return g.save(j)
}

// Close ends the guard; an open window is reverted first. Called on SIGTERM.
func (g *Guard) Close(ctx context.Context) error {
	g.op.Lock()
	defer g.op.Unlock()
	if g.closed {
		return nil
	}
	g.closed = true
	j := g.journal()
	if !j.Phase.Open() {
		return nil
	}
	if j.Phase != Reverting {
		g.revert(ctx, j, "the guard was stopped inside the window")
	} else if err := g.revertRetry(ctx, j); err != nil {
		return err
	}
	if g.journal().Phase.Open() {
		return errors.New("revert is not complete; it goes on when the guard starts again")
	}
	return nil
}

func (g *Guard) setTrouble(s string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.trouble = s
}
