// Package validate is the one rule book: it turns decoded documents into spec/model, or says everything that is wrong.
//
// Values are parsed here, once; nobody behind parses an address again. Rules about one document stand in the file of its
// kind, rules between networks in sharing.go and links.go. A document that could not be decoded whole takes part as a
// target of references, but no rule between documents is applied to it: one misspelt field should not be reported twice.
//
// The package is pure. It does not know what a node's kernel holds (node/plan) nor what a cluster has already (admission).
package validate

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"danm.io/danm/spec/decode"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// Files decodes and validates a bundle in one go: the call of the CLI and of the sync loops. The bundle is usable only if
// the list has no errors (it is the zero value otherwise); warnings may accompany a good one. The list is sorted.
func Files(files []decode.File) (model.Bundle, diag.List) {
	docs, problems := decode.Decode(files)
	bundle, more := Documents(docs)
	problems = append(problems, more...).Sorted()
	if problems.HasErrors() {
		return model.Bundle{}, problems
	}
	return bundle, problems
}

// Documents validates decoded documents. The bundle is usable only if neither list, this one and decode's, has errors; it
// is the zero value if this one has.
func Documents(docs *decode.Documents) (model.Bundle, diag.List) {
	c := &checker{
		docs: docs, names: map[string]spot{}, origins: map[string]model.Origin{},
		groups: map[string]*group{}, fabrics: map[string]*fabric{}, networks: map[string]*network{},
		tenants: map[string]*tenant{}, namespaces: map[string]*tenant{}, scopes: map[string]*scope{}, meets: map[[2]*scope]bool{},
	}
	c.bundle()
	c.topologies()
	c.readTenants()
	c.readNetworks()
	c.pools()
	c.tenantReferences()
	c.networkReferences()
	c.slotsNeeded()
	c.sharing()
	c.links()
	if c.problems.HasErrors() {
		return model.Bundle{}, c.problems.Sorted()
	}
	for _, n := range c.netList { // what is left of networks with errors would be judged wrongly
		c.shares(n)
	}
	return c.model(), c.problems.Sorted()
}

// defaultConfirmTimeout is what a bundle that says nothing gets.
const defaultConfirmTimeout = 15 * time.Second

// checker is one run of the rule book.
type checker struct {
	docs     *decode.Documents
	problems diag.List
	out      model.Bundle
	names    map[string]spot // what must be unique → where it was first
	origins  map[string]model.Origin

	nodes      []*node
	groups     map[string]*group
	fabrics    map[string]*fabric
	fabricList []*fabric
	networks   map[string]*network
	netList    []*network
	tenants    map[string]*tenant
	tenantList []*tenant
	namespaces map[string]*tenant
	scopes     map[string]*scope
	meets      map[[2]*scope]bool
	granted    map[string][]*tenant
	poolList   []*pool
}

// model hands out the bundle, every list sorted.
func (c *checker) model() model.Bundle {
	b := c.out
	b.Origins = c.origins
	for _, n := range c.nodes {
		b.Nodes = append(b.Nodes, n.Node)
	}
	for _, g := range c.groups {
		b.Groups = append(b.Groups, g.finish())
	}
	for _, f := range c.fabricList {
		b.Fabrics = append(b.Fabrics, f.Fabric)
	}
	for _, n := range c.netList {
		b.Networks = append(b.Networks, n.Network)
	}
	for _, t := range c.tenantList {
		b.Tenants = append(b.Tenants, t.Tenant)
	}
	slices.SortFunc(b.Nodes, func(x, y model.Node) int { return cmp.Compare(x.Name, y.Name) })
	slices.SortFunc(b.Groups, func(x, y model.NodeGroup) int { return cmp.Compare(x.Name, y.Name) })
	slices.SortFunc(b.Fabrics, func(x, y model.Fabric) int { return cmp.Compare(x.Name, y.Name) })
	slices.SortFunc(b.Tenants, func(x, y model.Tenant) int { return cmp.Compare(x.Name, y.Name) })
	slices.SortFunc(b.SRIOVPools, func(x, y model.SRIOVPool) int { return cmp.Compare(x.Name, y.Name) })
	slices.SortFunc(b.Probes, func(x, y model.Probe) int { return cmp.Compare(x.Name, y.Name) })
	slices.SortFunc(b.Networks, func(x, y model.Network) int {
		return cmp.Or(strings.Compare(x.Namespace, y.Namespace), strings.Compare(x.Name, y.Name))
	})
	return b
}
