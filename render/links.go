package render

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// maxAlias is IFALIASZ-1 (linux/if.h): the kernel refuses longer ones.
const maxAlias = 255

// build makes a class's template: links, networks with their device, and the encoded parts of the plan.
func (r *renderer) build(c *class) diag.List {
	b := builder{r: r, c: c, owners: map[string]string{}, users: map[string]user{}}
	for _, l := range c.base {
		c.links = append(c.links, slot{Link: l, own: true})
		b.owners[l.Name] = "interface " + l.Name
		if master, _ := c.link(l.Master); l.Master != "" && master.Kind != model.VRF { // a VRF leaves the receive handler alone
			b.users[l.Name] = user{as: "port of " + l.Master, by: "interface " + l.Name}
		}
	}
	for _, d := range c.domains {
		for _, s := range d.wires {
			b.wire(d, s)
		}
	}
	for _, n := range r.linklessOf(c) {
		c.networks = append(c.networks, withheld(*n))
	}
	slices.SortFunc(c.links, func(x, y slot) int { return cmp.Compare(x.Name, y.Name) })
	slices.SortFunc(c.networks, func(x, y model.Network) int {
		return cmp.Or(cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Name, y.Name))
	})
	if !b.diags.HasErrors() {
		c.text = encode(c)
	}
	return b.diags
}

// builder is one class under construction.
type builder struct {
	r      *renderer
	c      *class
	owners map[string]string // link name → who wants it
	users  map[string]user   // device → what uses its receive handler
	diags  diag.List
}

// user is what takes all packets of a device. The kernel allows one such user (netdev_rx_handler_register: EBUSY).
type user struct{ as, by string }

// wire adds the host links of one VLAN, VNI or untagged device, and the networks on it.
func (b *builder) wire(d *domain, s *wire) {
	first := s.networks[0]
	parent, _ := b.c.link(d.device)
	carrier := d.device
	mtu := parent.MTU
	if s.id != 0 && !s.inPods() {
		leaf := b.leaf(d, s, parent)
		carrier, mtu = leaf.Name, leaf.MTU
		if i := slices.IndexFunc(s.networks, func(n *model.Network) bool { return n.Driver() == model.BRIDGE }); i >= 0 {
			leaf.Master = bridgeName(first)
			b.use(leaf.Name, "port of bridge "+leaf.Master, s.networks[i])
		}
		b.add(leaf, first)
		if leaf.Master != "" {
			b.add(slot{Link: model.Link{Name: leaf.Master, Kind: model.Bridge, Alias: leaf.Alias, MTU: leaf.MTU, Up: true, Adopt: leaf.Adopt}}, first)
		}
	}
	for _, n := range s.networks {
		placed := withheld(*n)
		placed.Device = carrier
		if n.Driver() == model.HOSTDEVICE {
			b.lend(carrier)
		}
		switch {
		case n.Delegate != nil: // what it does with the device is not known
		case s.inPods(): // many VLANs stand on one device, beside what else does
		case n.Driver() != model.BRIDGE:
			b.use(carrier, n.Use(), n)
		case s.id != 0:
			placed.Device = bridgeName(first)
		}
		placed.MTU = cmp.Or(placed.MTU, mtu)
		b.c.networks = append(b.c.networks, placed)
	}
}

// withheld adds a network's reservations to what is not given out by itself: IPAM knows no names.
func withheld(n model.Network) model.Network {
	for _, f := range []struct {
		subnet **model.Subnet
		of     func(model.Reservation) netip.Addr
	}{{&n.IPv4, func(r model.Reservation) netip.Addr { return r.IP }}, {&n.IPv6, func(r model.Reservation) netip.Addr { return r.IP6 }}} {
		var more []model.AddrRange
		for _, r := range n.Reserved {
			if a := f.of(r); a.IsValid() {
				more = append(more, model.AddrRange{First: a, Last: a})
			}
		}
		if *f.subnet == nil || len(more) == 0 {
			continue
		}
		s := **f.subnet
		s.Exclude = append(slices.Clone(s.Exclude), more...)
		slices.SortFunc(s.Exclude, func(a, b model.AddrRange) int { return a.First.Compare(b.First) })
		*f.subnet = &s
	}
	return n
}

