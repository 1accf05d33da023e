package validate

import (
	"fmt"
	"math/big"
	"math/bits"
	"net/netip"
	"slices"

	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// shares warns of nodes that own none of the addresses which a network hands out by itself, because its pools, or the ends of its CIDR, lie
// in their blocks. Without a cluster node k owns the blocks with number ≡ k mod slots (ipam/alloc, Geometry); those whose slot has no
// block at all are named with the block size.
func (c *checker) shares(n *network) {
	if c.out.Slots < 2 || n.scope == nil {
		return
	}
	for _, v4 := range []bool{true, false} {
		subnet := n.subnetOf(v4)
		if subnet == nil {
			continue
		}
		d, block := dynamicOf(n, v4), blockLength(*subnet, n.BlockSize, c.out.Slots)
		if d.empty() { // which is said already
			continue
		}
		owners, blocks := d.owners(subnet.CIDR.Addr(), block, c.out.Slots), blocksOf(*subnet, n.BlockSize)
		var without []string
		for _, node := range c.served(n) {
			if owners != nil && node.Slot >= 0 && node.Slot < min(c.out.Slots, blocks) && !owners[node.Slot] {
				without = append(without, node.Name)
			}
		}
		if len(without) > 0 {
			c.warn(diag.TooFewBlocks, familySpot(n.in("spec"), v4), fmt.Sprintf("what network %s hands out of %s lies in blocks of %s of other slots, so %s cannot give Pods an address", n.Key(), subnet.CIDR, plural(block, "address", "addresses"), names(without)),
				widen(len(subnet.Pools) > 0, block > 1))
		}
	}
}

// served are the declared nodes on which Pods can get the network: a virtual function is there only where a pool makes it.
func (c *checker) served(n *network) (out []*node) {
	var pools []*pool
	for _, p := range c.poolList {
		if n.DevicePool != "" && p.ResourceName == n.DevicePool {
			pools = append(pools, p)
		}
	}
	for _, node := range n.scope.nodeList() {
		if len(pools) == 0 || slices.ContainsFunc(pools, func(p *pool) bool { return selects(p.NodeSelector, node.Labels) }) {
			out = append(out, node)
		}
	}
	return out
}

func widen(pools, blocks bool) string {
	hint := "widen the CIDR"
	if pools {
		hint = "widen the pools"
	}
	if blocks {
		hint += ", or take a smaller blockSize"
	}
	return hint
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// names are the first of many.
func names(all []string) string {
	switch {
	case len(all) == 1:
		return "node " + all[0]
	case len(all) > 3:
		return fmt.Sprintf("%d nodes, first %s,", len(all), all[0])
	}
	text := all[0]
	for _, name := range all[1 : len(all)-1] {
		text += ", " + name
	}
	return "nodes " + text + " and " + all[len(all)-1]
}

// blockLength is the number of addresses in a block. Without a word of the network's it is the largest power of two, 16 at most, that
// leaves four blocks a slot (ipam/alloc, NewGeometry).
func blockLength(s model.Subnet, size, slots int) int {
	if size > 0 {
		return size
	}
	free := s.CIDR.Addr().BitLen() - s.CIDR.Bits() - bits.Len(uint(4*slots-1))
	return 1 << max(0, min(free, 4))
}

// blocksOf is how many blocks a subnet has, 0 if not one fits, and a very large number for very many. Block sizes are powers of two.
func blocksOf(s model.Subnet, size int) int {
	exponent := s.CIDR.Addr().BitLen() - s.CIDR.Bits() - max(0, bits.Len(uint(size))-1)
	if exponent < 0 {
		return 0
	}
	return 1 << min(exponent, 31)
}

// owners are the slots that own at least one of the addresses, nil if all do. block is a power of two.
func (d dynamic) owners(base netip.Addr, block, slots int) map[int]bool {
	number := func(a netip.Addr) *big.Int {
		n := new(big.Int).SetBytes(a.AsSlice())
		return n.Sub(n, new(big.Int).SetBytes(base.AsSlice())).Div(n, big.NewInt(int64(block)))
	}
	out, modulus := map[int]bool{}, big.NewInt(int64(slots))
	for r := range d.free {
		first, last := number(r.First), number(r.Last)
		span := new(big.Int).Sub(last, first)
		if span.Cmp(modulus) >= 0 {
			return nil
		}
		slot := int(new(big.Int).Mod(first, modulus).Int64())
		for i := range int(span.Int64()) + 1 {
			out[(slot+i)%slots] = true
		}
		if len(out) == slots {
			return nil
		}
	}
	return out
}
