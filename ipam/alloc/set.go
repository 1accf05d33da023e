package alloc

import (
	"net/netip"
	"slices"
)

// Set is a set of addresses of one family, immutable: the blocks a node owns, without what it ceded. The zero value is empty.
type Set struct{ spans []span } // of numbers, sorted, disjoint, not touching

// With is the set and the prefix's addresses.
func (s Set) With(p netip.Prefix) Set {
	x := prefixSpan(p)
	at, _ := slices.BinarySearchFunc(s.spans, x.lo, func(have span, lo U128) int { return have.lo.cmp(lo) })
	out := make([]span, 0, len(s.spans)+1)
	out = append(out, s.spans[:at]...)
	if n := len(out); n > 0 && touches(out[n-1], x) {
		x.lo, x.hi = out[n-1].lo, maxU128(out[n-1].hi, x.hi)
		out = out[:n-1]
	}
	for ; at < len(s.spans) && touches(x, s.spans[at]); at++ {
		x.hi = maxU128(x.hi, s.spans[at].hi)
	}
	return Set{append(append(out, x), s.spans[at:]...)}
}

// touches says of a.lo ≤ b.lo whether the two are one span together.
func touches(a, b span) bool { return a.hi.isMax() || !a.hi.inc().less(b.lo) }

// Without is the set without the prefix's addresses.
func (s Set) Without(p netip.Prefix) Set { return Set{subtract(s.spans, []span{prefixSpan(p)})} }

// Contains says whether an address is in the set.
func (s Set) Contains(a netip.Addr) bool {
	v := number(a)
	at, _ := slices.BinarySearchFunc(s.spans, v, func(have span, v U128) int { return have.hi.cmp(v) })
	return at < len(s.spans) && !v.less(s.spans[at].lo)
}

// Size is how many addresses are in the set, saturating at 2^64-1.
func (s Set) Size() uint64 { return size(s.spans) }

func prefixSpan(p netip.Prefix) span {
	lo := number(p.Masked().Addr())
	return span{lo, lo.add(lastOffset(p.Addr().BitLen() - p.Bits()))}
}

// intersect returns what is in both; both are sorted and disjoint.
func intersect(a, b []span) []span {
	var out []span
	for i, j := 0, 0; i < len(a) && j < len(b); {
		lo, hi := maxU128(a[i].lo, b[j].lo), minU128(a[i].hi, b[j].hi)
		if !hi.less(lo) {
			out = append(out, span{lo, hi})
		}
		if a[i].hi.less(b[j].hi) {
			i++
		} else {
			j++
		}
	}
	return out
}
