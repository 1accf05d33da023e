package attach

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"danm.io/danm/spec/model"
	"danm.io/danm/test/lab"
	"github.com/vishvananda/netlink"
	"golang.org/x/net/icmp"
	"golang.org/x/sys/unix"
)

// udpEcho sends a datagram from one namespace to an echo server in another, once: no retry hides a lost first packet.
func udpEcho(t *testing.T, from, to *lab.NS, address string) error {
	t.Helper()
	var server net.PacketConn
	must(t, to.Do(func() (err error) {
		server, err = net.ListenPacket("udp", net.JoinHostPort(address, "7007"))
		return err
	}))
	defer server.Close()
	go func() {
		buf := make([]byte, 100)
		if n, peer, err := server.ReadFrom(buf); err == nil {
			_, _ = server.WriteTo(buf[:n], peer)
		}
	}()
	var conn net.Conn
	err := from.Do(func() (err error) {
		conn, err = net.Dial("udp", net.JoinHostPort(address, "7007"))
		return err
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(3 * time.Second))
	if _, err := conn.Write([]byte("ping")); err != nil {
		return err
	}
	buf := make([]byte, 4)
	_, err = io.ReadFull(conn, buf)
	return err
}

func TestKernelPodsTalk(t *testing.T) {
	for _, kind := range []model.NetworkType{model.MACVLAN, model.BRIDGE, model.IPVLAN} {
		t.Run(string(kind), func(t *testing.T) {
			s := newSite(t)
			if kind == model.BRIDGE {
				s.bridgeUplink()
			}
			var spaces []*lab.NS
			for i, host := range []int{0, 0, 1} { // two on one host, the third on the other
				ns, pod := s.pod(fmt.Sprintf("pod%d", i))
				at := attachment(kind, pod.Sandbox, "eth0", fmt.Sprintf("10.0.0.%d/24", i+1), fmt.Sprintf("fd00::%d/64", i+1))
				links, err := s.on[host].Attach(t.Context(), pod, []model.Attachment{at})
				if kind == model.IPVLAN && errors.Is(err, unix.EOPNOTSUPP) {
					t.Skip("kernel lacks ipvlan")
				}
				must(t, err)
				if links[0].MTU != 1400 || at.MAC != "" && links[0].MAC != at.MAC {
					t.Errorf("made %+v, asked for %+v", links[0], at)
				}
				if _, err := s.on[host].Check(t.Context(), pod, []model.Attachment{at}); err != nil {
					t.Error(err)
				}
				spaces = append(spaces, ns)
			}
			for i := 1; i <= 2; i++ {
				for _, address := range []string{fmt.Sprintf("10.0.0.%d", i+1), fmt.Sprintf("fd00::%d", i+1)} {
					if err := udpEcho(t, spaces[0], spaces[i], address); err != nil {
						t.Errorf("UDP to %s: %v", address, err)
					}
					if err := spaces[0].Ping(address, 3*time.Second); err != nil {
						t.Errorf("ping: %v", err)
					}
				}
			}
			if err := spaces[0].Ping("10.0.0.99", 300*time.Millisecond); err == nil {
				t.Error("an address nobody has answers")
			}
		})
	}
}

// rich is a Pod with everything: two macvlans on one network and a port, routes, equal routes, policy routes.
func rich(sandbox string) []model.Attachment {
	a := attachment(model.MACVLAN, sandbox, "eth0", "10.0.0.1/24", "fd00::1/64")
	a.Routes = routes("0.0.0.0/0", "10.0.0.254", "10.9.0.0/16", "10.0.0.253", "::/0", "fd00::fe")
	a.Table, a.PolicyRoutes = 300, routes("10.50.0.0/16", "10.0.0.254", "fd50::/64", "fd00::fe")
	b := attachment(model.MACVLAN, sandbox, "net1", "10.0.0.2/24", "fd00::2/64")
	b.Routes = routes("10.9.0.0/16", "10.0.0.253", "::/0", "fd00::fe")
	b.Table, b.PolicyRoutes = 301, routes("10.50.0.0/16", "10.0.0.252")
	c := attachment(model.BRIDGE, sandbox, "port2", "10.1.0.1/24")
	return []model.Attachment{a, b, c}
}

// Every failing call leaves Pod and host exactly as before; the same for a caller who goes away at that moment.
func TestKernelAttachIsAllOrNothing(t *testing.T) {
	s := newSite(t)
	ns, pod := s.pod("pod")
	want := rich(pod.Sandbox)
	podBefore, hostBefore := dump(t, ns), dump(t, s.hosts[0])
	for _, how := range []string{"error", "cancel"} {
		calls := 0
		for n := 1; ; n++ {
			ctx, cancel := context.WithCancel(t.Context())
			f := &faulty{n: n, act: func() error { return errInjected }}
			if how == "cancel" {
				f.act = func() error { cancel(); return nil }
			}
			_, err := withFault(s.on[0], f).Attach(ctx, pod, want)
			cancel()
			if f.count < n {
				must(t, err)
				must(t, s.on[0].Detach(t.Context(), pod, want))
				break
			}
			calls++
			if how == "error" && !errors.Is(err, errInjected) || how == "cancel" && !errors.Is(err, context.Canceled) {
				t.Fatalf("%s at call %d: got %v", how, n, err)
			}
			if after := dump(t, ns); after != podBefore {
				t.Fatalf("%s at call %d left in the Pod:\n%s\nbefore:\n%s", how, n, after, podBefore)
			}
			if after := dump(t, s.hosts[0]); after != hostBefore {
				t.Fatalf("%s at call %d left in the host:\n%s\nbefore:\n%s", how, n, after, hostBefore)
			}
		}
		if calls < 40 {
			t.Errorf("only %d calls were tried", calls)
		}
	}
	if after := dump(t, ns); after != podBefore {
		t.Errorf("Detach left:\n%s", after)
	}
}

// Detach which fails at any call can be called again and then has taken everything.
func TestKernelDetachIsRepeatable(t *testing.T) {
	s := newSite(t)
	ns, pod := s.pod("pod")
	want := rich(pod.Sandbox)
	podBefore, hostBefore := dump(t, ns), dump(t, s.hosts[0])
	for n := 1; ; n++ {
		_, err := s.on[0].Attach(t.Context(), pod, want)
		must(t, err)
		f := &faulty{n: n, act: func() error { return errInjected }}
		err = withFault(s.on[0], f).Detach(t.Context(), pod, want)
		if (f.count >= n) != errors.Is(err, errInjected) {
			t.Fatalf("call %d of %d: %v", n, f.count, err)
		}
		must(t, s.on[0].Detach(t.Context(), pod, want))
		must(t, s.on[0].Detach(t.Context(), pod, want))
		if after := dump(t, ns) + dump(t, s.hosts[0]); after != podBefore+hostBefore {
			t.Fatalf("call %d: left\n%s", n, after)
		}
		if f.count < n {
			break
		}
	}
}

func TestKernelDetachWithoutNetnsOrParent(t *testing.T) {
	s := newSite(t)
	before := dump(t, s.hosts[0])
	ns, pod := s.pod("pod")
	want := rich(pod.Sandbox)
	_, err := s.on[0].Attach(t.Context(), pod, want)
	must(t, err)
	must(t, s.on[0].Detach(t.Context(), Pod{Sandbox: pod.Sandbox}, want))
	if after := dump(t, s.hosts[0]); after != before {
		t.Errorf("host keeps:\n%s", after)
	}
	must(t, s.hosts[0].DeleteLink("br0"))
	must(t, s.hosts[0].DeleteLink("eth0")) // takes the macvlans with it
	must(t, s.on[0].Detach(t.Context(), pod, want))
	if d := dump(t, ns); strings.Contains(d, "macvlan") || strings.Contains(d, "10.50.0.0") || strings.Contains(d, "table 300") {
		t.Errorf("Pod keeps:\n%s", d)
	}
	file, err := os.Open(filepath.Join("/proc", "self", "status"))
	must(t, err)
	defer file.Close()
	must(t, s.on[0].Detach(t.Context(), Pod{Sandbox: pod.Sandbox, Netns: file}, want))
}

// A link that happens to have the recorded name, but is another one, stays.
func TestKernelForeignLinksStay(t *testing.T) {
	s := newSite(t)
	ns, pod := s.pod("pod")
	at := attachment(model.MACVLAN, pod.Sandbox, "eth0", "10.0.0.1/24")
	must(t, ns.Switch("eth0"))
	before := dump(t, ns)
	if _, err := s.on[0].Attach(t.Context(), pod, []model.Attachment{at}); !errors.Is(err, unix.EEXIST) {
		t.Errorf("attached over a link of that name: %v", err)
	}
	must(t, s.on[0].Detach(t.Context(), pod, []model.Attachment{at}))
	if after := dump(t, ns); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	other := attachment(model.MACVLAN, pod.Sandbox, "net1", "10.0.0.1/24")
	_, err := s.on[0].Attach(t.Context(), pod, []model.Attachment{other})
	must(t, err)
	stranger := other
	stranger.MAC = NewMAC()
	must(t, s.on[0].Detach(t.Context(), pod, []model.Attachment{stranger}))
	if _, err := s.on[0].Check(t.Context(), pod, []model.Attachment{other}); err != nil {
		t.Errorf("a macvlan with another MAC was touched: %v", err)
	}
}

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

// A Pod twice on a network with routes (DANM's bug 16), and a route to one place over two gateways.
func TestKernelEqualRoutesAreNoConflict(t *testing.T) {
	s := newSite(t)
	_, pod := s.pod("pod")
	want := rich(pod.Sandbox)
	_, err := s.on[0].Attach(t.Context(), pod, want)
	must(t, err)
	must(t, s.on[0].Detach(t.Context(), pod, want))
	want[1].Routes = routes("10.9.0.0/16", "10.0.0.250")
	if _, err = s.on[0].Attach(t.Context(), pod, want); !errors.Is(err, ErrRouteConflict) || !strings.Contains(err.Error(), "net1") {
		t.Errorf("got %v", err)
	}
}

// DANM's bug 17: with the subnet's mask in the rule, traffic of .1 would follow the table of .2 or the reverse.
func TestKernelPolicyRoutesFollowTheirOwnAddress(t *testing.T) {
	s := newSite(t)
	ns, pod := s.pod("pod")
	_, err := s.on[0].Attach(t.Context(), pod, rich(pod.Sandbox))
	must(t, err)
	for src, gw := range map[string]string{"10.0.0.1": "10.0.0.254", "10.0.0.2": "10.0.0.252"} {
		must(t, ns.Do(func() error {
			got, err := netlink.RouteGetWithOptions(net.ParseIP("10.50.1.1"), &netlink.RouteGetOptions{SrcAddr: net.ParseIP(src)})
			if err != nil {
				return err
			}
			if !got[0].Gw.Equal(net.ParseIP(gw)) {
				t.Errorf("from %s: leaves by %s, want %s", src, got[0].Gw, gw)
			}
			return nil
		}))
	}
}

func TestKernelIPv6OnlyWhereWanted(t *testing.T) {
	s := newSite(t)
	ns, pod := s.pod("pod")
	off, on := attachment(model.MACVLAN, "pod", "net1", "10.0.0.1/24"), attachment(model.MACVLAN, "pod", "net2", "10.0.1.1/24")
	on.IPv6 = true
	_, err := s.on[0].Attach(t.Context(), pod, []model.Attachment{off, on})
	must(t, err)
	must(t, ns.Do(func() error {
		for file, want := range map[string]string{
			"net1/disable_ipv6": "1", "net2/disable_ipv6": "0", "net2/accept_ra": "0", "net2/autoconf": "0", "all/disable_ipv6": "0", "all/accept_ra": "1",
		} {
			got, err := os.ReadFile("/proc/thread-self/root/proc/sys/net/ipv6/conf/" + file)
			if err != nil {
				return err
			}
			if strings.TrimSpace(string(got)) != want {
				t.Errorf("%s is %s, want %s", file, got, want)
			}
		}
		return nil
	}))
	if d := dump(t, ns); strings.Contains(d, "address net1 fe80") || !strings.Contains(d, "address net2 fe80") {
		t.Errorf("link-local addresses:\n%s", d)
	}
}

func TestKernelAddressesAreUsableAtOnce(t *testing.T) {
	s := newSite(t)
	ns, pod := s.pod("pod")
	_, err := s.on[0].Attach(t.Context(), pod, rich("pod"))
	must(t, err)
	must(t, ns.Do(func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		for _, l := range links {
			addrs, err := netlink.AddrList(l, netlink.FAMILY_V6)
			if err != nil {
				return err
			}
			for _, a := range addrs {
				if a.IP.IsGlobalUnicast() && a.Flags&unix.IFA_F_TENTATIVE != 0 {
					t.Errorf("%s on %s is tentative", a.IP, l.Attrs().Name)
				}
			}
		}
		return nil
	}))
}

