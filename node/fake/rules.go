package fake

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"danm.io/danm/node/plan"
	"danm.io/danm/spec/model"
)

func (k *Kernel) children(name string) []*plan.ObservedLink {
	var out []*plan.ObservedLink
	for _, l := range k.links {
		if l.Parent == name {
			out = append(out, l)
		}
	}
	return out
}

// limit is the largest MTU that the parent allows, 0 without bound: vlan_dev_change_mtu, vxlan_change_mtu.
func (k *Kernel) limit(l *plan.ObservedLink) int {
	p := k.links[l.Parent]
	if p == nil {
		return 0
	}
	switch l.Kind {
	case model.VLAN:
		return p.MTU
	case model.VXLAN:
		if l.VXLAN.Local.Is6() || l.VXLAN.Group.Is6() {
			return p.MTU - 70
		}
		return p.MTU - 50
	}
	return 0
}

// create makes one of our links, or finishes one whose making was cut off.
func (k *Kernel) create(l model.Link) error {
	have := k.links[l.Name]
	if have == nil {
		o := plan.ObservedLink{Link: l, KernelKind: string(l.Kind), Group: plan.Group}
		o.Addresses, o.Match, o.Master, o.Alias, o.Up, o.PortVLANs = nil, nil, "", "", false, nil
		if err := k.insert(o); err != nil {
			return err
		}
		have = k.links[l.Name]
	} else if have.Group != plan.Group || have.Kind != l.Kind {
		return ErrExist
	}
	for _, p := range []struct{ name, value string }{{"mtu", strconv.Itoa(l.MTU)}, {"master", l.Master}, {"alias", l.Alias}} {
		if p.name == "mtu" && l.MTU == 0 {
			continue
		}
		if err := k.set(l.Name, p.name, p.value); err != nil {
			return err
		}
	}
	if l.Up {
		return k.set(l.Name, "up", "up")
	}
	return nil
}

// insert is RTM_NEWLINK with NLM_F_EXCL.
func (k *Kernel) insert(o plan.ObservedLink) error {
	if k.links[o.Name] != nil {
		return ErrExist
	}
	if o.Parent != "" && k.links[o.Parent] == nil {
		return fmt.Errorf("%s: %w", o.Parent, ErrNoDevice)
	}
	for _, other := range k.links {
		sameVNI := o.VXLAN != nil && other.VXLAN != nil && o.VXLAN.VNI == other.VXLAN.VNI && o.VXLAN.Port == other.VXLAN.Port
		sameVLAN := o.Kind == model.VLAN && other.Kind == model.VLAN && o.Parent == other.Parent && o.VLANID == other.VLANID
		if sameVNI || sameVLAN {
			return fmt.Errorf("id is held by %s: %w", other.Name, ErrExist)
		}
	}
	max := k.limit(&o)
	if o.Bond != nil {
		b := *o.Bond
		b.Primary = ""
		o.Bond = &b
	}
	switch {
	case o.MTU == 0 && max > 0:
		o.MTU = max
	case o.MTU == 0:
		o.MTU = 1500
	case max > 0 && o.MTU > max:
		return fmt.Errorf("mtu %d above %d: %w", o.MTU, max, ErrInvalid)
	}
	k.links[o.Name] = &o
	k.params.linkCame(o.Name)
	return nil
}

// remove is RTM_DELLINK: what stands on the link goes too, its ports are freed.
func (k *Kernel) remove(name string) {
	if k.links[name] == nil {
		return
	}
	for _, c := range k.children(name) {
		k.remove(c.Name)
	}
	kind := k.links[name].Kind
	delete(k.links, name)
	k.params.linkWent(name)
	for _, l := range k.links {
		if l.Master == name {
			k.release(l, kind)
		}
	}
	k.routes = slices.DeleteFunc(k.routes, func(r plan.ObservedRoute) bool { return r.Dev == name })
	for p := range k.peers {
		if p.Link == name {
			delete(k.peers, p)
		}
	}
}

func (k *Kernel) set(name, property, value string) error {
	l := k.links[name]
	if l == nil {
		return ErrNoDevice
	}
	switch property {
	case "mtu":
		return k.setMTU(l, value)
	case "up":
		if value == "up" {
			return k.bringUp(l)
		}
		k.bringDown(l)
	case "master":
		return k.enslave(l, value)
	case "alias":
		l.Alias = value
	case "numvfs":
		return k.setNumVFs(l, value)
	case "vlan_filtering":
		if l.Kind != model.Bridge {
			return fmt.Errorf("property %q: %w", property, ErrInvalid)
		}
		l.Filtering = value == "on"
	case "vlans":
		return k.setVLANs(l, value)
	default:
		return k.setBondOption(l, property, value)
	}
	return nil
}

func (k *Kernel) setMTU(l *plan.ObservedLink, value string) error {
	mtu, err := strconv.Atoi(value)
	max := k.limit(l)
	if err != nil || mtu < 68 || l.MaxMTU != 0 && mtu > l.MaxMTU || max > 0 && mtu > max {
		return fmt.Errorf("mtu %s: %w", value, ErrInvalid)
	}
	l.MTU = mtu
	for _, port := range k.links {
		if l.Kind == model.Bond && port.Master == l.Name {
			if err := k.setMTU(port, value); err != nil {
				return err
			}
		}
	}
	for _, c := range k.children(l.Name) {
		if c.Kind == model.VLAN && c.MTU > mtu {
			if err := k.setMTU(c, value); err != nil {
				return err
			}
		}
	}
	return nil
}

