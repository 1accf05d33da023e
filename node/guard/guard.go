package guard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"danm.io/danm/node/ledger"
	"danm.io/danm/node/plan"
	"danm.io/danm/node/state"
)

var (
	ErrPaused      = errors.New("guard is paused")
	ErrBusy        = errors.New("another plan is neither confirmed nor reverted yet")
	ErrQuarantined = errors.New("plan is quarantined")
	ErrNotWaiting  = errors.New("no such plan waits for confirmation")
	// ErrNotConfirmed refuses repairs towards anything but the last confirmed plan.
	ErrNotConfirmed = errors.New("not the last confirmed plan")
	ErrStepFailed   = errors.New("step failed, reverting")
)

// DefaultConfirmTimeout counts when the submission gives none.
const DefaultConfirmTimeout = 15 * time.Second

// Options are the guard's surroundings. Dir, Kernel and BootID are required.
type Options struct {
	Dir    string // state directory: journal, ledger and socket stand there
	Kernel plan.Kernel
	BootID string // changes with each boot of the kernel
	Log    *slog.Logger
	Fault  state.Fault // tests only
}

// Guard executes plans. Its operations run one at a time; Status never waits for them.
type Guard struct {
	opts   Options
	ledger *ledger.Ledger
	log    *slog.Logger

	op       sync.Mutex // held by the operation under way
	deadline time.Time  // of the open window; with monotonic part, so clock jumps do not matter
	timer    *time.Timer
	closed   bool
	pods     map[string][]string // last told

	mu      sync.Mutex
	j       journal
	held    []plan.Step
	trouble string // why the last revert or restoration is not complete
}

// Submission asks for a plan. Pods names the attachments by host link; steps that would destroy their links are held back,
// and, unless Disruptive, those that take links under them down.
type Submission struct {
	Desired        plan.Desired        `json:"desired"`
	Digest         string              `json:"digest"`
	Revision       string              `json:"revision"`
	ConfirmTimeout time.Duration       `json:"confirmTimeout"` // nanoseconds, 0 = DefaultConfirmTimeout
	Pods           map[string][]string `json:"pods,omitempty"`
	Disruptive     bool                `json:"disruptive,omitempty"` // steps that take links of Pods down need not wait
}

// Outcome is what a submission or repair led to. Without Confirmed the plan waits for Confirm until Deadline.
type Outcome struct {
	Confirmed bool           `json:"confirmed,omitempty"`
	Deadline  time.Time      `json:"deadline,omitzero"`
	Left      time.Duration  `json:"left,omitempty"`  // nanoseconds until then when this was written: clocks may jump
	Steps     []plan.Step    `json:"steps,omitempty"` // executed
	Held      []plan.Step    `json:"held,omitempty"`  // wait until their Pods are gone
	Rest      []plan.Step    `json:"rest,omitempty"`  // repair only: need a submission
	Blocked   []plan.Blocked `json:"blocked,omitempty"`
}

// Open loads journal and ledger and finishes what an earlier process left: see the package comment. A *state.Refused
// (errors.As) means a damaged file; nothing was touched. An incomplete revert is not an error: it goes on in the
// background and Status tells.
func Open(ctx context.Context, opts Options) (*Guard, error) {
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	j, err := loadJournal(opts.Dir)
	if err != nil {
		return nil, err
	}
	l, err := ledger.Open(opts.Dir, opts.Fault)
	if err != nil {
		return nil, err
	}
	g := &Guard{opts: opts, ledger: l, log: opts.Log, j: j, pods: attachedThen(opts)}
	g.op.Lock()
	defer g.op.Unlock()
	if err := g.recover(ctx); err != nil {
		return nil, err
	}
	return g, nil
}

// attachedThen are the Pods of the agent's last report, until the next submission names them. Those of another boot are gone.
func attachedThen(opts Options) map[string][]string {
	r, err := state.Open(opts.Dir).ReadReport()
	if err != nil {
		opts.Log.Warn("attached Pods are not known yet", "reason", err)
	}
	if r.BootID != opts.BootID {
		return nil
	}
	return r.Pods
}

// Submit applies a plan. No steps: confirmed at once, without a kernel write. The same digest again while its window is
// open: the open window's outcome. A failed step reverts before Submit returns ErrStepFailed.
func (g *Guard) Submit(ctx context.Context, s Submission) (Outcome, error) {
	g.op.Lock()
	defer g.op.Unlock()
	j := g.journal()
	switch {
	case g.closed || j.Paused:
		return Outcome{}, ErrPaused
	case s.Digest != s.Desired.Plan.Digest():
		return Outcome{}, fmt.Errorf("submit %s: digest is not the plan's", s.Digest)
	case j.Refusals[s.Digest].refuses():
		return Outcome{}, fmt.Errorf("%w: %s", ErrQuarantined, j.Refusals[s.Digest].Reason)
	case j.Phase == Waiting && j.Pending.Digest == s.Digest:
		return Outcome{Deadline: g.deadline, Left: time.Until(g.deadline), Steps: j.Pending.Steps, Held: j.Pending.Held, Blocked: j.Pending.Blocked}, nil
	case j.Phase.Open():
		return Outcome{}, ErrBusy
	}
	g.pods = s.Pods
	before, p, err := g.diff(ctx, s.Desired)
	if err != nil {
		return Outcome{}, err
	}
	run, held := hold(p.Steps, before, s.Pods, s.Disruptive)
	if len(held) > 0 {
		p.Released = nil // a record of what still stands must stay; the next diff without held steps releases it
	}
	tx := &Transaction{Digest: s.Digest, Revision: s.Revision, Desired: s.Desired, Steps: run, Held: held,
		Blocked: p.Blocked, Claims: p.Claims, Released: p.Released, Timeout: s.ConfirmTimeout, Disruptive: s.Disruptive}
	if tx.Timeout <= 0 {
		tx.Timeout = DefaultConfirmTimeout
	}
	g.setHeld(held)
	if len(run) == 0 {
		return Outcome{Confirmed: true, Held: held, Blocked: p.Blocked}, g.adopt(j, tx)
	}
	tx.Before = &before
	return g.execute(ctx, j, tx)
}