func TestKernelRefusesWhatIsNoPod(t *testing.T) {
	s := newSite(t)
	host, err := os.Open(s.hosts[0].Path)
	must(t, err)
	defer host.Close()
	status, err := os.Open("/proc/self/status")
	must(t, err)
	defer status.Close()
	other, err := os.Open("/proc/self/ns/uts")
	must(t, err)
	defer other.Close()
	before := dump(t, s.hosts[0])
	for name, f := range map[string]*os.File{"host": host, "file": status, "UTS namespace": other, "nothing": nil} {
		at := attachment(model.MACVLAN, "pod", "eth0", "10.0.0.1/24")
		if _, err := s.on[0].Attach(t.Context(), Pod{Sandbox: "pod", Netns: f}, []model.Attachment{at}); !errors.Is(err, ErrNetns) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := s.on[0].Check(t.Context(), Pod{Sandbox: "pod", Netns: f}, []model.Attachment{at}); !errors.Is(err, ErrNetns) {
			t.Errorf("%s: %v", name, err)
		}
		must(t, s.on[0].Detach(t.Context(), Pod{Sandbox: "pod", Netns: f}, []model.Attachment{at}))
	}
	if after := dump(t, s.hosts[0]); after != before {
		t.Errorf("host changed:\n%s", after)
	}
}

