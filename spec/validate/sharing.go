package validate

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// wire is where frames of two networks could meet: one VLAN of a device, or one VNI of a UDP port. The same CIDR on two
// wires is legal, that is what tenants are for.
type wire struct {
	device string // "" for VXLAN
	port   int
	id     uint32
	open   string // while nobody knows the id: the first network that asks for it
}

// sharing checks what networks on one wire owe each other.
func (c *checker) sharing() {
	c.findWires()
	wires, guilty := map[wire][]*network{}, map[*network]bool{}
	var order []wire
	for _, n := range c.netList {
		if n.wire == nil {
			continue
		}
		if wires[*n.wire] == nil {
			order = append(order, *n.wire)
		}
		wires[*n.wire] = append(wires[*n.wire], n)
	}
	for _, w := range order {
		nets := wires[w]
		if len(nets) < 2 {
			continue
		}
		if w.id != 0 || w.open != "" {
			c.sharedIDs(w, nets, guilty)
		}
		c.overlaps(nets, true, guilty)
		c.overlaps(nets, false, guilty)
	}
	c.oneSided(guilty)
	for _, n := range c.netList {
		c.nodeAddresses(n)
	}
}

// oneSided finds networks that are shared with one that does not say so: such a network could take the open number of
// another tenant's for its own. What is reported of the two already is enough.
func (c *checker) oneSided(guilty map[*network]bool) {
	for _, n := range c.netList {
		for k, name := range n.used.SharedWith {
			m := c.networks[name]
			if m == nil || m == n || n.broken() || m.broken() || guilty[n] || guilty[m] || mutual(n, m) {
				continue
			}
			c.error(diag.SharedMismatch, n.in("spec").in("sharedWith").nth(k), fmt.Sprintf("network %s is shared with %s (%s), which does not say so", n.Key(), m.Key(), m.place()), fmt.Sprintf("add %s to sharedWith of %s, or remove it here", n.Key(), m.Key()))
		}
	}
}

// findWires says where each network's frames are, as far as that is known.
func (c *checker) findWires() {
	open := c.openNumbers()
	for _, n := range c.netList {
		switch {
		case n.broken() || n.scope == nil || n.odd || n.tagged && n.ID() == 0 && !n.auto:
			continue // its device or number is not known
		case n.VXLAN && (n.fabric == nil || n.fabric.VXLAN == nil):
			continue
		case n.device == "" && (!n.linkless() || n.SpaceDomain == ""):
			continue
		}
		w := wire{device: n.device, id: n.ID()}
		if n.auto {
			w.id, w.open = open[n].id, open[n].open
		}
		switch {
		case n.VXLAN:
			w.port, w.device = n.fabric.VXLAN.Port, ""
		case n.device == "":
			w.device = n.SpaceDomain
		}
		n.wire = &w
	}
}

// sharedIDs: networks on one id name each other, and are one host link. One report a network is enough.
func (c *checker) sharedIDs(w wire, nets []*network, guilty map[*network]bool) {
	for i, n := range nets {
		for _, m := range nets[:i] {
			if guilty[n] || !c.meet(n.scope, m.scope) {
				continue
			}
			switch {
			case n.domain() != m.domain() && w.device == "":
				c.error(diag.VNITwiceOnPort, n.idSpot(), fmt.Sprintf("networks %s and %s have %s on UDP port %d, on two fabrics of one node", m.Key(), n.Key(), wireText(n), w.port), "take another VNI, or another vxlan.port for one of the fabrics; the kernel refuses the second link")
			case n.domain() != m.domain():
				c.error(diag.VLANTwiceOnDevice, n.idSpot(), fmt.Sprintf("networks %s and %s have %s on %s, under two names (%s, %s)", m.Key(), n.Key(), wireText(n), w.device, m.domain(), n.domain()), "put both on one fabric; the kernel refuses the second link")
			case !mutual(n, m):
				c.error(diag.IDNotShared, n.idSpot(), fmt.Sprintf("network %s has %s of network %s (%s), and not both say so", n.Key(), wireText(n), m.Key(), m.idSpot().place()), shareHint(n, m))
			case (n.Driver() == model.TAGGED) != (m.Driver() == model.TAGGED) && !n.linkless() && !m.linkless():
				c.error(diag.DeviceConflict, n.in("spec").in("type"), fmt.Sprintf("networks %s and %s share %s, and one of them has its link in a Pod, the other on the host", m.Key(), n.Key(), wireText(n)), "give both the same type, or separate them by VLAN")
			case n.NetworkID != m.NetworkID && !n.linkless() && !m.linkless():
				c.error(diag.SharedMismatch, n.nameSpot(), fmt.Sprintf("networks %s and %s share %s, so they are one host link, but have networkIDs %s and %s", m.Key(), n.Key(), wireText(n), m.NetworkID, n.NetworkID), "give both the same networkID")
			default:
				continue
			}
			guilty[n] = true
		}
	}
}

