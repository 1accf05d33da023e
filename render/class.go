package render

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"

	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// renderer carries one call of Render. Nothing of it outlives the call.
type renderer struct {
	bundle   model.Bundle
	networks []model.Network
	reported map[string]map[string]netip.Addr // nil outside a cluster
	nodes    []model.Node                     // sorted by name
	domains  []*domain                        // sorted by name
	classes  map[string]*class
	order    []*class // by first node
	diags    diag.List
}

// class is all nodes that match the same groups and pools: they differ in their own addresses and peers only.
type class struct {
	groups  []int // indexes into bundle.Groups, ascending
	nodes   []int // indexes into renderer.nodes, ascending
	base    []model.Link
	domains []*domain
	fabrics []model.Fabric // the class is on, without groups

	links    []slot // sorted by link name
	routes   []model.Route
	rules    []model.Rule
	sysctls  []model.Sysctl
	pools    []model.SRIOVPool // sorted by name
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
		pools := poolsOf(r.bundle.SRIOVPools, n)
		key = binary.AppendUvarint(key, uint64(len(groups))) // where the groups end
		for _, p := range pools {
			key = append(append(key, p.Name...), 0)
		}
		c := r.classes[string(key)]
		if c == nil {
			c = &class{groups: groups, pools: pools}
			r.hostConfig(c)
			c.domains, c.fabrics = r.domainsOf(c), r.fabricsOf(c)
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
// differs; addresses, routes and rules add up.
func (r *renderer) hostConfig(c *class) {
	byName, sysctls := map[string]model.Link{}, map[string]string{}
	for _, g := range c.groups {
		group := r.bundle.Groups[g]
		for _, l := range group.Interfaces {
			l.Addresses = sortedPrefixes(l.Addresses, nil)
			have, ok := byName[l.Name]
			if ok {
				var conflict string
				if l, conflict = mergeLinks(have, l); conflict != "" {
					r.conflict(diag.ConflictingInterface, group.Name, conflict, "interface "+l.Name)
				}
			}
			byName[l.Name] = l
		}
		for _, s := range group.Sysctls {
			if have, ok := sysctls[s.Key]; ok && have != s.Value {
				r.conflict(diag.SysctlConflict, group.Name, "value", "sysctl "+s.Key)
			}
			sysctls[s.Key] = s.Value
		}
		c.routes, c.rules = append(c.routes, group.Routes...), append(c.rules, group.Rules...)
	}
	c.base = make([]model.Link, 0, len(byName))
	for _, l := range byName {
		c.base = append(c.base, l)
	}
	for _, key := range slices.Sorted(maps.Keys(sysctls)) {
		c.sysctls = append(c.sysctls, model.Sysctl{Key: key, Value: sysctls[key]})
	}
	slices.SortFunc(c.base, func(a, b model.Link) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(c.routes, model.CompareRoutes)
	slices.SortFunc(c.rules, model.CompareRules)
	c.routes, c.rules = slices.Compact(c.routes), slices.Compact(c.rules)
}

func (r *renderer) conflict(code diag.Code, group, what, of string) {
	r.diags = append(r.diags, diag.Diagnostic{
		Severity: diag.Error, Code: code,
		Summary: fmt.Sprintf("group %s declares another %s for %s than another group of the same nodes", group, what, of),
		Hint:    "declare the attribute in one of the groups only, or make the selectors exclude each other",
	})
}

// mergeLinks takes each attribute from the side that declares it and names the first that both declare differently.
func mergeLinks(a, b model.Link) (out model.Link, conflict string) {
	m := merger{}
	out = model.Link{
		Name: a.Name, Kind: m.kind(a.Kind, b.Kind), Match: pick(&m, "match", a.Match, b.Match), Alias: cmp.Or(a.Alias, b.Alias),
		MTU: either(&m, "mtu", a.MTU, b.MTU), Up: a.Up || b.Up, Master: either(&m, "master", a.Master, b.Master),
		Parent: either(&m, "parent", a.Parent, b.Parent), VLANID: either(&m, "VLAN id", a.VLANID, b.VLANID),
		VXLAN: pick(&m, "vxlan", a.VXLAN, b.VXLAN), Bond: pick(&m, "bond option", a.Bond, b.Bond), Table: either(&m, "table", a.Table, b.Table),
		Filtering: a.Filtering || b.Filtering, PortVLANs: pick(&m, "VLAN membership", a.PortVLANs, b.PortVLANs),
		Adopt: m.adopt(a, b), Addresses: sortedPrefixes(a.Addresses, b.Addresses),
	}
	return out, m.conflict
}

// merger remembers the first attribute of a link that differs.
type merger struct{ conflict string }

func (m *merger) differ(what string) { m.conflict = cmp.Or(m.conflict, what) }

func (m *merger) kind(a, b model.LinkKind) model.LinkKind {
	if a != b {
		m.differ("kind")
	}
	return a
}

// adopt: a physical link is never made, so its word is for the links on it, and the stricter one holds.
func (m *merger) adopt(a, b model.Link) model.Adopt {
	if a.Kind != model.Physical && a.Adopt != b.Adopt {
		m.differ("adoption")
	}
	return cmp.Or(a.Adopt, b.Adopt)
}

// either is the value that is declared, where zero is not declared.
func either[T comparable](m *merger, what string, a, b T) T {
	var none T
	if a != none && b != none && a != b {
		m.differ(what)
	}
	if a != none {
		return a
	}
	return b
}

// pick is the side that is declared.
func pick[T any](m *merger, what string, a, b *T) *T {
	if a != nil && b != nil && !reflect.DeepEqual(a, b) {
		m.differ(what)
	}
	return cmp.Or(a, b)
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
