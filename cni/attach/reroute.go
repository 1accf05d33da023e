package attach

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"danm.io/danm/spec/model"
)

// Reroute gives an interface that another plugin has made other default routes: of the families that are named (as 0.0.0.0/0 and ::/0),
// those in the main table go, and those by the gateways come; router advertisements bring none any more. An interface that is not there is
// an error only where it is to have some. After an error some may be gone; the interface's plugin is the one to undo it.
func (a *Attacher) Reroute(ctx context.Context, pod Pod, ifName string, families []netip.Prefix, gateways []netip.Addr) error {
	inside, leave, err := a.visit(ctx, pod)
	if err != nil {
		return err
	}
	defer leave()
	w := a.work(ctx, pod, inside)
	l, routes, err := defaultRoutes(inside, ifName, families)
	if l == nil && len(gateways) == 0 && gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if slices.Contains(families, everywhere6) {
		// Its own addresses it may have from a router still (Linux, ip-sysctl, accept_ra_defrtr).
		err := w.do(func() error { return inside.Sysctl("ipv6/conf/"+l.Attrs().Name+"/accept_ra_defrtr", "0") }, "set net.ipv6.conf.%s.accept_ra_defrtr", ifName)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	for _, r := range routes {
		err := w.do(func() error { return inside.RouteDel(&r) }, "take the default route via %s from %s", r.Gw, ifName)
		if err != nil && !gone(err) {
			return err
		}
	}
	for _, g := range gateways {
		if err := w.route(l.Attrs().Index, model.PodRoute{To: anywhere(g), Via: g}, 0); err != nil {
			return fmt.Errorf("default route by %s on %s: %w", g, ifName, err)
		}
	}
	return rerouted(inside, ifName, families, gateways) // the kernel says that a route is gone, too, where it takes another for it
}

// CheckRerouted compares with what Reroute made: of these families there are default routes by the gateways, and no others. An interface
// that is not there has none. Errors: ErrMismatch, or why it cannot be seen.
func (a *Attacher) CheckRerouted(ctx context.Context, pod Pod, ifName string, families []netip.Prefix, gateways []netip.Addr) error {
	inside, leave, err := a.visit(ctx, pod)
	if err != nil {
		return err
	}
	defer leave()
	return rerouted(inside, ifName, families, gateways)
}

func rerouted(h handle, ifName string, families []netip.Prefix, gateways []netip.Addr) error {
	_, routes, err := defaultRoutes(h, ifName, families)
	if err != nil && !gone(err) {
		return err
	}
	var have, want []string
	for _, r := range routes {
		g, _ := netip.AddrFromSlice(r.Gw)
		have = append(have, via(model.PodRoute{Via: g.Unmap()}))
	}
	for _, g := range gateways {
		want = append(want, g.String())
	}
	slices.Sort(have)
	slices.Sort(want)
	if !slices.Equal(have, want) {
		return fmt.Errorf("interface %s has default routes by %s; wanted are those by %s: %w", ifName, listed(have), listed(want), ErrMismatch)
	}
	return nil
}

func listed(gateways []string) string {
	if len(gateways) == 0 {
		return "none"
	}
	return strings.Join(gateways, " and ")
}

var (
	everywhere4 = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	everywhere6 = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
)

// anywhere is where a default route by a gateway leads.
func anywhere(gateway netip.Addr) netip.Prefix {
	if gateway.Is4() {
		return everywhere4
	}
	return everywhere6
}

// defaultRoutes are those in the main table by which an interface is left, each as RouteDel wants it. IPv6 makes one route by several
// gateways of those of one metric (Linux, fib6_add_rt2node), of which each can be taken out.
func defaultRoutes(h handle, ifName string, families []netip.Prefix) (l netlink.Link, out []netlink.Route, err error) {
	if l, err = h.LinkByName(ifName); err != nil {
		return nil, nil, fmt.Errorf("look for %s: %w", ifName, err)
	}
	for _, f := range families {
		all, err := h.Routes(family(f.Addr()))
		if err != nil {
			return nil, nil, fmt.Errorf("list routes: %w", err)
		}
		for _, r := range all {
			if to, ok := destination(r, f.Addr().Is4()); !ok || to != f || r.Table != unix.RT_TABLE_MAIN {
				continue
			}
			hops := r.MultiPath
			if len(hops) == 0 {
				hops = []*netlink.NexthopInfo{{LinkIndex: r.LinkIndex, Gw: r.Gw}}
			}
			for _, hop := range hops {
				if hop.LinkIndex == l.Attrs().Index {
					out = append(out, netlink.Route{LinkIndex: hop.LinkIndex, Gw: hop.Gw, Dst: ipNet(f), Table: r.Table, Priority: r.Priority, Scope: r.Scope, Family: r.Family, Tos: r.Tos})
				}
			}
		}
	}
	return l, out, nil
}