// inPods says whether the link of the wire is made in Pods. All its networks are of one type, or one of the others is in the way:
// a device has a VLAN once.
func (s *wire) inPods() bool {
	return !slices.ContainsFunc(s.networks, func(n *model.Network) bool { return n.Driver() != model.TAGGED })
}

// lend marks a device that Pods get.
func (b *builder) lend(device string) {
	for i := range b.c.links {
		if b.c.links[i].Name == device {
			b.c.links[i].Lent = true
		}
	}
}

// bridgeName is our own scheme; DANM makes no bridges.
func bridgeName(first *model.Network) string { return "br_" + first.NetworkID }

// leaf is the VXLAN or VLAN link of a wire, named as DANM names it because its users know those names from their hosts.
// Their length (15 bytes) is the rule book's.
func (b *builder) leaf(d *domain, s *wire, parent model.Link) slot {
	first := s.networks[0]
	keys := make([]string, len(s.networks))
	for i, n := range s.networks {
		keys[i] = n.Key()
	}
	out := slot{Link: model.Link{Alias: alias(keys), Up: true, Parent: d.device, MTU: wireMTU(d, s, parent), Adopt: parent.Adopt}}
	if !s.vxlan {
		out.Name, out.Kind, out.VLANID = fmt.Sprintf("%s.%d", first.NetworkID, s.id), model.VLAN, uint16(s.id)
		return out
	}
	out.Name, out.Kind, out.domain = "vx_"+first.NetworkID, model.VXLAN, d
	out.VXLAN = &model.VXLANOptions{VNI: s.id, Port: d.port, Group: d.groupOf(s.id), Learning: true}
	return out
}

// groupOf is the multicast group of a VNI; the block has room for all of them.
func (d *domain) groupOf(vni uint32) netip.Addr {
	if !d.perVNI {
		return d.group
	}
	b := d.group.AsSlice()
	last := b[len(b)-4:]
	binary.BigEndian.PutUint32(last, binary.BigEndian.Uint32(last)|vni)
	a, _ := netip.AddrFromSlice(b)
	return a
}

func alias(keys []string) string {
	a := "danm: " + strings.Join(keys, ", ")
	if len(a) > maxAlias {
		a = a[:maxAlias-3] + "..."
	}
	return a
}

// wireMTU is the largest MTU declared by the networks of the wire; what fits the parent when one of them leaves it
// open; 0 when the parent's is not declared either.
func wireMTU(d *domain, s *wire, parent model.Link) int {
	mtu := 0
	for _, n := range s.networks {
		if n.MTU == 0 {
			return max(0, parent.MTU-overhead(d, s))
		}
		mtu = max(mtu, n.MTU)
	}
	return mtu
}

func overhead(d *domain, s *wire) int {
	switch {
	case !s.vxlan:
		return 0
	case d.v6:
		return overheadV6
	}
	return overheadV4
}

// add puts a link into the class unless its name is taken.
func (b *builder) add(s slot, n *model.Network) {
	owner := "network " + n.Key()
	if taken, ok := b.owners[s.Name]; ok {
		b.report(n, diag.LinkNameClash,
			fmt.Sprintf("network %s needs the host link %s, which is already made for %s", n.Key(), s.Name, taken),
			"give one of them another networkID")
		return
	}
	b.owners[s.Name] = owner
	b.c.links = append(b.c.links, s)
}

// use claims a device's receive handler.
func (b *builder) use(device, as string, n *model.Network) {
	have, ok := b.users[device]
	if !ok {
		b.users[device] = user{as: as, by: "network " + n.Key()}
		return
	}
	if have.as != as {
		b.report(n, diag.DeviceConflict,
			fmt.Sprintf("network %s uses %s as %s, but %s uses it as %s; the kernel allows one kind only", n.Key(), device, as, have.by, have.as),
			"give both networks the same type, or put them on different VLANs or VNIs")
	}
}

func (b *builder) report(n *model.Network, code diag.Code, summary, hint string) {
	b.diags = append(b.diags, at(b.r.bundle, n, diag.Diagnostic{Severity: diag.Error, Code: code, Summary: summary, Hint: hint}))
}
