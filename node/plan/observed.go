package plan

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"danm.io/danm/spec/model"
)

// MainTable is the number of the main routing table; a model.Route's table 0 means it.
const MainTable = 254

// defaultMetric6 is what the kernel makes of metric 0 on an IPv6 route (IP6_RT_PRIO_USER).
const defaultMetric6 = 1024

// Normalise returns a sorted copy without what changes by itself or says nothing: the ledger's records, the MAC and other
// names of bridges, VXLANs and VLANs, the number of children. Route tables and metrics are written out. Two normalised
// values that are equal describe the same network.
func Normalise(o Observed) Observed {
	n := Observed{Peers: slices.Clone(o.Peers), Sysctls: slices.Clone(o.Sysctls)}
	for _, l := range o.Links {
		l = cloneLink(l)
		l.Children, l.NoCarrier, l.SRIOV = 0, false, l.SRIOV.normal()
		if l.Kind != model.Physical {
			l.MAC, l.AltNames = "", nil
		}
		sortPrefixes(l.Addresses)
		n.Links = append(n.Links, l)
	}
	for _, r := range o.Routes {
		r.Route = canonicalRoute(r.Route)
		n.Routes = append(n.Routes, r)
	}
	for _, r := range o.Rules {
		r.Rule = canonicalRule(r.Rule)
		n.Rules = append(n.Rules, r)
	}
	Sort(&n)
	return n
}

// Equal compares two observations normalised.
func (o Observed) Equal(p Observed) bool { return o.Dump() == p.Dump() }

// Dump is the normalised observation as text, one object a line, sorted.
func (o Observed) Dump() string {
	n := Normalise(o)
	var b strings.Builder
	for _, l := range n.Links {
		fmt.Fprintf(&b, "link %s %s", l.Name, l.Kind)
		field(&b, "type", l.KernelKind, l.KernelKind != "" && l.KernelKind != string(l.Kind))
		field(&b, "dev", l.Parent, l.Parent != "")
		field(&b, "id", l.VLANID, l.VLANID != 0)
		if v := l.VXLAN; v != nil {
			field(&b, "vni", v.VNI, true)
			field(&b, "port", v.Port, true)
			field(&b, "group", v.Group, v.Group.IsValid())
			field(&b, "local", v.Local, v.Local.IsValid())
			field(&b, "learning", "on", v.Learning)
		}
		if o := l.Bond; o != nil {
			field(&b, "mode", o.Mode, true)
			for _, option := range bondOptions {
				field(&b, option.name, option.get(*o), option.get(*o) != "")
			}
		}
		field(&b, "table", l.Table, l.Table != 0)
		field(&b, "mtu", l.MTU, true)
		if l.Up {
			b.WriteString(" up")
		}
		field(&b, "master", l.Master, l.Master != "")
		field(&b, "vlan_filtering", "on", l.Filtering)
		field(&b, "vlans", "["+PortVLANsText(l.PortVLANs)+"]", l.PortVLANs != nil)
		field(&b, "ifgroup", l.Group, l.Group != 0)
		field(&b, "mac", l.MAC, l.MAC != "")
		field(&b, "pci", l.PCI, l.PCI != "")
		field(&b, "driver", l.Driver, l.Driver != "")
		field(&b, "altnames", strings.Join(l.AltNames, ","), len(l.AltNames) > 0)
		if l.Alias != "" {
			fmt.Fprintf(&b, " alias %q", l.Alias)
		}
		b.WriteByte('\n')
	}
	for _, l := range n.Links {
		for _, a := range l.Addresses {
			fmt.Fprintf(&b, "address %s dev %s\n", a, l.Name)
		}
	}
	for i := range n.Links {
		n.Links[i].SRIOV.dump(&b, n.Links[i].Name)
	}
	for _, r := range n.Routes {
		fmt.Fprintf(&b, "route %s proto %d\n", routeText(r.Route), r.Protocol)
	}
	for _, r := range n.Rules {
		fmt.Fprintf(&b, "rule %s proto %d\n", ruleText(r.Rule), r.Protocol)
	}
	for _, s := range n.Sysctls {
		fmt.Fprintf(&b, "sysctl %s = %s\n", s.Key, s.Value)
	}
	for _, p := range n.Peers {
		fmt.Fprintf(&b, "peer %s dev %s\n", p.Addr, p.Link)
	}
	return b.String()
}

