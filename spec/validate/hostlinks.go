package validate

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"danm.io/danm/spec/bundle/v1"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// hostLinks reads every link of a group, and only then what refers to them.
func (c *checker) hostLinks(g *group, s spot, v *v1.Group) {
	for i, itf := range v.Interfaces {
		is := s.in("interfaces").nth(i)
		l := model.Link{Name: itf.Name, Kind: model.Physical, MTU: itf.MTU, Up: itf.Up}
		l.Match = c.match(is.in("match"), itf.Name, itf.Match)
		c.addLink(g, is, l, itf.Addresses)
	}
	for i, b := range v.Bonds {
		c.addLink(g, s.in("bonds").nth(i), model.Link{Name: b.Name, Kind: model.Bond, MTU: b.MTU, Up: true, Bond: c.bondOptions(s.in("bonds").nth(i), b)}, b.Addresses)
	}
	for i, b := range v.Bridges {
		c.addLink(g, s.in("bridges").nth(i), model.Link{Name: b.Name, Kind: model.Bridge, MTU: b.MTU, Up: true, Filtering: b.VLANFiltering}, b.Addresses)
	}
	for i, l := range v.VLANs {
		vs := s.in("vlans").nth(i)
		c.number(diag.InvalidVLAN, vs.in("id"), int64(l.ID), 1, maxVLAN)
		c.addLink(g, vs, model.Link{Name: l.Name, Kind: model.VLAN, Parent: l.Device, VLANID: uint16(l.ID), MTU: l.MTU, Up: true}, l.Addresses)
	}
	for i, l := range v.Dummies {
		c.addLink(g, s.in("dummies").nth(i), model.Link{Name: l.Name, Kind: model.Dummy, MTU: l.MTU, Up: true}, l.Addresses)
	}
	for i, l := range v.VRFs {
		vs := s.in("vrfs").nth(i)
		c.vrfTable(vs.in("table"), l.Table)
		c.addLink(g, vs, model.Link{Name: l.Name, Kind: model.VRF, Table: uint32(l.Table), Up: true}, l.Addresses)
	}
	c.hostPorts(g, s, v)
	for i, b := range v.Bridges {
		c.memberships(g, s.in("bridges").nth(i), b)
	}
	c.standings(g)
}

// hostPorts puts links under their bonds, bridges and VRFs.
func (c *checker) hostPorts(g *group, s spot, v *v1.Group) {
	for i, b := range v.Bonds {
		for k, port := range b.Ports {
			c.port(g, s.in("bonds").nth(i).in("ports").nth(k), port, b.Name, model.Bond)
		}
	}
	for i, b := range v.Bridges {
		for k, port := range b.Ports {
			c.port(g, s.in("bridges").nth(i).in("ports").nth(k), port, b.Name, model.Bridge)
		}
	}
	for i, f := range v.VRFs {
		for k, port := range f.Interfaces {
			c.port(g, s.in("vrfs").nth(i).in("interfaces").nth(k), port, f.Name, model.VRF)
		}
	}
	c.mistyped(g)
	c.sameCard(g)
}

// bondOptions checks what depends on the mode (Documentation/networking/bonding.rst, "Bonding Driver Options").
func (c *checker) bondOptions(s spot, b v1.Bond) *model.BondOptions {
	o := &model.BondOptions{
		Mode: b.Mode, MIIMonitor: b.MIIMonitor, UpDelay: b.UpDelay, DownDelay: b.DownDelay,
		XmitHashPolicy: b.XmitHashPolicy, LACPRate: b.LACPRate, MinLinks: b.MinLinks, Primary: b.Primary,
	}
	if known := c.choice(s.in("mode"), b.Mode, "active-backup", "balance-xor", "802.3ad"); known == "" {
		return o
	}
	c.choice(s.in("xmitHashPolicy"), b.XmitHashPolicy, "layer2", "layer2+3", "layer3+4", "encap2+3", "encap3+4", "vlan+srcmac")
	c.choice(s.in("lacpRate"), b.LACPRate, "slow", "fast")
	only := func(given bool, field string, modes ...string) {
		if given && !slices.Contains(modes, b.Mode) {
			c.error(diag.FieldNotAllowed, s.in(field), fmt.Sprintf("%s means nothing to a bond of mode %s", field, b.Mode), "it is for "+strings.Join(modes, " and ")+"; remove it, or change the mode")
		}
	}
	only(b.XmitHashPolicy != "", "xmitHashPolicy", "balance-xor", "802.3ad")
	only(b.LACPRate != "", "lacpRate", "802.3ad")
	only(b.MinLinks != 0, "minLinks", "802.3ad")
	only(b.Primary != "", "primary", "active-backup")
	if b.Primary != "" && !slices.Contains(b.Ports, b.Primary) {
		c.dangling("port of "+b.Name, b.Primary, s.in("primary"), b.Ports, false)
	}
	if len(b.Ports) == 0 && !s.broken() {
		c.error(diag.MissingField, s.in("ports"), fmt.Sprintf("bond %s has no ports", b.Name), "name the interfaces that it joins")
	}
	if c.number(diag.InvalidNumber, s.in("miiMonitor"), int64(b.MIIMonitor), 0, 60000) {
		c.bondDelay(s.in("upDelay"), b.UpDelay, b.MIIMonitor)
		c.bondDelay(s.in("downDelay"), b.DownDelay, b.MIIMonitor)
	}
	if c.number(diag.InvalidNumber, s.in("minLinks"), int64(b.MinLinks), 0, 64) && b.MinLinks > len(b.Ports) && len(b.Ports) > 0 {
		c.error(diag.InvalidNumber, s.in("minLinks"), fmt.Sprintf("bond %s has %d ports, so %d of them never work together", b.Name, len(b.Ports), b.MinLinks), fmt.Sprintf("at most %d", len(b.Ports)))
	}
	return o
}

