package render

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// Bytes that VXLAN adds in front of the inner packet: outer IP 20 or 40, UDP 8, VXLAN 8, inner Ethernet 14 (RFC 7348, section 5).
const (
	overheadV4 = 50
	overheadV6 = 70
)

// defaultVXLANPort is IANA's (RFC 7348).
const defaultVXLANPort = 4789

// Unicast flooding sends every broadcast once a peer, so its cost grows with the square of the nodes.
const (
	manyPeers = 64
	maxPeers  = 500
)

// domain is what carries networks on a node: a fabric, or a host device that is used without one.
type domain struct {
	name   string
	groups map[string]bool // fabric: its groups; nil for a host device
	device string
	port   int
	group  netip.Addr // multicast, invalid = unicast
	perVNI bool       // group is where the groups of the VNIs begin
	wires  []*wire    // sorted by kind and id
	nodes  []int      // indexes of the nodes it reaches, ascending
	v6     bool       // family of the underlay
	local  map[int]netip.Addr
}

// wire is one VLAN, VNI or the untagged device: one host link however many networks share it.
type wire struct {
	vxlan    bool
	id       uint32
	networks []*model.Network // sorted by key; the first names the link
}

// fabric names and device names are two namespaces: a host device must not meet a fabric of the same name.
func domainKey(n *model.Network) string {
	if n.Fabric != "" {
		return "f:" + n.Fabric
	}
	return "d:" + n.HostDevice
}

// linkless says that a network needs no link of the host: a virtual function carries its VLAN tag itself, and a delegate
// may need nothing that we know of.
func linkless(n *model.Network) bool {
	return n.Driver() == model.SRIOV || n.Fabric == "" && n.HostDevice == ""
}

// linklessOf lists the linkless networks that reach a class: those of a fabric by its groups, others everywhere.
func (r *renderer) linklessOf(c *class) []*model.Network {
	var out []*model.Network
	for i := range r.networks {
		n := &r.networks[i]
		if !linkless(n) {
			continue
		}
		f, on := fabricOf(r.bundle, n.Fabric)
		if !on || slices.ContainsFunc(c.groups, func(g int) bool { return slices.Contains(f.Groups, r.bundle.Groups[g].Name) }) {
			out = append(out, n)
		}
	}
	return out
}

// makeWires groups networks by the host link they need.
func makeWires(fabrics []model.Fabric, networks []model.Network) []*domain {
	type wireKey struct {
		domain string
		vxlan  bool
		id     uint32
	}
	domains := map[string]*domain{}
	wires := map[wireKey]*wire{}
	for i := range networks {
		n := &networks[i]
		if linkless(n) {
			continue
		}
		key := domainKey(n)
		d := domains[key]
		if d == nil {
			d = newDomain(fabrics, n)
			domains[key] = d
		}
		k := wireKey{key, n.VXLAN, n.ID()}
		s := wires[k]
		if s == nil {
			s = &wire{vxlan: n.VXLAN, id: n.ID()}
			wires[k] = s
			d.wires = append(d.wires, s)
		}
		s.networks = append(s.networks, n)
	}
	out := make([]*domain, 0, len(domains))
	for _, d := range domains {
		for _, s := range d.wires {
			slices.SortFunc(s.networks, func(a, b *model.Network) int { return cmp.Compare(a.Key(), b.Key()) })
		}
		slices.SortFunc(d.wires, func(a, b *wire) int {
			if a.vxlan != b.vxlan {
				return map[bool]int{false: -1, true: 1}[a.vxlan]
			}
			return cmp.Compare(a.id, b.id)
		})
		out = append(out, d)
	}
	slices.SortFunc(out, func(a, b *domain) int {
		return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(len(a.groups), len(b.groups)))
	})
	return out
}

func newDomain(fabrics []model.Fabric, n *model.Network) *domain {
	d := &domain{name: n.HostDevice, device: n.HostDevice, port: defaultVXLANPort, local: map[int]netip.Addr{}}
	i := slices.IndexFunc(fabrics, func(f model.Fabric) bool { return f.Name == n.Fabric })
	if n.Fabric == "" || i < 0 {
		return d
	}
	f := fabrics[i]
	d.name, d.device, d.groups = f.Name, f.Device, map[string]bool{}
	for _, g := range f.Groups {
		d.groups[g] = true
	}
	if f.VXLAN != nil {
		d.port, d.group, d.perVNI = cmp.Or(f.VXLAN.Port, defaultVXLANPort), f.VXLAN.Multicast, f.VXLAN.PerVNI
	}
	return d
}

