package render

import (
	"net/netip"

	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// Result is what a bundle means. When Diagnostics has errors, nothing else is set: a bad bundle changes nothing.
type Result struct {
	Objects     []Object          // DANM's API objects and the definitions asked for, sorted by kind, namespace, name
	Nodes       []model.NodeState // one a node, sorted by name; Revision and Source are the caller's to fill
	Networks    []model.Network   // the bundle's, with every VLAN id and VNI given; sorted as in the bundle
	Open        []string          // keys of networks whose VLAN id or VNI is new: neither written nor in the inventory
	Diagnostics diag.List         // sorted

	nodes    []model.Node // as Nodes
	domains  []*domain
	classes  []*class
	reported map[string]map[string]netip.Addr
}

// Render makes objects and node states. The inventory's nodes come on top of the bundle's; a name in both is the bundle's.
// It never fails half: see Result. The returned values share memory with each other and with the bundle.
func Render(b model.Bundle, inv model.Inventory) Result {
	var diags diag.List
	networks, open, found := assign(b, inv)
	diags = append(diags, found...)
	networks, found = resolveTenants(b, networks)
	diags = append(diags, found...)

	r := &renderer{
		bundle:   b,
		networks: networks,
		reported: inv.Underlays,
		nodes:    mergeNodes(b.Nodes, inv.Nodes),
		domains:  makeWires(b.Fabrics, networks),
		classes:  map[string]*class{},
	}
	r.place()
	r.underlay()
	for _, c := range r.order {
		diags = append(diags, r.build(c)...)
	}
	diags = append(diags, r.diags...)
	if diags.HasErrors() {
		return Result{Diagnostics: diags.Sorted()}
	}
	states := r.states()
	diags = append(append(diags, cardWarnings(states, inv.Hardware)...), judgePools(r, states, inv.Hardware)...)
	if diags.HasErrors() {
		return Result{Diagnostics: diags.Sorted()}
	}
	return Result{Objects: objects(b, networks), Nodes: states, Networks: networks, Open: open, Diagnostics: diags.Sorted(), nodes: r.nodes, domains: r.domains, classes: r.order, reported: r.reported}
}

// at places a diagnostic at a network's document.
func at(b model.Bundle, n *model.Network, d diag.Diagnostic) diag.Diagnostic {
	if o, ok := b.Origins["Network/"+n.Key()]; ok {
		d.File, d.Line = o.File, o.Line
	}
	return d
}
