package validate

import (
	"fmt"
	"slices"
	"strings"

	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// pools checks SR-IOV pools, which are carried but not acted upon yet.
func (c *checker) pools() {
	for i := range c.docs.SRIOVPools {
		doc := &c.docs.SRIOVPools[i]
		s, v := at(&doc.Where, ""), doc.Value
		c.subdomain(s.in("metadata").in("name"), v.Metadata.Name)
		if !c.unique("SRIOVPool", v.Metadata.Name, s.in("metadata").in("name")) {
			continue
		}
		c.origins["SRIOVPool/"+v.Metadata.Name] = s.origin()
		spec := s.in("spec")
		for k, name := range v.Spec.PFs.Names {
			c.linkName(spec.in("pfs").in("names").nth(k), name)
		}
		if len(v.Spec.PFs.Names) == 0 && !s.broken() {
			c.error(diag.MissingField, spec.in("pfs").in("names"), "the pool names no physical function", "")
		}
		if v.Spec.NumVFs != 0 || !s.broken() {
			c.number(diag.InvalidNumber, spec.in("numVFs"), int64(v.Spec.NumVFs), 1, 1024)
		}
		domain, name, _ := strings.Cut(v.Spec.ResourceName, "/")
		if (!isSubdomain(domain) || !resourceWord(name)) && !s.broken() {
			c.error(diag.InvalidName, spec.in("resourceName"), fmt.Sprintf("%q is no resource name", v.Spec.ResourceName), "write it as danm.io/fast")
		}
		names := slices.Sorted(slices.Values(v.Spec.PFs.Names))
		c.out.SRIOVPools = append(c.out.SRIOVPools, model.SRIOVPool{Name: v.Metadata.Name, NodeSelector: v.Spec.NodeSelector, PFs: model.PFSelector{Names: names}, NumVFs: v.Spec.NumVFs, ResourceName: v.Spec.ResourceName})
	}
}

// resourceWord is the part behind the slash of an extended resource: a qualified name (Kubernetes, validation.IsQualifiedName).
func resourceWord(s string) bool {
	if s == "" || len(s) > 63 {
		return false
	}
	return isSubdomain(strings.ReplaceAll(strings.ToLower(s), "_", "-"))
}
