package render_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"danm.io/danm/render"
	"danm.io/danm/spec/model"
	"github.com/google/go-cmp/cmp"
)

// oracle says what a node must have, from the bundle alone, one node and one network at a time. It shares no code with
// Render: no classes, no templates, no domains.
type oracle struct {
	b    model.Bundle
	node model.Node
}

func (o oracle) groups(n model.Node) []model.NodeGroup {
	var out []model.NodeGroup
	for _, g := range o.b.Groups {
		ok := true
		for k, v := range g.Selector {
			ok = ok && n.Labels[k] == v
		}
		if ok {
			out = append(out, g)
		}
	}
	return out
}

func (o oracle) declared(n model.Node, dev string) (model.Link, bool) {
	var out model.Link
	for _, g := range o.groups(n) {
		for _, l := range g.Interfaces {
			if l.Name == dev {
				addresses := append(out.Addresses, l.Addresses...)
				out = l
				out.Addresses = addresses
			}
		}
	}
	out.Addresses = append(out.Addresses, n.Interfaces[dev]...)
	return out, out.Name != ""
}

func (o oracle) fabric(name string) model.Fabric {
	for _, f := range o.b.Fabrics {
		if f.Name == name {
			return f
		}
	}
	return model.Fabric{}
}

// parent is the device a network stands on, and whether the network exists on the node.
func (o oracle) parent(n model.Node, net model.Network) (string, bool) {
	if net.Fabric == "" {
		_, ok := o.declared(n, net.HostDevice)
		return net.HostDevice, ok
	}
	f := o.fabric(net.Fabric)
	for _, g := range o.groups(n) {
		if slices.Contains(f.Groups, g.Name) {
			return f.Device, true
		}
	}
	return "", false
}

// sharing is all networks on the VLAN or VNI of net, itself included, by key.
func (o oracle) sharing(net model.Network) []model.Network {
	var out []model.Network
	for _, p := range o.b.Networks {
		if p.SpaceDomain == net.SpaceDomain && p.VXLAN == net.VXLAN && p.ID() == net.ID() {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b model.Network) int { return strings.Compare(a.Key(), b.Key()) })
	return out
}

func (o oracle) underlay(n model.Node, net model.Network) (addr netip.Addr, v6, multicast bool) {
	f := o.fabric(net.Fabric)
	v6 = f.VXLAN.Multicast.Is6()
	l, _ := o.declared(n, f.Device)
	for _, p := range l.Addresses {
		if p.Addr().Is6() == v6 && (!addr.IsValid() || p.Addr().Less(addr)) {
			addr = p.Addr()
		}
	}
	return addr, v6, f.VXLAN.Multicast.IsValid()
}

// lines is the wanted node in one line a link, peer, route and network.
func (o oracle) lines() []string {
	set := map[string]bool{}
	for _, g := range o.groups(o.node) {
		for _, l := range g.Interfaces {
			all, _ := o.declared(o.node, l.Name)
			up := false
			for _, h := range o.groups(o.node) {
				for _, x := range h.Interfaces {
					up = up || (x.Name == l.Name && x.Up)
				}
			}
			set[fmt.Sprintf("link %s %s mtu %d up %v master %q match %v addresses %v %s", l.Name, l.Kind, l.MTU, up, l.Master, l.Match != nil, sortedText(all.Addresses), extras(l))] = true
		}
		for _, r := range g.Routes {
			set[fmt.Sprintf("route %s dev %s table %d metric %d", r.To, r.Dev, r.Table, r.Metric)] = true
		}
	}
	for _, g := range o.groups(o.node) {
		for _, r := range g.Rules {
			set[fmt.Sprintf("rule %+v", r)] = true
		}
		for _, s := range g.Sysctls {
			set["sysctl "+s.Key+"="+s.Value] = true
		}
	}
	for _, p := range o.b.SRIOVPools {
		if p.NodeSelector == nil || o.node.Labels["in-g0"] == "yes" {
			set["pool "+p.Name] = true
		}
	}
	for _, net := range o.b.Networks {
		dev, ok := o.parent(o.node, net)
		switch {
		case net.Type == model.SRIOV && (ok || net.Fabric == ""), net.Delegate != nil:
			set[fmt.Sprintf("network %s on  mtu %d qos %d", net.Key(), net.MTU, net.QoS)] = true
		case net.Type != model.SRIOV && ok:
			o.network(net, dev, set)
		}
	}
	return slices.Sorted(maps.Keys(set))
}

