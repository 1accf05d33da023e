package attach

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"strings"

	"danm.io/danm/spec/model"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// setUp gives a new link, still down, its sysctls, name and addresses, and sets it up.
func (w *work) setUp(l netlink.Link, at model.Attachment) error {
	if err := w.sysctls(l.Attrs().Name, at); err != nil {
		return err
	}
	if err := w.do(func() error { return w.inside.LinkSetName(l, at.IfName) }, "rename the new link to %s", at.IfName); err != nil {
		return err
	}
	for _, p := range at.Addresses {
		if err := w.do(func() error { return w.inside.AddrAdd(l, address(p)) }, "add address %s to %s", p, at.IfName); err != nil {
			return err
		}
	}
	return w.do(func() error { return w.inside.LinkSetUp(l) }, "set %s up", at.IfName)
}

// sysctls turns IPv6 on or off on this link alone. Router advertisements would add addresses and routes that nobody
// declared, so they are not accepted.
func (w *work) sysctls(ifName string, at model.Attachment) error {
	settings := [][2]string{{"disable_ipv6", "1"}}
	if at.IPv6 {
		settings = [][2]string{{"disable_ipv6", "0"}, {"accept_ra", "0"}, {"autoconf", "0"}, {"ndisc_notify", "1"}}
	}
	for _, s := range settings {
		err := w.do(func() error { return w.inside.Sysctl("ipv6/conf/"+ifName+"/"+s[0], s[1]) }, "set net.ipv6.conf.%s.%s", at.IfName, s[0])
		if errors.Is(err, fs.ErrNotExist) {
			break // a kernel without IPv6: where an IPv6 address is wanted, adding it fails
		}
		if err != nil {
			return err
		}
	}
	for _, s := range at.Sysctls { // what the network says last, says
		if err := w.do(func() error { return w.inside.Sysctl(sysctlPath(s.Key, ifName), s.Value) }, "set %s to %s", sysctlName(s.Key, at.IfName), s.Value); err != nil {
			return err
		}
	}
	return nil
}

// sysctlPath is a network's parameter for an interface, as a file below net: "ipv4/conf/eth1/rp_filter". Keys come from the rule
// book's list alone.
func sysctlPath(key, ifName string) string {
	parts := strings.Split(strings.TrimPrefix(key, "net."), ".")
	for i, p := range parts {
		if p == model.IfNameWord {
			parts[i] = ifName
		}
	}
	return strings.Join(parts, "/")
}

// sysctlName is the same for people.
func sysctlName(key, ifName string) string { return strings.Replace(key, model.IfNameWord, ifName, 1) }

// address makes an IPv6 address usable at once: IPAM gives each one to a single holder, and duplicate address detection
// would hold the Pod's first packets for a second (RFC 4862, section 5.4).
func address(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func family(a netip.Addr) int {
	if a.Is4() {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}

// routes adds the network's routes, then the policy routes in their table with one rule an address.
func (w *work) routes(index int, at model.Attachment) error {
	for _, r := range at.Routes {
		if err := w.route(index, r, 0); err != nil {
			return err
		}
	}
	for _, r := range at.PolicyRoutes {
		if err := w.route(index, r, at.Table); err != nil {
			return err
		}
	}
	for _, rule := range rules(at) {
		err := w.do(func() error { return w.inside.RuleAdd(rule) }, "add rule from %s to table %d", rule.Src, rule.Table)
		if errors.Is(err, unix.EEXIST) {
			continue
		}
		if err != nil {
			return err
		}
		w.undo.push(func() error { return removeRule(w.inside, rule) })
	}
	return nil
}

// rules are the policy rules of an attachment: by host address (/32, /128), for with the subnet's mask the rule of one
// interface would catch the traffic of another one in the same subnet.
func rules(at model.Attachment) (out []*netlink.Rule) {
	for _, a := range at.Addresses {
		for _, r := range at.PolicyRoutes {
			if r.To.Addr().Is4() != a.Addr().Is4() {
				continue
			}
			rule := netlink.NewRule()
			rule.Src, rule.Table = ipNet(netip.PrefixFrom(a.Addr(), a.Addr().BitLen())), int(at.Table)
			rule.Family = family(a.Addr())
			out = append(out, rule)
			break
		}
	}
	return out
}

func removeRule(h handle, rule *netlink.Rule) error {
	if err := h.RuleDel(rule); err != nil && !gone(err) {
		return fmt.Errorf("delete rule from %s to table %d: %w", rule.Src, rule.Table, err)
	}
	return nil
}

// route adds one route; it goes with its link, so it needs no undo. A route to the same destination by the same gateway
// is as good, whichever of the Pod's interfaces it leaves by: two interfaces on one network both bring the network's
// routes.
func (w *work) route(index int, r model.PodRoute, table uint32) error {
	route := &netlink.Route{LinkIndex: index, Dst: ipNet(r.To), Table: int(table)}
	if r.Via.IsValid() {
		route.Gw = r.Via.AsSlice()
	} else if r.To.Addr().Is4() {
		route.Scope = netlink.SCOPE_LINK
	}
	err := w.do(func() error { return w.inside.RouteAdd(route) }, "add route to %s via %s", r.To, via(r))
	if !errors.Is(err, unix.EEXIST) {
		return err
	}
	there, listErr := w.inside.Routes(family(r.To.Addr()))
	if listErr != nil {
		return errors.Join(err, fmt.Errorf("list routes: %w", listErr))
	}
	if !hasRoute(there, r, table, nil) {
		return fmt.Errorf("%w: %w", err, ErrRouteConflict)
	}
	return nil
}

func via(r model.PodRoute) string {
	if r.Via.IsValid() {
		return r.Via.String()
	}
	return "the link"
}

// hasRoute says whether one of routes leads to r.To by r.Via in the table (0 is main). on, if not nil, says which links
// count.
func hasRoute(routes []netlink.Route, r model.PodRoute, table uint32, on func(index int) bool) bool {
	if table == 0 {
		table = unix.RT_TABLE_MAIN
	}
	for _, have := range routes {
		to, ok := destination(have, r.To.Addr().Is4())
		gw, _ := netip.AddrFromSlice(have.Gw)
		if ok && to == r.To.Masked() && gw.Unmap() == r.Via && uint32(have.Table) == table && (on == nil || on(have.LinkIndex)) {
			return true
		}
	}
	return false
}

// destination reads a route's destination; netlink gives a default route as nil or as zero.
func destination(r netlink.Route, v4 bool) (netip.Prefix, bool) {
	if r.Dst == nil {
		if v4 {
			return everywhere4, true
		}
		return everywhere6, true
	}
	a, ok := netip.AddrFromSlice(r.Dst.IP)
	bits, _ := r.Dst.Mask.Size()
	if v4 {
		a = a.Unmap()
	}
	return netip.PrefixFrom(a, bits), ok && a.Is4() == v4
}
