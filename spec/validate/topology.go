package validate

import (
	"cmp"
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"danm.io/danm/spec/bundle/v1"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// node, group and fabric are the model's values with the place they came from.
type node struct {
	model.Node
	spot
	slotless bool     // none was written
	groups   []*group // that match it, by name
}

type group struct {
	model.NodeGroup
	spot
	links    map[string]*link
	nodes    []*node
	sysctlAt map[string]spot // where each of Sysctls stands
}

type link struct {
	model.Link
	spot
	group      *group
	undeclared bool // named as a port only
}

type fabric struct {
	model.Fabric
	spot
	scope  *scope
	ranged bool // its ranges could be read
	bytes  int  // see overhead
}

// finish is the group for the model, its links sorted.
func (g *group) finish() model.NodeGroup {
	out := g.NodeGroup
	for _, l := range g.links {
		out.Interfaces = append(out.Interfaces, l.Link)
	}
	slices.SortFunc(out.Interfaces, func(a, b model.Link) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func (c *checker) topologies() {
	slots, unknown := spot{}, c.docs.Incomplete || anyBroken(c.docs.Topologies)
	for i := range c.docs.Topologies {
		doc := &c.docs.Topologies[i]
		s, v := at(&doc.Where, ""), &doc.Value
		c.subdomain(s.in("metadata").in("name"), v.Metadata.Name)
		if c.unique("Topology", v.Metadata.Name, s.in("metadata").in("name")) {
			c.origins["Topology/"+v.Metadata.Name] = s.origin()
		}
		spec := s.in("spec")
		switch {
		case !c.number(diag.InvalidSlot, spec.in("slots"), int64(v.Spec.Slots), 0, 65536):
			unknown = true
		case v.Spec.Slots == 0:
		case c.out.Slots == 0:
			c.out.Slots, slots = v.Spec.Slots, spec.in("slots")
		case c.out.Slots != v.Spec.Slots:
			c.error(diag.InvalidSlot, spec.in("slots"), fmt.Sprintf("slots is %d here, %d in %s", v.Spec.Slots, c.out.Slots, slots.place()), "slots is one number for all nodes; give it once")
		}
		adopt := c.choice(spec.in("adopt"), v.Spec.Adopt, "Identical", "Never")
		for k := range v.Spec.Nodes {
			c.node(spec.in("nodes").nth(k), &v.Spec.Nodes[k])
		}
		for k := range v.Spec.Groups {
			c.group(spec.in("groups").nth(k), &v.Spec.Groups[k], adopt)
		}
		for k := range v.Spec.Fabrics {
			c.fabric(spec.in("fabrics").nth(k), &v.Spec.Fabrics[k])
		}
	}
	if !unknown {
		c.slots()
	}
	c.matchNodes()
	for _, f := range c.fabricList {
		c.fabricReferences(f)
	}
}

func (c *checker) node(s spot, v *v1.Node) {
	c.subdomain(s.in("name"), v.Name)
	if !c.unique("node", v.Name, s.in("name")) {
		return
	}
	n := &node{Node: model.Node{Name: v.Name, Labels: v.Labels, Slot: -1}, spot: s}
	if v.Slot != nil && c.number(diag.InvalidSlot, s.in("slot"), int64(*v.Slot), 0, 65535) {
		n.Slot = *v.Slot
	}
	n.slotless = v.Slot == nil
	for i, itf := range v.Interfaces {
		is := s.in("interfaces").nth(i)
		if n.Interfaces == nil {
			n.Interfaces = map[string][]netip.Prefix{}
		}
		if _, twice := n.Interfaces[itf.Name]; twice {
			c.error(diag.DuplicateName, is.in("name"), fmt.Sprintf("node %s lists interface %q twice", v.Name, itf.Name), "keep one of them")
			continue
		}
		n.Interfaces[itf.Name] = c.hostAddresses(is.in("addresses"), itf.Addresses)
	}
	c.nodes = append(c.nodes, n)
}

// slotsNeeded: without a cluster nodes hand out the addresses of their slot, so without slots no Pod gets one.
func (c *checker) slotsNeeded() {
	if c.out.Slots > 0 || len(c.nodes) == 0 || anyBroken(c.docs.Topologies) {
		return
	}
	for _, n := range c.netList {
		if (n.IPv4 != nil || n.IPv6 != nil) && c.nodes[0].slotless {
			c.error(diag.InvalidSlot, c.nodes[0].spot, fmt.Sprintf("network %s hands out addresses, but no topology says how many slots there are, so no node has a share of them", n.Key()),
				"write spec.slots, a fixed number with room to grow, and give each node a slot from 0 on")
			return
		}
	}
}

// slots checks the shares of address pools, once all topologies are read.
func (c *checker) slots() {
	taken := map[int]*node{}
	for _, n := range c.nodes {
		s := n.in("slot")
		switch {
		case n.slotless && c.out.Slots > 0:
			c.error(diag.InvalidSlot, n.spot, fmt.Sprintf("node %s has no slot, though addresses are cut into %d shares", n.Name, c.out.Slots), "give it one that no other node has or had")
		case n.Slot < 0:
		case c.out.Slots == 0:
			c.error(diag.InvalidSlot, s, "there is a slot, but no topology says how many slots there are", "write spec.slots, the fixed number of shares of every address pool")
		case n.Slot >= c.out.Slots:
			c.error(diag.InvalidSlot, s, fmt.Sprintf("slot %d is not within 0 to %d", n.Slot, c.out.Slots-1), "slots counts from 0; spec.slots of the topology is their number")
		case taken[n.Slot] != nil:
			c.error(diag.SlotTaken, s, fmt.Sprintf("slot %d belongs to node %s already (%s)", n.Slot, taken[n.Slot].Name, taken[n.Slot].place()), "two nodes with one slot would hand out the same addresses")
		default:
			taken[n.Slot] = n
		}
	}
}

// group reads one group; adopt is what its topology says for groups that do not.
func (c *checker) group(s spot, v *v1.Group, adopt string) {
	c.label(s.in("name"), v.Name)
	if !c.unique("group", v.Name, s.in("name")) {
		return
	}
	g := &group{NodeGroup: model.NodeGroup{Name: v.Name, Selector: v.Selector}, spot: s, links: map[string]*link{}}
	c.hostLinks(g, s, v)
	for i, r := range v.Routes {
		c.hostRoute(g, s.in("routes").nth(i), r)
	}
	for i, r := range v.Rules {
		c.hostRule(g, s.in("rules").nth(i), r)
	}
	c.sysctls(g, s.in("sysctls"), v.Sysctls)
	if c.choice(s.in("adopt"), cmp.Or(v.Adopt, adopt), "Identical", "Never") == "Never" {
		for _, l := range g.links {
			l.Adopt = model.AdoptNever
		}
	}
	c.groups[g.Name] = g
}

func (c *checker) addLink(g *group, s spot, l model.Link, addresses []string) {
	c.linkName(s.in("name"), l.Name)
	c.mtu(s.in("mtu"), l.MTU, false)
	l.Addresses = c.hostAddresses(s.in("addresses"), addresses)
	if have := g.links[l.Name]; have != nil {
		c.error(diag.DuplicateName, s.in("name"), fmt.Sprintf("group %s declares %q already (%s)", g.Name, l.Name, have.place()), "keep one of them")
		return
	}
	g.links[l.Name] = &link{Link: l, spot: s, group: g}
}

var (
	macText = regexp.MustCompile(`^([0-9a-f]{2}:){5}[0-9a-f]{2}$`)
	pciText = regexp.MustCompile(`^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$`)
)

// match is nil if it says no more than the name does.
func (c *checker) match(s spot, name string, m *v1.Match) *model.Match {
	if m == nil || (*m == v1.Match{Name: name} && name != "") {
		return nil
	}
	out := &model.Match{Name: m.Name, MAC: strings.ToLower(m.MAC), PCI: strings.ToLower(m.PCI), Driver: m.Driver}
	if *m == (v1.Match{}) && !s.broken() {
		c.error(diag.InvalidMatch, s, "match says nothing", "give name, mac, pci or driver, or leave match out")
	}
	if m.Name != "" {
		c.linkName(s.in("name"), m.Name)
	}
	if m.MAC != "" && !macText.MatchString(out.MAC) {
		c.error(diag.InvalidMatch, s.in("mac"), fmt.Sprintf("%q is no hardware address", m.MAC), "write it as 52:54:00:12:34:56")
	}
	if m.PCI != "" && !pciText.MatchString(out.PCI) {
		c.error(diag.InvalidMatch, s.in("pci"), fmt.Sprintf("%q is no PCI address", m.PCI), "write it as 0000:3b:00.0")
	}
	return out
}

func (c *checker) hostRoute(g *group, s spot, r v1.HostRoute) {
	out := model.Route{Dev: r.Dev, Table: uint32(r.Table), Metric: uint32(r.Metric)}
	c.number(diag.InvalidNumber, s.in("table"), r.Table, 0, 1<<31-1)
	c.number(diag.InvalidNumber, s.in("metric"), r.Metric, 0, 1<<32-1)
	to, ok := c.cidr(s.in("to"), r.To)
	out.To = to
	if r.Via != "" {
		via, good := c.addr(s.in("via"), r.Via)
		if out.Via = via; ok && good && via.Is4() != to.Addr().Is4() {
			c.error(diag.ViaOutside, s.in("via"), fmt.Sprintf("gateway %s is of another family than %s", via, to), "")
		}
	}
	switch {
	case r.Via == "" && r.Dev == "" && !s.broken():
		c.error(diag.MissingField, s, fmt.Sprintf("the route to %s has neither via nor dev", r.To), "give the gateway, the device, or both")
	case r.Dev != "" && g.links[r.Dev] == nil:
		c.dangling("device", r.Dev, s.in("dev"), keys(g.links), false)
	}
	same := func(o model.Route) bool { return o.To == out.To && o.Table == out.Table && o.Metric == out.Metric }
	if ok && slices.ContainsFunc(g.Routes, same) {
		c.error(diag.DuplicateRoute, s, fmt.Sprintf("group %s has a route to %s already in this table with this metric", g.Name, to), "the kernel keeps one (EEXIST); give them different metrics")
		return
	}
	c.outsideVRF(g, s, out)
	g.Routes = append(g.Routes, out)
}
