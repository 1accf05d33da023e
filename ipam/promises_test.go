package ipam

import (
	"fmt"
	"net/netip"
	"reflect"
	"slices"

	"danm.io/danm/spec/model"
)

func (l *life) holds(sandbox string, a netip.Addr) bool {
	return slices.ContainsFunc(l.acked[sandbox].Holds, func(h Hold) bool { return h.Addr == a })
}

// promise notes a successful ADD and checks each address of it.
func (l *life) promise(in Intent, grants []Grant, olds map[string]Record) {
	r := Record{Sandbox: in.Sandbox, PodUID: in.PodUID, Namespace: in.Namespace, Pod: in.Pod, Data: []byte(fmt.Sprint(grants))}
	for i, w := range in.Wants {
		got := grants[i].Addresses
		for _, f := range []struct {
			req model.AddressRequest
			sub *model.Subnet
		}{{w.IP, w.Network.IPv4}, {w.IP6, w.Network.IPv6}} {
			if f.req.Mode != model.AddressDynamic && f.req.Mode != model.AddressStatic {
				continue
			}
			a := got[0]
			got = got[1:]
			n := w.Network
			h := Hold{Space: Space{Domain: n.SpaceDomain, ID: n.ID(), CIDR: f.sub.CIDR}, IfName: w.IfName, Addr: a.Addr()}
			l.checkAddress(w, f.req, *f.sub, h, a, olds)
			r.Holds = append(r.Holds, h)
		}
		if len(got) > 0 {
			l.t.Fatalf("%s got %v more than it wanted", w.IfName, got)
		}
	}
	l.forget(olds, r.Holds)
	l.acked[in.Sandbox] = r
}

func (l *life) forget(olds map[string]Record, still []Hold) {
	for sb, old := range olds {
		delete(l.acked, sb)
		for _, h := range old.Holds {
			if !slices.ContainsFunc(still, func(s Hold) bool { return s.Space == h.Space && s.Addr == h.Addr }) {
				l.freed[where{h.Space, h.Addr}] = l.clock.t
			}
		}
	}
}

func (l *life) checkAddress(w Want, req model.AddressRequest, sub model.Subnet, h Hold, a netip.Prefix, olds map[string]Record) {
	if a.Bits() != sub.CIDR.Bits() || !sub.CIDR.Contains(a.Addr()) {
		l.t.Fatalf("%s for %s", a, sub.CIDR)
	}
	for sb, r := range l.acked {
		if _, old := olds[sb]; old {
			continue
		}
		for _, other := range r.Holds {
			if other.Space == h.Space && other.Addr == h.Addr {
				l.t.Fatalf("%s given to %s has the live holder %s", h.Addr, w.IfName, sb)
			}
		}
	}
	if req.Mode == model.AddressStatic {
		if a.Addr() != req.Addr {
			l.t.Fatalf("%s instead of %s", a, req.Addr)
		}
		return
	}
	for _, old := range olds {
		for _, o := range old.Holds {
			if old.PodUID == l.now.PodUID && o.Space == h.Space && o.IfName == h.IfName && o.Addr == h.Addr {
				return // kept
			}
		}
	}
	if at, was := l.freed[where{h.Space, h.Addr}]; was && l.clock.t.Sub(at) < testCooldown {
		l.t.Fatalf("%s came back after %s", h.Addr, l.clock.t.Sub(at))
	}
	if !l.eligible(w.Network.BlockSize, sub, h.Addr) {
		l.t.Fatalf("%s chosen outside %+v", h.Addr, sub)
	}
}

// eligible is by enumeration of small networks; slot 1 of l.slots.
func (l *life) eligible(blockSize int, sub model.Subnet, addr netip.Addr) bool {
	size := blockSize
	if size == 0 {
		size = 4 // of 32 addresses, 8 blocks for two slots
	}
	i := 0
	for a := sub.CIDR.Addr(); a != addr; a = a.Next() {
		i++
	}
	last := addr.Is4() && !sub.CIDR.Contains(addr.Next())
	in := len(sub.Pools) == 0 || slices.ContainsFunc(sub.Pools, func(r model.AddrRange) bool { return r.Contains(addr) })
	return i > 0 && !last && i/size%l.slots == 1 && in && addr != sub.Gateway
}

