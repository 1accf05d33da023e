package render

import (
	"fmt"
	"slices"

	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// assign gives each network that asks for a VNI without naming one the number it was given before. The networks are
// copies. Giving out new numbers belongs to a home that can keep them: a number chosen afresh each time would change
// under the Pods as soon as a network is added in front.
func assign(b model.Bundle, inv model.Inventory) ([]model.Network, diag.List) {
	var diags diag.List
	out := slices.Clone(b.Networks)
	for i := range out {
		n := &out[i]
		if !n.VXLAN || n.VNI != 0 {
			continue
		}
		n.VNI = inv.Assignments[n.Key()]
		if n.VNI == 0 {
			diags = append(diags, at(b, n.Key(), diag.Diagnostic{
				Severity: diag.Error, Code: diag.IDUnassigned,
				Summary: fmt.Sprintf("network %s wants a VXLAN, but neither the bundle nor the inventory gives it a VNI", n.Key()),
				Hint:    "write the VNI (vxlan: 5001), or pass the inventory that holds it",
			}))
		}
	}
	return out, diags
}
