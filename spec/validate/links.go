package validate

import (
	"fmt"
	"slices"

	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// Bytes that VXLAN puts in front of a packet: outer IP 20 or 40, UDP 8, VXLAN 8, inner Ethernet 14 (RFC 7348, section 5).
const (
	overheadV4 = 50
	overheadV6 = 70
)

// leastV6 is the MTU that IPv6 needs (RFC 8200, section 5).
const leastV6 = 1280

// claim is somebody's wish for a host link of some name.
type claim struct {
	identity string // equal claims are one link
	what     string // for people
	scope    *scope
}

// use is what takes a device's packets. The kernel allows one kind (netdev_rx_handler_register: EBUSY).
type use struct {
	as    string
	by    string
	scope *scope
}

// linkRules checks the host links that networks need on the nodes they reach.
type linkRules struct {
	*checker
	claims  map[string][]claim
	uses    map[string][]use
	parents map[string][]*link // by scope and device
}

func (c *checker) links() {
	r := linkRules{c, map[string][]claim{}, map[string][]use{}, map[string][]*link{}}
	for _, name := range sortedKeys(c.groups) {
		g := c.groups[name]
		sc := c.scopeOf([]*group{g})
		for _, link := range sortedKeys(g.links) {
			l := g.links[link]
			r.claims[link] = append(r.claims[link], claim{"declared " + link, "the " + string(l.Kind) + " interface declared in " + l.place(), sc})
			if l.Master != "" && !c.isVRF(g, l.Master) {
				r.uses[link] = append(r.uses[link], use{"a port of " + l.Master, "group " + g.Name, sc})
			}
			switch l.Kind {
			case model.VLAN:
				r.once(l, vlanKey(l.Parent, l.VLANID), sc, diag.VLANTwiceOnDevice, l.in("id"), fmt.Sprintf("VLAN %d of %s", l.VLANID, l.Parent))
			case model.VRF:
				r.once(l, fmt.Sprintf("table %d", l.Table), sc, diag.VRFTableTaken, l.in("table"), fmt.Sprintf("table %d", l.Table))
			}
		}
	}
	for _, n := range c.netList {
		if !n.broken() && !n.odd {
			r.network(n)
		}
	}
	c.hostDevices()
	c.poolMTUs()
	c.poolsInUse()
}

// once claims what a node has one of for a declared link, under a key that no link has as its name.
func (r *linkRules) once(l *link, key string, sc *scope, code diag.Code, at spot, what string) {
	mine := "declared " + l.Name
	for _, have := range r.claims[key] {
		if have.identity != mine && r.meet(have.scope, sc) {
			r.error(code, at, fmt.Sprintf("%s is that of %s already", what, have.what), "take another number, or keep one of the two")
			return
		}
	}
	r.claims[key] = append(r.claims[key], claim{mine, "the interface " + l.Name + " declared in " + l.place(), sc})
}

// isVRF says whether a group's link is a VRF, which leaves the receive handlers of its ports alone.
func (c *checker) isVRF(g *group, name string) bool {
	return g.links[name] != nil && g.links[name].Kind == model.VRF
}

// vlanKey stands for a VLAN of a device among the claims; no link has such a name.
func vlanKey(device string, id uint16) string { return fmt.Sprintf("%s/%d", device, id) }

// nameSpot is the field that a network's link is named by.
func (n *network) nameSpot() spot {
	if n.used.NetworkID == "" {
		return n.in("metadata").in("name")
	}
	return n.in("spec").in("networkID")
}

func (r *linkRules) network(n *network) {
	parents := r.parentsOf(n)
	if !r.carriesNetworks(n, parents) {
		return
	}
	if !n.linkless() && n.Driver() != model.HOSTDEVICE && !r.hostLinks(n, parents) {
		return
	}
	r.fitsParent(n, parents)
	r.fitsIPv6(n, parents)
}

// hostLinks checks the links that a network needs on the host; false if their names are of no use.
func (r *linkRules) hostLinks(n *network, parents []*link) bool {
	carrier, shown, made := n.device, n.device, n.tagged && (n.ID() != 0 || n.auto)
	switch {
	case n.tagged && !made:
		return false // the number is wrong
	case n.VXLAN:
		carrier = "vx_" + n.NetworkID
		shown = carrier
	case made && n.VLAN != 0:
		carrier = fmt.Sprintf("%s.%d", n.NetworkID, n.VLAN)
		shown = carrier
	case made: // the longest that it may become
		shown = n.NetworkID + ".<vlan>"
		carrier = fmt.Sprintf("%s.%d", n.NetworkID, maxVLAN)
	}
	bridge, inPods := "br_"+n.NetworkID, n.Driver() == model.TAGGED
	if made && !inPods {
		ok := r.fits(n, carrier)
		if n.Driver() == model.BRIDGE {
			ok = r.fits(n, bridge) && ok
		}
		if !ok {
			return false
		}
	}
	if n.wire == nil {
		return true
	}
	identity := fmt.Sprintf("%s %t %d %s", n.domain(), n.VXLAN, n.wire.id, n.wire.open)
	if n.VLANAuto {
		carrier = fmt.Sprintf("%s.%d%s", n.NetworkID, n.wire.id, n.wire.open) // no name yet, but one for each
	}
	switch {
	case made && !n.VLANAuto && !inPods && !r.claim(n, carrier, identity), n.VLAN != 0 && !r.claimVLAN(n, carrier):
	case n.Delegate != nil: // what it does with the device is not known
	case inPods: // the device has other users beside
	case n.Driver() != model.BRIDGE:
		r.use(n, carrier, shown, n.Use())
	case made:
		r.claim(n, bridge, identity)
		r.use(n, carrier, shown, "a port of "+bridge)
	default:
		r.needsBridge(n, parents)
	}
	return true
}

// carriesNetworks checks that a network's device can pass its frames.
func (r *linkRules) carriesNetworks(n *network, parents []*link) bool {
	if n.linkless() {
		return true
	}
	for _, p := range parents {
		why := p.group.unfitBelow(p)
		if why != "" && n.fabric == nil {
			r.error(diag.DeviceConflict, n.in("spec").in("hostDevice"), fmt.Sprintf("network %s is on %s, %s (%s)", n.Key(), n.device, why, p.place()), "name the device that has its frames")
		}
		if why != "" {
			return false
		}
		if p.Kind == model.Bridge && p.Filtering && !n.odd {
			r.passesFilter(n, p)
		}
	}
	return true
}

// unfitBelow says why nothing can stand on a link, "" if it can.
func (g *group) unfitBelow(l *link) string {
	switch {
	case l.Kind == model.VRF:
		return "a VRF, which has no frames of its own"
	case g.isPort(l, model.Bond):
		return "a port of the bond " + l.Master + ", which gets all its frames"
	}
	return ""
}

// passesFilter checks that a filtering bridge is a member of what a network sends through it.
func (r *linkRules) passesFilter(n *network, p *link) {
	m := model.PortVLANs{}
	if p.PortVLANs != nil {
		m = *p.PortVLANs
	}
	outside := func(x model.Range32) bool {
		return !slices.ContainsFunc(m.Tagged, func(t model.Range32) bool { return t.First <= x.First && x.Last <= t.Last })
	}
	switch {
	case n.VLANAuto && n.fabric != nil:
		if ranges := n.fabric.VLANRanges; len(ranges) == 0 || slices.ContainsFunc(ranges, outside) {
			r.error(diag.NotMember, n.idSpot(), fmt.Sprintf("network %s leaves its VLAN open, and bridge %s (%s) is not a tagged member of all that fabric %s offers", n.Key(), p.Name, p.place(), n.fabric.Name), "give the fabric vlanRanges that are all among the bridge's vlans.tagged")
		}
	case n.VLAN != 0 && !contains(m.Tagged, uint32(n.VLAN)):
		r.error(diag.NotMember, n.idSpot(), fmt.Sprintf("bridge %s (%s) filters VLANs and is not itself a tagged member of %d, so network %s would be cut off", p.Name, p.place(), n.VLAN, n.Key()), fmt.Sprintf("add \"%d\" to the bridge's vlans.tagged", n.VLAN))
	case n.tagged || n.Delegate != nil:
	case n.Driver() == model.BRIDGE:
		r.error(diag.NotMember, n.in("spec").in("type"), fmt.Sprintf("network %s would plug Pods into bridge %s (%s), which filters VLANs, and their ports are members of none", n.Key(), p.Name, p.place()), "give the network a vlan that is among the bridge's vlans.tagged")
	case m.Untagged == 0:
		r.error(diag.NotMember, n.in("spec"), fmt.Sprintf("network %s uses bridge %s (%s) without a tag, which filters VLANs and has no untagged one itself", n.Key(), p.Name, p.place()), "give the network a vlan, or the bridge vlans.untagged")
	}
}

// needsBridge: an untagged network of type bridge plugs Pods into the device itself.
func (r *linkRules) needsBridge(n *network, parents []*link) {
	for _, p := range parents {
		if p.Kind != model.Bridge {
			r.error(diag.BridgeNeedsBridge, n.in("spec").in("type"), fmt.Sprintf("network %s of type bridge has neither VLAN nor VNI, and %s (%s) is no bridge", n.Key(), n.device, p.place()), "name a bridge of the topology, or give the network a VLAN or VNI")
			return
		}
	}
}

// claimVLAN: a device has one link for a VLAN (vlan_check_real_dev: EEXIST), whatever it is called.
func (r *linkRules) claimVLAN(n *network, carrier string) bool {
	for _, have := range r.claims[vlanKey(n.device, n.VLAN)] {
		if r.meet(have.scope, n.scope) {
			r.error(diag.VLANTwiceOnDevice, n.idSpot(), fmt.Sprintf("network %s needs the link %s for VLAN %d of %s, which is %s already", n.Key(), carrier, n.VLAN, n.device, have.what), "take another VLAN, or use that interface as hostDevice")
			return false
		}
	}
	return true
}

// fits checks the length of a link's name.
func (r *linkRules) fits(n *network, name string) bool {
	if len(name) <= maxLinkName {
		return true
	}
	room := maxLinkName - (len(name) - len(n.NetworkID))
	r.error(diag.LinkNameTooLong, n.nameSpot(), fmt.Sprintf("network %s needs the host link %s, which has %d bytes; the kernel takes %d", n.Key(), name, len(name), maxLinkName), fmt.Sprintf("set networkID to at most %d bytes", room))
	return false
}

// claim asks for a host link; false if another link of that name is on a node of both.
func (r *linkRules) claim(n *network, name, identity string) bool {
	for _, have := range r.claims[name] {
		if have.identity == identity && have.scope == n.scope {
			return true
		}
		if have.identity != identity && r.meet(have.scope, n.scope) {
			r.error(diag.LinkNameClash, n.nameSpot(), fmt.Sprintf("network %s needs the host link %s, which is also %s", n.Key(), name, have.what), "set another networkID")
			return false
		}
	}
	r.claims[name] = append(r.claims[name], claim{identity, "that of network " + n.Key() + " (" + n.place() + ")", n.scope})
	return true
}

// use takes a device for Pods; shown is its name for people.
func (r *linkRules) use(n *network, device, shown, as string) {
	for _, have := range r.uses[device] {
		if have.as == as && have.scope == n.scope {
			return
		}
		if have.as != as && r.meet(have.scope, n.scope) {
			r.error(diag.DeviceConflict, n.in("spec").in("type"), fmt.Sprintf("network %s uses %s for %s, but %s uses it as %s", n.Key(), shown, as, have.by, have.as), "a device serves ipvlan, macvlan or a bridge, one of them; give the networks one type, or separate them by VLAN or VNI")
			return
		}
	}
	r.uses[device] = append(r.uses[device], use{as, "network " + n.Key(), n.scope})
}

// parentsOf is every declaration of a network's device on the nodes it reaches.
func (r *linkRules) parentsOf(n *network) []*link {
	if n.scope == nil || n.device == "" {
		return nil
	}
	key := n.device
	for _, g := range n.scope.groups {
		key += "/" + g.Name
	}
	if have, known := r.parents[key]; known {
		return have
	}
	var out []*link
	for _, name := range sortedKeys(r.groups) {
		g := r.groups[name]
		if l := g.links[n.device]; l != nil && r.meet(r.scopeOf([]*group{g}), n.scope) {
			out = append(out, l)
		}
	}
	r.parents[key] = out
	return out
}

// headroom is what encapsulation takes of a packet.
func (n *network) headroom() int {
	if n.VXLAN && n.fabric != nil && n.fabric.VXLAN != nil {
		return n.fabric.overhead()
	}
	return 0
}

// fitsParent checks a declared MTU against the device's, where that is declared too.
func (r *linkRules) fitsParent(n *network, parents []*link) {
	for _, p := range parents {
		mtu, from := p.group.carries(p)
		if room := mtu - n.headroom(); mtu != 0 && n.MTU > room {
			needs := ""
			if n.headroom() > 0 {
				needs = fmt.Sprintf(" and needs %d for encapsulation", n.headroom())
			}
			r.error(diag.MTUAboveParent, n.in("spec").in("mtu"), fmt.Sprintf("MTU %d does not fit %s, which has %d (%s)%s", n.MTU, n.device, mtu, from.place(), needs), fmt.Sprintf("at most %d", room))
			return
		}
	}
}

// fitsIPv6 checks the MTU that a network with IPv6 gets from its device: below 1280 the kernel has no IPv6 there.
func (r *linkRules) fitsIPv6(n *network, parents []*link) {
	for _, p := range parents {
		mtu, from := p.group.carries(p)
		if room := mtu - n.headroom(); n.IPv6 != nil && n.MTU == 0 && mtu != 0 && room < leastV6 {
			r.error(diag.InvalidMTU, n.in("spec").in("ipv6"), fmt.Sprintf("%s (%s) leaves network %s %d bytes, and IPv6 needs %d", n.device, from.place(), n.Key(), room, leastV6), fmt.Sprintf("raise the device's mtu to %d at least", leastV6+n.headroom()))
			return
		}
	}
}

// overhead is that of the address family the fabric's packets travel by: the group's, or else IPv6 only if no node declares
// an IPv4 address.
func (f *fabric) overhead() int {
	if f.bytes == 0 {
		f.bytes = overheadV4
		if f.travelsV6() {
			f.bytes = overheadV6
		}
	}
	return f.bytes
}

func (f *fabric) travelsV6() bool {
	if f.VXLAN.Multicast.IsValid() {
		return f.VXLAN.Multicast.Is6()
	}
	v6 := false
	for _, n := range f.scope.nodeList() {
		a := underlayAddresses(n, f.Device)
		if a[0].IsValid() {
			return false
		}
		v6 = v6 || a[1].IsValid()
	}
	return v6
}