// bondDelay: the kernel counts delays in rounds of its monitor and rounds them down in silence.
func (c *checker) bondDelay(s spot, delay, monitor int) {
	switch {
	case !c.number(diag.InvalidNumber, s, int64(delay), 0, 600000) || delay == 0:
	case monitor == 0:
		c.error(diag.MissingField, s, "a delay is counted in rounds of miiMonitor, which is not given", "give miiMonitor, such as 100")
	case delay%monitor != 0:
		c.error(diag.InvalidNumber, s, fmt.Sprintf("%d is no multiple of miiMonitor, %d", delay, monitor), fmt.Sprintf("take %d or %d", delay/monitor*monitor, (delay/monitor+1)*monitor))
	}
}

// vrfTable: 253 to 255 are the kernel's own tables, and model.Link's 0 is none.
func (c *checker) vrfTable(s spot, table int64) {
	if !c.number(diag.InvalidNumber, s, table, 1, 1<<31-1) {
		return
	}
	if table >= 253 && table <= 255 {
		c.error(diag.InvalidNumber, s, fmt.Sprintf("table %d is the kernel's own (default, main and local are 253 to 255)", table), "take another number, such as 1001")
	}
}

// portKinds are the links that can be put under one of a kind.
var portKinds = map[model.LinkKind][]model.LinkKind{
	model.Bond:   {model.Physical},
	model.Bridge: {model.Physical, model.Dummy, model.Bond, model.VLAN},
	model.VRF:    {model.Physical, model.Dummy, model.Bond, model.VLAN, model.Bridge},
}

// port puts a link under a bond, a bridge or a VRF. One the group does not declare is managed in that one respect.
func (c *checker) port(g *group, s spot, name, master string, kind model.LinkKind) {
	l := g.links[name]
	switch {
	case l == nil:
		if c.linkName(s, name) {
			g.links[name] = &link{Link: model.Link{Name: name, Kind: model.Physical, Master: master}, spot: s, group: g, undeclared: true}
		}
	case !slices.Contains(portKinds[kind], l.Kind):
		c.error(diag.DeviceConflict, s, fmt.Sprintf("%s is a %s, which cannot be put into the %s %s", name, l.Kind, kind, master), portHints[kind])
	case l.Master != "":
		c.error(diag.DeviceConflict, s, fmt.Sprintf("%s belongs to %s already", name, l.Master), "an interface has one bond, bridge or VRF")
	case kind != model.VRF && len(l.Addresses) > 0:
		c.error(diag.PortHasAddresses, l.in("addresses"), fmt.Sprintf("%s has addresses, but is a port of the %s %s, which gets all its packets", name, kind, master), "move the addresses to "+master)
	case kind == model.Bond && l.MTU != 0 && (g.links[master] == nil || l.MTU != g.links[master].MTU):
		c.error(diag.PortMTU, l.in("mtu"), fmt.Sprintf("%s declares MTU %d, but a bond's ports have the bond's MTU", name, l.MTU), "declare mtu on "+master+" only")
	default:
		l.Master = master
	}
}

// sameCard: a card is one link. Two matches that say the same find the same one.
func (c *checker) sameCard(g *group) {
	first := map[model.Match]string{}
	for _, name := range sortedKeys(g.links) {
		l := g.links[name]
		if l.Match == nil || *l.Match == (model.Match{}) {
			continue
		}
		if other, twice := first[*l.Match]; twice {
			c.error(diag.InvalidMatch, l.in("match"), fmt.Sprintf("%s is found by the same as %s (%s)", name, other, g.links[other].place()), "match each card by what it has alone")
		}
		first[*l.Match] = name
	}
}

