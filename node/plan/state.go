package plan

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"danm.io/danm/spec/model"
)

// state is an Observed with indexes, for working on.
type state struct {
	links   map[string]*ObservedLink
	routes  map[ObjectID]ObservedRoute
	extra   []ObservedRoute // further routes of one ID (other TOS, multipath): foreign, only carried along
	rules   map[ObservedRule]bool
	sysctls map[string]string
	peers   map[model.Peer]bool
	kids    map[string][]string // by parent, nil when links came or went since: see vlansOn
}

func newState(o Observed) *state {
	s := &state{links: make(map[string]*ObservedLink, len(o.Links)), routes: make(map[ObjectID]ObservedRoute, len(o.Routes)), peers: make(map[model.Peer]bool, len(o.Peers)),
		rules: make(map[ObservedRule]bool, len(o.Rules)), sysctls: sysctlsOf(o.Sysctls)}
	for _, l := range o.Links {
		l := cloneLink(l)
		s.links[l.Name] = &l
	}
	for _, r := range o.Routes {
		r.Route = canonicalRoute(r.Route)
		id := RouteID(r.Route)
		have, taken := s.routes[id]
		switch {
		case taken && r.Protocol == RouteProtocol && have.Protocol != RouteProtocol:
			s.routes[id] = r
			s.extra = append(s.extra, have)
		case taken:
			s.extra = append(s.extra, r)
		default:
			s.routes[id] = r
		}
	}
	for _, r := range o.Rules {
		r.Rule = canonicalRule(r.Rule)
		s.rules[r] = true
	}
	for _, p := range o.Peers {
		s.peers[p] = true
	}
	return s
}

func (s *state) clone() *state {
	c := &state{links: make(map[string]*ObservedLink, len(s.links)), routes: make(map[ObjectID]ObservedRoute, len(s.routes)), peers: make(map[model.Peer]bool, len(s.peers)), extra: slices.Clone(s.extra), rules: maps.Clone(s.rules), sysctls: maps.Clone(s.sysctls)}
	for n, l := range s.links {
		l := cloneLink(*l)
		c.links[n] = &l
	}
	for id, r := range s.routes {
		c.routes[id] = r
	}
	for p := range s.peers {
		c.peers[p] = true
	}
	return c
}

func (s *state) observed() Observed {
	o := Observed{Links: make([]ObservedLink, 0, len(s.links)), Routes: slices.Clone(s.extra)}
	for _, l := range s.links {
		o.Links = append(o.Links, *l)
	}
	for _, r := range s.routes {
		o.Routes = append(o.Routes, r)
	}
	for r := range s.rules {
		o.Rules = append(o.Rules, r)
	}
	for k, v := range s.sysctls {
		o.Sysctls = append(o.Sysctls, model.Sysctl{Key: k, Value: v})
	}
	for p := range s.peers {
		o.Peers = append(o.Peers, p)
	}
	Sort(&o)
	return o
}

// childrenOf maps each link to the names of the links whose Parent it is, sorted.
func (s *state) childrenOf() map[string][]string {
	kids := map[string][]string{}
	for n, l := range s.links {
		if l.Parent != "" {
			kids[l.Parent] = append(kids[l.Parent], n)
		}
	}
	for _, k := range kids {
		slices.Sort(k)
	}
	return kids
}

// vlansOn lists the VLANs of a device, sorted.
func (s *state) vlansOn(parent string) []*ObservedLink {
	if s.kids == nil {
		s.kids = s.childrenOf()
	}
	var out []*ObservedLink
	for _, n := range s.kids[parent] {
		if l := s.links[n]; l != nil && l.Kind == model.VLAN {
			out = append(out, l)
		}
	}
	return out
}

// order lists the names so that parents and masters stand before what hangs on them; equals by name. A loop is cut anywhere.
func (s *state) order() []string {
	names := make([]string, 0, len(s.links))
	for n := range s.links {
		names = append(names, n)
	}
	slices.Sort(names)
	out, seen := make([]string, 0, len(names)), make(map[string]bool, len(names))
	var visit func(string)
	visit = func(n string) {
		l := s.links[n]
		if l == nil || seen[n] {
			return
		}
		seen[n] = true
		visit(l.Parent)
		visit(l.Master)
		out = append(out, n)
	}
	for _, n := range names {
		visit(n)
	}
	return out
}

// sortedRoutes lists routes so that those without a gateway come first: they may be what makes a gateway reachable.
func (s *state) sortedRoutes() []ObservedRoute {
	out := make([]ObservedRoute, 0, len(s.routes))
	for _, r := range s.routes {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b ObservedRoute) int {
		return cmp.Or(cmp.Compare(gated(a.Route), gated(b.Route)), compareRoutes(a.Route, b.Route))
	})
	return out
}

func (s *state) sortedPeers() []model.Peer {
	out := make([]model.Peer, 0, len(s.peers))
	for p := range s.peers {
		out = append(out, p)
	}
	slices.SortFunc(out, comparePeers)
	return out
}

func (s *state) hasRoutesOver(link string) bool {
	for _, r := range s.routes {
		if r.Dev == link {
			return true
		}
	}
	return false
}

func (s *state) hasAddress(link string, a netip.Prefix) bool {
	l := s.links[link]
	return l != nil && slices.Contains(l.Addresses, a)
}

// sameHost finds an IPv6 address of the link that is a's with another prefix length: the kernel holds one of them only.
func (s *state) sameHost(link string, a netip.Prefix) (netip.Prefix, bool) {
	if l := s.links[link]; l != nil && a.Addr().Is6() {
		for _, b := range l.Addresses {
			if b.Addr() == a.Addr() && b != a {
				return b, true
			}
		}
	}
	return netip.Prefix{}, false
}

// deviceTo is the up link with a subnet that contains via, the first by name, "" if there is none; only limits it to one.
func (s *state) deviceTo(via netip.Addr, only string) string {
	best := ""
	for n, l := range s.links {
		if !l.Up || only != "" && n != only || best != "" && best < n {
			continue
		}
		if slices.ContainsFunc(l.Addresses, func(a netip.Prefix) bool { return a.Contains(via) }) {
			best = n
		}
	}
	return best
}
