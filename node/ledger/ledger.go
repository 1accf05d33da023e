// Package ledger holds the write-ahead records of what is ours on this node: every claim is durable before the kernel call
// that makes it true, all claims of a plan with one fsync.
//
// It does not decide what is ours (node/plan does, from the records) and never touches the kernel. A damaged ledger is
// refused, not guessed: an object without a record is foreign.
package ledger

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"danm.io/danm/node/plan"
	"danm.io/danm/node/state"
)

const fileName = "ledger.json"

// Ledger is the set of records. Safe for concurrent use; one process writes, any may Load.
type Ledger struct {
	path  string
	fault state.Fault

	mu      sync.Mutex
	records []plan.Record // sorted by ID
	unsure  bool          // a write failed: the disk may be ahead of records
}

// Open reads the ledger of the state directory dir, empty if there is none yet. A damaged or newer file gives a
// *state.Refused (errors.As).
func Open(dir string, fault state.Fault) (*Ledger, error) {
	records, err := Load(dir)
	if err != nil {
		return nil, err
	}
	return &Ledger{path: filepath.Join(dir, fileName), fault: fault, records: records}, nil
}

// Load reads the records of the state directory dir without becoming their writer.
func Load(dir string) ([]plan.Record, error) {
	path := filepath.Join(dir, fileName)
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read ledger: %w", err)
	}
	var records []plan.Record
	if err := state.Decode(path, b, &records); err != nil {
		return nil, fmt.Errorf("read ledger: %w", err)
	}
	return sorted(records), nil
}

// Records is a copy, sorted by ID.
func (l *Ledger) Records() []plan.Record {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.records)
}

// Claim adds records durably. One that is already there keeps its Prior: the value before us is the first one seen. No
// write when nothing is new.
func (l *Ledger) Claim(records []plan.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := slices.Clone(l.records)
	for _, r := range records {
		if _, known := find(l.records, r.ID); !known {
			next = append(next, r)
		}
	}
	return l.store(sorted(next))
}

// Release drops records durably; unknown ones are no error.
func (l *Ledger) Release(ids []plan.ObjectID) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := slices.DeleteFunc(slices.Clone(l.records), func(r plan.Record) bool { return slices.Contains(ids, r.ID) })
	return l.store(next)
}

// Replace makes records the whole ledger durably: how a revert takes back its plan's claims.
func (l *Ledger) Replace(records []plan.Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.store(sorted(slices.Clone(records)))
}

// store writes next unless it is what is there. Memory follows the disk, never leads it.
func (l *Ledger) store(next []plan.Record) error {
	if !l.unsure && slices.Equal(next, l.records) {
		return nil
	}
	data, err := state.Encode(next)
	if err != nil {
		return err
	}
	if err := state.WriteFile(l.path, data, l.fault); err != nil {
		l.unsure = true
		return fmt.Errorf("ledger: %w", err)
	}
	l.records, l.unsure = next, false
	return nil
}

func find(records []plan.Record, id plan.ObjectID) (int, bool) {
	return slices.BinarySearchFunc(records, id, func(r plan.Record, id plan.ObjectID) int { return cmp.Compare(r.ID, id) })
}

func sorted(records []plan.Record) []plan.Record {
	slices.SortStableFunc(records, func(a, b plan.Record) int { return cmp.Compare(a.ID, b.ID) })
	return slices.CompactFunc(records, func(a, b plan.Record) bool { return a.ID == b.ID })
}
