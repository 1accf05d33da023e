package alloc

import (
	"fmt"
	"math"
	"math/bits"
	"net/netip"
	"slices"

	"danm.io/danm/spec/model"
)

// Dynamic chooses and takes an address of the subnet's pools among the node's own for holder: one never used (or
// forgotten) if there is any, else the one freed longest ago, if that was at or before ready. Excluded addresses,
// routers, and the CIDR's own addresses are never chosen. Errors: *ExhaustedError.
func (t *Tx) Dynamic(s *Space, sub model.Subnet, holder uint32, ready int64) (netip.Addr, error) {
	ranges := s.candidates(sub)
	index, fresh := s.fresh(ranges)
	if !fresh {
		var ok bool
		if index, ok = s.oldest(ranges, ready); !ok {
			return netip.Addr{}, s.exhausted(sub, ranges)
		}
	}
	a := s.geo.addr(index)
	t.Take(s, a, holder)
	if fresh {
		s.cursor = index.inc()
	}
	return a, nil
}

// Static takes one given address for holder: anything in the CIDR that is this node's and not held, also outside the
// pools, excluded, a router, or cooling down; but not the CIDR's own addresses.
// Errors: ErrOutside, ErrReserved, *NotOursError, *TakenError.
func (t *Tx) Static(s *Space, a netip.Addr, holder uint32) error {
	g := s.geo
	if a.Zone() != "" || !g.CIDR.Contains(a) {
		return fmt.Errorf("address %s is not in %s: %w", a, g.CIDR, ErrOutside)
	}
	for _, r := range reserved(g) {
		if off := g.offset(a); !off.less(r.lo) && !r.hi.less(off) {
			return fmt.Errorf("address %s is the network or broadcast address of %s: %w", a, g.CIDR, ErrReserved)
		}
	}
	if !s.Owns(a) {
		return &NotOursError{Addr: a, Owner: g.Owner(a), Slot: g.Slot, Slots: g.Slots, Prefix: g.CIDR}
	}
	if h, held := s.Holder(a); held {
		return &TakenError{Addr: a, Holder: h}
	}
	t.Take(s, a, holder)
	return nil
}

// fresh is the first address at or behind the cursor that is neither held nor freed, else the first one at all.
func (s *Space) fresh(ranges []span) (U128, bool) {
	for _, r := range ranges {
		if r.hi.less(s.cursor) {
			continue
		}
		if v, ok := s.used.gap(maxU128(r.lo, s.cursor), r.hi); ok {
			return v, true
		}
	}
	for _, r := range ranges {
		if v, ok := s.used.gap(r.lo, r.hi); ok {
			return v, true
		}
	}
	return U128{}, false
}

// oldest is the address freed first, if that was at or before ready. It passes over addresses of other networks on the
// space, so its cost grows with them; with one network it looks at one entry.
func (s *Space) oldest(ranges []span, ready int64) (U128, bool) {
	for _, e := range s.queue {
		if e.at > ready {
			break
		}
		if s.valid(e) && inSpans(ranges, e.index) {
			return e.index, true
		}
	}
	return U128{}, false
}

func (s *Space) exhausted(sub model.Subnet, ranges []span) error {
	e := &ExhaustedError{CIDR: s.geo.CIDR, Pools: sub.Pools, Slot: s.geo.Slot, Slots: s.geo.Slots}
	for _, q := range s.queue {
		if s.valid(q) && inSpans(ranges, q.index) {
			e.Cooling++
		}
	}
	total := size(ranges)
	e.Held = total - e.Cooling
	e.Reserved = size(s.ours(s.pools(sub))) - total
	return e
}

// candidates are the indices that may be chosen dynamically.
func (s *Space) candidates(sub model.Subnet) []span {
	ranges := subtract(s.pools(sub), s.geo.clip(sub.Exclude))
	for _, a := range sub.Routers() {
		off := s.geo.offset(a)
		ranges = subtract(ranges, []span{{off, off}})
	}
	return s.ours(subtract(ranges, reserved(s.geo)))
}

// pools are the offsets of the subnet's pools, the whole CIDR if it names none.
func (s *Space) pools(sub model.Subnet) []span {
	if len(sub.Pools) == 0 {
		return []span{{U128{}, s.geo.last()}}
	}
	return s.geo.clip(sub.Pools)
}

// ours translates ranges of offsets into ranges of indices.
func (s *Space) ours(offsets []span) []span {
	out := offsets[:0:0]
	for _, r := range offsets {
		if x, ok := s.geo.own(r.lo, r.hi); ok {
			out = append(out, x)
		}
	}
	if s.geo.Claimed {
		out = intersect(out, s.usable)
	}
	return out
}

// clip is the parts of ranges inside the CIDR, as offsets in order.
func (g Geometry) clip(ranges []model.AddrRange) []span {
	base := number(g.CIDR.Addr())
	end := base.add(g.last())
	out := make([]span, 0, len(ranges))
	for _, r := range ranges {
		if r.First.BitLen() != g.CIDR.Addr().BitLen() || r.Last.BitLen() != r.First.BitLen() {
			continue
		}
		lo, hi := maxU128(number(r.First), base), minU128(number(r.Last), end)
		if !hi.less(lo) {
			out = append(out, span{lo.sub(base), hi.sub(base)})
		}
	}
	slices.SortFunc(out, func(a, b span) int { return a.lo.cmp(b.lo) })
	return out
}

// reserved are the offsets no Pod gets: IPv4 network and broadcast address, except in a /31 (RFC 3021) and /32; the
// IPv6 subnet-router anycast address (RFC 4291, 2.6.1), except in a /127 (RFC 6164) and /128.
func reserved(g Geometry) []span {
	last := g.last()
	if !u64(1).less(last) {
		return nil
	}
	if g.CIDR.Addr().Is4() {
		return []span{{}, {last, last}}
	}
	return []span{{}}
}

// Reserved says whether an address of a masked CIDR is the network's own, see Static.
func Reserved(cidr netip.Prefix, a netip.Addr) bool {
	g := Geometry{CIDR: cidr, Block: 1, Slots: 1}
	return cidr.Contains(a) && inSpans(reserved(g), g.offset(a))
}

func inSpans(spans []span, v U128) bool {
	for _, x := range spans {
		if !v.less(x.lo) && !x.hi.less(v) {
			return true
		}
	}
	return false
}

// size is how many numbers the spans hold, saturating.
func size(spans []span) uint64 {
	var n uint64
	for _, x := range spans {
		one := x.hi.sub(x.lo).saturate()
		var carry uint64
		if n, carry = bits.Add64(n, one, 1); carry != 0 {
			return math.MaxUint64
		}
	}
	return n
}
