package render

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// renderer carries one call of Render. Nothing of it outlives the call.
type renderer struct {
	bundle  model.Bundle
	nodes   []model.Node // sorted by name
	domains []*domain    // sorted by name
	classes map[string]*class
	order   []*class // by first node
	diags   diag.List
}

// class is all nodes that match the same groups: they differ in their own addresses and peers only.
type class struct {
	groups  []int // indexes into bundle.Groups, ascending
	nodes   []int // indexes into renderer.nodes, ascending
	base    []model.Link
	domains []*domain

	links    []slot // sorted by link name
	routes   []model.Route
	networks []model.Network
	text     encoding
}

// slot is one link of a class, with what has to be patched for each node.
type slot struct {
	model.Link
	own    bool    // physical or bridge: a node may add addresses
	domain *domain // vxlan: its source address is the node's in this domain
}

func mergeNodes(bundle, inventory []model.Node) []model.Node {
	out := slices.Clone(bundle)
	for _, n := range inventory {
		if !slices.ContainsFunc(bundle, func(b model.Node) bool { return b.Name == n.Name }) {
			out = append(out, n)
		}
	}
	slices.SortFunc(out, func(a, b model.Node) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// place puts every node into its class and every class under the domains it reaches.
func (r *renderer) place() {
	for i, n := range r.nodes {
		var groups []int
		var key []byte
		for g := range r.bundle.Groups {
			if matches(r.bundle.Groups[g].Selector, n.Labels) {
				groups = append(groups, g)
				key = binary.AppendUvarint(key, uint64(g))
			}
		}
		c := r.classes[string(key)]
		if c == nil {
			c = &class{groups: groups}
			c.base, c.routes = r.hostConfig(groups)
			c.domains = r.domainsOf(c)
			r.classes[string(key)] = c
			r.order = append(r.order, c)
		}
		c.nodes = append(c.nodes, i)
	}
}

func matches(selector, labels map[string]string) bool {
	for k, v := range selector {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// hostConfig merges what several groups say of one node. Two groups may name one interface as long as no attribute
// differs; addresses add up.
func (r *renderer) hostConfig(groups []int) ([]model.Link, []model.Route) {
	byName := map[string]model.Link{}
	var routes []model.Route
	for _, g := range groups {
		group := r.bundle.Groups[g]
		for _, l := range group.Interfaces {
			l.Addresses = sortedPrefixes(l.Addresses, nil)
			have, ok := byName[l.Name]
			if ok {
				var conflict string
				if l, conflict = mergeLinks(have, l); conflict != "" {
					r.diags = append(r.diags, diag.Diagnostic{
						Severity: diag.Error, Code: diag.ConflictingInterface,
						Summary: fmt.Sprintf("group %s declares another %s for interface %s than another group of the same nodes", group.Name, conflict, l.Name),
						Hint:    "declare the attribute in one of the groups only, or make the selectors exclude each other",
					})
				}
			}
			byName[l.Name] = l
		}
		routes = append(routes, group.Routes...)
	}
	links := make([]model.Link, 0, len(byName))
	for _, l := range byName {
		links = append(links, l)
	}
	slices.SortFunc(links, func(a, b model.Link) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(routes, compareRoutes)
	return links, slices.Compact(routes)
}

// mergeLinks takes each attribute from the side that declares it and names the first that both declare differently.
func mergeLinks(a, b model.Link) (out model.Link, conflict string) {
	out = a
	differ := func(what string, unequal bool) {
		if unequal && conflict == "" {
			conflict = what
		}
	}
	differ("kind", a.Kind != b.Kind)
	differ("match", a.Match != nil && b.Match != nil && *a.Match != *b.Match)
	differ("mtu", a.MTU != 0 && b.MTU != 0 && a.MTU != b.MTU)
	differ("bridge", a.Master != "" && b.Master != "" && a.Master != b.Master)
	if out.Match == nil {
		out.Match = b.Match
	}
	out.MTU = cmp.Or(a.MTU, b.MTU)
	out.Master = cmp.Or(a.Master, b.Master)
	out.Alias = cmp.Or(a.Alias, b.Alias)
	out.Up = a.Up || b.Up
	out.Addresses = sortedPrefixes(a.Addresses, b.Addresses)
	return out, conflict
}

func compareRoutes(a, b model.Route) int {
	return cmp.Or(cmp.Compare(a.Table, b.Table), a.To.Addr().Compare(b.To.Addr()), cmp.Compare(a.To.Bits(), b.To.Bits()),
		cmp.Compare(a.Metric, b.Metric), a.Via.Compare(b.Via), cmp.Compare(a.Dev, b.Dev))
}

// sortedPrefixes is both lists as one sorted set.
func sortedPrefixes(a, b []netip.Prefix) []netip.Prefix {
	if len(a)+len(b) == 0 {
		return nil
	}
	out := slices.Concat(a, b)
	slices.SortFunc(out, func(x, y netip.Prefix) int {
		return cmp.Or(x.Addr().Compare(y.Addr()), cmp.Compare(x.Bits(), y.Bits()))
	})
	return slices.Compact(out)
}
