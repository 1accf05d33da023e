package plan

import (
	"fmt"
	"slices"

	"danm.io/danm/spec/model"
)

// wantRoutes puts the declared routes into the target and takes ours that no longer are declared out of it.
func (d *differ) wantRoutes() {
	declared := map[ObjectID]bool{}
	routes := slices.Clone(d.desired.Plan.Routes)
	slices.SortStableFunc(routes, func(a, b model.Route) int { return gated(a) - gated(b) })
	for _, r := range routes {
		r = canonicalRoute(r)
		r.Dev = d.kernelName(r.Dev)
		id := RouteID(r)
		declared[id] = true
		d.wantRoute(id, r)
	}
	for id, r := range d.to.routes {
		if r.Protocol == RouteProtocol && !declared[id] {
			delete(d.to.routes, id)
		}
	}
}

func (d *differ) wantRoute(id ObjectID, r model.Route) {
	have, there := d.to.routes[id]
	if there && have.Via == r.Via && (r.Dev == "" || have.Dev == r.Dev) {
		return // as wanted, whoever made it
	}
	if there && have.Protocol != RouteProtocol {
		d.aside(id, fmt.Sprintf("a route of protocol %d is there (%s)", have.Protocol, nexthopText(have.Route)), "remove it, or declare another metric or table")
		return
	}
	if reason, remedy := d.routeInVain(r, there); reason != "" {
		d.aside(id, reason, remedy)
		if d.isMadeAnew(have.Dev) {
			delete(d.to.routes, id) // the old one goes with its link and cannot come back
		}
		return
	}
	d.to.routes[id] = ObservedRoute{Route: r, Protocol: RouteProtocol}
}

// routeInVain says why a route cannot be had now.
func (d *differ) routeInVain(r model.Route, there bool) (reason, remedy string) {
	if r.Dev != "" {
		dev := d.to.links[r.Dev]
		b, isBlocked := d.blocked[LinkID(r.Dev)]
		switch {
		case isBlocked && !there:
			return r.Dev + " is blocked: " + b.Reason, b.Remedy
		case dev == nil:
			return r.Dev + " is missing, waiting for it to appear", "declare it or make it"
		case !dev.Up:
			return r.Dev + " is down and nothing declares it up", "declare up: true on it"
		}
	}
	if r.Via.IsValid() && !d.onLink(r) {
		return fmt.Sprintf("gateway %s is on no subnet of the route's device", r.Via), "declare an address whose subnet contains it"
	}
	return "", ""
}

// isMadeAnew says whether another link takes the place of an observed one.
func (d *differ) isMadeAnew(link string) bool {
	have, want := d.obs.links[link], d.to.links[link]
	return have != nil && want != nil && !sameIdentity(have.Link, want.Link)
}

// gated sorts routes over a gateway behind those that may make it reachable.
func gated(r model.Route) int {
	if r.Via.IsValid() {
		return 1
	}
	return 0
}

// onLink says whether the kernel will find the gateway of a route: on a subnet of its device, or of any that is up; or
// behind a route without a gateway.
func (d *differ) onLink(r model.Route) bool {
	if d.to.deviceTo(r.Via, r.Dev) != "" {
		return true
	}
	for _, other := range d.to.routes {
		if !other.Via.IsValid() && other.To.Contains(r.Via) && other.Table == MainTable && (r.Dev == "" || other.Dev == r.Dev) {
			return true
		}
	}
	return false
}

// wantPeers: the flood list of a VXLAN that we made is ours; on an adopted one only the entries on record are.
func (d *differ) wantPeers() {
	declared := map[model.Peer]bool{}
	for _, p := range d.desired.Peers {
		p.Link = d.kernelName(p.Link)
		_, isBlocked := d.blocked[LinkID(p.Link)]
		if l := d.to.links[p.Link]; l != nil && l.Kind == model.VXLAN && !isBlocked {
			if _, wanted := d.wants[p.Link]; wanted {
				declared[p] = true
				d.wantPeer(p)
			}
		}
	}
	for p := range d.to.peers {
		_, isBlocked := d.blocked[LinkID(p.Link)]
		if !declared[p] && !isBlocked && d.isOurs(p.Link) {
			delete(d.to.peers, p)
		}
	}
}

func (d *differ) wantPeer(p model.Peer) {
	if r, recorded := d.records[PeerID(p)]; !d.makes(p.Link) {
		switch {
		case !d.to.peers[p]:
			d.claim(PeerID(p), "")
		case recorded:
			d.claim(PeerID(p), r.Prior)
		default:
			d.claim(PeerID(p), adopted)
		}
	}
	d.to.peers[p] = true
}
