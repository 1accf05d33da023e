// Package graph draws who is connected to what in a rendered bundle: nodes, the fabrics and devices they reach, the networks
// on these, the tenants that use them. Build makes the picture as data; SVG, Mermaid and Dot write it down, the same bytes
// for the same bundle. It reads nothing and knows no command line.
package graph

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"danm.io/danm/spec/model"
)

// The columns of the picture, from the wire to who uses it.
const (
	Nodes = iota
	Carriers
	Networks
	Tenants
	columns
)

// Box is one thing. Lines[0] is its name.
type Box struct {
	ID     string
	Column int
	Lines  []string
}

// Edge joins two boxes of neighbouring columns.
type Edge struct{ From, To, Label string }

// Graph is the picture. Boxes are in the order in which they are drawn, column by column.
type Graph struct {
	Title string
	Boxes []Box
	Edges []Edge
}

// maxNames is how many nodes a box of alike nodes names.
const maxNames = 3

// Build makes the picture of a bundle. Nodes that reach the same carriers are one box.
func Build(title string, nodes []model.NodeState, networks []model.Network, tenants []model.Tenant) Graph {
	b := builder{Graph: Graph{Title: title}, seen: map[string]bool{}}
	b.nodes(nodes)
	for _, n := range networks {
		b.carrier(n)
	}
	b.networks(networks)
	b.tenants(networks, tenants)
	slices.SortStableFunc(b.Boxes, func(x, y Box) int { return cmp.Compare(x.Column, y.Column) })
	return b.Graph
}

type builder struct {
	Graph
	seen map[string]bool
}

func (b *builder) box(id string, column int, lines ...string) {
	if !b.seen[id] {
		b.seen[id] = true
		b.Boxes = append(b.Boxes, Box{ID: id, Column: column, Lines: slices.DeleteFunc(lines, func(s string) bool { return s == "" })})
	}
}

func (b *builder) edge(from, to, label string) {
	e := Edge{from, to, label}
	if !slices.Contains(b.Edges, e) {
		b.Edges = append(b.Edges, e)
	}
}

// carrierOf is what a network stands on.
func carrierOf(n model.Network) (id, name, kind string) {
	switch {
	case n.Fabric != "":
		return "fabric " + n.Fabric, n.Fabric, "fabric"
	case n.HostDevice != "":
		return "device " + n.HostDevice, n.HostDevice, "device"
	case n.DevicePool != "":
		return "pool " + n.DevicePool, n.DevicePool, "device pool"
	}
	return "plugin " + string(n.Type), string(n.Type), "CNI plugin"
}

func (b *builder) nodes(nodes []model.NodeState) {
	alike := map[string][]string{}
	reach := map[string][]string{}
	var keys []string
	for _, n := range nodes {
		var ids []string
		for _, net := range n.Networks {
			id, _, _ := carrierOf(net)
			ids = append(ids, id)
		}
		slices.Sort(ids)
		ids = slices.Compact(ids)
		key := strings.Join(ids, "\x00")
		if alike[key] == nil {
			keys = append(keys, key)
			reach[key] = ids
		}
		alike[key] = append(alike[key], n.Node)
	}
	for _, key := range keys {
		names := alike[key]
		label := strings.Join(names[:min(maxNames, len(names))], ", ")
		more := ""
		if len(names) > maxNames {
			more = fmt.Sprintf("and %d more alike", len(names)-maxNames)
		}
		id := "node " + names[0]
		b.box(id, Nodes, label, more)
		for _, to := range reach[key] {
			b.edge(id, to, "")
		}
	}
}

func (b *builder) carrier(n model.Network) {
	id, name, kind := carrierOf(n)
	b.box(id, Carriers, name, kind)
}

// networks come in the order of their carriers, so that lines cross little.
func (b *builder) networks(networks []model.Network) {
	sorted := slices.Clone(networks)
	rank := func(n model.Network) int {
		id, _, _ := carrierOf(n)
		return slices.IndexFunc(b.Boxes, func(x Box) bool { return x.ID == id })
	}
	slices.SortStableFunc(sorted, func(x, y model.Network) int { return cmp.Compare(rank(x), rank(y)) })
	for _, n := range sorted {
		id, _, _ := carrierOf(n)
		label := "untagged"
		switch {
		case n.VXLAN:
			label = fmt.Sprintf("VNI %d", n.VNI)
		case n.VLAN != 0:
			label = fmt.Sprintf("VLAN %d", n.VLAN)
		case n.Fabric == "" && n.HostDevice == "":
			label = ""
		}
		var addresses []string
		for _, s := range []*model.Subnet{n.IPv4, n.IPv6} {
			if s != nil {
				addresses = append(addresses, s.CIDR.String())
			}
		}
		b.box("network "+n.Key(), Networks, n.Key(), strings.Join(append([]string{string(n.Type)}, addresses...), ", "))
		b.edge(id, "network "+n.Key(), label)
	}
}

func (b *builder) tenants(networks []model.Network, tenants []model.Tenant) {
	for _, t := range tenants {
		b.box("tenant "+t.Name, Tenants, t.Name, "namespaces "+short(t.Namespaces))
	}
	for _, n := range networks {
		for _, user := range users(n, tenants) {
			label := ""
			if i := slices.IndexFunc(tenants, func(t model.Tenant) bool { return "tenant "+t.Name == user }); i >= 0 && tenants[i].DefaultNetwork == n.Key() {
				label = "default"
			}
			switch kind, name, _ := strings.Cut(user, " "); kind {
			case "namespace":
				b.box(user, Tenants, name, "namespace")
			case "everyone":
				b.box(user, Tenants, "everyone")
			}
			b.edge("network "+n.Key(), user, label)
		}
	}
}

// users are the boxes of those who may attach to a network.
func users(n model.Network, tenants []model.Tenant) []string {
	namespaces := n.AllowedNamespaces
	if n.Kind != model.ClusterNetwork {
		namespaces = []string{n.Namespace}
	} else if len(namespaces) == 0 {
		return []string{"everyone"}
	}
	var out []string
	for _, ns := range namespaces {
		user := "namespace " + ns
		for _, t := range tenants {
			if slices.Contains(t.Namespaces, ns) {
				user = "tenant " + t.Name
			}
		}
		out = append(out, user)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func short(names []string) string {
	if len(names) <= maxNames {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:maxNames], ", "), len(names)-maxNames)
}