// bringUp: a VLAN needs its device up, and follows it up.
func (k *Kernel) bringUp(l *plan.ObservedLink) error {
	if p := k.links[l.Parent]; l.Kind == model.VLAN && p != nil && !p.Up {
		return ErrDown
	}
	if l.Up {
		return nil
	}
	l.Up = true
	for _, c := range k.children(l.Name) {
		if c.Kind == model.VLAN {
			if err := k.bringUp(c); err != nil {
				return err
			}
		}
	}
	return nil
}

// bringDown loses all routes over the link and its global IPv6 addresses; VLANs follow.
func (k *Kernel) bringDown(l *plan.ObservedLink) {
	if !l.Up {
		return
	}
	l.Up = false
	l.Addresses = slices.DeleteFunc(l.Addresses, func(a netip.Prefix) bool { return a.Addr().Is6() && !a.Addr().IsLinkLocalUnicast() })
	k.routes = slices.DeleteFunc(k.routes, func(r plan.ObservedRoute) bool { return r.Dev == l.Name })
	for _, c := range k.children(l.Name) {
		if c.Kind == model.VLAN {
			k.bringDown(c)
		}
	}
}

func (k *Kernel) addAddress(name string, a netip.Prefix) error {
	l := k.links[name]
	if l == nil {
		return ErrNoDevice
	}
	for _, b := range l.Addresses {
		if b == a {
			return nil
		}
		if a.Addr().Is6() && a.Addr() == b.Addr() {
			return fmt.Errorf("%s: %w", b, ErrExist)
		}
	}
	l.Addresses = append(l.Addresses, a)
	return nil
}

// deleteAddress puts back what else the kernel drops, as node/link does; with the last IPv4 address go the IPv4 routes
// over gateways, which nothing reaches any more.
func (k *Kernel) deleteAddress(name string, a netip.Prefix) {
	l := k.links[name]
	if l == nil || !slices.Contains(l.Addresses, a) {
		return
	}
	l.Addresses = slices.DeleteFunc(l.Addresses, func(b netip.Prefix) bool { return b == a })
	if a.Addr().Is6() {
		return
	}
	for _, b := range l.Addresses {
		if b.Addr().Is4() {
			return
		}
	}
	k.routes = slices.DeleteFunc(k.routes, func(r plan.ObservedRoute) bool {
		return r.Dev == name && r.To.Addr().Is4() && r.Via.IsValid()
	})
}

func (k *Kernel) addRoute(r model.Route, protocol int) error {
	key := keyOf(r)
	r.To, r.Table, r.Metric = key.to, key.table, key.metric
	if r.Via.IsValid() && !k.reachable(&r) {
		return fmt.Errorf("gateway %s: %w", r.Via, ErrUnreachable)
	}
	l := k.links[r.Dev]
	if l == nil {
		return ErrNoDevice
	}
	if !l.Up {
		return ErrDown
	}
	wanted := plan.ObservedRoute{Route: r, Protocol: protocol}
	for i, have := range k.routes {
		if keyOf(have.Route) != key {
			continue
		}
		if have.Via == r.Via && have.Dev == r.Dev {
			return nil
		}
		if have.Protocol != protocol {
			return ErrExist
		}
		k.routes[i] = wanted
		return nil
	}
	k.routes = append(k.routes, wanted)
	return nil
}

// reachable wants the gateway on a subnet of the device, or of any up device if none is named, which it then fills in.
func (k *Kernel) reachable(r *model.Route) bool {
	var names []string
	for n := range k.links {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		l := k.links[n]
		if !l.Up || r.Dev != "" && r.Dev != n {
			continue
		}
		onLink := slices.ContainsFunc(l.Addresses, func(a netip.Prefix) bool { return a.Contains(r.Via) })
		for _, other := range k.routes {
			onLink = onLink || other.Dev == n && !other.Via.IsValid() && other.To.Contains(r.Via) && other.Table == 254
		}
		if onLink {
			r.Dev = n
			return true
		}
	}
	return false
}

func (k *Kernel) deleteRoute(r model.Route, protocol int) {
	key := keyOf(r)
	k.routes = slices.DeleteFunc(k.routes, func(have plan.ObservedRoute) bool {
		return keyOf(have.Route) == key && have.Protocol == protocol
	})
}

// ruleAsHeld is a rule as the kernel lists it: host bits cut, a mark without a mask has a full one.
func ruleAsHeld(r plan.ObservedRule) plan.ObservedRule {
	for _, p := range []*netip.Prefix{&r.From, &r.To} {
		if !p.IsValid() || p.Bits() == 0 {
			*p = netip.Prefix{}
		} else {
			*p = p.Masked()
		}
	}
	if r.Mark != 0 && r.Mask == 0 {
		r.Mask = 0xffffffff
	}
	return r
}

func (k *Kernel) addRule(r plan.ObservedRule) {
	if r = ruleAsHeld(r); !slices.Contains(k.rules, r) {
		k.rules = append(k.rules, r)
	}
}

func (k *Kernel) deleteRule(r plan.ObservedRule) {
	r = ruleAsHeld(r)
	k.rules = slices.DeleteFunc(k.rules, func(have plan.ObservedRule) bool { return have == r })
}
