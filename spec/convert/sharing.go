package convert

import (
	"fmt"
	"net/netip"
	"slices"

	"danm.io/danm/spec/bundle/v1"
)

// shareWires lets networks that stand on one VLAN or VNI, or have overlapping addresses on one device, say so: DANM never
// asked, a bundle must.
func (c *converter) shareWires() {
	for i := range c.out.Networks {
		for k := range c.out.Networks {
			a, b := &c.out.Networks[i], &c.out.Networks[k]
			if i == k || !together(a.Spec, b.Spec) || slices.Contains(a.Spec.SharedWith, key(b)) {
				continue
			}
			a.Spec.SharedWith = append(a.Spec.SharedWith, key(b))
			if i < k {
				c.note("Network", a.Metadata.Namespace, a.Metadata.Name, "shares its wire with %s, and both say so now; give them numbers of their own if that was no intention", key(b))
			}
		}
	}
	for i := range c.out.Networks {
		slices.Sort(c.out.Networks[i].Spec.SharedWith)
	}
}

func key(n *v1.Network) string {
	if n.Metadata.Namespace == "" {
		return n.Metadata.Name
	}
	return n.Metadata.Namespace + "/" + n.Metadata.Name
}

// together says whether two networks meet: one tag on one device or on the functions of one pool, or both untagged there with addresses in common.
func together(a, b v1.NetworkSpec) bool {
	functions := a.Type == "sriov" && b.Type == "sriov" && a.Delegate == nil && b.Delegate == nil && a.DevicePool == b.DevicePool
	switch {
	case a.Fabric != b.Fabric || a.HostDevice != b.HostDevice:
		return false
	case !functions && (a.Fabric+a.HostDevice == "" || a.DevicePool+b.DevicePool != ""):
		return false
	}
	x, y := tag(a), tag(b)
	if x != y || x == "auto" {
		return false
	}
	return x != "" || overlap(a.IPv4, b.IPv4) || overlap(a.IPv6, b.IPv6)
}

func tag(s v1.NetworkSpec) string {
	for name, id := range map[string]*v1.ID{"vlan": s.VLAN, "vxlan": s.VXLAN} {
		if id != nil && id.Auto {
			return "auto"
		}
		if id != nil {
			return fmt.Sprint(name, " ", id.Value)
		}
	}
	return ""
}

func overlap(a, b *v1.Subnet) bool {
	if a == nil || b == nil {
		return false
	}
	p, err1 := netip.ParsePrefix(a.CIDR)
	q, err2 := netip.ParsePrefix(b.CIDR)
	return err1 == nil && err2 == nil && p.Overlaps(q)
}
