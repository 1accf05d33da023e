package link

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"danm.io/danm/node/plan"
	"danm.io/danm/spec/model"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// addAddress sets IPv6 addresses without duplicate address detection: they are ours by declaration, and a tentative one
// is no source for the probes that decide over the plan.
func (k *Kernel) addAddress(name string, p netip.Prefix) error {
	l, err := k.h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	a := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	err = k.h.AddrAdd(l, a)
	if errors.Is(err, unix.EEXIST) {
		// IPv6 says so too if the address is there with another prefix length.
		have, listErr := AddressesOn(k.h, l)
		if listErr == nil && slices.ContainsFunc(have, func(a netlink.Addr) bool { return prefixOf(a.IPNet) == p }) {
			return nil
		}
	}
	return wrap("add address", err)
}

// deleteAddress removes one address and puts back what the kernel drops with it.
func (k *Kernel) deleteAddress(name string, p netip.Prefix) error {
	l, err := k.h.LinkByName(name)
	if isMissing(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	addrs, err := AddressesOn(k.h, l)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	at := slices.IndexFunc(addrs, func(a netlink.Addr) bool { return prefixOf(a.IPNet) == p })
	if at < 0 {
		return nil
	}
	routes, err := k.routesOver(l, p)
	if err != nil {
		return err
	}
	doomed := addrs[at]
	if err := k.h.AddrDel(l, &doomed); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("delete address: %w", err)
	}
	if p.Addr().Is6() {
		return nil // IPv6 has no secondaries, and its routes stay
	}
	return k.putBack(l, slices.Delete(addrs, at, at+1), routes)
}

func (k *Kernel) routesOver(l netlink.Link, p netip.Prefix) ([]netlink.Route, error) {
	if p.Addr().Is6() {
		return nil, nil
	}
	routes, err := RoutesIn(k.h, netlink.FAMILY_V4)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	return slices.DeleteFunc(routes, func(r netlink.Route) bool { return isKernelRoute(r) || outIndex(r) != l.Attrs().Index }), nil
}

// putBack adds again, in their order, the IPv4 addresses and routes of a link that are gone. A route that the kernel does
// not take any more (its gateway or source went with the address) is lost with what it stood on.
func (k *Kernel) putBack(l netlink.Link, addrs []netlink.Addr, routes []netlink.Route) error {
	have, err := AddressesOn(k.h, l)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		if a.IP.To4() == nil || slices.ContainsFunc(have, a.Equal) {
			continue
		}
		a.Flags &^= unix.IFA_F_SECONDARY | unix.IFA_F_PERMANENT
		if err := k.h.AddrAdd(l, &a); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("put back address %s: %w", a.IPNet, err)
		}
	}
	// Routes without a gateway first: they may be what makes a gateway reachable.
	slices.SortStableFunc(routes, func(a, b netlink.Route) int { return len(a.Gw) - len(b.Gw) })
	for _, r := range routes {
		r.Flags &^= unix.RTNH_F_LINKDOWN | unix.RTNH_F_DEAD
		err := k.h.RouteAdd(&r)
		if err != nil && !isErrno(err, unix.EEXIST, unix.ENETUNREACH, unix.EHOSTUNREACH, unix.EINVAL, unix.ENETDOWN) {
			return fmt.Errorf("put back route to %s: %w", r.Dst, err)
		}
	}
	return nil
}

func isErrno(err error, of ...error) bool {
	return slices.ContainsFunc(of, func(e error) bool { return errors.Is(err, e) })
}

// addRoute adds a route, or replaces the next hop of ours. A route of another's is an obstacle unless it is the same.
func (k *Kernel) addRoute(s plan.Step) error {
	r, err := k.netlinkRoute(*s.Route, protocolOf(s))
	if err != nil {
		return err
	}
	err = k.h.RouteAdd(r)
	if !errors.Is(err, unix.EEXIST) {
		return wrap("add route", err)
	}
	have, findErr := k.findRoute(*s.Route, r)
	if findErr != nil {
		return findErr
	}
	got := modelRoute(have, familyOf(s.Route.To))
	switch {
	case got.Via == s.Route.Via && (s.Route.Dev == "" || outIndex(have) == r.LinkIndex):
		return nil
	case int(have.Protocol) != protocolOf(s):
		return fmt.Errorf("add route: protocol %d has it: %w", have.Protocol, err)
	}
	return wrap("replace route", k.h.RouteReplace(r))
}

func protocolOf(s plan.Step) int {
	if s.Protocol != 0 {
		return s.Protocol
	}
	return plan.RouteProtocol
}

func familyOf(p netip.Prefix) int {
	if p.Addr().Is6() {
		return netlink.FAMILY_V6
	}
	return netlink.FAMILY_V4
}

func (k *Kernel) netlinkRoute(m model.Route, protocol int) (*netlink.Route, error) {
	r := &netlink.Route{Dst: ipNet(m.To.Masked()), Table: int(m.Table), Priority: int(m.Metric), Protocol: netlink.RouteProtocol(protocol)}
	if m.Via.IsValid() {
		r.Gw = m.Via.AsSlice()
	} else if m.To.Addr().Is4() {
		r.Scope = netlink.SCOPE_LINK // only such a route makes a gateway behind it reachable
	}
	if m.Dev != "" {
		i, err := k.index(m.Dev)
		if err != nil {
			return nil, err
		}
		r.LinkIndex = i
	}
	return r, nil
}

// findRoute is the route that stands where m should.
func (k *Kernel) findRoute(m model.Route, r *netlink.Route) (netlink.Route, error) {
	family := familyOf(m.To)
	routes, err := RoutesIn(k.h, family)
	if err != nil {
		return netlink.Route{}, fmt.Errorf("list routes: %w", err)
	}
	for _, have := range routes {
		if !isKernelRoute(have) && plan.RouteID(modelRoute(have, family)) == plan.RouteID(m) {
			return have, nil
		}
	}
	return netlink.Route{}, fmt.Errorf("route to %s: %w", r.Dst, unix.EEXIST)
}

func (k *Kernel) deleteRoute(s plan.Step) error {
	m := *s.Route
	m.Dev, m.Via = "", netip.Addr{} // table, destination, metric and protocol name it
	r, err := k.netlinkRoute(m, protocolOf(s))
	if err != nil {
		return err
	}
	r.Scope = netlink.SCOPE_NOWHERE // matches any
	if r.Table == 0 {
		r.Table = plan.MainTable
	}
	if err := k.h.RouteDel(r); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("delete route: %w", err)
	}
	return nil
}

// peer adds or removes an all-zero FDB entry: NTF_SELF is the VXLAN itself, not a bridge above it.
func (k *Kernel) peer(op plan.Op, p model.Peer) error {
	l, err := k.h.LinkByName(p.Link)
	if op == plan.DeletePeer && isMissing(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find %s: %w", p.Link, err)
	}
	e := &netlink.Neigh{LinkIndex: l.Attrs().Index, Family: unix.AF_BRIDGE, State: unix.NUD_NOARP | unix.NUD_PERMANENT, Flags: unix.NTF_SELF,
		IP: p.Addr.AsSlice(), HardwareAddr: make([]byte, 6)}
	if op == plan.AddPeer {
		if err := k.h.NeighAppend(e); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("add flood entry: %w", err)
		}
		return nil
	}
	if err := k.h.NeighDel(e); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete flood entry: %w", err)
	}
	return nil
}
