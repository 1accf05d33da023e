package attach

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"danm.io/danm/spec/model"
	"danm.io/danm/test/lab"
	"github.com/vishvananda/netlink"
)

func TestKernelCheckSeesEveryChange(t *testing.T) {
	inPod := func(name string, f func(l netlink.Link) error) func(*site, *lab.NS) error {
		return func(_ *site, ns *lab.NS) error {
			return ns.Do(func() error {
				l, err := netlink.LinkByName(name)
				if err != nil {
					return err
				}
				return f(l)
			})
		}
	}
	inHost := func(name string, f func(l netlink.Link) error) func(*site, *lab.NS) error {
		return func(s *site, _ *lab.NS) error { return inPod(name, f)(s, s.hosts[0]) }
	}
	route := func(table int, to, via string) func(l netlink.Link) error {
		return func(l netlink.Link) error {
			r := routes(to, via)[0]
			return netlink.RouteDel(&netlink.Route{LinkIndex: l.Attrs().Index, Dst: ipNet(r.To), Gw: r.Via.AsSlice(), Table: table})
		}
	}
	rows := []struct {
		name   string
		change func(*site, *lab.NS) error
		text   string
	}{
		{"nothing", func(*site, *lab.NS) error { return nil }, ""},
		{"sysctl", inPod("net1", func(netlink.Link) error {
			return os.WriteFile("/proc/sys/net/ipv4/conf/net1/rp_filter", []byte("1"), 0)
		}), "net.ipv4.conf.net1.rp_filter is 1 instead of 2"},
		{"down", inPod("port2", netlink.LinkSetDown), "interface port2 on network ns/bridge: down"},
		{"MAC", inPod("net1", func(l netlink.Link) error { return netlink.LinkSetHardwareAddr(l, net.HardwareAddr{2, 0, 0, 0, 0, 9}) }), "MAC 02:00:00:00:00:09 instead of"},
		{"MTU", inPod("net1", func(l netlink.Link) error { return netlink.LinkSetMTU(l, 1399) }), "MTU 1399 instead of 1400"},
		{"IPv4", inPod("net1", func(l netlink.Link) error { return netlink.AddrDel(l, address(netip.MustParsePrefix("10.0.0.2/24"))) }), "address 10.0.0.2/24 is missing"},
		{"IPv6", inPod("net1", func(l netlink.Link) error { return netlink.AddrDel(l, address(netip.MustParsePrefix("fd00::2/64"))) }), "address fd00::2/64 is missing"},
		{"length", inPod("port2", func(l netlink.Link) error {
			return errors.Join(netlink.AddrDel(l, address(netip.MustParsePrefix("10.1.0.1/24"))), netlink.AddrAdd(l, address(netip.MustParsePrefix("10.1.0.1/25"))))
		}), "address 10.1.0.1/24 is missing"},
		{"default route", inPod("eth0", route(0, "0.0.0.0/0", "10.0.0.254")), "route to 0.0.0.0/0 via 10.0.0.254 is missing"},
		{"route", inPod("eth0", route(0, "10.9.0.0/16", "10.0.0.253")), "route to 10.9.0.0/16"},
		{"IPv6 route", inPod("eth0", route(0, "::/0", "fd00::fe")), "route to ::/0"},
		{"policy route", inPod("net1", route(301, "10.50.0.0/16", "10.0.0.252")), "in table 301 is missing"},
		{"rule", inPod("eth0", func(netlink.Link) error { return netlink.RuleDel(rules(rich("pod")[0])[0]) }), "rule from 10.0.0.1/32 to table 300 is missing"},
		{"IPv6 rule", inPod("eth0", func(netlink.Link) error { return netlink.RuleDel(rules(rich("pod")[0])[1]) }), "rule from fd00::1/128 to table 300 is missing"},
		{"deleted", inPod("net1", netlink.LinkDel), "no such link"},
		{"kind", inPod("net1", func(l netlink.Link) error {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = "net1"
			return errors.Join(netlink.LinkDel(l), netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
		}), "kind bridge instead of macvlan"},
		{"port taken off", inHost(HostLinkName("pod", "port2"), netlink.LinkSetNoMaster), "is not a port of br0"},
		{"port down", inHost(HostLinkName("pod", "port2"), netlink.LinkSetDown), "is down"},
		{"bridge gone", inHost("br0", netlink.LinkDel), "host link br0 is gone"},
		{"parent renamed", inHost("eth0", func(l netlink.Link) error {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = "eth0"
			return errors.Join(netlink.LinkSetDown(l), netlink.LinkSetName(l, "other"), netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}))
		}), "its parent is not eth0"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			s := newSite(t)
			ns, pod := s.pod("pod")
			want := rich(pod.Sandbox)
			_, err := s.on[0].Attach(t.Context(), pod, want)
			must(t, err)
			must(t, r.change(s, ns))
			_, err = s.on[0].Check(t.Context(), pod, want)
			if r.text == "" {
				must(t, err)
				return
			}
			if !errors.Is(err, ErrMismatch) || !strings.Contains(err.Error(), r.text) {
				t.Errorf("got %v, want %q", err, r.text)
			}
		})
	}
}

// A time of neighbours reads as the kernel's ticks make it, and a router that is listened to sets two parameters itself.
func TestSameValue(t *testing.T) {
	ra := model.Sysctl{Key: "net.ipv6.conf.IFNAME.accept_ra", Value: "2"}
	for _, c := range []struct {
		key, want, have string
		ra, same        bool
	}{
		{"net.ipv4.conf.IFNAME.rp_filter", "2", "1", false, false},
		{"net.ipv4.neigh.IFNAME.base_reachable_time_ms", "30001", "30004", false, true},
		{"net.ipv4.neigh.IFNAME.base_reachable_time_ms", "30000", "60000", false, false},
		{"net.ipv6.conf.IFNAME.hop_limit", "64", "255", false, false},
		{"net.ipv6.conf.IFNAME.hop_limit", "64", "255", true, true},
		{"net.ipv6.neigh.IFNAME.base_reachable_time_ms", "30000", "60000", true, true},
		{"net.ipv4.conf.IFNAME.rp_filter", "2", "1", true, false},
	} {
		at := model.Attachment{Sysctls: []model.Sysctl{{Key: c.key, Value: c.want}}}
		if c.ra {
			at.Sysctls = append(at.Sysctls, ra)
		}
		if got := sameValue(at, at.Sysctls[0], c.have); got != c.same {
			t.Errorf("%+v: %t", c, got)
		}
	}
}
