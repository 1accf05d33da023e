package plan

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"danm.io/danm/spec/model"
)

// transition orders the steps that lead from one state to another: what both have alike is not touched. Diff and Revert
// decide what the other state is; the rules of order stand here alone:
//
//   - a link that must be made anew, or whose id a new link takes, goes first, children before parents;
//   - MTUs are lowered children first, then links are made and raised parents first;
//   - kernel parameters of all links and of those to come go before links are made, those of single links after;
//   - addresses, routes, rules and peers are added before others are deleted, routes over gateways after those without,
//     rules after the routes of the tables that they ask;
//   - rules go before routes, routes before addresses, and links that nobody needs go after them, children before parents;
//   - virtual functions are made and set last, each physical one after another: cards are slow, and nothing else waits for them.
type transition struct {
	now    *state // as of the steps so far
	to     *state
	reason func(op Op, id ObjectID) string
	steps  []Step
	left   map[string]bool // ports that leave a bond, which gives them the MTU that they had when they came
}

func (t *transition) run() []Step {
	fromOrder, toOrder := t.now.order(), t.to.order()
	first, last := t.deletions()
	t.left = t.leavingBonds(first)
	t.deleteLinks(fromOrder, first)
	t.lowerMTUs(toOrder)
	t.setSysctls(0, lastRank-1)
	t.raise(toOrder)
	t.takeDown(toOrder)
	t.setSysctls(lastRank, lastRank)
	t.addAddresses(toOrder)
	t.addRoutes()
	t.addRules()
	t.addPeers()
	t.deletePeers(last)
	t.deleteRules()
	t.deleteRoutes(last)
	t.deleteAddresses(fromOrder)
	t.deleteLinks(fromOrder, last)
	t.setFunctions(toOrder)
	return t.steps
}

// emit appends one phase's steps and brings now up to date, so that each phase sees the collateral of those before.
func (t *transition) emit(steps []Step) {
	t.now.applyAll(steps)
	t.steps = append(t.steps, steps...)
}

func (t *transition) step(op Op, id ObjectID, d Disruption) Step {
	return Step{Op: op, ID: id, Disruption: d, Reason: t.reason(op, id)}
}

// sameIdentity says whether a link can be made like another without a new one.
func sameIdentity(a, b model.Link) bool {
	if a.Kind != b.Kind || a.Parent != b.Parent || a.VLANID != b.VLANID || (a.VXLAN == nil) != (b.VXLAN == nil) || a.Table != b.Table || modeOf(a) != modeOf(b) {
		return false
	}
	return a.VXLAN == nil || *a.VXLAN == *b.VXLAN
}

// modeOf is a bond's mode, which only a bond without ports that is down could change.
func modeOf(l model.Link) string {
	if l.Kind != model.Bond {
		return ""
	}
	return fullBond(l.Bond).Mode
}

// slot is what the kernel holds only once: a VNI on a UDP port in the namespace, a VLAN id on a parent.
func slot(l model.Link) string {
	switch {
	case l.VXLAN != nil:
		return fmt.Sprintf("vni %d on UDP port %d", l.VXLAN.VNI, l.VXLAN.Port)
	case l.Kind == model.VLAN:
		return fmt.Sprintf("vlan %d on %s", l.VLANID, l.Parent)
	}
	return ""
}

// deletions splits the links to delete into those that must go before anything is made and those that can wait.
func (t *transition) deletions() (first, last map[string]bool) {
	first, last = map[string]bool{}, map[string]bool{}
	made := map[string]bool{}
	for n, want := range t.to.links {
		have := t.now.links[n]
		if have != nil && !sameIdentity(have.Link, want.Link) {
			first[n] = true
		}
		if s := slot(want.Link); s != "" && (have == nil || first[n]) {
			made[s] = true
		}
	}
	for n, have := range t.now.links {
		if t.to.links[n] != nil {
			continue
		}
		if s := slot(have.Link); s != "" && made[s] {
			first[n] = true
		} else {
			last[n] = true
		}
	}
	kids := t.now.childrenOf()
	var take func(n string)
	take = func(n string) { // the kernel deletes children anyway: say so, and make them again
		for _, k := range kids[n] {
			if !first[k] {
				first[k] = true
				delete(last, k)
				take(k)
			}
		}
	}
	for _, n := range slices.Sorted(maps.Keys(first)) {
		take(n)
	}
	return first, last
}

