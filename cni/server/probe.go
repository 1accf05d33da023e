package server

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"danm.io/danm/ipam"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// Prober says whether some host on the network has an address that nobody gave it, and by which MAC, "" if that is not known. It has a
// deadline of its own; an address that nobody answers for is free. An error means that nobody could be asked.
type Prober func(ctx context.Context, network model.Network, a netip.Addr) (inUse bool, mac string, err error)

// The results that Options.Probed is told.
const (
	ProbeFree   = "free"
	ProbeInUse  = "in_use"
	ProbeFailed = "failed"
)

const (
	maxTries     = 3  // choices of addresses for one ADD
	maxConflicts = 16 // that are remembered
)

// Conflict is an address that was about to be given and was found in use by somebody we know nothing of.
type Conflict struct {
	At      time.Time
	Network string // Network.Key()
	Addr    netip.Addr
	MAC     string // "" = not known
	Pod     string // "namespace/name", that was about to get it
}

func (c Conflict) by() string {
	if c.MAC == "" {
		return "another host"
	}
	return "a host with MAC " + c.MAC
}

// Conflicts are the newest ones, the oldest first.
func (s *Server) Conflicts() []Conflict {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.conflicts)
}

// acquire takes addresses and, where that is wanted, gives only those that nobody on the network answers for. The record is durable
// before anybody is asked, so the committer waits for nobody; an address in use is given back, cools down like any other, and the next
// one is chosen. The other interfaces keep what they have.
func (s *Server) acquire(ctx context.Context, p choice, in ipam.Intent) ([]ipam.Grant, error) {
	grants, err := s.opts.IPAM.Acquire(ctx, in)
	if err != nil || s.opts.Probe == nil {
		return grants, err
	}
	evict := in.Evict
	in.Evict = func(ctx context.Context, old ipam.Record) error {
		if old.Sandbox == in.Sandbox {
			return nil // what stands there is of a moment ago, and no link was made
		}
		return evict(ctx, old)
	}
	for try := 1; ; try++ {
		found := s.conflictsOf(ctx, p, in, grants)
		if len(found) == 0 {
			return grants, nil
		}
		if err = unavoidable(p, found, try); err == nil {
			if _, err = s.opts.IPAM.Acquire(ctx, without(in, found)); err == nil {
				grants, err = s.opts.IPAM.Acquire(ctx, in)
			}
		}
		if err != nil {
			return nil, errors.Join(err, s.opts.IPAM.Release(context.WithoutCancel(ctx), in.Sandbox))
		}
	}
}

// found is a conflict and whose it is.
type found struct {
	Conflict
	want int
}

// unavoidable is the error of a conflict that another choice does not help against.
func unavoidable(p choice, list []found, try int) error {
	var texts []string
	for _, f := range list {
		request := p.items[f.want].request.IP6
		if f.Addr.Is4() {
			request = p.items[f.want].request.IP
		}
		if request.Mode == model.AddressStatic || try == maxTries {
			texts = append(texts, fmt.Sprintf("address %s of network %s is in use by %s, which did not get it from here", f.Addr, f.Network, f.by()))
		}
	}
	if len(texts) == 0 {
		return nil
	}
	return fail(CodeAddressTaken, diag.PodAddressInUse, errors.New(strings.Join(texts, "; ")))
}

// without is an intent that gives back what is in use.
func without(in ipam.Intent, list []found) ipam.Intent {
	in.Wants = slices.Clone(in.Wants)
	for _, f := range list {
		if f.Addr.Is4() {
			in.Wants[f.want].IP = model.AddressRequest{Mode: model.AddressNone}
		} else {
			in.Wants[f.want].IP6 = model.AddressRequest{Mode: model.AddressNone}
		}
	}
	return in
}

// conflictsOf asks for all addresses at once.
func (s *Server) conflictsOf(ctx context.Context, p choice, in ipam.Intent, grants []ipam.Grant) []found {
	var mu sync.Mutex
	var list []found
	var asking sync.WaitGroup
	for i, g := range grants {
		n := p.items[i].network
		if n.Device == "" {
			continue
		}
		for _, a := range g.Addresses {
			asking.Go(func() {
				c := Conflict{At: time.Now(), Network: n.Key(), Addr: a.Addr(), Pod: in.Namespace + "/" + in.Pod}
				if s.probe(ctx, n, &c) {
					mu.Lock()
					defer mu.Unlock()
					list = append(list, found{c, i})
				}
			})
		}
	}
	asking.Wait()
	return list
}

// probe asks for one address, and tells whoever wants to know.
func (s *Server) probe(ctx context.Context, n model.Network, c *Conflict) bool {
	inUse, mac, err := s.opts.Probe(ctx, n, c.Addr)
	result := ProbeFree
	switch {
	case err != nil:
		result, inUse = ProbeFailed, false
		if ctx.Err() == nil {
			s.log.Warn("an address is given without asking the network for it", "network", c.Network, "address", c.Addr, "pod", c.Pod, "reason", err)
		}
	case inUse:
		result, c.MAC = ProbeInUse, mac
		s.log.Warn("an address is in use by somebody who did not get it from here; it is left alone", "network", c.Network, "address", c.Addr, "mac", mac, "pod", c.Pod)
		s.mu.Lock()
		if s.conflicts = append(s.conflicts, *c); len(s.conflicts) > maxConflicts {
			s.conflicts = slices.Clone(s.conflicts[1:])
		}
		s.mu.Unlock()
	}
	if s.opts.Probed != nil {
		s.opts.Probed(result)
	}
	return inUse
}
