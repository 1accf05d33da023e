package plan

import (
	"net/netip"
	"slices"
	"strconv"

	"danm.io/danm/spec/model"
)

// Simulate returns what Observe would see after the steps, by a model of the kernel: the dry run. observed is not changed.
// It models the steps' collateral too: what a link's end takes with it, what going down loses, what a parent's MTU does to
// its VLANs. Steps that cannot be done (a parent that is not there) have no effect.
func Simulate(observed Observed, steps []Step) Observed {
	s := newState(observed)
	s.applyAll(steps)
	o := s.observed()
	o.Owned = slices.Clone(observed.Owned)
	return o
}

// applyAll takes runs of deletions together: each looks at everything that could hang on the link.
func (s *state) applyAll(steps []Step) {
	for i := 0; i < len(steps); i++ {
		gone := map[string]bool{}
		for ; i < len(steps) && steps[i].Op == DeleteLink; i++ {
			gone[steps[i].Link.Name] = true
		}
		if len(gone) > 0 {
			s.delete(gone)
		}
		if i < len(steps) {
			s.apply(steps[i])
		}
	}
}

func (s *state) apply(step Step) {
	switch step.Op {
	case CreateLink:
		s.create(*step.Link)
	case DeleteLink:
		s.delete(map[string]bool{step.Link.Name: true})
	case SetLink:
		s.set(step)
	case SetVF:
		s.setVF(step)
	case AddAddress:
		if _, clash := s.sameHost(step.LinkName, step.Address); !clash && s.links[step.LinkName] != nil && !s.hasAddress(step.LinkName, step.Address) {
			l := s.links[step.LinkName]
			l.Addresses = append(l.Addresses, step.Address)
			sortPrefixes(l.Addresses)
		}
	case DeleteAddress:
		s.deleteAddress(step.LinkName, step.Address)
	case AddRoute:
		s.addRoute(step)
	case DeleteRoute:
		if have, ok := s.routes[step.ID]; ok && have.Protocol == step.protocol() {
			delete(s.routes, step.ID)
		}
	case AddRule, DeleteRule:
		s.applyRule(step)
	case SetSysctl:
		if _, known := s.sysctls[step.Sysctl]; known || s.links[linkOf(step.Sysctl)] != nil {
			s.writeSysctl(step.Sysctl, step.To)
		}
	case AddPeer:
		if s.links[step.Peer.Link] != nil {
			s.peers[*step.Peer] = true
		}
	case DeletePeer:
		delete(s.peers, *step.Peer)
	}
}

func (s Step) protocol() int {
	if s.Protocol == 0 {
		return RouteProtocol
	}
	return s.Protocol
}

func (s *state) create(l model.Link) {
	if s.links[l.Name] != nil || l.Parent != "" && s.links[l.Parent] == nil {
		return
	}
	master := l.Master
	l.Addresses, l.Match, l.Master, l.PortVLANs = nil, nil, "", nil
	o := cloneLink(ObservedLink{Link: l, KernelKind: string(l.Kind), Group: Group})
	if o.Bond != nil {
		o.Bond.Primary = ""
	}
	s.links[l.Name], s.kids = &o, nil
	s.newSysctls(l.Name)
	if s.links[master] != nil {
		s.setMaster(&o, master)
	}
}

// delete models the end of links: their VLANs, VXLANs and other children go with them, their ports are freed.
func (s *state) delete(names map[string]bool) {
	s.kids = nil
	gone := map[string]bool{}
	holders := map[string]string{} // kinds of the links that go
	for n := range names {
		if s.links[n] != nil {
			holders[n] = s.kernelKind(n)
			delete(s.links, n)
			gone[n] = true
		}
	}
	for again := len(gone) > 0; again; {
		again = false
		for n, l := range s.links {
			if gone[l.Parent] {
				gone[n], again = true, true
				holders[n] = s.kernelKind(n)
				delete(s.links, n)
			}
		}
	}
	if len(gone) == 0 {
		return
	}
	for _, l := range s.links {
		if gone[l.Master] {
			s.freePort(l, holders[l.Master])
		}
	}
	s.dropRoutes(func(r ObservedRoute) bool { return gone[r.Dev] })
	s.dropSysctls(gone)
	for p := range s.peers {
		if gone[p.Link] {
			delete(s.peers, p)
		}
	}
}