func (t *transition) deleteLinks(order []string, which map[string]bool) {
	var out []Step
	for _, n := range slices.Backward(order) {
		if l := t.now.links[n]; which[n] && l != nil {
			s := t.step(DeleteLink, LinkID(n), deleteClass(l.Link))
			s.Link = bare(l.Link)
			out = append(out, s)
		}
	}
	t.emit(out)
}

// deleteClass: nothing stands on a VRF, its ports stay. Pods' links stand on a VLAN or VXLAN that is no bridge's port, and behind the ports of a bridge.
func deleteClass(l model.Link) Disruption {
	if l.Master != "" || l.Kind == model.VRF {
		return LinkDown
	}
	return DestroysPods
}

// bare is the link as a step carries it: addresses have their own steps, matching is over.
func bare(l model.Link) *model.Link {
	l.Addresses, l.Match, l.Adopt = nil, nil, ""
	return &l
}

func (t *transition) set(l model.Link, property, from, to string, d Disruption) Step {
	s := t.step(SetLink, PropertyID(l.Name, property), d)
	s.Link, s.LinkName, s.Property, s.From, s.To = bare(l), l.Name, property, from, to
	return s
}

// setMTU: hardware may reset its rings for a new MTU, software links do not lose a packet over it.
func (t *transition) setMTU(have, want *ObservedLink) Step {
	d := None
	if want.Kind == model.Physical {
		d = Blip
	}
	return t.set(want.Link, "mtu", strconv.Itoa(have.MTU), strconv.Itoa(want.MTU), d)
}

func (t *transition) lowerMTUs(order []string) {
	var out []Step
	for _, n := range slices.Backward(order) {
		have, want := t.now.links[n], t.to.links[n]
		if have != nil && want.MTU < have.MTU && want.MTU != 0 && !t.left[n] && !t.joinsBond(have, want) {
			out = append(out, t.setMTU(have, want))
		}
	}
	t.emit(out)
}

// raise makes and raises links, parents and masters first.
func (t *transition) raise(order []string) {
	for _, n := range order {
		want := t.to.links[n]
		if t.now.links[n] == nil {
			if want.Kind == model.Physical {
				continue // gone since: nobody can make hardware
			}
			s := t.step(CreateLink, LinkID(n), None)
			s.Link = bare(want.Link)
			t.emit([]Step{s})
		}
		have := t.now.links[n]
		if have == nil {
			continue // it stands on what is gone
		}
		if want.MTU > have.MTU && !t.left[n] && !t.joinsBond(have, want) {
			t.emit([]Step{t.setMTU(have, want)})
		}
		t.properties(n, false)
		if have = t.now.links[n]; want.MTU != 0 && (want.MTU != have.MTU || t.left[n]) {
			s := t.setMTU(have, want)
			if t.left[n] {
				s.From = "" // nobody says what the bond remembered
			}
			t.emit([]Step{s})
		}
		if want.Alias != have.Alias {
			t.emit([]Step{t.set(want.Link, "alias", have.Alias, want.Alias, None)})
		}
		if want.Up && !t.now.links[n].Up {
			t.emit([]Step{t.set(want.Link, "up", "down", "up", None)})
		}
	}
	for _, n := range order {
		if t.now.links[n] != nil {
			t.properties(n, true)
		}
	}
}

// joinsBond says whether a link becomes the port of a bond, which gives it its MTU and remembers what it had.
func (t *transition) joinsBond(have, want *ObservedLink) bool {
	return want.Master != have.Master && want.Master != "" && t.to.kernelKind(want.Master) == "bond"
}

// leavingBonds are the ports whose bond lets go of them and does not get them back. first are links to delete beforehand.
func (t *transition) leavingBonds(first map[string]bool) map[string]bool {
	left := map[string]bool{}
	for n, have := range t.now.links {
		if want := t.to.links[n]; want != nil && t.now.kernelKind(have.Master) == "bond" && (want.Master != have.Master || first[have.Master] && t.to.kernelKind(want.Master) != "bond") {
			left[n] = true
		}
	}
	return left
}

