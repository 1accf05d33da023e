package validate

import (
	"fmt"
	"net/netip"
	"slices"

	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// dynamic is what a network hands out by itself in one address family: its pools, or all of the CIDR, without the ends,
// the excluded, the gateway and the reserved.
type dynamic struct {
	from    []model.AddrRange
	without []model.AddrRange // sorted by their first address
}

func dynamicOf(n *network, v4 bool) dynamic {
	s := n.subnetOf(v4)
	d := dynamic{from: s.Pools, without: slices.Clone(s.Exclude)}
	if len(d.from) == 0 {
		d.from = []model.AddrRange{{First: s.CIDR.Addr(), Last: lastOf(s.CIDR)}}
	}
	first, last := reserved(s.CIDR)
	single := append(s.Routers(), first, last)
	for _, r := range n.Reserved {
		if v4 {
			single = append(single, r.IP)
		} else {
			single = append(single, r.IP6)
		}
	}
	for _, a := range single {
		if a.IsValid() {
			d.without = append(d.without, model.AddrRange{First: a, Last: a})
		}
	}
	slices.SortFunc(d.without, func(a, b model.AddrRange) int { return a.First.Compare(b.First) })
	return d
}

// has says whether an address may be handed out.
func (d dynamic) has(a netip.Addr) bool {
	in := func(r model.AddrRange) bool { return r.Contains(a) }
	return slices.ContainsFunc(d.from, in) && !slices.ContainsFunc(d.without, in)
}

// empty says whether nothing is left.
func (d dynamic) empty() bool {
	for range d.free {
		return false
	}
	return true
}

// free yields what is left, range by range.
func (d dynamic) free(yield func(model.AddrRange) bool) {
	for _, r := range d.from {
		next := r.First // the least address that may be free
		for _, w := range d.without {
			if w.First.Compare(r.Last) > 0 {
				break
			}
			if w.First.Compare(next) > 0 && !yield(model.AddrRange{First: next, Last: w.First.Prev()}) {
				return
			}
			if w.Last.Compare(next) >= 0 {
				next = w.Last.Next()
			}
			if !next.IsValid() { // behind the last address there is
				break
			}
		}
		if next.IsValid() && next.Compare(r.Last) <= 0 && !yield(model.AddrRange{First: next, Last: r.Last}) {
			return
		}
	}
}

// handsOut warns of a subnet that no Pod could get an address of without asking for a certain one.
func (c *checker) handsOut(n *network, s spot) {
	for _, v4 := range []bool{true, false} {
		if n.subnetOf(v4) == nil || s.broken() || !dynamicOf(n, v4).empty() {
			continue
		}
		c.warn(diag.NothingToHandOut, familySpot(s, v4), fmt.Sprintf("network %s hands out none of the addresses of %s by itself: all are excluded, reserved, the gateway's or the ends of the subnet", n.Key(), n.subnetOf(v4).CIDR), "widen the CIDR or the pools; a Pod that asks for any address is refused")
	}
}

func familySpot(s spot, v4 bool) spot {
	if v4 {
		return s.in("ipv4")
	}
	return s.in("ipv6")
}

// nodeAddresses finds addresses of nodes that would be handed to Pods on the same wire: those on the device itself.
func (c *checker) nodeAddresses(n *network) {
	if n.scope == nil || n.device == "" || n.tagged || n.linkless() || n.odd || n.broken() {
		return
	}
	for _, v4 := range []bool{true, false} {
		if n.subnetOf(v4) == nil {
			continue
		}
		d := dynamicOf(n, v4)
		if owner, a := c.nodeAddressIn(n, d); owner.doc != nil {
			c.error(diag.NodeAddressInPool, familySpot(n.in("spec"), v4), fmt.Sprintf("network %s would hand %s to a Pod, which is a node's own address on %s (%s)", n.Key(), a, n.device, owner.place()), "add it to exclude, or begin the pools behind it")
		}
	}
}

// nodeAddressIn is the first declaration of an address on a network's device that d has; without a document if there is none.
func (c *checker) nodeAddressIn(n *network, d dynamic) (spot, netip.Addr) {
	for _, name := range sortedKeys(c.groups) {
		g := c.groups[name]
		l := g.links[n.device]
		if l == nil || !c.meet(c.scopeOf([]*group{g}), n.scope) {
			continue
		}
		for _, p := range l.Addresses {
			if d.has(p.Addr()) {
				return l.spot, p.Addr()
			}
		}
	}
	for _, node := range n.scope.nodeList() {
		for _, p := range node.Interfaces[n.device] {
			if d.has(p.Addr()) {
				return node.spot, p.Addr()
			}
		}
	}
	return spot{}, netip.Addr{}
}
