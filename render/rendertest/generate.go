// Package rendertest makes bundles for tests and benchmarks: Scale of the size the budgets speak about, Random of every
// shape the model can say. It is deterministic for its arguments and makes valid bundles only.
package rendertest

import (
	"fmt"
	"net/netip"

	"danm.io/danm/spec/model"
)

// Shape is the size of a bundle made by Scale.
type Shape struct {
	Nodes, Groups, Networks, Tenants int
}

// Budget is the shape of the render budget: 5,000 nodes in 20 groups, 1,000 networks each in one group, 100 tenants.
var Budget = Shape{Nodes: 5000, Groups: 20, Networks: 1000, Tenants: 100}

// Scale makes nodes spread evenly over groups, one fabric a group (VXLAN by multicast) and networks spread evenly over
// fabrics and tenants, half on VNIs and half on VLANs.
func Scale(s Shape) model.Bundle {
	b := model.Bundle{Name: "scale", Slots: s.Nodes, Origins: map[string]model.Origin{}}
	for g := range s.Groups {
		name := fmt.Sprintf("g%03d", g)
		b.Groups = append(b.Groups, model.NodeGroup{
			Name: name, Selector: map[string]string{"group": name},
			Interfaces: []model.Link{
				{Name: "fab0", Kind: model.Physical, MTU: 9000, Up: true},
				{Name: "oam0", Kind: model.Physical, Up: true},
			},
			Routes: []model.Route{{To: netip.MustParsePrefix("10.0.0.0/8"), Via: netip.AddrFrom4([4]byte{192, 171, 255, 254}), Dev: "fab0"}},
		})
		b.Fabrics = append(b.Fabrics, model.Fabric{
			Name: name, Groups: []string{name}, Device: "fab0",
			VLANRanges: []model.Range32{{First: 1, Last: 4094}}, VNIRanges: []model.Range32{{First: 1, Last: 1<<24 - 1}},
			VXLAN: &model.Underlay{Port: 4789, Multicast: netip.AddrFrom4([4]byte{239, 1, 1, byte(g)})},
		})
	}
	for n := range s.Nodes {
		b.Nodes = append(b.Nodes, model.Node{
			Name: fmt.Sprintf("node-%05d", n), Slot: n,
			Labels: map[string]string{"group": fmt.Sprintf("g%03d", n%s.Groups), "kubernetes.io/os": "linux"},
			Interfaces: map[string][]netip.Prefix{
				"fab0": {netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168 + byte(n>>16), byte(n >> 8), byte(n)}), 14)},
			},
		})
	}
	for t := range s.Tenants {
		name := fmt.Sprintf("tenant-%03d", t)
		b.Tenants = append(b.Tenants, model.Tenant{Name: name, Namespaces: []string{name}})
	}
	for t := range s.Tenants {
		for i := t; i < s.Networks; i += s.Tenants {
			b.Networks = append(b.Networks, scaleNetwork(s, t, i))
		}
	}
	for _, n := range b.Networks {
		b.Origins[n.Key()] = model.Origin{File: "networks/" + n.Name + ".yaml", Line: 1}
	}
	return b
}

func scaleNetwork(s Shape, tenant, i int) model.Network {
	fabric := fmt.Sprintf("g%03d", i%s.Groups)
	v4 := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)
	n := model.Network{
		Kind: model.TenantNetwork, Namespace: fmt.Sprintf("tenant-%03d", tenant), Name: fmt.Sprintf("net-%05d", i),
		NetworkID: fmt.Sprintf("n%05d", i), Type: model.MACVLAN, Fabric: fabric, SpaceDomain: fabric,
		IPv4: &model.Subnet{CIDR: v4, Gateway: v4.Addr().Next()},
	}
	if i/s.Groups%2 == 0 {
		n.VXLAN, n.VNI = true, uint32(5000+i)
	} else {
		n.VLAN = uint16(100 + i/s.Groups)
	}
	return n
}
