package render

import (
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

// assign returns copies of the networks in which each that wants a VNI has one: the written one, else the one the
// inventory kept, else that of a network it is shared with, else the lowest free one of its tenant's share of the fabric.
// A number already in use anywhere is not free: VNIs are unique per node and port, whatever the fabric.
func assign(b model.Bundle, inv model.Inventory) ([]model.Network, diag.List) {
	var diags diag.List
	out := slices.Clone(b.Networks)
	used := map[uint32]bool{}
	for v := range maps.Values(inv.Assignments) {
		used[v] = true
	}
	for i := range out {
		n := &out[i]
		if n.VXLAN && n.VNI == 0 {
			n.VNI = inv.Assignments[n.Key()]
		}
		used[n.VNI] = true
	}
	for i := range out {
		n := &out[i]
		if !n.VXLAN || n.VNI != 0 {
			continue
		}
		if n.VNI = partnersVNI(out, n); n.VNI != 0 {
			continue
		}
		ranges := vniRanges(b, n)
		n.VNI = lowestFree(ranges, used)
		used[n.VNI] = true
		if n.VNI == 0 {
			diags = append(diags, at(b, n, diag.Diagnostic{
				Severity: diag.Error, Code: diag.IDUnassigned,
				Summary: fmt.Sprintf("no VNI is free for network %s on fabric %s (%d ranges)", n.Key(), n.Fabric, len(ranges)),
				Hint:    "widen the vniRanges of the fabric or of the tenant's share, or write the number",
			}))
		}
	}
	return out, diags
}

// partnersVNI is the VNI of the first network that n is shared with on its fabric, 0 if none has one.
func partnersVNI(networks []model.Network, n *model.Network) uint32 {
	for _, p := range networks {
		if p.VXLAN && p.VNI != 0 && p.Fabric == n.Fabric && slices.Contains(n.SharedWith, p.Key()) {
			return p.VNI
		}
	}
	return 0
}

// vniRanges is where a network's VNI may lie: the tenant's share of the fabric, else the fabric's. A fabric with VLAN
// ranges only has no VNIs, one without ranges has all; the same holds for a share.
func vniRanges(b model.Bundle, n *model.Network) []model.Range32 {
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
	_, vnis := shareOf(fabric, share)
	return vnis
}

// lowestFree is 0 when nothing is free.
func lowestFree(ranges []model.Range32, used map[uint32]bool) uint32 {
	sorted := slices.SortedFunc(slices.Values(ranges), func(a, b model.Range32) int { return int(a.First) - int(b.First) })
	for _, r := range sorted {
		for v := r.First; v <= r.Last; v++ {
			if !used[v] && v != 0 {
				return v
			}
		}
	}
	return 0
}
