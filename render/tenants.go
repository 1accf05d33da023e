package render

import (
	"fmt"
	"slices"

	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// resolveTenants fills AllowedNamespaces of cluster networks: the namespaces of the tenants the network allows and of
// those that are granted it. A network that names no tenant and is granted to none is for everyone.
func resolveTenants(b model.Bundle, networks []model.Network) ([]model.Network, diag.List) {
	var diags diag.List
	for i := range networks {
		n := &networks[i]
		if n.Kind != model.ClusterNetwork {
			continue
		}
		restricted := len(n.AllowedTenants) > 0
		var namespaces []string
		for _, t := range b.Tenants {
			granted := slices.Contains(t.Networks, n.Name)
			restricted = restricted || granted
			if granted || slices.Contains(n.AllowedTenants, t.Name) {
				namespaces = append(namespaces, t.Namespaces...)
			}
		}
		slices.Sort(namespaces)
		n.AllowedNamespaces = slices.Compact(namespaces)
		if restricted && len(namespaces) == 0 { // an empty list would mean everyone
			diags = append(diags, at(b, n, diag.Diagnostic{
				Severity: diag.Error, Code: diag.NetworkReachesNobody,
				Summary: fmt.Sprintf("cluster network %s is for tenants without a namespace only", n.Name),
				Hint:    "give one of its tenants a namespace, or remove allowedTenants and the grants to make it everyone's",
			}))
		}
	}
	return networks, diags
}