func field(b *strings.Builder, key string, value any, show bool) {
	if show {
		fmt.Fprintf(b, " %s %v", key, value)
	}
}

// Sort puts links, addresses, routes, rules, peers and records in the order that Observed promises.
func Sort(o *Observed) {
	slices.SortFunc(o.Links, func(a, b ObservedLink) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(o.Routes, func(a, b ObservedRoute) int {
		return cmp.Or(compareRoutes(a.Route, b.Route), cmp.Compare(a.Protocol, b.Protocol))
	})
	slices.SortFunc(o.Rules, compareRules)
	slices.SortFunc(o.Sysctls, func(a, b model.Sysctl) int { return cmp.Compare(a.Key, b.Key) })
	slices.SortFunc(o.Peers, comparePeers)
	slices.SortFunc(o.Owned, func(a, b Record) int { return cmp.Compare(a.ID, b.ID) })
	for i := range o.Links {
		sortPrefixes(o.Links[i].Addresses)
	}
}

func compareRoutes(a, b model.Route) int {
	return cmp.Or(cmp.Compare(a.Table, b.Table), comparePrefixes(a.To, b.To), cmp.Compare(a.Metric, b.Metric),
		a.Via.Compare(b.Via), cmp.Compare(a.Dev, b.Dev))
}

func comparePeers(a, b model.Peer) int {
	return cmp.Or(cmp.Compare(a.Link, b.Link), a.Addr.Compare(b.Addr))
}

func comparePrefixes(a, b netip.Prefix) int {
	return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
}

func sortPrefixes(p []netip.Prefix) { slices.SortFunc(p, comparePrefixes) }

// canonicalRoute writes defaults out, so that equal routes are equal values.
func canonicalRoute(r model.Route) model.Route {
	r.To = r.To.Masked()
	if r.Table == 0 {
		r.Table = MainTable
	}
	if r.Metric == 0 && r.To.Addr().Is6() {
		r.Metric = defaultMetric6
	}
	return r
}

func cloneLink(l ObservedLink) ObservedLink {
	l.Addresses = slices.Clone(l.Addresses)
	l.AltNames = slices.Clone(l.AltNames)
	if l.VXLAN != nil {
		v := *l.VXLAN
		l.VXLAN = &v
	}
	if l.Bond != nil {
		b := *l.Bond
		l.Bond = &b
	}
	l.PortVLANs = canonicalVLANs(l.PortVLANs)
	l.SRIOV = cloneSRIOV(l.SRIOV)
	return l
}

// LinkID is the record and step ID of a link.
func LinkID(name string) ObjectID { return ObjectID("link/" + name) }

// AddressID is the record and step ID of an address.
func AddressID(link string, a netip.Prefix) ObjectID {
	return ObjectID("address/" + link + "/" + a.String())
}

// PropertyID is the record and step ID of a property of an adopted link.
func PropertyID(link, property string) ObjectID {
	return ObjectID("property/" + link + "/" + property)
}

// RouteID is the step ID of a route; the kernel holds at most one route of each.
func RouteID(r model.Route) ObjectID {
	r = canonicalRoute(r)
	return ObjectID(fmt.Sprintf("route/%d/%s/%d", r.Table, r.To, r.Metric))
}

// PeerID is the step ID of a flood destination.
func PeerID(p model.Peer) ObjectID { return ObjectID("peer/" + p.Link + "/" + p.Addr.String()) }
