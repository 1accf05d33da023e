package validate

import (
	"cmp"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"danm.io/danm/spec/bundle/v1"
	"danm.io/danm/spec/decode"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

const (
	maxVLAN     = 4094      // 0 is "no VLAN" and 4095 is reserved (IEEE 802.1Q, table 9-2)
	maxQoS      = 7         // three bits of the tag (IEEE 802.1Q, 9.6)
	maxVNI      = 1<<24 - 1 // RFC 7348, section 5
	defaultPort = 4789      // RFC 7348, section 8
)

func (c *checker) fabric(s spot, v *v1.Fabric) {
	c.label(s.in("name"), v.Name)
	if !c.unique("fabric", v.Name, s.in("name")) {
		return
	}
	f := &fabric{Fabric: model.Fabric{Name: v.Name, Device: v.Device, Groups: slices.Clone(v.Groups)}, spot: s, ranged: true}
	slices.Sort(f.Groups)
	f.Groups = slices.Compact(f.Groups)
	f.VLANRanges = c.idRanges(s.in("vlanRanges"), v.VLANRanges, diag.InvalidVLAN, maxVLAN, &f.ranged)
	f.VNIRanges = c.idRanges(s.in("vniRanges"), v.VNIRanges, diag.InvalidVNI, maxVNI, &f.ranged)
	if v.VXLAN != nil {
		f.VXLAN = &model.Underlay{Port: cmp.Or(v.VXLAN.Port, defaultPort)}
		us := s.in("vxlan")
		c.number(diag.InvalidNumber, us.in("port"), int64(f.VXLAN.Port), 1, 65535)
		if v.VXLAN.Multicast != "" {
			f.VXLAN.Multicast, f.VXLAN.PerVNI = c.multicast(us.in("multicast"), v.VXLAN.Multicast)
		}
	}
	c.fabrics[f.Name] = f
	c.fabricList = append(c.fabricList, f)
}

// multicast parses a group, or a block with room for every VNI (24 bits, RFC 7348).
func (c *checker) multicast(s spot, text string) (a netip.Addr, perVNI bool) {
	var ok bool
	if strings.Contains(text, "/") {
		p, err := netip.ParsePrefix(text)
		if err != nil || p != p.Masked() || p.Addr().BitLen()-p.Bits() < 24 {
			c.error(diag.InvalidAddress, s, fmt.Sprintf("%q is no block of multicast groups with room for 24 bits of VNI", text), "write it as 239.0.0.0/8 or ff02::/16")
			return a, true
		}
		a, perVNI, ok = p.Addr(), true, true
	} else {
		a, ok = c.addr(s, text)
	}
	if ok && !a.IsMulticast() {
		c.error(diag.InvalidAddress, s, fmt.Sprintf("%s is no multicast group", a), "take one of 239.0.0.0/8 (RFC 2365) or ff05::/16")
	}
	return a, perVNI
}

// matchNodes finds each node's groups, and checks what several groups say of one node.
func (c *checker) matchNodes() {
	ordered := slices.SortedFunc(mapValues(c.groups), func(a, b *group) int { return strings.Compare(a.Name, b.Name) })
	merged := map[string]map[string]*link{} // by the names of the groups
	unsure := anyBroken(c.docs.Topologies)
	told := map[spot]bool{}
	mistaken := slices.ContainsFunc(c.problems, func(d diag.Diagnostic) bool { return d.Severity == diag.Error })
	for _, n := range c.nodes {
		var names []string
		for _, g := range ordered {
			if selects(g.Selector, n.Labels) {
				n.groups, g.nodes, names = append(n.groups, g), append(g.nodes, n), append(names, g.Name)
			}
		}
		key := strings.Join(names, "/")
		if merged[key] == nil {
			merged[key] = c.merge(n)
			c.mergeSysctls(n, told)
		}
		for _, name := range sortedKeys(n.Interfaces) {
			i := slices.IndexFunc(c.nodeDoc(n).Interfaces, func(itf v1.NodeInterface) bool { return itf.Name == name })
			at := n.in("interfaces").nth(i)
			switch l := merged[key][name]; {
			case l == nil:
				c.dangling("interface", name, at.in("name"), keys(merged[key]), unsure)
			case l.Master != "" && merged[key][l.Master] != nil && merged[key][l.Master].Kind != model.VRF && len(n.Interfaces[name]) > 0:
				c.error(diag.PortHasAddresses, at.in("addresses"), fmt.Sprintf("node %s has addresses on %s, which is a port of %s (%s)", n.Name, name, l.Master, l.place()), "move the addresses to "+l.Master)
			}
		}
	}
	c.sharedAddresses()
	if !unsure && !mistaken {
		c.lonely(ordered)
	}
}

// nodeDoc is the node as written.
func (c *checker) nodeDoc(n *node) *v1.Node {
	for i := range c.docs.Topologies {
		if t := &c.docs.Topologies[i]; &t.Where == n.doc {
			for k := range t.Value.Spec.Nodes {
				if t.Value.Spec.Nodes[k].Name == n.Name {
					return &t.Value.Spec.Nodes[k]
				}
			}
		}
	}
	return &v1.Node{}
}

// sharedAddresses warns of nodes that have one address on links of one name, which as a rule are on one wire. Addresses on
// dummies are announced by routing, from several nodes at once if that is wanted; underlays have a rule of their own.
func (c *checker) sharedAddresses() {
	owners := map[string]*node{}
	for _, n := range c.nodes {
		for _, name := range sortedKeys(n.Interfaces) {
			routed := slices.ContainsFunc(n.groups, func(g *group) bool {
				l := g.links[name]
				return l != nil && (l.Kind == model.Dummy || l.Kind == model.VRF)
			})
			underlay := slices.ContainsFunc(c.fabricList, func(f *fabric) bool { return f.Device == name && f.VXLAN != nil && !f.VXLAN.Multicast.IsValid() })
			for _, a := range n.Interfaces[name] {
				key := name + " " + a.Addr().String()
				if o := owners[key]; o != nil && !routed && !underlay {
					c.warn(diag.NodeAddressTwice, n.in("interfaces"), fmt.Sprintf("nodes %s and %s both have %s on %s", o.Name, n.Name, a.Addr(), name), "give each node its own address, if they are on one wire")
				}
				owners[key] = n
			}
		}
	}
}

// pooled says whether a pool selects a node.
func (c *checker) pooled(n *node) bool {
	return slices.ContainsFunc(c.docs.SRIOVPools, func(p decode.Doc[v1.SRIOVPool]) bool { return selects(p.Value.Spec.NodeSelector, n.Labels) })
}

// lonely warns of groups without nodes and of nodes without groups: labels are free words, and a slip in one shows nowhere
// else. Without nodes in the bundle a cluster has them.
func (c *checker) lonely(groups []*group) {
	for _, n := range c.nodes {
		if len(n.groups) == 0 && !n.broken() && !c.pooled(n) {
			c.warn(diag.NodeWithoutGroup, n.in("labels"), fmt.Sprintf("node %s is in no group and no SRIOVPool selects it, so nothing is configured on it", n.Name), "give it the labels of a group's selector")
		}
	}
	for _, g := range groups {
		if len(c.nodes) > 0 && len(g.nodes) == 0 && !g.broken() {
			c.warn(diag.GroupWithoutNodes, g.in("selector"), fmt.Sprintf("no node has the labels of group %s", g.Name), "correct the selector, or give a node its labels")
		}
	}
}

// merge is what all groups of a node declare together. Two may name one link if no attribute differs.
func (c *checker) merge(n *node) map[string]*link {
	out := map[string]*link{}
	for _, g := range n.groups {
		for _, name := range sortedKeys(g.links) {
			l := g.links[name]
			have := out[name]
			if have == nil {
				out[name] = &link{Link: l.Link, spot: l.spot, group: g}
				continue
			}
			if what := differing(have.Link, l.Link); what != "" {
				c.error(diag.ConflictingInterface, l.spot, fmt.Sprintf("group %s declares another %s for %s than %s, and node %s is in both groups", g.Name, what, name, have.place(), n.Name), "declare it in one group, or make the selectors exclude each other")
			}
			have.MTU, have.Master = cmp.Or(have.MTU, l.MTU), cmp.Or(have.Master, l.Master)
			have.Addresses = append(slices.Clone(have.Addresses), l.Addresses...)
		}
	}
	return out
}

// mergeSysctls finds kernel parameters to which the groups of a node give several values. told are those reported already.
func (c *checker) mergeSysctls(n *node, told map[spot]bool) {
	type setting struct{ value, group string }
	have := map[string]setting{}
	for _, g := range n.groups {
		for _, s := range g.Sysctls {
			first, known := have[s.Key]
			at := g.sysctlAt[s.Key]
			if known && first.value != s.Value && !told[at] {
				told[at] = true
				c.error(diag.SysctlConflict, at, fmt.Sprintf("%s is %s here and %s in group %s, and node %s is in both groups", s.Key, s.Value, first.value, first.group, n.Name), "set it in one group, or make the selectors exclude each other")
			}
			if !known {
				have[s.Key] = setting{s.Value, g.Name}
			}
		}
	}
}

// differing names the first attribute that both declare with different values.
func differing(a, b model.Link) string {
	switch {
	case a.Kind != b.Kind:
		return "kind"
	case a.Match != nil && b.Match != nil && *a.Match != *b.Match:
		return "match"
	case a.MTU != 0 && b.MTU != 0 && a.MTU != b.MTU:
		return "mtu"
	case a.Master != "" && b.Master != "" && a.Master != b.Master:
		return "bond, bridge or VRF"
	case a.Kind == b.Kind && a.Kind != model.Physical && (a.Parent != b.Parent || a.VLANID != b.VLANID):
		return "device or id"
	case a.Table != 0 && b.Table != 0 && a.Table != b.Table:
		return "table"
	case a.Bond != nil && b.Bond != nil && *a.Bond != *b.Bond:
		return "bond option"
	case a.PortVLANs != nil && b.PortVLANs != nil && !reflect.DeepEqual(a.PortVLANs, b.PortVLANs):
		return "VLAN membership"
	case a.Adopt != b.Adopt && a.Kind != model.Physical:
		return "adoption"
	}
	return ""
}

func selects(selector, labels map[string]string) bool {
	for k, v := range selector {
		if have, ok := labels[k]; !ok || have != v {
			return false
		}
	}
	return true
}

// fabricReferences checks groups, device and, for a unicast underlay, the nodes' addresses.
func (c *checker) fabricReferences(f *fabric) {
	unsure := anyBroken(c.docs.Topologies)
	if len(f.Groups) == 0 && !f.broken() {
		c.error(diag.MissingField, f.in("groups"), fmt.Sprintf("fabric %s is on no group of nodes", f.Name), "name the groups whose nodes it connects")
	}
	var groups []*group
	for _, name := range f.Groups {
		g := c.groups[name]
		switch {
		case g == nil:
			c.dangling("group", name, f.in("groups"), keys(c.groups), unsure)
			continue
		case f.Device != "" && g.links[f.Device] == nil && !c.declaredOnAll(g, f.Device):
			c.dangling("device", f.Device, f.in("device"), keys(g.links), unsure)
		}
		if l := g.links[f.Device]; l != nil && g.unfitBelow(l) != "" {
			c.error(diag.DeviceConflict, f.in("device"), fmt.Sprintf("fabric %s is on %s, %s (%s)", f.Name, f.Device, g.unfitBelow(l), l.place()), "name the device that has its frames")
		}
		groups = append(groups, g)
	}
	f.scope = c.scopeOf(groups)
	if f.VXLAN != nil && !f.VXLAN.Multicast.IsValid() && !unsure && f.Device != "" {
		c.underlay(f)
	}
}

// declaredOnAll says whether every node of a group has a link from one of its other groups.
func (c *checker) declaredOnAll(g *group, device string) bool {
	for _, n := range g.nodes {
		if !slices.ContainsFunc(n.groups, func(o *group) bool { return o.links[device] != nil }) {
			return false
		}
	}
	return len(g.nodes) > 0
}

// underlay checks that each node can be reached by unicast: one address of one family on every node, and its own.
func (c *checker) underlay(f *fabric) {
	nodes := f.scope.nodeList()
	if len(nodes) < 2 {
		return
	}
	var without [2][]*node // by family: v4, v6
	owner := map[netip.Addr]*node{}
	for _, n := range nodes {
		a := underlayAddresses(n, f.Device)
		for family := range without {
			if !a[family].IsValid() {
				without[family] = append(without[family], n)
				continue
			}
			if o := owner[a[family]]; o != nil {
				c.error(diag.UnderlayAddressTaken, n.spot, fmt.Sprintf("nodes %s and %s both have %s on %s, so packets of fabric %s reach one of them only", o.Name, n.Name, a[family], f.Device, f.Name), "give each node its own address under nodes[].interfaces")
			}
			owner[a[family]] = n
		}
	}
	missing := without[0]
	if len(missing) == len(nodes) {
		missing = without[1]
	}
	if len(without[0]) == 0 || len(without[1]) == 0 {
		return
	}
	for _, n := range missing {
		c.error(diag.UnderlayAddressMissing, n.spot, fmt.Sprintf("node %s declares no address on %s that the other nodes of fabric %s could send VXLAN packets to", n.Name, f.Device, f.Name), "give it one under nodes[].interfaces, of the family the other nodes use, or set vxlan.multicast on the fabric")
	}
}

// underlayAddresses are the first IPv4 and the first IPv6 address declared on a node's device.
func underlayAddresses(n *node, device string) (out [2]netip.Addr) {
	all := slices.Clone(n.Interfaces[device])
	for _, g := range n.groups {
		if l := g.links[device]; l != nil {
			all = append(all, l.Addresses...)
		}
	}
	sortPrefixes(all)
	for _, p := range all {
		family := 0
		if p.Addr().Is6() {
			family = 1
		}
		if !out[family].IsValid() && !p.Addr().IsLinkLocalUnicast() {
			out[family] = p.Addr()
		}
	}
	return out
}
