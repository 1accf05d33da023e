package alloc

import (
	"math/bits"
	"net/netip"
	"slices"

	"danm.io/danm/spec/model"
)

const (
	// blocksANode is how many blocks there should be for each node: a node whose first block is full claims another, and
	// those that come later must find some.
	blocksANode = 4
	// maxChosenBits bounds blocks that nobody asked for: a node that needs one address holds no more than 64 back.
	maxChosenBits = 6
	// maxWishedBits bounds those that somebody asked for: an IPBlock lists its ceded and imported addresses, 256 at most.
	maxWishedBits = 8
)

// CutBits is the prefix length of the blocks that a masked CIDR is cut into for some number of nodes: the largest blocks of
// which the pools touch at least four a node, at most 64 addresses, down to one. No pools means the whole CIDR. A wished
// blockSize (addresses; 0 = none) is taken instead, rounded down to a power of two, at most 256 and at most the CIDR.
func CutBits(cidr netip.Prefix, pools []model.AddrRange, blockSize, nodes int) int {
	whole := cidr.Addr().BitLen()
	host := whole - cidr.Bits()
	if blockSize > 0 {
		return whole - min(host, bits.Len(uint(blockSize))-1, maxWishedBits)
	}
	g := Geometry{CIDR: cidr}
	spans := []span{{U128{}, g.last()}}
	if len(pools) > 0 {
		spans = merge(g.clip(pools))
	}
	want := u64(blocksANode * uint64(max(nodes, 1)))
	for size := min(host, maxChosenBits); size > 0; size-- {
		if !count(blocksOf(spans, size)).less(want) {
			return whole - size
		}
	}
	return whole
}

// merge joins sorted spans that overlap or touch.
func merge(spans []span) []span {
	out := make([]span, 0, len(spans))
	for _, x := range spans {
		if n := len(out); n > 0 && (out[n-1].hi.isMax() || !out[n-1].hi.inc().less(x.lo)) {
			out[n-1].hi = maxU128(out[n-1].hi, x.hi)
			continue
		}
		out = append(out, x)
	}
	return out
}

// blocksOf are the numbers of the blocks, 2^size addresses each, that sorted disjoint spans touch.
func blocksOf(spans []span, size int) []span {
	out := make([]span, len(spans))
	for i, x := range spans {
		lo, _ := x.lo.divmod(1 << size)
		hi, _ := x.hi.divmod(1 << size)
		out[i] = span{lo, hi}
	}
	return merge(out)
}

// count is how many numbers disjoint spans hold; all of 2^128 count one less.
func count(spans []span) U128 {
	var n U128
	for _, x := range spans {
		one := x.hi.sub(x.lo)
		if !one.isMax() {
			one = one.inc()
		}
		n = n.add(one)
	}
	return n
}

// minus is a without b, both sorted and disjoint, in one pass over both: a space may have as many blocks as addresses.
func minus(a, b []span) []span {
	var out []span
	i := 0
	for _, x := range a {
		for i < len(b) && b[i].hi.less(x.lo) {
			i++
		}
		left := true
		for j := i; left && j < len(b) && !x.hi.less(b[j].lo); j++ {
			if x.lo.less(b[j].lo) {
				out = append(out, span{x.lo, b[j].lo.dec()})
			}
			if left = b[j].hi.less(x.hi); left {
				x.lo = b[j].hi.inc()
				i = j
			}
		}
		if left {
			out = append(out, x)
		}
	}
	return out
}

// Grid is a CIDR cut into blocks, and which of its addresses may be chosen dynamically. It does not change.
type Grid struct {
	geo  Geometry
	size int    // a block has 2^size addresses
	free []span // offsets that may be chosen dynamically; sorted, disjoint
}

// maxCounted is where counts stop: the largest number that JSON readers keep exact.
const maxCounted = 1 << 53

// NewGrid cuts a masked CIDR into blocks with the given prefix length. Each subnet is a network's on it: what any of them may
// choose from counts.
func NewGrid(cidr netip.Prefix, blockBits int, subnets []model.Subnet) Grid {
	g := Grid{geo: Geometry{CIDR: cidr}, size: cidr.Addr().BitLen() - max(blockBits, cidr.Bits())}
	var all []span
	for _, sub := range subnets {
		own := []span{{U128{}, g.geo.last()}}
		if len(sub.Pools) > 0 {
			own = merge(g.geo.clip(sub.Pools))
		}
		never := g.geo.clip(sub.Exclude)
		for _, a := range sub.Routers() {
			never = append(never, g.geo.clip([]model.AddrRange{{First: a, Last: a}})...)
		}
		slices.SortFunc(never, func(a, b span) int { return a.lo.cmp(b.lo) })
		all = append(all, minus(own, merge(never))...)
	}
	slices.SortFunc(all, func(a, b span) int { return a.lo.cmp(b.lo) })
	g.free = minus(merge(all), reserved(g.geo))
	return g
}

// Capacity is how many addresses may be chosen dynamically, at most 2^53.
func (g Grid) Capacity() int64 { return limited(count(g.free)) }

// Dynamic says whether an address may be chosen dynamically.
func (g Grid) Dynamic(a netip.Addr) bool {
	return g.geo.CIDR.Contains(a) && inSpans(g.free, g.geo.offset(a))
}

// Block is the block around an address of the CIDR.
func (g Grid) Block(a netip.Addr) netip.Prefix {
	return netip.PrefixFrom(a, a.BitLen()-g.size).Masked()
}

// Unclaimed counts the blocks that have an address to choose and are not among the claimed ranges, at most 2^53, and tells
// the longest runs of such blocks, at most most of them, in the order of addresses.
func (g Grid) Unclaimed(claimed []netip.Prefix, most int) (blocks int64, runs []model.AddrRange) {
	var taken []span
	for _, p := range claimed {
		if p.Addr().BitLen() != g.geo.CIDR.Addr().BitLen() || !g.geo.CIDR.Overlaps(p) {
			continue
		}
		lo := maxU128(number(p.Masked().Addr()), number(g.geo.CIDR.Addr())).sub(number(g.geo.CIDR.Addr()))
		hi := minU128(lo.add(lastOffset(p.Addr().BitLen()-p.Bits())), g.geo.last())
		taken = append(taken, span{lo, hi})
	}
	slices.SortFunc(taken, func(a, b span) int { return a.lo.cmp(b.lo) })
	left := minus(blocksOf(g.free, g.size), blocksOf(merge(taken), g.size))
	blocks = limited(count(left))
	if len(left) > most {
		slices.SortStableFunc(left, func(a, b span) int { return b.hi.sub(b.lo).cmp(a.hi.sub(a.lo)) })
		left = left[:most]
		slices.SortFunc(left, func(a, b span) int { return a.lo.cmp(b.lo) })
	}
	for _, x := range left {
		first := x.lo.mul(1 << g.size)
		last := x.hi.mul(1 << g.size).add(u64(1<<g.size - 1))
		runs = append(runs, model.AddrRange{First: g.at(first), Last: g.at(last)})
	}
	return blocks, runs
}

func (g Grid) at(off U128) netip.Addr {
	return address(number(g.geo.CIDR.Addr()).add(off), g.geo.CIDR.Addr().Is4())
}

func limited(n U128) int64 { return int64(min(n.saturate(), maxCounted)) }

// Offset is the address n behind another one, wrapping at the end of the family.
func Offset(a netip.Addr, n uint64) netip.Addr { return address(number(a).add(u64(n)), a.Is4()) }