// domainsOf lists what reaches a class: fabrics by their groups, host devices by being declared there.
func (r *renderer) domainsOf(c *class) []*domain {
	var out []*domain
	for _, d := range r.domains {
		_, declared := c.link(d.device)
		reaches := declared
		if d.groups != nil {
			reaches = declared && slices.ContainsFunc(c.groups, func(g int) bool { return d.groups[r.bundle.Groups[g].Name] })
		}
		if reaches {
			out = append(out, d)
		}
	}
	return out
}

// fabricsOf lists the fabrics that reach a class, whether a network is on them or not.
func (r *renderer) fabricsOf(c *class) []model.Fabric {
	var out []model.Fabric
	for _, f := range r.bundle.Fabrics {
		if _, declared := c.link(f.Device); declared && slices.ContainsFunc(c.groups, func(g int) bool { return slices.Contains(f.Groups, r.bundle.Groups[g].Name) }) {
			f.Groups = nil
			out = append(out, f)
		}
	}
	return out
}

func (c *class) link(name string) (model.Link, bool) {
	i, ok := slices.BinarySearchFunc(c.base, name, func(l model.Link, n string) int { return cmp.Compare(l.Name, n) })
	if !ok {
		return model.Link{}, false
	}
	return c.base[i], true
}

// underlay finds each node's source address in every domain that has a VXLAN, and each domain's address family.
func (r *renderer) underlay() {
	for _, c := range r.order {
		for _, d := range c.domains {
			d.nodes = append(d.nodes, c.nodes...)
		}
	}
	for _, d := range r.domains {
		slices.Sort(d.nodes)
		if !slices.ContainsFunc(d.wires, func(s *wire) bool { return s.vxlan }) {
			continue
		}
		v4, v6 := map[int]netip.Addr{}, map[int]netip.Addr{}
		for _, c := range r.order {
			if slices.Contains(c.domains, d) {
				r.declaredAddresses(c, d.device, v4, v6)
			}
		}
		d.v6, d.local = len(v4) == 0 && len(v6) > 0, v4
		if d.group.IsValid() {
			d.v6 = d.group.Is6()
		}
		if d.v6 {
			d.local = v6
		}
		r.checkPeers(d)
	}
}

// declaredAddresses takes the first address of each family that a node declares on a device.
func (r *renderer) declaredAddresses(c *class, device string, v4, v6 map[int]netip.Addr) {
	base, _ := c.link(device)
	for _, n := range c.nodes {
		for _, p := range sortedPrefixes(base.Addresses, r.nodes[n].Interfaces[device]) {
			family := v6
			if p.Addr().Is4() {
				family = v4
			}
			if _, ok := family[n]; !ok && (p.Addr().Is4() || !p.Addr().IsLinkLocalUnicast()) {
				family[n] = p.Addr()
			}
		}
	}
}

// checkPeers refuses a unicast underlay that cannot work: a node without an address is found by nobody.
func (r *renderer) checkPeers(d *domain) {
	if d.group.IsValid() || len(d.nodes) < 2 {
		return
	}
	for _, n := range d.nodes {
		if !d.local[n].IsValid() && !r.reported[r.nodes[n].Name][d.device].IsValid() {
			severity := diag.Error
			if r.reported != nil { // a node that has just come reports soon; all others must not wait for it
				severity = diag.Warning
			}
			r.diags = append(r.diags, diag.Diagnostic{
				Severity: severity, Code: diag.UnderlayAddressMissing,
				Summary: fmt.Sprintf("node %s declares no %s address on %s, so the other nodes of %s cannot send VXLAN packets to it",
					r.nodes[n].Name, map[bool]string{false: "IPv4", true: "IPv6"}[d.v6], d.device, d.name),
				Hint: "give the node an address there (nodes[].interfaces), or set a multicast group in the fabric's vxlan",
			})
		}
	}
	if len(d.nodes) > manyPeers {
		severity := diag.Warning
		if len(d.nodes) > maxPeers {
			severity = diag.Error
		}
		r.diags = append(r.diags, diag.Diagnostic{
			Severity: severity, Code: diag.UnicastPeersMany,
			Summary: fmt.Sprintf("%d nodes flood to each other by unicast on %s; up to %d is fine, above %d it is refused", len(d.nodes), d.name, manyPeers, maxPeers),
			Hint:    "set a multicast group in the fabric's vxlan, or use VLANs",
		})
	}
}
