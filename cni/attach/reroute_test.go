package attach

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"danm.io/danm/test/lab"
)

// asPlugins makes interfaces in a Pod as plugins leave them, one after another: each with addresses, a route elsewhere, and default routes
// of both families beside those that are there.
func asPlugins(t *testing.T, ns *lab.NS, names ...string) {
	t.Helper()
	must(t, ns.Do(func() error {
		for i, name := range names {
			l := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: "p" + name}
			if err := netlink.LinkAdd(l); err != nil {
				return err
			}
			peer, err := netlink.LinkByName("p" + name)
			if err == nil {
				err = errors.Join(netlink.LinkSetUp(peer), netlink.LinkSetUp(l))
			}
			for _, a := range []string{fmt.Sprintf("10.%d.0.5/24", i), fmt.Sprintf("fd00:%d::5/64", i)} {
				err = errors.Join(err, netlink.AddrAdd(l, address(netip.MustParsePrefix(a))))
			}
			for _, r := range []netlink.Route{
				{Dst: ipNet(netip.MustParsePrefix(fmt.Sprintf("10.20%d.0.0/16", i))), Gw: net.ParseIP(fmt.Sprintf("10.%d.0.2", i))},
				{Dst: ipNet(everywhere4), Gw: net.ParseIP(fmt.Sprintf("10.%d.0.1", i))},
				{Dst: ipNet(everywhere6), Gw: net.ParseIP(fmt.Sprintf("fd00:%d::1", i))},
				{Dst: ipNet(everywhere4), Gw: net.ParseIP(fmt.Sprintf("10.%d.0.3", i)), Priority: 500},
				{Dst: ipNet(everywhere4), Gw: net.ParseIP(fmt.Sprintf("10.%d.0.4", i)), Table: 100 + i},
			} {
				r.LinkIndex = l.Index
				err = errors.Join(err, netlink.RouteAppend(&r))
			}
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return nil
	}))
}

// ways are the default routes of a namespace as "<interface> <gateway>", those of other tables than main with the table, by metric.
func ways(t *testing.T, ns *lab.NS, family int) (out []string) {
	t.Helper()
	must(t, ns.Do(func() error {
		all, err := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
		for _, r := range all {
			hops := r.MultiPath
			if hops == nil {
				hops = []*netlink.NexthopInfo{{LinkIndex: r.LinkIndex, Gw: r.Gw}}
			}
			for _, hop := range hops {
				l, err := netlink.LinkByIndex(hop.LinkIndex)
				if ones, _ := r.Dst.Mask.Size(); err != nil || ones != 0 || hop.Gw == nil {
					continue
				}
				line := l.Attrs().Name + " " + hop.Gw.String()
				if r.Table != unix.RT_TABLE_MAIN {
					line += fmt.Sprint(" table ", r.Table)
				}
				out = append(out, line)
			}
		}
		return err
	}))
	slices.Sort(out)
	return out
}

// advertised says whether an interface takes default routes from routers.
func advertised(t *testing.T, ns *lab.NS, ifName string) (value string) {
	t.Helper()
	must(t, ns.Do(func() error {
		text, err := os.ReadFile("/proc/thread-self/root/proc/sys/net/ipv6/conf/" + ifName + "/accept_ra_defrtr")
		value = strings.TrimSpace(string(text))
		return err
	}))
	return value
}

