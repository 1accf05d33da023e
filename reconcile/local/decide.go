package local

import (
	"fmt"
	"slices"
	"strings"

	"danm.io/danm/reconcile/overlay"
	"danm.io/danm/reconcile/source"
	"danm.io/danm/render"
	"danm.io/danm/spec/decode"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// target says for whom a decision is made.
type target struct {
	node     string
	endpoint string // host:port of the source, "" if local
}

// decide turns a snapshot into the state that the node should have. It is pure. If the list has errors there is no state, and the
// node keeps what it has. previous is the state in force, nil if there never was one.
func decide(snap source.Snapshot, t target, previous *model.NodeState, inv model.Inventory) (model.NodeState, diag.List) {
	files := make([]decode.File, len(snap.Files))
	for i, f := range snap.Files {
		files[i] = decode.File{Path: f.Path, Data: f.Data}
	}
	bundle, found := overlay.Validate(files, snap.Dir)
	diags := slices.Concat(snap.Warnings, found)
	if diags.HasErrors() {
		return model.NodeState{}, diags.Sorted()
	}
	result := render.Render(bundle, inv)
	diags = append(diags, result.Diagnostics...)
	if diags.HasErrors() {
		return model.NodeState{}, diags.Sorted()
	}
	i := slices.IndexFunc(result.Nodes, func(n model.NodeState) bool { return n.Node == t.node })
	if i < 0 {
		return model.NodeState{}, append(diags, missing(t.node, result.Nodes, previous)).Sorted()
	}
	st := result.Nodes[i]
	st.Home, st.Revision, st.Source = model.LocalHome, snap.Revision, t.endpoint
	return st, diags.Sorted()
}

// missing explains why there is no state for the node. Neither case is an empty plan: nothing is ever torn down by absence.
func missing(node string, nodes []model.NodeState, previous *model.NodeState) diag.Diagnostic {
	const shown = 20
	var names []string
	for _, n := range nodes[:min(shown, len(nodes))] {
		names = append(names, n.Node)
	}
	list := strings.Join(names, ", ")
	switch {
	case len(nodes) == 0:
		list = "none"
	case len(nodes) > shown:
		list += fmt.Sprintf(" and %d more", len(nodes)-shown)
	}
	d := diag.Diagnostic{Severity: diag.Error, Code: diag.NodeUnknown, Summary: fmt.Sprintf("no node %q in the bundle; its nodes: %s", node, list)}
	if previous != nil && previous.Node == node {
		d.Code = diag.NodeVanished
		d.Summary = fmt.Sprintf("node %q is no longer in the bundle; the state of %s stays in force; nodes now: %s", node, previous.Revision, list)
	}
	return d
}
