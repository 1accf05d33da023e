package alloc

import (
	"iter"
	"math"
	"net/netip"

	"danm.io/danm/spec/model"
)

// Cut is a CIDR cut into blocks of one prefix length, numbered from 0.
type Cut struct {
	CIDR netip.Prefix // masked
	Bits int          // of the blocks, from the CIDR's to the address length
}

// Block is the block around an address of the CIDR.
func (c Cut) Block(a netip.Addr) netip.Prefix {
	p, _ := a.Prefix(c.Bits)
	return p
}

// Valid says whether the CIDR can be cut so.
func (c Cut) Valid() bool {
	return c.CIDR.IsValid() && c.CIDR.Masked() == c.CIDR && c.Bits >= c.CIDR.Bits() && c.Bits <= c.CIDR.Addr().BitLen()
}

func (c Cut) at(n uint64) netip.Prefix {
	off := u64(n).unshift(c.CIDR.Addr().BitLen() - c.Bits)
	return netip.PrefixFrom(address(number(c.CIDR.Addr()).add(off), c.CIDR.Addr().Is4()), c.Bits)
}

// run is blocks first..last.
type run struct{ first, last uint64 }

// Blocks yields the blocks with at least one address that the subnet's pools allow, each once: from the place in
// the row that seed chooses to the end, then from the beginning. within, if there are any, are ranges to stay inside.
func (c Cut) Blocks(sub model.Subnet, within []model.AddrRange, seed uint64) iter.Seq[netip.Prefix] {
	s := NewSpace(Geometry{CIDR: c.CIDR, Block: 1, Slots: 1})
	eligible := s.candidates(sub)
	if len(within) > 0 {
		eligible = intersect(eligible, s.geo.clip(within))
	}
	var runs []run
	total := uint64(0)
	for _, x := range eligible {
		r := run{c.numberAt(x.lo), c.numberAt(x.hi)}
		if n := len(runs); n > 0 && r.first <= runs[n-1].last {
			if r.first = runs[n-1].last + 1; r.first == 0 || r.first > r.last {
				continue
			}
		}
		runs = append(runs, r)
		total = saturatingAdd(total, saturatingAdd(r.last-r.first, 1))
	}
	return func(yield func(netip.Prefix) bool) {
		if total == 0 {
			return
		}
		skip := seed % total
		visit := func(from, to uint64) bool { // places in the row
			for _, r := range runs {
				n := saturatingAdd(r.last-r.first, 1)
				for i := from; i < min(n, to); i++ {
					if !yield(c.at(r.first + i)) {
						return false
					}
				}
				from, to = from-min(from, n), to-min(to, n)
			}
			return true
		}
		if visit(skip, math.MaxUint64) {
			visit(0, skip)
		}
	}
}

// numberAt is the number of the block at an offset.
func (c Cut) numberAt(off U128) uint64 {
	return off.shift(c.CIDR.Addr().BitLen() - c.Bits).saturate()
}

// Eligible says whether a network with this subnet could be given the address dynamically.
func Eligible(sub model.Subnet, a netip.Addr) bool {
	if !sub.CIDR.Contains(a) {
		return false
	}
	s := NewSpace(Geometry{CIDR: sub.CIDR, Block: 1, Slots: 1})
	return inSpans(s.candidates(sub), s.geo.index(a))
}

// shift divides by 2^n.
func (a U128) shift(n int) U128 {
	switch {
	case n >= 128:
		return U128{}
	case n >= 64:
		return U128{0, a.Hi >> (n - 64)}
	case n == 0:
		return a
	}
	return U128{a.Hi >> n, a.Lo>>n | a.Hi<<(64-n)}
}

// unshift multiplies by 2^n, and wraps.
func (a U128) unshift(n int) U128 {
	switch {
	case n >= 128:
		return U128{}
	case n >= 64:
		return U128{a.Lo << (n - 64), 0}
	case n == 0:
		return a
	}
	return U128{a.Hi<<n | a.Lo>>(64-n), a.Lo << n}
}
