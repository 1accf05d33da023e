package validate

import (
	"fmt"

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
			if l.Kind == model.VLAN {
				key := vlanKey(l.Parent, l.VLANID)
				r.claims[key] = append(r.claims[key], claim{"declared " + link, "the interface " + link + " declared in " + l.place(), sc})
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
	if !n.linkless() && n.Type != model.HOSTDEVICE && !r.hostLinks(n, parents) {
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
	bridge := "br_" + n.NetworkID
	if made {
		ok := r.fits(n, carrier)
		if n.Type == model.BRIDGE {
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
	case made && !n.VLANAuto && !r.claim(n, carrier, identity), n.VLAN != 0 && !r.claimVLAN(n, carrier):
	case n.Delegate != nil: // what it does with the device is not known
	case n.Type != model.BRIDGE:
		r.use(n, carrier, shown, string(n.Type))
	case made:
		r.claim(n, bridge, identity)
		r.use(n, carrier, shown, "a port of "+bridge)
	default:
		r.needsBridge(n, parents)
	}
	return true
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
		if room := p.MTU - n.headroom(); p.MTU != 0 && n.MTU > room {
			r.error(diag.MTUAboveParent, n.in("spec").in("mtu"), fmt.Sprintf("MTU %d does not fit %s, which has %d (%s) and needs %d for encapsulation", n.MTU, n.device, p.MTU, p.in("mtu").place(), n.headroom()), fmt.Sprintf("at most %d", room))
			return
		}
	}
}

// fitsIPv6 checks the MTU that a network with IPv6 gets from its device: below 1280 the kernel has no IPv6 there.
func (r *linkRules) fitsIPv6(n *network, parents []*link) {
	for _, p := range parents {
		if room := p.MTU - n.headroom(); n.IPv6 != nil && n.MTU == 0 && p.MTU != 0 && room < leastV6 {
			r.error(diag.InvalidMTU, n.in("spec").in("ipv6"), fmt.Sprintf("%s (%s) leaves network %s %d bytes, and IPv6 needs %d", n.device, p.in("mtu").place(), n.Key(), room, leastV6), fmt.Sprintf("raise the device's mtu to %d at least", leastV6+n.headroom()))
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
