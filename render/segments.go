package render

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	"danm.io/danm/spec/model"
	"danm.io/danm/spec/segment"
)

// Segments cuts the node states into what many nodes share and each node's own part: what a cluster's API stores. Names
// are those of segment.Encode. Nothing is cut from a result with errors. segment.ErrTooBig, with the node's or the item's
// name, if something does not fit.
func (r Result) Segments() (map[string]model.Segment, []model.NodePart, error) {
	shared := map[string]model.Segment{}
	parts := make([]model.NodePart, len(r.Nodes))
	for _, c := range r.classes {
		names, err := cut(c.shared(r.Nodes[c.nodes[0]]), shared)
		if err != nil {
			return nil, nil, fmt.Errorf("node %s: %w", r.Nodes[c.nodes[0]].Node, err)
		}
		for _, i := range c.nodes {
			parts[i] = r.part(c, i, names)
			if data, err := json.Marshal(parts[i]); err != nil || len(data) > segment.MaxPart {
				return nil, nil, fmt.Errorf("node %s: its own part has %d bytes, at most %d: %w", parts[i].Node, len(data), segment.MaxPart, segment.ErrTooBig)
			}
		}
	}
	return shared, parts, nil
}

// cut adds the segments of one class to all and returns their names.
func cut(s model.Segment, all map[string]model.Segment) ([]string, error) {
	pieces, err := segment.Cut(s)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, p := range pieces {
		name, _ := segment.Encode(p)
		all[name] = p
		names = append(names, name)
	}
	slices.Sort(names)
	return names, nil
}

// shared is what every node of the class has; n is one of them.
func (c *class) shared(n model.NodeState) model.Segment {
	s := model.Segment{Routes: c.routes, Rules: c.rules, Sysctls: c.sysctls, Networks: c.networks, Tenants: n.Tenants, Pools: c.pools, Probes: n.Probes, Fabrics: c.fabrics}
	for _, l := range c.links {
		link := model.SharedLink{Link: l.Link}
		if l.domain != nil {
			link.Underlay = l.domain.name
		}
		s.Links = append(s.Links, link)
	}
	return s
}

func (r Result) part(c *class, i int, segments []string) model.NodePart {
	n := r.nodes[i]
	out := model.NodePart{Node: n.Name, Digest: r.Nodes[i].Digest, Segments: segments}
	for _, l := range c.links {
		switch more := n.Interfaces[l.Name]; {
		case l.own && len(more) > 0:
			put(&out.Addresses, l.Name, model.NodePrefixes(sortedPrefixes(more, nil)))
		case l.domain != nil && l.domain.local[i].IsValid():
			put(&out.Underlays, l.domain.name, l.domain.local[i])
		}
	}
	return out
}

func put[V any](m *map[string]V, key string, value V) {
	if *m == nil {
		*m = map[string]V{}
	}
	(*m)[key] = value
}

// FabricPeers lists, for each fabric that floods by unicast, the underlay address of each node, declared or else reported, in the
// shards that the API stores.
func (r Result) FabricPeers() []model.FabricPeers {
	var out []model.FabricPeers
	for _, d := range r.domains {
		if d.group.IsValid() || !slices.ContainsFunc(d.wires, func(s *wire) bool { return s.vxlan }) {
			continue
		}
		addresses := map[string]netip.Addr{}
		for _, i := range d.nodes {
			a := d.local[i]
			if !a.IsValid() {
				a = r.reported[r.nodes[i].Name][d.device]
			}
			if a.IsValid() {
				addresses[r.nodes[i].Name] = a
			}
		}
		out = append(out, segment.Shard(d.name, addresses)...)
	}
	return out
}