// masterClass: a port's own addresses and children stop working; leaving a bridge cuts it off.
func (t *transition) masterClass(have, want *ObservedLink) Disruption {
	switch {
	case have.Master != "" || len(have.Addresses) > 0 || have.Children > 0 || t.now.kernelKind(want.Master) != "bridge" && t.now.hasRoutesOver(have.Name):
		return LinkDown
	case want.Kind == model.Physical:
		return Blip
	}
	return None
}

func (t *transition) takeDown(order []string) {
	var out []Step
	for _, n := range slices.Backward(order) {
		if have, want := t.now.links[n], t.to.links[n]; have != nil && have.Up && !want.Up {
			out = append(out, t.set(want.Link, "up", "up", "down", LinkDown))
		}
	}
	t.emit(out)
}

func (t *transition) addAddresses(order []string) {
	var out []Step
	for _, n := range order {
		if t.now.links[n] == nil {
			continue
		}
		for _, a := range t.to.links[n].Addresses {
			if t.now.hasAddress(n, a) {
				continue
			}
			add := t.step(AddAddress, AddressID(n, a), None)
			add.LinkName, add.Address = n, a
			// The kernel holds an IPv6 address once a link, whatever its length: the old one has to go first.
			if b, clash := t.now.sameHost(n, a); clash && !t.to.hasAddress(n, b) {
				del := t.step(DeleteAddress, AddressID(n, b), LinkDown)
				del.LinkName, del.Address = n, b
				out = append(out, del)
			}
			out = append(out, add)
		}
	}
	t.emit(out)
}

func (t *transition) addRoutes() {
	var out []Step
	for _, want := range t.to.sortedRoutes() {
		id := RouteID(want.Route)
		have, taken := t.now.routes[id]
		if taken && have == want || taken && have.Protocol != want.Protocol {
			continue
		}
		if want.Dev != "" && t.now.links[want.Dev] == nil {
			continue
		}
		s := t.step(AddRoute, id, None)
		if taken {
			s.From, s.Disruption = nexthopText(have.Route), Blip
		}
		out = append(out, withRoute(s, want))
	}
	t.emit(out)
}

func withRoute(s Step, r ObservedRoute) Step {
	s.Route = &r.Route
	if r.Protocol != RouteProtocol {
		s.Protocol = r.Protocol
	}
	return s
}

func (t *transition) addPeers() {
	var out []Step
	for _, p := range t.to.sortedPeers() {
		if !t.now.peers[p] && t.now.links[p.Link] != nil {
			s := t.step(AddPeer, PeerID(p), None)
			s.Peer = &p
			out = append(out, s)
		}
	}
	t.emit(out)
}

// deletePeers and deleteRoutes leave to the kernel what goes with its link.
func (t *transition) deletePeers(links map[string]bool) {
	var out []Step
	for _, p := range t.now.sortedPeers() {
		if !t.to.peers[p] && !links[p.Link] {
			s := t.step(DeletePeer, PeerID(p), None)
			s.Peer = &p
			out = append(out, s)
		}
	}
	t.emit(out)
}

func (t *transition) deleteRoutes(links map[string]bool) {
	var out []Step
	for _, have := range slices.Backward(t.now.sortedRoutes()) {
		id := RouteID(have.Route)
		if _, wanted := t.to.routes[id]; !wanted && !links[have.Dev] {
			out = append(out, withRoute(t.step(DeleteRoute, id, Blip), have))
		}
	}
	t.emit(out)
}

func (t *transition) deleteAddresses(order []string) {
	var out []Step
	for _, n := range slices.Backward(order) {
		have := t.now.links[n]
		if have == nil || t.to.links[n] == nil {
			continue
		}
		for _, a := range have.Addresses {
			if !t.to.hasAddress(n, a) {
				s := t.step(DeleteAddress, AddressID(n, a), LinkDown)
				s.LinkName, s.Address = n, a
				out = append(out, s)
			}
		}
	}
	t.emit(out)
}
