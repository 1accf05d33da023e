package render

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// The largest identifiers: VXLAN has 24 bits (RFC 7348, section 5), VLAN 4095 is reserved (IEEE 802.1Q, table 9-2).
const (
	maxVNI  = 1<<24 - 1
	maxVLAN = 4094
)

// numbers are the VLAN ids or VNIs in use where they must be unique.
type numbers map[string]map[uint32]bool

func (u numbers) take(space string, id uint32) {
	if u[space] == nil {
		u[space] = map[uint32]bool{}
	}
	u[space][id] = true
}

// assign returns copies of the networks in which each that wants a VLAN id or VNI has one: the written one, else the one
// the inventory kept, else the one found with it if that lies in its ranges, else that of a network it is shared with, else
// the lowest free one of its tenant's share of the fabric. A number kept for a network that is gone is not free either. open
// are the keys of networks whose number is neither written nor kept: it is chosen for good when the bundle is published.
func assign(b model.Bundle, inv model.Inventory) (out []model.Network, open []string, diags diag.List) {
	out = slices.Clone(b.Networks)
	kept := map[uint32]bool{}
	for v := range maps.Values(inv.Assignments) {
		kept[v] = true
	}
	used := numbers{}
	for i := range out {
		n := &out[i]
		if wantsID(n) {
			setID(n, inv.Assignments[n.Key()])
		}
		used.take(idSpace(b, n), n.ID())
	}
	for i := range out { // before the first number is chosen
		n := &out[i]
		if !wantsID(n) {
			continue
		}
		open = append(open, n.Key())
		if id, space := inv.Found[n.Key()], idSpace(b, n); !used[space][id] && within(idRanges(b, n), id) && setID(n, id) {
			used.take(space, id)
		}
	}
	for i := range out {
		n := &out[i]
		if !wantsID(n) {
			continue
		}
		if setID(n, partnersID(out, n)) {
			continue
		}
		ranges := idRanges(b, n)
		space := idSpace(b, n)
		if !setID(n, lowestFree(ranges, used[space], kept)) {
			diags = append(diags, at(b, n, diag.Diagnostic{
				Severity: diag.Error, Code: diag.IDUnassigned,
				Summary: fmt.Sprintf("no %s is free for network %s on fabric %s (%d ranges)", idWord(n), n.Key(), n.Fabric, len(ranges)),
				Hint:    fmt.Sprintf("widen the %s of the fabric or of the tenant's share, or write the number", map[bool]string{true: "vniRanges", false: "vlanRanges"}[n.VXLAN]),
			}))
			continue
		}
		used.take(space, n.ID())
	}
	return out, open, diags
}

func wantsID(n *model.Network) bool { return (n.VXLAN || n.VLANAuto) && n.ID() == 0 }

// setID is false if there is nothing to set.
func setID(n *model.Network, id uint32) bool {
	switch {
	case id == 0:
		return false
	case n.VXLAN:
		n.VNI = id
	default:
		n.VLAN = uint16(id)
	}
	return true
}

func idWord(n *model.Network) string {
	if n.VXLAN {
		return "VNI"
	}
	return "VLAN id"
}

// idSpace is where a number must be unique: VNIs on a node and port whatever the fabric (the kernel refuses a second one;
// ports are not told apart here), VLAN ids on a device.
func idSpace(b model.Bundle, n *model.Network) string {
	if n.VXLAN {
		return "vni"
	}
	if f, ok := fabricOf(b, n.Fabric); ok {
		return "vlan " + f.Device
	}
	return "vlan " + n.HostDevice
}

// partnersID is the number of the first network that n is shared with on its fabric, 0 if none has one.
func partnersID(networks []model.Network, n *model.Network) uint32 {
	for i := range networks {
		p := &networks[i]
		if p.VXLAN == n.VXLAN && p.ID() != 0 && p.Fabric == n.Fabric && slices.Contains(n.SharedWith, p.Key()) {
			return p.ID()
		}
	}
	return 0
}

// idRanges is where a network's number may lie: the tenant's share of the fabric, else the fabric's. A fabric with ranges
// of the other sort only has none of this sort, one without ranges has all; the same holds for a share.
func idRanges(b model.Bundle, n *model.Network) []model.Range32 {
	var share model.TenantFabric
	for _, t := range b.Tenants {
		if n.Namespace == "" || !slices.Contains(t.Namespaces, n.Namespace) {
			continue
		}
		for _, f := range t.Fabrics {
			if f.Fabric == n.Fabric {
				share = f
			}
		}
	}
	fabric, _ := fabricOf(b, n.Fabric)
	vlans, vnis := shareOf(fabric, share)
	if n.VXLAN {
		return vnis
	}
	return vlans
}

func within(ranges []model.Range32, id uint32) bool {
	return slices.ContainsFunc(ranges, func(r model.Range32) bool { return r.First <= id && id <= r.Last })
}

// lowestFree is 0 when nothing is free.
func lowestFree(ranges []model.Range32, used, kept map[uint32]bool) uint32 {
	sorted := slices.SortedFunc(slices.Values(ranges), func(a, b model.Range32) int { return cmp.Compare(a.First, b.First) })
	for _, r := range sorted {
		for v := r.First; v <= r.Last; v++ {
			if v != 0 && !used[v] && !kept[v] {
				return v
			}
		}
	}
	return 0
}