// wireText is the number of a network's wire for people.
func wireText(n *network) string {
	if n.wire.id == 0 {
		return "the same " + idWord(n)
	}
	return fmt.Sprintf("%s %d", idWord(n), n.wire.id)
}

// mutual says whether both networks name each other.
func mutual(n, m *network) bool {
	_, there := slices.BinarySearch(n.SharedWith, m.Key())
	_, back := slices.BinarySearch(m.SharedWith, n.Key())
	return there && back
}

func shareHint(n, m *network) string {
	hint, word := "choose another", ", or"
	for _, pair := range [][2]*network{{n, m}, {m, n}} {
		if _, there := slices.BinarySearch(pair[0].SharedWith, pair[1].Key()); !there {
			hint += fmt.Sprintf("%s add %s to sharedWith of %s", word, pair[1].Key(), pair[0].Key())
			word = " and"
		}
	}
	return hint
}

// overlaps finds networks on one wire whose addresses overlap. Prefixes are nested or disjoint, so after sorting the ones
// around a prefix are a stack.
func (c *checker) overlaps(nets []*network, v4 bool, guilty map[*network]bool) {
	type entry struct {
		cidr netip.Prefix
		net  *network
		pos  int
	}
	var all []entry
	for i, n := range nets {
		if s := n.subnetOf(v4); s != nil {
			all = append(all, entry{s.CIDR, n, i})
		}
	}
	slices.SortFunc(all, func(a, b entry) int {
		return cmp.Or(a.cidr.Addr().Compare(b.cidr.Addr()), cmp.Compare(a.cidr.Bits(), b.cidr.Bits()), cmp.Compare(a.pos, b.pos))
	})
	var around []entry
	for _, e := range all {
		for len(around) > 0 && !around[len(around)-1].cidr.Overlaps(e.cidr) {
			around = around[:len(around)-1]
		}
		for _, o := range around {
			first, second := o, e
			if first.pos > second.pos {
				first, second = second, first
			}
			if guilty[second.net] || !c.meet(o.net.scope, e.net.scope) {
				continue
			}
			if c.sameAddresses(first.net, second.net, v4) {
				guilty[second.net] = true
			}
		}
		around = append(around, e)
	}
}

func (n *network) subnetOf(v4 bool) *model.Subnet {
	if v4 {
		return n.IPv4
	}
	return n.IPv6
}

func (n *network) subnetSpot(v4 bool) spot {
	if v4 {
		return n.in("spec").in("ipv4").in("cidr")
	}
	return n.in("spec").in("ipv6").in("cidr")
}

// sameAddresses judges two networks whose addresses overlap on one wire; true if it reported something. Addresses are
// handed out by space (fabric or device, id, CIDR), in blocks: two spaces over one address would give it twice.
func (c *checker) sameAddresses(m, n *network, v4 bool) bool {
	a, b, s := m.subnetOf(v4), n.subnetOf(v4), n.subnetSpot(v4)
	switch {
	case m.domain() != n.domain():
		c.error(diag.CIDROverlap, s, fmt.Sprintf("%s of network %s overlaps %s of %s on the same device, under two names (%s, %s)", b.CIDR, n.Key(), a.CIDR, m.Key(), n.domain(), m.domain()), "put both on one fabric, or take addresses that do not overlap")
	case !mutual(n, m):
		c.error(diag.CIDROverlap, s, fmt.Sprintf("%s of network %s overlaps %s of %s (%s) on the same link", b.CIDR, n.Key(), a.CIDR, m.Key(), m.subnetSpot(v4).place()), shareHint(n, m))
	case a.CIDR != b.CIDR:
		c.error(diag.SharedMismatch, s, fmt.Sprintf("networks %s and %s share a link, and %s and %s overlap without being equal", m.Key(), n.Key(), a.CIDR, b.CIDR), "give both the same CIDR; their pools may differ")
	case m.BlockSize != n.BlockSize:
		c.error(diag.SharedMismatch, n.in("spec").in("blockSize"), fmt.Sprintf("networks %s and %s share addresses, but have block sizes %d and %d", m.Key(), n.Key(), m.BlockSize, n.BlockSize), "give both the same blockSize")
	default:
		where, name := reservedTwice(m, n, v4)
		if name != "" {
			c.error(diag.ReservedTaken, where, fmt.Sprintf("network %s, which shares addresses with %s, reserves this one as %s already", m.Key(), n.Key(), name), "reserve it in one of the networks")
		}
		return name != ""
	}
	return true
}
