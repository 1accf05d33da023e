package validate

import (
	"cmp"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"danm.io/danm/spec/model"
)

// scope is where something exists: on the nodes of some groups.
type scope struct {
	groups []*group // sorted by name
	nodes  []*node  // of these groups, see nodeList
}

// scopeOf returns the one scope of these groups.
func (c *checker) scopeOf(groups []*group) *scope {
	slices.SortFunc(groups, func(a, b *group) int { return strings.Compare(a.Name, b.Name) })
	groups = slices.Compact(groups)
	names := make([]string, len(groups))
	for i, g := range groups {
		names[i] = g.Name
	}
	key := strings.Join(names, "/")
	if c.scopes[key] == nil {
		c.scopes[key] = &scope{groups: groups}
	}
	return c.scopes[key]
}

// scopeOfDevice is the groups that declare a device.
func (c *checker) scopeOfDevice(device string) *scope {
	var groups []*group
	for _, g := range c.groups {
		if g.links[device] != nil {
			groups = append(groups, g)
		}
	}
	return c.scopeOf(groups)
}

// nodeList is the nodes of a scope, by name. It is asked for once nodes are matched, and often.
func (s *scope) nodeList() []*node {
	if s.nodes == nil {
		s.nodes = []*node{}
		for _, g := range s.groups {
			s.nodes = append(s.nodes, g.nodes...)
		}
		slices.SortFunc(s.nodes, func(a, b *node) int { return strings.Compare(a.Name, b.Name) })
		s.nodes = slices.Compact(s.nodes)
	}
	return s.nodes
}

// meet says whether a node may be in both scopes: one that the bundle declares, or, as long as nodes come from a cluster,
// any that is in a group of both.
func (c *checker) meet(a, b *scope) bool {
	if a == b {
		return true
	}
	if together, known := c.meets[[2]*scope{a, b}]; known {
		return together
	}
	together := slices.ContainsFunc(a.groups, func(g *group) bool { return slices.Contains(b.groups, g) })
	if len(c.nodes) > 0 {
		in := map[*node]bool{}
		for _, n := range a.nodeList() {
			in[n] = true
		}
		together = slices.ContainsFunc(b.nodeList(), func(n *node) bool { return in[n] })
	}
	c.meets[[2]*scope{a, b}], c.meets[[2]*scope{b, a}] = together, together
	return together
}

func sortPrefixes(p []netip.Prefix) {
	slices.SortFunc(p, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
}

func sortRanges(r []model.Range32) {
	slices.SortFunc(r, func(a, b model.Range32) int {
		return cmp.Or(cmp.Compare(a.First, b.First), cmp.Compare(a.Last, b.Last))
	})
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func mapValues[V any](m map[string]V) iter.Seq[V] { return maps.Values(m) }
