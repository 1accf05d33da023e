package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/containernetworking/cni/pkg/types"

	"danm.io/danm/cni/attach"
	"danm.io/danm/ipam"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// A DEL does not wait for ever for a virtual function that is in a namespace still: it succeeds, and what the function was like stays in the
// journal. The record of the sandbox becomes one of what is away, in the transaction that frees its addresses, so whenever the agent is cut
// off either the DEL is to be called again or this record speaks of the function. It is there until the function is in the host again, as it
// was, or gone; nobody gets the function before.

// setAway makes the record of a sandbox one of what is away alone; it goes with the last of that. The caller holds the sandbox's lock.
func (s *Server) setAway(ctx context.Context, sandbox string, rec record, away []model.Attachment) error {
	if len(away) == 0 {
		if err := s.opts.IPAM.Release(ctx, sandbox); err != nil {
			return err
		}
		s.noteAway(sandbox, nil)
		return nil
	}
	old, err := s.opts.IPAM.Lookup(sandbox)
	if err != nil {
		return err
	}
	rec.Away, rec.Interfaces = true, away
	data, err := rec.encode()
	if err != nil {
		return err
	}
	_, err = s.opts.IPAM.Acquire(ctx, ipam.Intent{
		Sandbox: sandbox, PodUID: scopedKey(sandbox, "away"), Namespace: old.Namespace, Pod: old.Pod, // no sandbox of the Pod to come is its next
		Record: func([]ipam.Grant) ([]byte, error) { return data, nil },
	})
	if err != nil {
		return err
	}
	s.noteAway(sandbox, away)
	return nil
}

// noteAway keeps the cache of what is away.
func (s *Server) noteAway(sandbox string, away []model.Attachment) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(away) == 0 {
		delete(s.away, sandbox)
		return
	}
	s.away[sandbox] = nil
	for _, at := range away {
		s.away[sandbox] = append(s.away[sandbox], at.DeviceID)
	}
}

// awayWith is the sandbox that a virtual function is not back from, "" for none.
func (s *Server) awayWith(pci string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for sandbox, functions := range s.away {
		if slices.Contains(functions, pci) {
			return sandbox
		}
	}
	return ""
}

// atHome refuses virtual functions that are not back from a container that is gone, after a look at them. The caller has claimed them.
func (s *Server) atHome(ctx context.Context, p choice) error {
	for _, it := range p.items {
		sandbox := s.awayWith(it.device)
		if it.network.Driver() != model.SRIOV || sandbox == "" {
			continue
		}
		_, err := s.takeBack(ctx, sandbox)
		if s.awayWith(it.device) == "" {
			continue
		}
		return fail(types.ErrTryAgainLater, diag.PodDeviceBusy, errors.Join(fmt.Errorf("network %s: virtual function %s is in the network namespace of container %s still, which is gone; the kernel is slow to end it, or a process keeps it",
			it.network.Key(), it.device, sandbox), err))
	}
	return nil
}

// welcome looks at all that is away.
func (s *Server) welcome(ctx context.Context) error {
	s.mu.Lock()
	all := slices.Sorted(maps.Keys(s.away))
	s.mu.Unlock()
	var failed []error
	for _, sandbox := range all {
		back, err := s.takeBack(ctx, sandbox)
		failed = append(failed, err)
		if len(back) > 0 {
			s.log.Warn("virtual functions that a Pod had kept are the host's again, or gone", "container", sandbox, "functions", back)
		}
	}
	return errors.Join(failed...)
}

// takeBack makes functions of one sandbox that are back what they were, and forgets them, as it does what is gone, what a record says that
// another Pod has, and what is of another boot. A sandbox with a call in progress is left alone.
func (s *Server) takeBack(ctx context.Context, sandbox string) (back []string, err error) {
	unlock, free := s.locks.tryLock(lockOf(sandbox))
	if !free {
		return nil, nil
	}
	defer unlock()
	old, err := s.opts.IPAM.Lookup(sandbox)
	if errors.Is(err, ipam.ErrNotFound) {
		s.noteAway(sandbox, nil)
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look the sandbox up: %w", err)
	}
	rec, err := decodeRecord(old.Data)
	if err != nil {
		return nil, err
	}
	var left []model.Attachment
	var failed []error
	lost := s.lost(sandbox, rec.Interfaces)
	for _, at := range rec.Interfaces {
		if s.rebooted(rec) || slices.Contains(lost, at.IfName) {
			continue
		}
		done, err := s.opts.Attacher.Return(ctx, sandbox, at)
		switch {
		case done:
			back = append(back, at.DeviceID)
		case err != nil:
			failed = append(failed, fmt.Errorf("take virtual function %s back from container %s: %w", at.DeviceID, sandbox, err))
			fallthrough
		default:
			left = append(left, at)
		}
	}
	if len(left) < len(rec.Interfaces) {
		failed = append(failed, s.setAway(ctx, sandbox, rec, left))
	}
	return back, errors.Join(failed...)
}

// split are the functions that are away, and nil, if that is all that a Detach has left.
func split(err error) ([]model.Attachment, error) {
	if away := (*attach.Away)(nil); errors.As(err, &away) {
		return away.Interfaces, nil
	}
	return nil, err
}
