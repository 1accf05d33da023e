package render

import (
	"fmt"
	"slices"
	"strings"

	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// cardWarnings compares what is declared of cards with what nodes have reported of them.
func cardWarnings(states []model.NodeState, hardware map[string][]model.NIC) (out diag.List) {
	for _, st := range states {
		for _, l := range st.Plan.Links {
			if l.Kind != model.Physical || l.MTU == 0 {
				continue
			}
			for _, n := range hardware[st.Node] {
				if n.MaxMTU == 0 || l.MTU <= n.MaxMTU || !fits(l, n) {
					continue
				}
				d := diag.Diagnostic{Severity: diag.Warning, Code: diag.MTUAboveCard,
					Summary: fmt.Sprintf("mtu %d of %s is above the maximum of %s on %s, %d", l.MTU, l.Name, n.Name, st.Node, n.MaxMTU),
					Hint:    fmt.Sprintf("declare at most %d, or give %s a group of its own", n.MaxMTU, st.Node)}
				out = append(out, d)
			}
		}
	}
	return out
}

// fits says whether a declared link means the card.
func fits(l model.Link, n model.NIC) bool {
	m := model.Match{Name: l.Name}
	if l.Match != nil {
		m = *l.Match
	}
	return (m.Name == "" || m.Name == n.Name || slices.Contains(n.AltNames, m.Name)) && (m.MAC == "" || strings.EqualFold(m.MAC, n.MAC)) &&
		(m.PCI == "" || m.PCI == n.PCI) && (m.Driver == "" || m.Driver == n.Driver)
}
