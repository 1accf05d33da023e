package guard

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"time"

	"danm.io/danm/node/plan"
	"danm.io/danm/node/state"
)

const journalName = "guard.json"

// Phase is where the guard stands with its newest submission.
type Phase string

const (
	Idle      Phase = "idle"     // nothing was ever confirmed, nothing is under way
	Prepared  Phase = "prepared" // the undo is durable, the kernel untouched
	Applying  Phase = "applying" // some steps may have been executed
	Waiting   Phase = "waiting"  // all steps executed, not confirmed yet
	Confirmed Phase = "confirmed"
	Reverting Phase = "reverting"
)

// Open says that an unfinished transaction stands behind the phase.
func (p Phase) Open() bool { return p == Prepared || p == Applying || p == Waiting || p == Reverting }

// Verdict is what a revert says about its plan.
type Verdict string

const (
	Undecided    Verdict = ""
	Guilty       Verdict = "guilty"       // its probes pass again now that it is gone
	Inconclusive Verdict = "inconclusive" // they still fail, or nobody could tell
)

// Transaction is one submission. Steps are those executed, in order: the same values that a dry run prints.
type Transaction struct {
	Digest   string          `json:"digest"` // of Desired.Plan
	Revision string          `json:"revision"`
	Desired  plan.Desired    `json:"desired"`
	Steps    []plan.Step     `json:"steps,omitempty"`
	Held     []plan.Step     `json:"held,omitempty"` // not executed: Pods are attached
	Blocked  []plan.Blocked  `json:"blocked,omitempty"`
	Claims   []plan.Record   `json:"claims,omitempty"`
	Released []plan.ObjectID `json:"released,omitempty"`
	Before   *plan.Observed  `json:"before,omitempty"` // the undo; void once confirmed
	T0       time.Time       `json:"t0,omitzero"`      // first kernel write
	Timeout  time.Duration   `json:"timeout"`          // nanoseconds from T0

	Disruptive bool `json:"disruptive,omitempty"` // as submitted
}

// Undone is the newest revert.
type Undone struct {
	Digest   string    `json:"digest"`
	Revision string    `json:"revision"`
	Reason   string    `json:"reason"`
	At       time.Time `json:"at"`
	Verdict  Verdict   `json:"verdict,omitempty"`
	Probe    string    `json:"probe,omitempty"` // the one that failed, as reported with the verdict
}

// Refusal is what is held against a digest.
type Refusal struct {
	Revision string `json:"revision"`
	Attempts int    `json:"attempts"` // reverts so far
	Guilty   bool   `json:"guilty,omitempty"`
	Reason   string `json:"reason"`
}

// MaxAttempts is how often a plan is applied that is neither confirmed nor found guilty: once and three retries.
const MaxAttempts = 4

func (r Refusal) refuses() bool { return r.Guilty || r.Attempts >= MaxAttempts }

// journal is the durable state of the guard, replaced as a whole by each write.
type journal struct {
	Phase     Phase              `json:"phase"`
	BootID    string             `json:"bootID"`
	Confirmed *Transaction       `json:"confirmed,omitempty"`
	Pending   *Transaction       `json:"pending,omitempty"`
	Reason    string             `json:"reason,omitempty"` // why it is being reverted
	Undone    *Undone            `json:"undone,omitempty"`
	Refusals  map[string]Refusal `json:"refusals,omitempty"` // by digest
	Paused    bool               `json:"paused,omitempty"`
}

// rest is the phase without a transaction under way.
func (j journal) rest() Phase {
	if j.Confirmed == nil {
		return Idle
	}
	return Confirmed
}

// clone is safe to change: transactions are never changed in place, so pointers may be shared.
func (j journal) clone() journal {
	j.Refusals = maps.Clone(j.Refusals)
	if j.Refusals == nil {
		j.Refusals = map[string]Refusal{}
	}
	return j
}

func loadJournal(dir string) (journal, error) {
	j := journal{Phase: Idle}
	path := filepath.Join(dir, journalName)
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return j, nil
	}
	if err != nil {
		return j, fmt.Errorf("read guard journal: %w", err)
	}
	if err := state.Decode(path, b, &j); err != nil {
		return j, fmt.Errorf("read guard journal: %w", err)
	}
	return j, nil
}

// save makes j durable, then current.
func (g *Guard) save(j journal) error {
	data, err := state.Encode(j)
	if err != nil {
		return err
	}
	if err := state.WriteFile(filepath.Join(g.opts.Dir, journalName), data, g.opts.Fault); err != nil {
		return fmt.Errorf("guard journal: %w", err)
	}
	g.set(j)
	return nil
}

// set makes j current without the disk. Only a revert may run ahead of the disk: undoing matters more than noting it, and
// what the disk still says (applying, waiting) leads to the same revert after a crash.
func (g *Guard) set(j journal) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.j = j
}

func (g *Guard) journal() journal {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.j.clone()
}
