package validate

import (
	"fmt"
	"slices"

	"danm.io/danm/spec/bundle/v1"
	"danm.io/danm/spec/decode"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// quotas checks a tenant's upper bounds; absent ones are none.
func (c *checker) quotas(s spot, v v1.Quotas) model.Quotas {
	for _, q := range []struct {
		name  string
		bound *int
	}{{"networks", v.Networks}, {"endpoints", v.Endpoints}, {"addresses", v.Addresses}} {
		if q.bound != nil {
			c.number(diag.InvalidNumber, s.in(q.name), int64(*q.bound), 0, 1<<31-1)
		}
	}
	return model.Quotas{Networks: v.Networks, Endpoints: v.Endpoints, Addresses: v.Addresses}
}

// quotaKept counts what the bundle itself gives a tenant's namespaces.
func (c *checker) quotaKept(t *tenant, spec spot) {
	bound := t.Quotas.Networks
	if bound == nil || *bound < 0 || t.broken() {
		return
	}
	have := 0
	for _, n := range c.netList {
		if n.Namespace != "" && c.namespaces[n.Namespace] == t {
			have++
		}
	}
	if have > *bound {
		c.error(diag.QuotaExceeded, spec.in("quotas").in("networks"), fmt.Sprintf("tenant %s may have %d networks, and the bundle gives its namespaces %d", t.Name, *bound, have), "raise the quota, or remove networks")
	}
}

// maxTenantID is how long the networkID of a link may be whose VLAN is not known: a dot and four digits follow.
const maxTenantID = maxLinkName - len(".4094")

// tenantNetworkIDs checks the networkIDs that networks made through the API get, by network type.
func (c *checker) tenantNetworkIDs(s spot, ids map[string]string) {
	for _, kind := range sortedKeys(ids) {
		at, id := s.key(kind), ids[kind]
		native := slices.Contains(networkTypes, kind)
		switch hint := diag.Suggest(kind, networkTypes); {
		case native:
		case hint != "" && !c.delegated(kind): // far likelier a slip than a plugin
			c.error(diag.InvalidType, at, fmt.Sprintf("%q is neither a network type nor the plugin of a network of the bundle", kind), hint)
		default:
			c.pluginName(at, kind)
		}
		c.networkID(at, id)
		switch {
		case kind == string(model.SRIOV) || kind == string(model.HOSTDEVICE) || kind == string(model.TAGGED): // no link is named by it
		case native && len(id) > maxTenantID && linkChars(id):
			c.error(diag.LinkNameTooLong, at, fmt.Sprintf("links are named by %q and a VLAN, and the kernel takes %d bytes of both", id, maxLinkName), fmt.Sprintf("at most %d bytes", maxTenantID))
		case !native && linkChars(id):
			c.pluginID(at, id)
		}
	}
}

// delegated says whether a network of the bundle calls a plugin.
func (c *checker) delegated(plugin string) bool {
	return slices.ContainsFunc(c.docs.Networks, func(d decode.Doc[v1.Network]) bool {
		return d.Value.Spec.Delegate != nil && d.Value.Spec.Type == plugin
	})
}