func TestKernelErrorsNameTheInterface(t *testing.T) {
	s := newSite(t)
	_, pod := s.pod("pod")
	missing := attachment(model.MACVLAN, "pod", "net1")
	missing.Device = "nowhere"
	strange := attachment("IPVLAN", "pod", "net2") // DANM's bug 13: another case gave no interface and a success
	_, err := s.on[0].Attach(t.Context(), pod, []model.Attachment{missing, strange})
	if !errors.Is(err, ErrType) || !gone(err) || !strings.Contains(err.Error(), "net1") || !strings.Contains(err.Error(), "nowhere") || !strings.Contains(err.Error(), "net2") {
		t.Errorf("got %v", err)
	}
	full := attachment(model.MACVLAN, "pod", "net1")
	full.MTU = 9000
	if _, err := s.on[0].Attach(t.Context(), pod, []model.Attachment{full}); !errors.Is(err, unix.EINVAL) {
		t.Errorf("MTU above the parent's: %v", err)
	}
}

// The frames are judged by a receiver: the ARP frame byte by byte, the advertisement by the kernel's own checksum.
func TestKernelAnnouncements(t *testing.T) {
	s := newSite(t)
	listener, lpod := s.pod("listener")
	_, err := s.on[1].Attach(t.Context(), lpod, []model.Attachment{attachment(model.MACVLAN, "listener", "eth0", "10.0.0.9/24", "fd00::9/64")})
	must(t, err)
	var raw net.PacketConn
	var arp int
	must(t, listener.Do(func() (err error) {
		if raw, err = icmp.ListenPacket("ip6:ipv6-icmp", "::"); err != nil {
			return err
		}
		arp, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0x0608) // ETH_P_ARP in network order
		return err
	}))
	defer raw.Close()
	defer unix.Close(arp)
	_, pod := s.pod("pod")
	at := attachment(model.MACVLAN, "pod", "eth0", "10.0.0.1/24", "fd00::1/64")
	_, err = s.on[0].Attach(t.Context(), pod, []model.Attachment{at})
	must(t, err)
	mac, _ := net.ParseMAC(at.MAC)
	frame := make([]byte, 100)
	must(t, unix.SetsockoptTimeval(arp, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 3}))
	n, _, err := unix.Recvfrom(arp, frame, 0)
	must(t, err)
	want := string(mac) + "\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01" + string(mac) + "\x0a\x00\x00\x01" + "\x00\x00\x00\x00\x00\x00" + "\x0a\x00\x00\x01"
	if n < 42 || string(frame[6:42]) != want {
		t.Errorf("ARP announcement %x, want %x", frame[6:n], want)
	}
	_ = raw.SetReadDeadline(time.Now().Add(3 * time.Second))
	for {
		n, from, err := raw.ReadFrom(frame)
		must(t, err)
		if frame[0] != 136 {
			continue
		}
		target := netip.AddrFrom16([16]byte(frame[8:24]))
		if n < 32 || from.String() != "fd00::1" || target != netip.MustParseAddr("fd00::1") || frame[4]&0x20 == 0 || string(frame[26:32]) != string(mac) {
			t.Errorf("advertisement from %s: %x", from, frame[:n])
		}
		break
	}
}

func TestNames(t *testing.T) {
	seen := map[string]bool{}
	for i := range 2000 {
		name := HostLinkName(fmt.Sprintf("sandbox-%d", i/2), fmt.Sprintf("net%d", i%2))
		if len(name) > 15 || !strings.HasPrefix(name, "dn") || seen[name] {
			t.Fatalf("%q is too long, foreign or repeated", name)
		}
		seen[name] = true
		mac, err := net.ParseMAC(NewMAC())
		if err != nil || len(mac) != 6 || mac[0]&3 != 2 || seen[mac.String()] {
			t.Fatalf("MAC %s: %v", mac, err)
		}
		seen[mac.String()] = true
	}
	if HostLinkName("a", "b") != HostLinkName("a", "b") || HostLinkName("ab", "c") == HostLinkName("a", "bc") {
		t.Error("names depend on something else, or not on both")
	}
}
