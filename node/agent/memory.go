package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"danm.io/danm/node/state"
	"danm.io/danm/spec/model"
)

const memoryName = "agent.json"

// memory is what a restarted agent needs to attach Pods before anything else works. Candidate is written before the guard
// is asked to confirm it: an agent that dies in between finds by the guard's digest which of the two counts.
type memory struct {
	Confirmed *model.NodeState `json:"confirmed,omitempty"`
	Candidate *model.NodeState `json:"candidate,omitempty"`
}

func (m *memory) load(dir string) error {
	path := filepath.Join(dir, memoryName)
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read agent memory: %w", err)
	}
	var read memory
	if err := state.Decode(path, b, &read); err != nil {
		return fmt.Errorf("read agent memory: %w", err)
	}
	*m = read
	return nil
}

func (m memory) save(dir string) error {
	b, err := state.Encode(m)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("create state directory: %w", err)
	}
	return state.WriteFile(filepath.Join(dir, memoryName), b, nil)
}

// propose notes a state that is about to be confirmed.
func (a *Agent) propose(st model.NodeState) error {
	a.memory.Candidate = &st
	return a.memory.save(a.opts.StateDir)
}

// adopt makes st the state Pods are attached by: its digest is the one the guard has confirmed.
func (a *Agent) adopt(st model.NodeState) {
	if old := a.confirmed.Load(); old != nil && sameState(*old, st) {
		return
	}
	a.confirmed.Store(&st)
	a.memory = memory{Confirmed: &st}
	if err := a.memory.save(a.opts.StateDir); err != nil {
		a.log.Error("what is confirmed is known to this process only", "reason", err)
	}
	a.m.confirmedInfo.Reset()
	a.m.confirmedInfo.WithLabelValues(st.Bundle, st.Revision, st.Digest).Set(1)
	a.log.Info("state in use", "revision", st.Revision, "digest", st.Digest, "networks", len(st.Networks))
}

func sameState(a, b model.NodeState) bool {
	x, errX := state.Encode(a)
	y, errY := state.Encode(b)
	return errX == nil && errY == nil && string(x) == string(y)
}