// diff observes and compares.
func (g *Guard) diff(ctx context.Context, d plan.Desired) (plan.Observed, plan.Plan, error) {
	owned := g.ledger.Records()
	before, err := g.opts.Kernel.Observe(ctx, plan.SysctlKeys(d, owned)...)
	if err != nil {
		return before, plan.Plan{}, fmt.Errorf("observe: %w", err)
	}
	before.Owned = owned
	return before, plan.Diff(d, before), nil
}

// adopt confirms a plan that needs no step. Nothing is written when nothing is new.
func (g *Guard) adopt(j journal, tx *Transaction) error {
	if err := g.ledger.Claim(tx.Claims); err != nil {
		return err
	}
	if j.Confirmed == nil || j.Confirmed.Digest != tx.Digest {
		j.Phase, j.Confirmed, j.Reason = Confirmed, tx, ""
		delete(j.Refusals, tx.Digest)
		j.BootID = g.opts.BootID
		if err := g.save(j); err != nil {
			return err
		}
		g.log.Info("plan confirmed without a step", "digest", tx.Digest, "revision", tx.Revision)
	}
	return g.ledger.Release(tx.Released)
}

// execute carries tx out up to the open window.
func (g *Guard) execute(ctx context.Context, j journal, tx *Transaction) (Outcome, error) {
	j.Phase, j.Pending, j.BootID = Prepared, tx, g.opts.BootID
	if err := g.save(j); err != nil {
		return Outcome{}, fmt.Errorf("nothing is applied without a journal: %w", err)
	}
	if err := g.ledger.Claim(tx.Claims); err != nil {
		return Outcome{}, g.abandon(ctx, j, err)
	}
	started := *tx
	started.T0 = time.Now()
	tx = &started
	g.deadline = tx.T0.Add(tx.Timeout)
	j.Phase, j.Pending = Applying, tx
	if err := g.save(j); err != nil {
		return Outcome{}, g.abandon(ctx, j, err)
	}
	// The window bounds the steps too, and not the caller: an agent that hangs up leaves a plan that nobody confirms.
	work, cancel := context.WithDeadline(context.WithoutCancel(ctx), g.deadline)
	defer cancel()
	if done, err := g.run(work, "step", tx.Steps, untilFailure); err != nil {
		return Outcome{}, g.abandon(ctx, j, fmt.Errorf("after %d of %d steps: %w", len(done), len(tx.Steps), err))
	}
	j.Phase = Waiting
	if err := g.save(j); err != nil {
		return Outcome{}, g.abandon(ctx, j, err)
	}
	g.arm(tx)
	return Outcome{Deadline: g.deadline, Left: time.Until(g.deadline), Steps: tx.Steps, Held: tx.Held, Blocked: tx.Blocked}, nil
}

// arm starts the window's end.
func (g *Guard) arm(tx *Transaction) {
	g.timer = time.AfterFunc(time.Until(g.deadline), func() {
		g.op.Lock()
		defer g.op.Unlock()
		j := g.journal()
		if g.closed || j.Phase != Waiting || j.Pending.Digest != tx.Digest || !j.Pending.T0.Equal(tx.T0) {
			return
		}
		g.revert(context.Background(), j, fmt.Sprintf("not confirmed within %s", tx.Timeout))
	})
}

// abandon reverts after a failure inside Submit; the revert goes on in the background if it does not succeed at once.
func (g *Guard) abandon(ctx context.Context, j journal, cause error) error {
	g.log.Error("plan failed, reverting", "digest", j.Pending.Digest, "reason", cause)
	g.revert(context.WithoutCancel(ctx), j, cause.Error())
	return fmt.Errorf("%w: %w", ErrStepFailed, cause)
}

// Confirm ends the window of the digest for good. Confirming the confirmed plan again is no error; past the deadline, or
// without such a window, it is ErrNotWaiting.
func (g *Guard) Confirm(_ context.Context, digest string) error {
	g.op.Lock()
	defer g.op.Unlock()
	j := g.journal()
	if !j.Phase.Open() && j.Confirmed != nil && j.Confirmed.Digest == digest {
		return nil
	}
	if g.closed || j.Phase != Waiting || j.Pending.Digest != digest || !time.Now().Before(g.deadline) {
		return fmt.Errorf("confirm %s: %w", digest, ErrNotWaiting)
	}
	tx := *j.Pending
	tx.Before = nil
	j.Phase, j.Confirmed, j.Pending, j.Reason = Confirmed, &tx, nil, ""
	delete(j.Refusals, digest)
	if err := g.save(j); err != nil {
		return err
	}
	g.timer.Stop()
	g.log.Info("plan confirmed", "digest", digest, "revision", tx.Revision, "steps", len(tx.Steps))
	if err := g.ledger.Release(tx.Released); err != nil {
		// Harmless: the next diff sees records without objects and releases them again.
		g.log.Warn("records of removed objects stay for now", "reason", err)
	}
	return nil
}

func (g *Guard) setHeld(held []plan.Step) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.held = held
}
