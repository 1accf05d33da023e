// Package state is the state directory: the only place from which a node takes its plan and its networks.
//
// It stores one model.NodeState as a versioned, checksummed snapshot, replaced by atomic rename with fsync of file and
// directory, and keeps the last good one beside it: a corrupt or newer file is refused with a diagnostic and the last good
// one is used. One writer at a time (flock); readers take no lock. It also frames the node's other durable files.
//
// It does not check what a state means (spec/validate did), never touches the kernel, and does not know who wrote.
package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

const (
	fileName = "state.json"
	lastGood = "state.last-good.json"
	lockName = "writer.lock"
)

// ErrNone means that no state was ever read: not an empty plan, and no reason to delete anything.
var ErrNone = errors.New("no state written yet")

// ErrLocked means that another process is this directory's writer.
var ErrLocked = errors.New("state directory has another writer")

// ErrIdentity means that home, node, slot, slots or a block size would change, which moves the ownership of addresses.
var ErrIdentity = errors.New("state would change who owns addresses")

// Dir is a state directory. Its methods are safe for concurrent use.
type Dir struct {
	path string

	mu      sync.Mutex
	lock    *os.File
	journal func() error
	fault   Fault
}

// Open names the directory; it is created by the first Write, Lock or Watch. Nothing is read yet.
func Open(path string) *Dir { return &Dir{path: path} }

// Path is the directory's path as given to Open.
func (d *Dir) Path() string { return d.path }

// AllowIdentity lets Write change what ErrIdentity protects whenever noRecords returns nil: the caller's assertion that
// no address record exists. Its error is the reason given for the refusal.
func (d *Dir) AllowIdentity(noRecords func() error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.journal = noRecords
}

// Lock makes this process the directory's writer until release is called or the process ends. It does not wait: a second
// writer gets ErrLocked.
func (d *Dir) Lock() (release func(), err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lock != nil {
		return nil, fmt.Errorf("lock %s: %w (this process)", d.path, ErrLocked)
	}
	f, err := d.flock()
	if err != nil {
		return nil, err
	}
	d.lock = f
	return sync.OnceFunc(func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.lock = nil
		_ = f.Close()
	}), nil
}

func (d *Dir) flock() (*os.File, error) {
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return nil, fmt.Errorf("create state directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(d.path, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", d.path, err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", d.path, ErrLocked)
		}
		return nil, fmt.Errorf("lock %s: %w", d.path, err)
	}
	return f, nil
}

// Write makes st the node's state; changed is false, and nothing is written, when it already is. Without a held Lock it
// takes the lock for its own duration. On error the old state stands (see WriteFile for the one exception).
func (d *Dir) Write(st model.NodeState) (changed bool, err error) {
	if st.Digest != st.Plan.Digest() {
		return false, fmt.Errorf("write state of %s: digest is not the plan's", st.Node)
	}
	data, err := Encode(st)
	if err != nil {
		return false, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lock == nil {
		f, err := d.flock()
		if err != nil {
			return false, err
		}
		defer f.Close()
	}
	if err := d.checkIdentity(st); err != nil {
		return false, err
	}
	path, keep := filepath.Join(d.path, fileName), ""
	old, err := os.ReadFile(path)
	switch {
	case err == nil && string(old) == string(data):
		return false, nil
	case err == nil:
		if _, bad := readState(path); bad == nil {
			keep = filepath.Join(d.path, lastGood)
		}
	case !errors.Is(err, os.ErrNotExist):
		return false, fmt.Errorf("read present state: %w", err)
	}
	if err := replace(path, keep, data, d.fault); err != nil {
		if errors.Is(err, syscall.ENOSPC) {
			err = fmt.Errorf("disk full, the previous state stands: %w", err)
		}
		return false, err
	}
	return true, nil
}

func (d *Dir) checkIdentity(st model.NodeState) error {
	old, err := d.Read()
	if err != nil { // nothing readable: nothing to protect that we could know of
		return nil
	}
	what := identityChange(old, st)
	if what == "" {
		return nil
	}
	if d.journal == nil {
		return fmt.Errorf("write state: %w: %s", ErrIdentity, what)
	}
	if err := d.journal(); err != nil {
		return fmt.Errorf("write state: %w: %s: %w", ErrIdentity, what, err)
	}
	return nil
}

func identityChange(old, st model.NodeState) string {
	switch {
	case old.Home != st.Home:
		return fmt.Sprintf("home %s -> %s", old.Home, st.Home)
	case old.Node != st.Node:
		return fmt.Sprintf("node %s -> %s", old.Node, st.Node)
	case old.Slot != st.Slot:
		return fmt.Sprintf("slot %d -> %d", old.Slot, st.Slot)
	case old.Slots != st.Slots:
		return fmt.Sprintf("slots %d -> %d", old.Slots, st.Slots)
	}
	sizes := map[string]int{}
	for _, n := range old.Networks {
		sizes[string(n.Kind)+" "+n.Key()] = n.BlockSize
	}
	for _, n := range st.Networks {
		if was, ok := sizes[string(n.Kind)+" "+n.Key()]; ok && was != n.BlockSize {
			return fmt.Sprintf("block size of %s %d -> %d", n.Key(), was, n.BlockSize)
		}
	}
	return ""
}

// Snapshot is a state as read. Refused names the newer file that could not be used, if any.
type Snapshot struct {
	State   model.NodeState
	Refused []diag.Diagnostic
}

// Read is Load without the diagnostics.
func (d *Dir) Read() (model.NodeState, error) {
	s, err := d.Load()
	return s.State, err
}

// Load returns the present state, or the last good one if the present one is refused. ErrNone: there never was one. A
// *Refused (errors.As): neither file is usable; keep what you have.
func (d *Dir) Load() (Snapshot, error) {
	st, err := readState(filepath.Join(d.path, fileName))
	if err == nil {
		return Snapshot{State: st}, nil
	}
	refused := err
	if st, err = readState(filepath.Join(d.path, lastGood)); err == nil {
		s := Snapshot{State: st}
		if r := (*Refused)(nil); errors.As(refused, &r) {
			s.Refused = append(s.Refused, r.Diagnostic)
		}
		return s, nil
	}
	if errors.Is(refused, os.ErrNotExist) && errors.Is(err, os.ErrNotExist) {
		return Snapshot{}, fmt.Errorf("read %s: %w", d.path, ErrNone)
	}
	if errors.Is(refused, os.ErrNotExist) {
		refused = err
	}
	return Snapshot{}, fmt.Errorf("read state: %w", refused)
}

func readState(path string) (model.NodeState, error) {
	var st model.NodeState
	b, err := os.ReadFile(path)
	if err != nil {
		return st, err
	}
	if err := Decode(path, b, &st); err != nil {
		return model.NodeState{}, err
	}
	if st.Digest != st.Plan.Digest() {
		return model.NodeState{}, refuse(path, diag.StateCorrupt, "the digest is not the plan's")
	}
	return st, nil
}
