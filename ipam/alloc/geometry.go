package alloc

import (
	"fmt"
	"math/bits"
	"net/netip"
)

// maxDefaultBlock keeps the blocks of large CIDRs small: pools are often a little corner of their CIDR, and a pool that
// lies in one block would belong to one node alone. In the local home blocks cost nothing, so fine ones are fair ones.
const maxDefaultBlock = 16

// Geometry says which addresses of a CIDR are this node's own: the CIDR is cut into blocks, and slot k of n owns the
// blocks with number ≡ k mod n. Together the slots own every address, each exactly once.
type Geometry struct {
	CIDR  netip.Prefix `json:"cidr"`
	Block uint64       `json:"block"` // addresses a block
	Slot  int          `json:"slot"`
	Slots int          `json:"slots"`
	// Claimed means that no slot but a Set says which addresses are the node's own: see Space.Own.
	Claimed bool `json:"claimed,omitempty"`
}

// ClaimedGeometry is the geometry of a masked CIDR whose blocks are claimed one by one.
func ClaimedGeometry(cidr netip.Prefix) (Geometry, error) {
	g, err := NewGeometry(cidr, 1, 0, 1)
	g.Claimed = true
	return g, err
}

// NewGeometry cuts a masked CIDR. blockSize 0 chooses the largest power of two that leaves at least four blocks a slot,
// at most 16, down to one address. slots 0 means one node alone.
func NewGeometry(cidr netip.Prefix, blockSize, slot, slots int) (Geometry, error) {
	if slots == 0 && slot == 0 {
		slots = 1
	}
	switch {
	case !cidr.IsValid() || cidr.Masked() != cidr || cidr.Addr().Is4In6():
		return Geometry{}, fmt.Errorf("blocks of %s: not a network: %w", cidr, ErrGeometry)
	case slots < 1 || slot < 0 || slot >= slots:
		return Geometry{}, fmt.Errorf("blocks of %s: slot %d of %d: %w", cidr, slot, slots, ErrGeometry)
	case blockSize < 0:
		return Geometry{}, fmt.Errorf("blocks of %s: block size %d: %w", cidr, blockSize, ErrGeometry)
	}
	g := Geometry{CIDR: cidr, Block: uint64(blockSize), Slot: slot, Slots: slots}
	if blockSize == 0 {
		g.Block = defaultBlock(cidr.Addr().BitLen()-cidr.Bits(), slots)
	}
	return g, nil
}

// defaultBlock is 2^(hostBits - ceil(log2(4 × slots))), from 1 to maxDefaultBlock.
func defaultBlock(hostBits, slots int) uint64 {
	e := hostBits - bits.Len64(uint64(4*slots-1))
	return min(uint64(1)<<max(0, min(e, 62)), maxDefaultBlock)
}

// Owner is the slot that owns an address of the CIDR.
func (g Geometry) Owner(a netip.Addr) int {
	block, _ := g.offset(a).divmod(g.Block)
	_, slot := block.divmod(uint64(g.Slots))
	return int(slot)
}

func (g Geometry) offset(a netip.Addr) U128 { return number(a).sub(number(g.CIDR.Addr())) }

func (g Geometry) last() U128 { return lastOffset(g.CIDR.Addr().BitLen() - g.CIDR.Bits()) }

// The own addresses in order are numbered 0, 1, 2, ...: neighbours in that numbering are neighbours to the allocator
// although the blocks of other slots lie between them. What is used is then a few long runs, however small the blocks.

// split says of an offset: the round (a row of blocks, one a slot), the slot, and the place inside the block.
func (g Geometry) split(off U128) (round U128, slot, rest uint64) {
	block, rest := off.divmod(g.Block)
	round, slot = block.divmod(uint64(g.Slots))
	return round, slot, rest
}

// index numbers an own address.
func (g Geometry) index(a netip.Addr) U128 {
	round, _, rest := g.split(g.offset(a))
	return round.mul(g.Block).add(u64(rest))
}

// addr is the inverse of index.
func (g Geometry) addr(index U128) netip.Addr {
	round, rest := index.divmod(g.Block)
	off := round.mul(uint64(g.Slots)).add(u64(uint64(g.Slot))).mul(g.Block).add(u64(rest))
	return address(number(g.CIDR.Addr()).add(off), g.CIDR.Addr().Is4())
}

// own translates offsets first..last into the indices of the own addresses among them; false if there are none.
func (g Geometry) own(first, last U128) (span, bool) {
	k := uint64(g.Slot)
	round, slot, rest := g.split(first)
	lo := round.mul(g.Block)
	switch {
	case slot == k:
		lo = lo.add(u64(rest))
	case slot > k: // this round's own block is before first
		lo = lo.add(u64(g.Block))
	}
	round, slot, rest = g.split(last)
	end := round.mul(g.Block) // one behind the last own index
	switch {
	case slot == k:
		end = end.add(u64(rest))
		return span{lo, end}, !end.less(lo)
	case slot > k:
		end = end.add(u64(g.Block))
	}
	if !lo.less(end) {
		return span{}, false
	}
	return span{lo, end.dec()}, true
}
