package ipamsim

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"time"

	"danm.io/danm/ipam"
	"danm.io/danm/spec/model"
	"danm.io/danm/test/ipamsim/history"
)

// Local is the local home: node k has the blocks with number ≡ k mod Slots.
type Local struct {
	Slots    int
	Cooldown time.Duration
}

// Faults: without a cluster nobody notices that a journal is not the machine's own.
func (l Local) Faults() Faults { return Faults{} }

// Settle is the cooldown, and some time to restart.
func (l Local) Settle() time.Duration { return l.Cooldown + time.Minute }

// Start opens the journal and frees what sandboxes had that the runtime does not know any more.
func (l Local) Start(ctx context.Context, e Env) (Stack, error) {
	start, at := e.Wall(), e.Boottime()
	clock := func() time.Time { return start.Add(e.Boottime() - at) }
	s, err := e.open(ipam.Options{Cooldown: l.Cooldown, Clock: clock, Log: e.Log})
	if err != nil {
		return nil, err
	}
	n := &localNode{home: l, env: e, s: s, give: s}
	return n, n.clean(ctx)
}

// journalSizes make a journal change its segment many times in a run.
var journalSizes = ipam.DiskSizes{Segment: 6000, Extend: 4096}

func (e Env) open(opts ipam.Options) (*ipam.Service, error) {
	if e.Disk == nil {
		return ipam.Open(e.Dir, opts)
	}
	return ipam.OpenOn(e.Disk, opts, journalSizes)
}

// localNode does around ipam.Service what cni/server does.
type localNode struct {
	home  Local
	env   Env
	s     *ipam.Service
	give  giver
	locks keyed

	claimed bool // the node has what it claimed, and no slot
}

// giver is the Service, or a Keeper around it.
type giver interface {
	Acquire(ctx context.Context, in ipam.Intent) ([]ipam.Grant, error)
	Release(ctx context.Context, sandbox string) error
}

func (n *localNode) clean(ctx context.Context) error {
	list, err := n.s.List()
	if err != nil {
		return err
	}
	listed := n.env.Kernel.Sandboxes()
	for _, r := range list {
		if slices.Contains(listed, r.Sandbox) {
			continue
		}
		if err := n.give.Release(ctx, r.Sandbox); err != nil {
			return err
		}
	}
	return nil
}

var errAttached = errors.New("the sandbox is attached already")

func (n *localNode) Add(ctx context.Context, p PodSpec) ([][]netip.Prefix, error) {
	for _, name := range []string{"sandbox/" + p.Sandbox, "pod/" + p.UID} {
		unlock, err := n.locks.lock(ctx, name)
		if err != nil {
			return nil, err
		}
		defer unlock()
	}
	if _, err := n.s.Lookup(p.Sandbox); err == nil {
		return nil, errAttached
	}
	if n.claimed && p.StatefulSet != "" {
		p.Wants = slices.Clone(p.Wants)
		for i := range p.Wants {
			if !p.Wants[i].Network.Sticky {
				continue
			}
			p.Wants[i].Sticky = ipam.Sticky{Namespace: p.Namespace, StatefulSet: p.StatefulSet, UID: p.StatefulSet, Ordinal: p.Ordinal}
		}
	}
	grants, err := n.give.Acquire(ctx, ipam.Intent{
		Sandbox: p.Sandbox, PodUID: p.UID, Namespace: p.Namespace, Pod: p.Pod, Wants: p.Wants,
		Slot: n.env.Index, Slots: n.home.Slots, Claimed: n.claimed,
		Record: func(g []ipam.Grant) ([]byte, error) { return []byte(fmt.Sprint(g)), nil },
		Evict:  func(ctx context.Context, old ipam.Record) error { return n.env.Kernel.Down(ctx, old.Sandbox) },
	})
	if err != nil {
		return nil, err
	}
	err = n.env.Kernel.Up(ctx, p.Sandbox, granted(p.Wants, grants))
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, errors.Join(err, n.takeDown(context.WithoutCancel(ctx), p.Sandbox))
	}
	out := make([][]netip.Prefix, len(grants))
	for i, g := range grants {
		out[i] = g.Addresses
	}
	return out, nil
}

func (n *localNode) takeDown(ctx context.Context, sandbox string) error {
	if err := n.env.Kernel.Down(ctx, sandbox); err != nil {
		return err
	}
	return n.give.Release(ctx, sandbox)
}

func (n *localNode) Del(ctx context.Context, sandbox string) error {
	unlock, err := n.locks.lock(ctx, "sandbox/"+sandbox)
	if err != nil {
		return err
	}
	defer unlock()
	return n.takeDown(ctx, sandbox)
}

func (n *localNode) Entries() ([]history.Entry, error) { return entries(n.env.Node, n.s) }

// Kill ends the committer: the disk is dead, so nothing is written.
func (n *localNode) Kill() { _ = n.s.Close() }

func entries(node string, s *ipam.Service) ([]history.Entry, error) {
	list, err := s.List()
	var out []history.Entry
	for _, r := range list {
		for _, h := range r.Holds {
			out = append(out, history.Entry{Node: node, Sandbox: r.Sandbox, Pod: r.PodUID,
				Where: history.Where{Space: SpaceName(h.Space.Domain, h.Space.ID, h.Space.CIDR), Addr: h.Addr}})
		}
	}
	return out, err
}

// granted is what the kernel gets for grants.
func granted(wants []ipam.Want, grants []ipam.Grant) (out []Address) {
	for i, w := range wants {
		for _, a := range grants[i].Addresses {
			req, sub := w.IP, w.Network.IPv4
			if a.Addr().Is6() {
				req, sub = w.IP6, w.Network.IPv6
			}
			x := Address{IfName: w.IfName, Where: history.Where{Space: SpaceName(w.Network.SpaceDomain, w.Network.ID(), sub.CIDR), Addr: a.Addr()}}
			switch {
			case req.Mode == model.AddressStatic:
				x.Why = history.Static
			case w.Sticky.UID != "" && w.Network.Sticky:
				x.Why = history.Sticky
			}
			out = append(out, x)
		}
	}
	return out
}

// Share counts by enumeration, with no help of the allocator.
func (l Local) Share(node int, n model.Network, allowed func(netip.Addr) bool) (count int) {
	host := n.IPv4.CIDR.Addr().BitLen() - n.IPv4.CIDR.Bits()
	size := n.BlockSize
	if size == 0 { // at least four blocks a slot, a power of two, at most 16
		size = min(16, 1<<max(0, host-bits.Len(uint(4*l.Slots-1))))
	}
	i := 0
	for a := n.IPv4.CIDR.Addr(); n.IPv4.CIDR.Contains(a); a = a.Next() {
		if i/size%l.Slots == node && allowed(a) {
			count++
		}
		i++
	}
	return count
}