// checkExhausted: nothing leaks, so a network is exhausted only if every eligible address is held or cooling.
func (l *life) checkExhausted(in Intent, err error, olds map[string]Record) {
	busy := map[where]bool{}
	for _, r := range l.acked {
		for _, h := range r.Holds {
			busy[where{h.Space, h.Addr}] = true
		}
	}
	for w, at := range l.freed {
		busy[w] = busy[w] || l.clock.t.Sub(at) < testCooldown
	}
	short := false
	for _, w := range in.Wants {
		if w.Network.IPv4 == nil || w.IP.Mode != model.AddressDynamic {
			continue
		}
		sp := Space{Domain: w.Network.SpaceDomain, ID: w.Network.ID(), CIDR: w.Network.IPv4.CIDR}
		left := 0
		for a := sp.CIDR.Addr(); sp.CIDR.Contains(a); a = a.Next() {
			if l.eligible(w.Network.BlockSize, *w.Network.IPv4, a) && !busy[where{sp, a}] {
				left++
			}
		}
		short = short || left < len(in.Wants) // the intent itself may take the others
	}
	for _, w := range in.Wants {
		short = short || w.Network.IPv6 != nil && w.IP6.Mode == model.AddressDynamic && w.Network.IPv6.CIDR.Bits() > 64
	}
	if !short {
		l.t.Fatalf("%v, but there are addresses left (older %v)", err, olds)
	}
}

// recorded is what the service says now.
func (l *life) recorded() map[string]Record {
	list, err := l.s.List()
	if err != nil {
		l.t.Fatal(err)
	}
	out := map[string]Record{}
	held := map[where]string{}
	for _, r := range list {
		out[r.Sandbox] = r
		for _, h := range r.Holds {
			if other, twice := held[where{h.Space, h.Addr}]; twice {
				l.t.Fatalf("%s is held by %s and %s", h.Addr, other, r.Sandbox)
			}
			held[where{h.Space, h.Addr}] = r.Sandbox
			if got, err := l.s.Holder(h.Space, h.Addr); err != nil || got.Sandbox != r.Sandbox {
				l.t.Fatalf("holder of %s is %s %v, recorded is %s", h.Addr, got.Sandbox, err, r.Sandbox)
			}
		}
	}
	for _, ss := range l.s.st.spaces {
		n := 0
		for w := range held {
			if w.space == ss.key {
				n++
			}
		}
		if ss.space.Held() != n {
			l.t.Fatalf("space %v holds %d addresses, the records %d", ss.key, ss.space.Held(), n)
		}
	}
	return out
}

func (l *life) check() {
	if got := l.recorded(); !reflect.DeepEqual(got, l.acked) && len(got)+len(l.acked) > 0 {
		l.t.Fatalf("recorded %v\npromised %v", got, l.acked)
	}
}

// settle takes what a request in doubt really did for granted: it is all there, or not at all.
func (l *life) settle(before map[string]Record) {
	got := l.recorded()
	replaced := 0 // the same sandbox once more
	for sb, r := range before {
		now, ok := got[sb]
		if ok && !reflect.DeepEqual(now, r) {
			replaced++
		}
		if !ok || !reflect.DeepEqual(now, r) {
			for _, h := range r.Holds {
				if _, err := l.s.Holder(h.Space, h.Addr); err != nil {
					l.freed[where{h.Space, h.Addr}] = l.clock.t
				}
			}
		}
	}
	gone, made := 0, 0
	for sb := range before {
		if _, ok := got[sb]; !ok {
			gone++
		}
	}
	for sb := range got {
		if _, ok := before[sb]; !ok {
			made++
		}
	}
	if made+replaced > 1 || made+replaced == 0 && gone > 1 || gone > 2 {
		l.t.Fatalf("one request in doubt made %d records and removed %d", made, gone)
	}
	l.acked = got
}