// outsideVRF warns of routes that leave by a link of a VRF and stand in a table that the VRF does not ask.
func (c *checker) outsideVRF(g *group, s spot, r model.Route) {
	l := g.links[r.Dev]
	if l == nil || g.links[l.Master] == nil || g.links[l.Master].Kind != model.VRF {
		return
	}
	table := cmp.Or(r.Table, 254)
	if vrf := g.links[l.Master]; vrf.Table != table {
		c.warn(diag.RouteOutsideVRF, s, fmt.Sprintf("%s belongs to the VRF %s, which asks table %d; the route to %s is in table %d", r.Dev, vrf.Name, vrf.Table, r.To, table), fmt.Sprintf("set table: %d, if the VRF is to have the route", vrf.Table))
	}
}

// mistyped warns of ports that the group does not declare and that are spelt almost like a link that it declares and puts
// nowhere. Names of one length that differ in numbers alone are neighbours, not slips.
func (c *checker) mistyped(g *group) {
	for _, name := range sortedKeys(g.links) {
		port := g.links[name]
		master := g.links[port.Master]
		if !port.undeclared || master == nil {
			continue
		}
		var free []string
		for other, l := range g.links {
			if !l.undeclared && l.Master == "" && other != port.Master && (len(other) != len(name) || withoutDigits(other) != withoutDigits(name)) && slices.Contains(portKinds[master.Kind], l.Kind) {
				free = append(free, other)
			}
		}
		if hint := diag.Suggest(name, free); hint != "" {
			c.warn(diag.UndeclaredPort, port.spot, fmt.Sprintf("%s is not among the interfaces of group %s, so a card of that name is looked for", name, g.Name), hint+" Otherwise declare it under interfaces")
		}
	}
}

func withoutDigits(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, s)
}

var portHints = map[model.LinkKind]string{
	model.Bond:   "a bond joins physical interfaces",
	model.Bridge: "the kernel refuses bridges in bridges, and a VRF has no frames of its own",
	model.VRF:    "the kernel refuses VRFs in VRFs",
}

// memberships reads the VLANs of a bridge and its ports.
func (c *checker) memberships(g *group, s spot, b v1.Bridge) {
	l := g.links[b.Name]
	if l == nil || l.path != s.path || l.doc != s.doc { // a second link of that name
		return
	}
	if !b.VLANFiltering {
		for field, given := range map[string]bool{"vlans": b.VLANs != nil, "portVLANs": len(b.PortVLANs) > 0} {
			if given {
				c.error(diag.FieldNotAllowed, s.in(field), fmt.Sprintf("%s means nothing while bridge %s does not filter VLANs", field, b.Name), "add vlanFiltering: true, or remove "+field)
			}
		}
		return
	}
	if b.VLANs != nil {
		l.PortVLANs = c.membership(s.in("vlans"), b.VLANs.Tagged, b.VLANs.Untagged)
	}
	before := len(c.problems)
	seen := map[string]bool{}
	for i, p := range b.PortVLANs {
		ps := s.in("portVLANs").nth(i)
		switch port := g.links[p.Port]; {
		case seen[p.Port]:
			c.error(diag.DuplicateName, ps.in("port"), fmt.Sprintf("the VLANs of port %s are given twice", p.Port), "join them")
		case !slices.Contains(b.Ports, p.Port):
			c.dangling("port of "+b.Name, p.Port, ps.in("port"), b.Ports, false)
		case port != nil && port.Master == b.Name:
			port.PortVLANs = c.membership(ps, p.Tagged, p.Untagged)
		}
		seen[p.Port] = true
	}
	for k, port := range b.Ports {
		if l := g.links[port]; len(b.PortVLANs) > 0 && len(c.problems) == before && !seen[port] && l != nil && l.Master == b.Name {
			c.warn(diag.NoMembership, s.in("ports").nth(k), fmt.Sprintf("port %s of %s, which filters VLANs, is in none: nothing passes it", port, b.Name), "say its VLANs in portVLANs")
		}
	}
	if b.VLANs == nil && len(b.PortVLANs) == 0 && !s.broken() {
		c.warn(diag.NoMembership, s.in("vlanFiltering"), fmt.Sprintf("bridge %s filters VLANs, and no port of it is in any: nothing passes", b.Name), "say the ports' VLANs in portVLANs, the bridge's own in vlans")
	}
}

func (c *checker) membership(s spot, tagged []string, untagged int) *model.PortVLANs {
	whole := true
	m := &model.PortVLANs{Tagged: joinRanges(c.idRanges(s.in("tagged"), tagged, diag.InvalidVLAN, maxVLAN, &whole)), Untagged: uint16(untagged)}
	if untagged == 0 || !c.number(diag.InvalidVLAN, s.in("untagged"), int64(untagged), 1, maxVLAN) {
		return m
	}
	if contains(m.Tagged, uint32(untagged)) {
		c.error(diag.InvalidVLAN, s.in("untagged"), fmt.Sprintf("VLAN %d is among the tagged ones too", untagged), "a port sends the frames of a VLAN with a tag or without")
	}
	return m
}