// freePort models the end of a port's master.
func (s *state) freePort(l *ObservedLink, holder string) {
	l.leave()
	switch holder {
	case "bond":
		s.setUp(l, false)
	case "vrf":
		s.cycle(l)
	}
}

func (s *state) dropRoutes(lost func(ObservedRoute) bool) {
	for id, r := range s.routes {
		if lost(r) {
			delete(s.routes, id)
		}
	}
	s.extra = slices.DeleteFunc(s.extra, lost)
}

func (s *state) set(step Step) {
	l := s.links[step.LinkName]
	if l == nil {
		return
	}
	switch step.Property {
	case "mtu":
		mtu, _ := strconv.Atoi(step.To)
		s.setLinkMTU(l, mtu)
	case "up":
		s.setUp(l, step.To == "up")
	case "master":
		if step.To == "" || s.links[step.To] != nil {
			s.setMaster(l, step.To)
		}
	case "vlan_filtering":
		l.Filtering = step.To == "on"
	case "vlans":
		l.PortVLANs, _ = ParsePortVLANs(step.To)
	case "alias":
		l.Alias = step.To
	case numVFs:
		s.setNumVFs(l, step.To)
	}
	if o, isBond := bondOptionOf(step.Property); isBond {
		l.setBondOption(o, step.To)
		if o.name == "lacp_rate" {
			s.cycle(l)
		}
	}
}

// squeezeVLANs lowers the MTU of VLANs above a device: vlan_device_event on NETDEV_CHANGEMTU.
func (s *state) squeezeVLANs(parent string, mtu int) {
	for _, l := range s.vlansOn(parent) {
		if l.MTU > mtu {
			l.MTU = mtu
			s.squeezeVLANs(l.Name, mtu)
		}
	}
}

// setUp takes the VLANs above along, as vlan_device_event does on NETDEV_UP and NETDEV_DOWN.
func (s *state) setUp(l *ObservedLink, up bool) {
	if l.Up == up {
		return
	}
	if !up {
		s.loseByDown(l)
	}
	l.Up = up
	for _, kid := range s.vlansOn(l.Name) {
		s.setUp(kid, up)
	}
}

// loseByDown models what a link loses when it goes down: all routes and its global IPv6 addresses.
func (s *state) loseByDown(l *ObservedLink) {
	l.Addresses = slices.DeleteFunc(l.Addresses, func(a netip.Prefix) bool { return a.Addr().Is6() && !a.Addr().IsLinkLocalUnicast() })
	s.dropRoutes(func(r ObservedRoute) bool { return r.Dev == l.Name })
}

// deleteAddress models node/link's removal, which puts back what it can. With the last IPv4 address of a link go the
// IPv4 routes over gateways that no longer are on any of its subnets.
func (s *state) deleteAddress(link string, a netip.Prefix) {
	l := s.links[link]
	if l == nil || !slices.Contains(l.Addresses, a) {
		return
	}
	l.Addresses = slices.DeleteFunc(l.Addresses, func(b netip.Prefix) bool { return a == b })
	if a.Addr().Is6() || slices.ContainsFunc(l.Addresses, func(b netip.Prefix) bool { return b.Addr().Is4() }) {
		return
	}
	s.dropRoutes(func(r ObservedRoute) bool { return r.Dev == link && r.To.Addr().Is4() && r.Via.IsValid() })
}

func (s *state) addRoute(step Step) {
	r := ObservedRoute{Route: canonicalRoute(*step.Route), Protocol: step.protocol()}
	if r.Dev == "" {
		r.Dev = s.deviceTo(r.Via, "")
	}
	have, taken := s.routes[step.ID]
	if l := s.links[r.Dev]; l == nil || !l.Up || taken && have.Protocol != r.Protocol {
		return
	}
	s.routes[step.ID] = r
}
