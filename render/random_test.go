package render_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	"danm.io/danm/spec/model"
)

// randomBundle makes a valid bundle in which every property that Render looks at varies.
func randomBundle(r *rand.Rand) model.Bundle {
	b := model.Bundle{Name: "random", Slots: 64, Origins: map[string]model.Origin{}}
	groups := 1 + r.IntN(4)
	for g := range groups {
		group := model.NodeGroup{Name: fmt.Sprintf("g%d", g)}
		if r.IntN(4) > 0 {
			group.Selector = map[string]string{fmt.Sprintf("in-g%d", g): "yes"}
		}
		dev := fmt.Sprintf("fab%d", g)
		link := model.Link{Name: dev, Kind: model.Physical, Up: r.IntN(2) == 0, MTU: []int{0, 1500, 9000}[r.IntN(3)]}
		if r.IntN(4) == 0 {
			link.Match = &model.Match{MAC: fmt.Sprintf("02:00:00:00:00:%02x", g)}
		}
		bridge := model.Link{Name: fmt.Sprintf("br-lan%d", g), Kind: model.Bridge, Up: true, MTU: []int{0, 1400}[r.IntN(2)]}
		port := model.Link{Name: fmt.Sprintf("port%d", g), Kind: model.Physical, Master: bridge.Name}
		shared := model.Link{Name: "oam0", Kind: model.Physical, Addresses: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 16, byte(g), 9}), 24)}}
		group.Interfaces = append([]model.Link{bridge, link, shared, port}, randomHostLinks(r, g)...)
		slices.SortFunc(group.Interfaces, func(a, b model.Link) int { return cmp.Compare(a.Name, b.Name) })
		for i := range r.IntN(3) {
			group.Routes = append(group.Routes, model.Route{To: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(g), byte(9 - i), 0}), 24), Dev: dev, Table: uint32(r.IntN(2) * 100), Metric: uint32(i)})
		}
		for i := range r.IntN(3) {
			group.Rules = append(group.Rules, model.Rule{Priority: uint32(1000 + 100*g - i), Family: 4 + 2*r.IntN(2), IIF: dev, Mark: uint32(r.IntN(2)), Table: 100})
		}
		for _, key := range []string{"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding", fmt.Sprintf("net.ipv4.conf.%s.rp_filter", dev)}[r.IntN(4)%4:] {
			group.Sysctls = append(group.Sysctls, model.Sysctl{Key: key, Value: "1"})
		}
		b.Groups = append(b.Groups, group)
		b.Fabrics = append(b.Fabrics, randomFabric(r, g, dev))
	}
	wide := model.Fabric{Name: fmt.Sprintf("f%d", groups), Device: "oam0", VXLAN: &model.Underlay{Port: 8472, Multicast: netip.MustParseAddr("239.9.9.9")}}
	for _, g := range b.Groups {
		wide.Groups = append(wide.Groups, g.Name)
	}
	b.Fabrics = append(b.Fabrics, wide)
	for n := range 1 + r.IntN(6) {
		b.Nodes = append(b.Nodes, randomNode(r, n, groups))
	}
	for i := range r.IntN(12) {
		b.Networks = append(b.Networks, randomNetwork(r, i, groups))
	}
	for i := range r.IntN(3) {
		b.Networks = append(b.Networks, randomLinkless(r, i, groups))
		pool := model.SRIOVPool{Name: fmt.Sprintf("pool%d", i), NumVFs: 4, ResourceName: fmt.Sprintf("danm.io/pool%d", i), PFs: model.PFSelector{Names: []string{"ens1"}}}
		if r.IntN(2) == 0 && slices.ContainsFunc(b.Nodes, func(n model.Node) bool { return n.Labels["in-g0"] == "yes" }) {
			pool.NodeSelector = map[string]string{"in-g0": "yes"}
		}
		b.SRIOVPools = append(b.SRIOVPools, pool)
	}
	shareSome(r, &b)
	slices.SortFunc(b.Networks, func(x, y model.Network) int {
		return cmp.Or(cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Name, y.Name))
	})
	for t := range 3 {
		b.Tenants = append(b.Tenants, model.Tenant{Name: fmt.Sprintf("t%d", t), Namespaces: []string{fmt.Sprintf("ns%d", t)}})
	}
	for _, n := range b.Networks {
		b.Origins["Network/"+n.Key()] = model.Origin{File: n.Name + ".yaml", Line: 1}
	}
	return b
}

// randomHostLinks are links of every other kind.
func randomHostLinks(r *rand.Rand, g int) []model.Link {
	bond := model.Link{Name: fmt.Sprintf("bond%d", g), Kind: model.Bond, Up: true, Bond: &model.BondOptions{Mode: []string{"802.3ad", "active-backup"}[r.IntN(2)], MIIMonitor: 100}}
	vrf := model.Link{Name: fmt.Sprintf("vrf%d", g), Kind: model.VRF, Up: true, Table: uint32(500 + g)}
	vlan := model.Link{Name: fmt.Sprintf("oam.%d", g), Kind: model.VLAN, Up: true, Parent: bond.Name, VLANID: uint16(10 + g), Master: vrf.Name,
		Addresses: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{172, 17, byte(g), 9}), 24)}}
	dummy := model.Link{Name: fmt.Sprintf("lo%d", g+1), Kind: model.Dummy, Up: true, Adopt: []model.Adopt{model.AdoptIdentical, model.AdoptNever}[r.IntN(2)]}
	trunk := model.Link{Name: fmt.Sprintf("trunk%d", g), Kind: model.Bridge, Up: true, Filtering: true, PortVLANs: &model.PortVLANs{Untagged: 7}}
	port := model.Link{Name: fmt.Sprintf("tport%d", g), Kind: model.Physical, Master: trunk.Name, PortVLANs: &model.PortVLANs{Tagged: []model.Range32{{First: 100, Last: 199}}}}
	slave := model.Link{Name: fmt.Sprintf("bport%d", g), Kind: model.Physical, Master: bond.Name}
	return []model.Link{bond, vrf, vlan, dummy, trunk, port, slave}[r.IntN(4):]
}