// TestKernelReroute: default routes go from one interface alone and come on another, of the families that are named, in the main table.
func TestKernelReroute(t *testing.T) {
	s := newSite(t)
	ns, pod := s.pod("pod")
	asPlugins(t, ns, "eth0", "net1")
	others := func() string {
		var out []string
		for line := range strings.Lines(dump(t, ns)) {
			if !strings.Contains(line, "0.0.0.0/0") && !strings.Contains(line, "::/0") && !strings.Contains(line, "fe80::") && !strings.Contains(line, "table 255") { // the kernel's own come later
				out = append(out, line)
			}
		}
		return strings.Join(out, "")
	}
	before := others()
	all4 := []string{"eth0 10.0.0.1", "eth0 10.0.0.3", "eth0 10.0.0.4 table 100", "net1 10.1.0.1", "net1 10.1.0.3", "net1 10.1.0.4 table 101"}
	all6 := []string{"eth0 fd00::1", "net1 fd00:1::1"}
	both := []netip.Prefix{everywhere4, everywhere6}
	gateway := func(text ...string) (out []netip.Addr) {
		for _, g := range text {
			out = append(out, netip.MustParseAddr(g))
		}
		return out
	}
	is := func(what string, want4, want6 []string) {
		t.Helper()
		if got4, got6 := ways(t, ns, netlink.FAMILY_V4), ways(t, ns, netlink.FAMILY_V6); !slices.Equal(got4, want4) || !slices.Equal(got6, want6) {
			t.Errorf("%s: %q %q", what, got4, got6)
		}
		if now := others(); now != before {
			t.Errorf("%s: other things changed:\n%s\nbefore:\n%s", what, now, before)
		}
	}
	is("at first", all4, all6)
	a := s.on[0]
	if err := a.CheckRerouted(t.Context(), pod, "eth0", both[:1], nil); !errors.Is(err, ErrMismatch) || !strings.Contains(err.Error(), "eth0 has default routes by 10.0.0.1 and 10.0.0.3; wanted are those by none") {
		t.Errorf("before: %v", err)
	}
	must(t, a.Reroute(t.Context(), pod, "eth0", both[:1], nil))
	is("one family", all4[2:], all6)
	must(t, a.CheckRerouted(t.Context(), pod, "eth0", both[:1], nil))
	if err := a.CheckRerouted(t.Context(), pod, "eth0", both, nil); !errors.Is(err, ErrMismatch) || !strings.Contains(err.Error(), "fd00::1") {
		t.Errorf("the other: %v", err)
	}
	for _, name := range []string{"eth0", "net1"} {
		if got := advertised(t, ns, name); got != "1" {
			t.Errorf("%s: a router may give it no default route: %s", name, got)
		}
	}
	if err := a.Reroute(t.Context(), pod, "net1", both[1:], gateway("fd00:1::9")); !errors.Is(err, ErrRouteConflict) {
		t.Errorf("where another interface has some: %v", err)
	}
	must(t, a.Reroute(t.Context(), pod, "eth0", both, nil))
	is("the other family", all4[2:], nil)
	if got := advertised(t, ns, "eth0"); got != "0" {
		t.Errorf("a router may give it a default route: %s", got)
	}
	for range 2 {
		must(t, a.Reroute(t.Context(), pod, "net1", both, gateway("10.1.0.9", "fd00:1::9")))
		is("by other gateways", []string{"eth0 10.0.0.4 table 100", "net1 10.1.0.4 table 101", "net1 10.1.0.9"}, []string{"net1 fd00:1::9"})
		must(t, a.CheckRerouted(t.Context(), pod, "net1", both, gateway("10.1.0.9", "fd00:1::9")))
	}
	must(t, ns.Do(func() error {
		l, err := netlink.LinkByName("net1")
		if err != nil {
			return err
		}
		return netlink.RouteDel(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(everywhere6)})
	}))
	if err := a.CheckRerouted(t.Context(), pod, "net1", both, gateway("10.1.0.9", "fd00:1::9")); !errors.Is(err, ErrMismatch) || !strings.Contains(err.Error(), "by 10.1.0.9; wanted are those by 10.1.0.9 and fd00:1::9") {
		t.Errorf("one is missing: %v", err)
	}
	// What cannot be.
	for what, err := range map[string]error{
		"default route by 10.7.0.1 on net1": a.Reroute(t.Context(), pod, "net1", both[:1], gateway("10.7.0.1")),
		"look for net9":                     a.Reroute(t.Context(), pod, "net9", both[:1], gateway("10.1.0.9")),
		"the host's own":                    a.Reroute(t.Context(), Pod{Sandbox: "x", Netns: a.home}, "eth0", both, nil),
	} {
		if err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%v, want %s", err, what)
		}
	}
	must(t, a.Reroute(t.Context(), pod, "net9", both, nil)) // a plugin that made no interface
	must(t, a.CheckRerouted(t.Context(), pod, "net9", both, nil))
	must(t, ns.Do(func() error { // IPv4 takes no single gateway out of a route by several
		eth0, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		net1, err := netlink.LinkByName("net1")
		if err != nil {
			return err
		}
		return netlink.RouteReplace(&netlink.Route{Dst: ipNet(everywhere4), MultiPath: []*netlink.NexthopInfo{
			{LinkIndex: eth0.Attrs().Index, Gw: net.ParseIP("10.0.0.1")}, {LinkIndex: net1.Attrs().Index, Gw: net.ParseIP("10.1.0.1")}}})
	}))
	if err := a.Reroute(t.Context(), pod, "net1", both[:1], nil); !errors.Is(err, ErrMismatch) {
		t.Errorf("a route by several gateways: %v", err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if err := a.Reroute(ended, pod, "eth0", both, gateway("10.0.0.1")); !errors.Is(err, context.Canceled) {
		t.Errorf("nobody waits: %v", err)
	}
}
