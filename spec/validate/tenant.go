package validate

import (
	"fmt"
	"slices"
	"strings"

	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// tenant is the model's tenant with the place it came from.
type tenant struct {
	model.Tenant
	spot
	ranged bool // its ranges could be read
}

// readTenants checks what tenants say by themselves.
func (c *checker) readTenants() {
	for i := range c.docs.Tenants {
		doc := &c.docs.Tenants[i]
		s, v := at(&doc.Where, ""), &doc.Value
		c.label(s.in("metadata").in("name"), v.Metadata.Name)
		if !c.unique("Tenant", v.Metadata.Name, s.in("metadata").in("name")) {
			continue
		}
		c.origins["Tenant/"+v.Metadata.Name] = s.origin()
		t := &tenant{Tenant: model.Tenant{Name: v.Metadata.Name, DefaultNetwork: v.Spec.DefaultNetwork, NetworkIDs: v.Spec.NetworkIDs}, spot: s, ranged: true}
		spec := s.in("spec")
		if len(v.Spec.Namespaces) == 0 && !s.broken() { // granted to it, a network would be for nobody, which reads as for everybody
			c.error(diag.TenantEmpty, spec.in("namespaces"), fmt.Sprintf("tenant %s has no namespace", t.Name), "name at least one")
		}
		for k, name := range v.Spec.Namespaces {
			c.tenantNamespace(t, spec.in("namespaces").nth(k), name)
		}
		for k, f := range v.Spec.Fabrics {
			fs := spec.in("fabrics").nth(k)
			if slices.ContainsFunc(t.Fabrics, func(o model.TenantFabric) bool { return o.Fabric == f.Name }) {
				c.error(diag.DuplicateName, fs.in("name"), fmt.Sprintf("tenant %s lists fabric %q twice", t.Name, f.Name), "write all its ranges in one entry")
				continue
			}
			t.Fabrics = append(t.Fabrics, model.TenantFabric{
				Fabric:     f.Name,
				VLANRanges: c.idRanges(fs.in("vlanRanges"), f.VLANRanges, diag.InvalidVLAN, maxVLAN, &t.ranged),
				VNIRanges:  c.idRanges(fs.in("vniRanges"), f.VNIRanges, diag.InvalidVNI, maxVNI, &t.ranged),
			})
		}
		c.tenantNetworkIDs(spec.in("networkIDs"), v.Spec.NetworkIDs)
		t.Quotas = c.quotas(spec.in("quotas"), v.Spec.Quotas)
		t.Networks = sortedSet(v.Spec.Networks)
		slices.Sort(t.Namespaces)
		slices.SortFunc(t.Fabrics, func(a, b model.TenantFabric) int { return strings.Compare(a.Fabric, b.Fabric) })
		c.tenants[t.Name] = t
		c.tenantList = append(c.tenantList, t)
	}
}

func (c *checker) tenantNamespace(t *tenant, s spot, name string) {
	c.label(s, name)
	switch owner := c.namespaces[name]; {
	case owner == t:
		c.error(diag.DuplicateName, s, fmt.Sprintf("namespace %q is listed twice", name), "keep one of them")
	case owner != nil:
		c.error(diag.NamespaceTaken, s, fmt.Sprintf("namespace %q belongs to tenant %s already (%s)", name, owner.Name, owner.place()), "a namespace belongs to one tenant")
	default:
		c.namespaces[name] = t
		t.Namespaces = append(t.Namespaces, name)
	}
}

// tenantReferences checks what tenants say of fabrics and networks, once those are read.
func (c *checker) tenantReferences() {
	unsureFabric, unsureNet := anyBroken(c.docs.Topologies), anyBroken(c.docs.Networks)
	for i := range c.docs.Tenants {
		doc := &c.docs.Tenants[i]
		t := c.tenants[doc.Value.Metadata.Name]
		if t == nil || t.doc != &doc.Where {
			continue // a second one of that name, reported
		}
		spec := t.in("spec")
		for k, f := range doc.Value.Spec.Fabrics {
			have := c.fabrics[f.Name]
			if have == nil {
				c.dangling("fabric", f.Name, spec.in("fabrics").nth(k).in("name"), keys(c.fabrics), unsureFabric)
				continue
			}
			c.grantInside(spec.in("fabrics").nth(k), t, have)
		}
		for k, name := range doc.Value.Spec.Networks {
			n := c.networks[name]
			switch s := spec.in("networks").nth(k); {
			case n == nil:
				c.dangling("network of the cluster", name, s, c.clusterNetworks(), unsureNet)
			case n.Namespace != "":
				c.error(diag.UnknownReference, s, fmt.Sprintf("network %s belongs to a namespace and cannot be granted", name), "grant networks of the cluster; those of the tenant's namespaces are its own")
			}
		}
		if name := doc.Value.Spec.DefaultNetwork; name != "" {
			if n := c.networks[name]; n == nil {
				c.dangling("network", name, spec.in("defaultNetwork"), keys(c.networks), unsureNet)
			} else if why := c.unreachable(n, t); why != "" {
				c.error(diag.DefaultNotAllowed, spec.in("defaultNetwork"), fmt.Sprintf("tenant %s may not use its default network %s: %s", t.Name, name, why), "")
			} else if n.ServesOne() {
				kind := strings.TrimSpace(string(n.Type) + " " + n.Mode)
				c.error(diag.DefaultUnfit, spec.in("defaultNetwork"), fmt.Sprintf("network %s is of type %s, which Pods that ask for nothing cannot all have", name, kind), "take a network of another type: a device serves one Pod, and is asked for")
			}
		}
		c.quotaKept(t, spec)
	}
}

// grantInside checks that a tenant's ranges lie inside the fabric's.
func (c *checker) grantInside(s spot, t *tenant, f *fabric) {
	if s.broken() || f.broken() || !t.ranged || !f.ranged {
		return
	}
	i := slices.IndexFunc(t.Fabrics, func(g model.TenantFabric) bool { return g.Fabric == f.Name })
	g := t.Fabrics[i]
	for _, side := range []struct {
		what        string
		grant, have []model.Range32
		offered     bool
	}{
		{"vlanRanges", g.VLANRanges, f.VLANRanges, len(f.VNIRanges) == 0},
		{"vniRanges", g.VNIRanges, f.VNIRanges, len(f.VLANRanges) == 0},
	} {
		if len(side.have) == 0 && side.offered {
			continue // the fabric has no ranges: every id is free
		}
		for _, r := range side.grant {
			if !slices.ContainsFunc(mergeRanges(side.have), func(h model.Range32) bool { return h.Contains(r.First) && h.Contains(r.Last) }) {
				c.error(diag.IDOutsideRange, s.in(side.what), fmt.Sprintf("%d-%d is not inside the %s of fabric %s", r.First, r.Last, side.what, f.Name), "widen the fabric's ranges, or narrow the tenant's")
			}
		}
	}
}

// mergeRanges joins sorted ranges that touch or overlap.
func mergeRanges(sorted []model.Range32) []model.Range32 {
	var out []model.Range32
	for _, r := range sorted {
		if n := len(out); n > 0 && uint64(r.First) <= uint64(out[n-1].Last)+1 {
			out[n-1].Last = max(out[n-1].Last, r.Last)
			continue
		}
		out = append(out, r)
	}
	return out
}

// unreachable says why a tenant may not use a network, "" if it may.
func (c *checker) unreachable(n *network, t *tenant) string {
	if n.broken() || t.broken() {
		return ""
	}
	if n.Namespace != "" {
		if c.namespaces[n.Namespace] != t {
			return fmt.Sprintf("namespace %s is not the tenant's", n.Namespace)
		}
		return ""
	}
	if !c.restricted(n) || slices.Contains(n.AllowedTenants, t.Name) || slices.Contains(t.Networks, n.Name) {
		return ""
	}
	return "the network is open to other tenants only"
}

// restricted says whether a network of the cluster is for some tenants only.
func (c *checker) restricted(n *network) bool {
	return len(n.AllowedTenants) > 0 || c.grants()[n.Name] != nil
}

// grants is the tenants that list a network of the cluster, by the network's name.
func (c *checker) grants() map[string][]*tenant {
	if c.granted == nil {
		c.granted = map[string][]*tenant{}
		for _, t := range c.tenantList {
			for _, name := range t.Networks {
				c.granted[name] = append(c.granted[name], t)
			}
		}
	}
	return c.granted
}

// allowedNamespaces is who may use a network of the cluster; empty is everyone. Tenants have at least one namespace, so a
// restricted network never looks open.
func (c *checker) allowedNamespaces(n *network) []string {
	var out []string
	for _, name := range n.AllowedTenants {
		if t := c.tenants[name]; t != nil {
			out = append(out, t.Namespaces...)
		}
	}
	for _, t := range c.grants()[n.Name] {
		out = append(out, t.Namespaces...)
	}
	return sortedSet(out)
}

func (c *checker) clusterNetworks() []string {
	return slices.DeleteFunc(keys(c.networks), func(k string) bool { return strings.Contains(k, "/") })
}

// sortedSet is a sorted copy without repetitions, nil if empty.
func sortedSet(in []string) []string {
	if len(in) == 0 {
		return nil
	}
	out := slices.Sorted(slices.Values(in))
	return slices.Compact(out)
}