func (o oracle) network(net model.Network, dev string, set map[string]bool) {
	parent, _ := o.declared(o.node, dev)
	all := o.sharing(net)
	mtu, carrier := parent.MTU, dev
	if net.ID() != 0 {
		extra, detail := 0, fmt.Sprintf("vlan %d", net.VLAN)
		name := fmt.Sprintf("%s.%d", all[0].NetworkID, net.VLAN)
		if net.VXLAN {
			local, v6, multicast := o.underlay(o.node, net)
			extra = 50
			if v6 {
				extra = 70
			}
			name = "vx_" + all[0].NetworkID
			f := o.fabric(net.Fabric)
			group := f.VXLAN.Multicast.String()
			if f.VXLAN.PerVNI {
				group = netip.MustParseAddr(map[bool]string{false: fmt.Sprintf("239.%d.%d.%d", net.VNI>>16, net.VNI>>8&255, net.VNI&255), true: fmt.Sprintf("ff02::%x:%x", net.VNI>>16, net.VNI&0xffff)}[v6]).String()
			} else if !multicast {
				group = netip.Addr{}.String()
			}
			detail = fmt.Sprintf("vni %d port %d group %v local %v learning", net.VNI, f.VXLAN.Port, group, local)
			for _, other := range o.b.Nodes {
				if _, there := o.parent(other, net); there && !multicast && other.Name != o.node.Name {
					a, _, _ := o.underlay(other, net)
					set[fmt.Sprintf("peer %s %s", name, a)] = true
				}
			}
		}
		mtu = parent.MTU - extra
		if parent.MTU == 0 {
			mtu = 0
		}
		if !slices.ContainsFunc(all, func(n model.Network) bool { return n.MTU == 0 }) {
			mtu = slices.MaxFunc(all, func(a, b model.Network) int { return a.MTU - b.MTU }).MTU
		}
		carrier = name
		master := ""
		if net.Type == model.BRIDGE {
			carrier = "br_" + all[0].NetworkID
			master = carrier
			set[fmt.Sprintf("link %s bridge mtu %d", carrier, mtu)] = true
		}
		set[fmt.Sprintf("link %s on %s %s mtu %d master %q", name, dev, detail, mtu, master)] = true
	}
	if net.MTU != 0 {
		mtu = net.MTU
	}
	set[fmt.Sprintf("network %s on %s mtu %d", net.Key(), carrier, mtu)] = true
}

// stateLines is what Render says, in the same words.
func stateLines(s model.NodeState, declared map[string]bool) []string {
	var out []string
	for _, l := range s.Plan.Links {
		switch {
		case declared[l.Name]:
			out = append(out, fmt.Sprintf("link %s %s mtu %d up %v master %q match %v addresses %v %s", l.Name, l.Kind, l.MTU, l.Up, l.Master, l.Match != nil, sortedText(l.Addresses), extras(l)))
		case l.Kind == model.Bridge:
			out = append(out, fmt.Sprintf("link %s bridge mtu %d", l.Name, l.MTU))
		case l.Kind == model.VXLAN:
			out = append(out, fmt.Sprintf("link %s on %s vni %d port %d group %v local %v %s mtu %d master %q", l.Name, l.Parent, l.VXLAN.VNI, l.VXLAN.Port, l.VXLAN.Group, l.VXLAN.Local,
				map[bool]string{true: "learning"}[l.VXLAN.Learning], l.MTU, l.Master))
		default:
			out = append(out, fmt.Sprintf("link %s on %s vlan %d mtu %d master %q", l.Name, l.Parent, l.VLANID, l.MTU, l.Master))
		}
	}
	for _, r := range s.Plan.Routes {
		out = append(out, fmt.Sprintf("route %s dev %s table %d metric %d", r.To, r.Dev, r.Table, r.Metric))
	}
	for _, r := range s.Plan.Rules {
		out = append(out, fmt.Sprintf("rule %+v", r))
	}
	for _, x := range s.Plan.Sysctls {
		out = append(out, "sysctl "+x.Key+"="+x.Value)
	}
	for _, p := range s.Plan.Pools {
		out = append(out, "pool "+p.Name)
	}
	for _, p := range s.Peers {
		out = append(out, fmt.Sprintf("peer %s %s", p.Link, p.Addr))
	}
	for _, n := range s.Networks {
		line := fmt.Sprintf("network %s on %s mtu %d", n.Key(), n.Device, n.MTU)
		if n.Device == "" {
			line += fmt.Sprintf(" qos %d", n.QoS)
		}
		out = append(out, line)
	}
	slices.Sort(out)
	return out
}

// extras are the properties of links that no network makes.
func extras(l model.Link) string {
	return fmt.Sprintf("%s.%d table %d filtering %v bond %+v vlans %+v adopt %q", l.Parent, l.VLANID, l.Table, l.Filtering, value(l.Bond), value(l.PortVLANs), l.Adopt)
}

func value[T any](p *T) any {
	if p == nil {
		return nil
	}
	return *p
}

func sortedText(p []netip.Prefix) []string {
	out := make([]string, len(p))
	for i := range p {
		out[i] = p[i].String()
	}
	slices.Sort(out)
	return out
}

func TestOracle(t *testing.T) {
	reached := 0
	for seed := range uint64(600) {
		r := rand.New(rand.NewPCG(seed, 1))
		b := randomBundle(r)
		got := render.Render(b, model.Inventory{})
		if len(got.Diagnostics) > 0 {
			t.Fatalf("seed %d: %v", seed, got.Diagnostics)
		}
		if len(got.Nodes) != len(b.Nodes) {
			t.Fatalf("seed %d: %d states for %d nodes", seed, len(got.Nodes), len(b.Nodes))
		}
		declared := map[string]bool{}
		for _, g := range b.Groups {
			for _, l := range g.Interfaces {
				declared[l.Name] = true
			}
		}
		for i, s := range got.Nodes {
			want := oracle{b, b.Nodes[i]}.lines()
			if have := stateLines(s, declared); !slices.Equal(have, want) {
				t.Fatalf("seed %d, node %s (-want +got):\n%s", seed, s.Node, cmp.Diff(want, have))
			}
			if s.Digest != s.Plan.Digest() {
				t.Fatalf("seed %d, node %s: digest is not its plan's", seed, s.Node)
			}
			reached += len(s.Networks)
		}
	}
	if reached < 1000 {
		t.Fatalf("only %d networks reached a node: the generator lost its shape", reached)
	}
}
