package plan

import (
	"net/netip"
	"slices"
	"strings"

	"danm.io/danm/spec/model"
)

// Revert gives the ordered steps that bring what the steps in done touched from after back to how it was in before:
// deleted links are created again with their attributes, ports, addresses, routes and peers, created ones deleted,
// properties put back, and what the kernel took away beside a step is given back. Objects that done does not touch are
// left alone, whatever became of them since. A step that was begun and perhaps not finished counts as done.
func Revert(before, after Observed, done []Step) []Step {
	r := reverter{before: newState(before), after: newState(after)}
	r.to = r.after.clone()
	for _, s := range done {
		r.touch(s)
	}
	r.putBackLinks()
	t := transition{now: r.after, to: r.to, reason: func(Op, ObjectID) string { return "revert" }}
	return t.run()
}

type reverter struct {
	before, after, to *state
	whole             []string // links to put back with all that hangs on them
}

// touch puts back in the target what one step changed.
func (r *reverter) touch(s Step) {
	switch s.Op {
	case CreateLink, DeleteLink:
		r.whole = append(r.whole, s.Link.Name)
	case SetLink:
		r.touchProperty(s.LinkName, s.Property)
	case SetVF:
		r.touchVF(s)
	case AddAddress, DeleteAddress:
		r.touchAddress(s.LinkName, s)
		if s.Op == DeleteAddress {
			r.giveBack(s.LinkName)
		}
	case AddRoute, DeleteRoute:
		r.touchRoute(s.ID)
	case AddRule, DeleteRule:
		r.touchRule(s)
	case SetSysctl:
		r.touchSysctl(s.Sysctl)
	case AddPeer, DeletePeer:
		if r.before.peers[*s.Peer] {
			r.to.peers[*s.Peer] = true
		} else {
			delete(r.to.peers, *s.Peer)
		}
	}
}

func (r *reverter) touchProperty(link, property string) {
	was, is := r.before.links[link], r.to.links[link]
	if was == nil || is == nil {
		return
	}
	if property == "mtu" || property == "up" { // the kernel squeezes a device's VLANs and takes them up and down with it
		for n, kid := range r.before.links {
			if kid.Parent == link && kid.Kind == model.VLAN {
				r.touchProperty(n, property)
			}
		}
	}
	if property == "mtu" && was.KernelKind == "bond" {
		for n, port := range r.before.links {
			if port.Master == link {
				r.touchProperty(n, property)
			}
		}
	}
	if strings.HasPrefix(property, bondPrefix) {
		r.touchBond(was, is, property)
		if property == bondPrefix+"lacp_rate" {
			r.touchProperty(link, "up")
			r.giveBack(link)
		}
	}
	switch property {
	case "vlan_filtering":
		is.Filtering = was.Filtering
	case "vlans":
		is.PortVLANs = canonicalVLANs(was.PortVLANs)
	case "mtu":
		is.MTU = was.MTU
	case "up":
		if now := r.after.links[link]; was.Up && (now == nil || !now.Up) {
			r.giveBack(link)
		}
		is.Up = was.Up
	case "master":
		r.touchPort(was, is)
	case "alias":
		is.Alias = was.Alias
	case numVFs:
		r.touchNumVFs(was, is)
	}
}

// giveBack returns the addresses and routes that a link had: going down, or losing an address, took them away.
func (r *reverter) giveBack(link string) {
	was, is := r.before.links[link], r.to.links[link]
	if was == nil || is == nil {
		return
	}
	for _, a := range was.Addresses {
		if !slices.Contains(is.Addresses, a) {
			is.Addresses = append(is.Addresses, a)
		}
	}
	for id, route := range r.before.routes {
		if _, there := r.to.routes[id]; route.Dev == link && !there {
			r.to.routes[id] = route
		}
	}
}

func (r *reverter) touchAddress(link string, s Step) {
	is := r.to.links[link]
	if is == nil {
		return
	}
	had, has := r.before.hasAddress(link, s.Address), r.to.hasAddress(link, s.Address)
	if had && !has {
		is.Addresses = append(is.Addresses, s.Address)
	}
	if !had && has {
		is.Addresses = slices.DeleteFunc(slices.Clone(is.Addresses), func(a netip.Prefix) bool { return a == s.Address })
	}
}

// touchRoute leaves a route alone that somebody else has put in the place since.
func (r *reverter) touchRoute(id ObjectID) {
	was, had := r.before.routes[id]
	is, has := r.to.routes[id]
	switch {
	case has && is.Protocol != RouteProtocol && is != was:
	case had:
		r.to.routes[id] = was
	case has:
		delete(r.to.routes, id)
	}
}

// putBackLinks comes last: what hangs on a link that is made or deleted follows it whole.
func (r *reverter) putBackLinks() {
	kids := r.before.childrenOf()
	seen := map[string]bool{}
	var put func(n string)
	put = func(n string) {
		if seen[n] {
			return
		}
		seen[n] = true
		is := r.after.links[n]
		if is != nil && is.Group != Group {
			return // another has taken the name since
		}
		if r.before.links[n] == nil {
			r.drop(n)
			return
		}
		r.putBack(n)
		for _, k := range kids[n] {
			put(k)
		}
	}
	for _, n := range r.whole {
		put(n)
	}
}

// drop takes a link out of the target that was not there before.
func (r *reverter) drop(n string) {
	r.to.delete(map[string]bool{n: true})
}

func (r *reverter) putBack(n string) {
	was := cloneLink(*r.before.links[n])
	r.to.links[n] = &was
	r.putBackSysctls(n)
	for id, route := range r.before.routes {
		if route.Dev == n {
			r.to.routes[id] = route
		}
	}
	for p := range r.before.peers {
		if p.Link == n {
			r.to.peers[p] = true
		}
	}
	for p := range r.to.peers {
		if p.Link == n && !r.before.peers[p] {
			delete(r.to.peers, p)
		}
	}
	for name, port := range r.before.links {
		if is := r.to.links[name]; port.Master == n && is != nil {
			r.touchPort(port, is)
		}
	}
}