// randomLinkless needs no link of the host, wherever it is.
func randomLinkless(r *rand.Rand, i, groups int) model.Network {
	n := model.Network{Kind: model.ClusterNetwork, Name: fmt.Sprintf("dev%02d", i), NetworkID: fmt.Sprintf("dev%02d", i), Type: model.SRIOV, DevicePool: fmt.Sprintf("danm.io/pool%d", i)}
	switch r.IntN(3) {
	case 0:
		n.Fabric, n.VLAN, n.QoS = fmt.Sprintf("f%d", r.IntN(groups)), uint16(3000+i), uint8(r.IntN(8))
	case 1:
		n.Type, n.DevicePool, n.Delegate = "flannel", "", &model.Delegate{File: "flannel"}
	}
	n.SpaceDomain = cmp.Or(n.Fabric, n.DevicePool, n.Key())
	return n
}

func randomFabric(r *rand.Rand, g int, dev string) model.Fabric {
	f := model.Fabric{Name: fmt.Sprintf("f%d", g), Groups: []string{fmt.Sprintf("g%d", g)}, Device: dev, VXLAN: &model.Underlay{Port: 4789 + g}}
	switch r.IntN(4) {
	case 0:
		f.VXLAN.Multicast = netip.MustParseAddr("239.1.1.1")
	case 1:
		f.VXLAN.Multicast = netip.MustParseAddr("ff05::1")
	case 2:
		f.VXLAN.Multicast, f.VXLAN.PerVNI = netip.MustParseAddr([]string{"239.0.0.0", "ff02::"}[r.IntN(2)]), true
	}
	return f
}

// randomNode has an IPv4 address on every fabric, so that unicast works, and sometimes others.
func randomNode(r *rand.Rand, n, groups int) model.Node {
	node := model.Node{Name: fmt.Sprintf("n%02d", n), Slot: n, Labels: map[string]string{}, Interfaces: map[string][]netip.Prefix{}}
	for g := range groups {
		if r.IntN(2) == 0 {
			node.Labels[fmt.Sprintf("in-g%d", g)] = "yes"
		}
		dev := fmt.Sprintf("fab%d", g)
		node.Interfaces[dev] = []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, byte(g), byte(10 + n)}), 24)}
		if r.IntN(2) == 0 {
			a := netip.MustParseAddr("fd00::").As16()
			a[5], a[15] = byte(g), byte(10+n)
			node.Interfaces[dev] = append(node.Interfaces[dev], netip.PrefixFrom(netip.AddrFrom16(a), 64))
		}
	}
	return node
}

func randomNetwork(r *rand.Rand, i, groups int) model.Network {
	g := r.IntN(groups)
	n := model.Network{
		Kind: model.TenantNetwork, Namespace: fmt.Sprintf("ns%d", r.IntN(3)), Name: fmt.Sprintf("net%02d", i), NetworkID: fmt.Sprintf("id%02d", 99-i),
		Type: []model.NetworkType{model.MACVLAN, model.BRIDGE}[r.IntN(2)],
		MTU:  []int{0, 1280, 1300}[r.IntN(3)],
		IPv4: &model.Subnet{CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i), 0}), 24)},
	}
	switch r.IntN(4) {
	case 0: // g+1: the last fabric spans all groups
		n.Fabric, n.VXLAN, n.VNI = fmt.Sprintf("f%d", g+r.IntN(2)), true, uint32(5000+i)
	case 1:
		n.Fabric, n.VLAN = fmt.Sprintf("f%d", g+r.IntN(2)), uint16(100+i)
	case 2: // untagged: macvlan on the card, bridge on the bridge
		n.HostDevice = fmt.Sprintf("fab%d", g)
		if n.Type == model.BRIDGE {
			n.HostDevice = fmt.Sprintf("br-lan%d", g)
		}
	case 3:
		n.HostDevice, n.VLAN = fmt.Sprintf("fab%d", g), uint16(2000+i)
	}
	n.SpaceDomain = cmp.Or(n.Fabric, n.HostDevice)
	return n
}

// shareSome puts a second network on the VLAN or VNI of some.
func shareSome(r *rand.Rand, b *model.Bundle) {
	for _, n := range slices.Clone(b.Networks) {
		if r.IntN(3) > 0 || n.ID() == 0 {
			continue
		}
		twin := n
		twin.Namespace, twin.Name = fmt.Sprintf("ns%d", r.IntN(3)), "twin-of-"+n.Name
		twin.NetworkID = "w" + n.NetworkID
		twin.MTU = []int{0, 1280, 1300}[r.IntN(3)]
		b.Networks = append(b.Networks, twin)
	}
}