// joinRanges makes sorted ranges disjoint and as few as can be.
func joinRanges(in []model.Range32) []model.Range32 {
	var out []model.Range32
	for _, r := range in {
		if last := len(out) - 1; last >= 0 && r.First <= out[last].Last+1 {
			out[last].Last = max(out[last].Last, r.Last)
			continue
		}
		out = append(out, r)
	}
	return out
}

func contains(ranges []model.Range32, id uint32) bool {
	return slices.ContainsFunc(ranges, func(r model.Range32) bool { return r.Contains(id) })
}

// standings checks what stands on what within a group: devices of VLANs, loops, MTUs from the bottom up.
func (c *checker) standings(g *group) {
	for _, name := range sortedKeys(g.links) {
		if l := g.links[name]; l.Kind == model.VLAN {
			c.vlanDevice(g, l)
		}
	}
	c.loops(g)
	for _, name := range sortedKeys(g.links) {
		c.fitsBelow(g, g.links[name])
	}
}

func (c *checker) vlanDevice(g *group, l *link) {
	p := g.links[l.Parent]
	switch {
	case p == nil:
		c.dangling("device", l.Parent, l.in("device"), keys(g.links), false)
	case g.unfitBelow(p) != "":
		c.error(diag.DeviceConflict, l.in("device"), fmt.Sprintf("%s is %s", l.Parent, g.unfitBelow(p)), "name the device that has its frames")
	case p.Filtering && (p.PortVLANs == nil || !contains(p.PortVLANs.Tagged, uint32(l.VLANID))):
		c.error(diag.NotMember, l.in("id"), fmt.Sprintf("bridge %s filters VLANs and is not itself a tagged member of %d, so %s would be cut off", l.Parent, l.VLANID, l.Name), fmt.Sprintf("add \"%d\" to the bridge's vlans.tagged", l.VLANID))
	}
}

// isPort says whether a link is under another of a kind that the group declares.
func (g *group) isPort(l *link, kind model.LinkKind) bool {
	m := g.links[l.Master]
	return l.Master != "" && m != nil && m.Kind == kind
}

// loops finds links that stand on themselves: a VLAN stands on its device, a bridge or bond on its ports.
func (c *checker) loops(g *group) {
	below := map[string][]string{}
	for _, name := range sortedKeys(g.links) {
		l := g.links[name]
		if l.Parent != "" {
			below[name] = append(below[name], l.Parent)
		}
		if l.Master != "" && !g.isPort(l, model.VRF) {
			below[l.Master] = append(below[l.Master], name)
		}
	}
	told := map[string]bool{}
	for _, name := range sortedKeys(g.links) {
		on := map[string]bool{}
		var stand func(string)
		stand = func(at string) {
			for _, b := range below[at] {
				if !on[b] {
					on[b] = true
					stand(b)
				}
			}
		}
		stand(name)
		if !on[name] || told[name] || g.links[name].Kind != model.VLAN {
			continue
		}
		c.error(diag.LinkLoop, g.links[name].in("device"), fmt.Sprintf("%s stands on itself: %s leads back to it", name, g.links[name].Parent), "name another device, or take it out of the bridge")
		for b := range on {
			told[b] = true
		}
	}
}

// carries is the MTU that a link is sure to have, and the field that says so; 0 if none does.
func (g *group) carries(l *link) (int, spot) {
	for range len(g.links) { // a loop has been told of
		if l == nil || l.MTU != 0 || l.Kind != model.VLAN {
			break
		}
		l = g.links[l.Parent]
	}
	if l == nil {
		return 0, spot{}
	}
	return l.MTU, l.in("mtu")
}

// fitsBelow checks a declared MTU against those of the links below: a VLAN's device, a bridge's ports.
func (c *checker) fitsBelow(g *group, l *link) {
	if l.MTU == 0 {
		return
	}
	below := []string{l.Parent}
	if l.Kind == model.Bridge {
		below = nil
		for _, name := range sortedKeys(g.links) {
			if g.links[name].Master == l.Name {
				below = append(below, name)
			}
		}
	}
	for _, name := range below {
		if room, from := g.carries(g.links[name]); room != 0 && l.MTU > room {
			c.error(diag.MTUAboveParent, l.in("mtu"), fmt.Sprintf("MTU %d of %s does not fit %s, which has %d (%s)", l.MTU, l.Name, name, room, from.place()), fmt.Sprintf("at most %d", room))
			return
		}
	}
}
