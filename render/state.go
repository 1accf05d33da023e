package render

import (
	"cmp"
	"slices"

	"danm.io/danm/spec/model"
)

// states patches every class for its nodes.
func (r *renderer) states() []model.NodeState {
	out := make([]model.NodeState, len(r.nodes))
	for _, c := range r.order {
		for _, i := range c.nodes {
			out[i] = r.state(c, i)
		}
	}
	return out
}

func (r *renderer) state(c *class, i int) model.NodeState {
	n := r.nodes[i]
	links := c.patched(n, i)
	return model.NodeState{
		Home:           model.LocalHome,
		Node:           n.Name,
		Slot:           n.Slot,
		Slots:          r.bundle.Slots,
		Bundle:         r.bundle.Name,
		Digest:         c.text.digest(links, i),
		Plan:           model.NodePlan{Links: links, Routes: c.routes, Rules: c.rules, Sysctls: c.sysctls, Pools: c.pools},
		Peers:          c.peers(i),
		Networks:       c.networks,
		Tenants:        r.bundle.Tenants,
		Probes:         r.bundle.Probes,
		ConfirmTimeout: r.bundle.ConfirmTimeout,
		Disruptive:     r.bundle.Rollout.AllowsDisruptive,
	}
}

// poolsOf are the pools whose selector matches the node.
func poolsOf(pools []model.SRIOVPool, n model.Node) []model.SRIOVPool {
	var out []model.SRIOVPool
	for _, p := range pools {
		if matches(p.NodeSelector, n.Labels) {
			out = append(out, p)
		}
	}
	return out
}

// patched is the class's links with the node's own addresses.
func (c *class) patched(n model.Node, i int) []model.Link {
	if len(c.links) == 0 {
		return nil
	}
	links := make([]model.Link, len(c.links))
	tunnels := 0
	for j := range c.links {
		links[j] = c.links[j].Link
		if c.links[j].domain != nil {
			tunnels++
		}
	}
	options := make([]model.VXLANOptions, 0, tunnels) // one allocation for all
	for j := range c.links {
		switch s := &c.links[j]; {
		case s.own:
			if more := n.Interfaces[s.Name]; len(more) > 0 {
				links[j].Addresses = sortedPrefixes(s.Addresses, more)
			}
		case s.domain != nil:
			o := *s.VXLAN
			o.Local = s.domain.local[i]
			options = append(options, o)
			links[j].VXLAN = &options[len(options)-1]
		}
	}
	return links
}

// peers lists where each unicast VXLAN floods: the other nodes' addresses.
func (c *class) peers(i int) []model.Peer {
	var out []model.Peer
	for j := range c.links {
		s := &c.links[j]
		if s.domain == nil || s.domain.group.IsValid() {
			continue
		}
		from := len(out)
		for _, other := range s.domain.nodes {
			if a := s.domain.local[other]; a.IsValid() && a != s.domain.local[i] {
				out = append(out, model.Peer{Link: s.Name, Addr: a})
			}
		}
		slices.SortFunc(out[from:], func(a, b model.Peer) int {
			return cmp.Or(cmp.Compare(a.Link, b.Link), a.Addr.Compare(b.Addr))
		})
	}
	return slices.Compact(out)
}
