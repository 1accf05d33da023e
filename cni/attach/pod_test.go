package attach

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"danm.io/danm/spec/model"
	"danm.io/danm/test/lab"
	"github.com/vishvananda/netlink"
	"golang.org/x/net/icmp"
	"golang.org/x/sys/unix"
)

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

// TestKernelAnnouncements: frames are judged by a receiver: the ARP frame byte by byte, the advertisement by the kernel's own checksum. A
// link that has no carrier yet, as a virtual function's, tells when it has.
func TestKernelAnnouncements(t *testing.T) {
	s := newSite(t)
	listener, lpod := s.pod("listener")
	_, err := s.on[1].Attach(t.Context(), lpod, []model.Attachment{attachment(model.MACVLAN, "listener", "eth0", "10.0.0.9/24", "fd00::9/64")})
	must(t, err)
	first, fpod := s.pod("first")
	_, err = s.on[0].Attach(t.Context(), fpod, []model.Attachment{attachment(model.MACVLAN, "first", "eth0", "10.0.0.8/24")})
	must(t, err)
	must(t, first.Ping("10.0.0.9", 30*time.Second)) // switches forward from here on
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
	for i, late := range []bool{false, true} {
		t.Run(fmt.Sprintf("late %v", late), func(t *testing.T) {
			if late {
				s.carrier(netlink.LinkSetDown, false)
			}
			ip4, ip6 := fmt.Sprintf("10.0.0.%d", i+1), fmt.Sprintf("fd00::%d", i+1)
			_, pod := s.pod(fmt.Sprint("pod", i))
			at := attachment(model.MACVLAN, fmt.Sprint("pod", i), "eth0", ip4+"/24", ip6+"/64")
			_, err := s.on[0].Attach(t.Context(), pod, []model.Attachment{at})
			must(t, err)
			if late {
				s.carrier(netlink.LinkSetUp, true)
			}
			mac, _ := net.ParseMAC(at.MAC)
			frame := make([]byte, 100)
			must(t, unix.SetsockoptTimeval(arp, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}))
			address := string(netip.MustParseAddr(ip4).AsSlice())
			want := string(mac) + "\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01" + string(mac) + address + "\x00\x00\x00\x00\x00\x00" + address
			announced := func() {
				for n := 0; n < 12 || string(frame[6:12]) != string(mac); { // kernels ask for each other, too
					if n, _, err = unix.Recvfrom(arp, frame, 0); !errors.Is(err, unix.EINTR) { // with a timeout the kernel restarts nothing (signal(7))
						must(t, err)
					}
				}
				if string(frame[6:42]) != want {
					t.Errorf("ARP announcement %x, want %x", frame[6:42], want)
				}
			}
			announced()
			_ = raw.SetReadDeadline(time.Now().Add(10 * time.Second))
			for {
				n, from, err := raw.ReadFrom(frame)
				must(t, err)
				if frame[0] != 136 || from.String() != ip6 {
					continue
				}
				target := netip.AddrFrom16([16]byte(frame[8:24]))
				if n < 32 || target != netip.MustParseAddr(ip6) || frame[4]&0x20 == 0 || string(frame[26:32]) != string(mac) {
					t.Errorf("advertisement from %s: %x", from, frame[:n])
				}
				break
			}
		})
	}
}

// TestKernelAnnouncedTwice: a card that was set up says for a moment that it carries as before, so that one frame may be lost; a link
// that was made now needs no second one, and waits for none.
func TestKernelAnnouncedTwice(t *testing.T) {
	s := newSite(t)
	ns, pod := s.pod("pod")
	at := attachment(model.MACVLAN, "pod", "eth0", "10.0.0.1/24")
	_, err := s.on[0].Attach(t.Context(), pod, []model.Attachment{at})
	must(t, err)
	s.on[0].late.end(pod.Sandbox)
	var arp int
	must(t, s.fabric.Do(func() (err error) {
		arp, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0x0608) // ETH_P_ARP in network order
		return err
	}))
	defer unix.Close(arp)
	must(t, unix.SetsockoptTimeval(arp, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}))
	mac, _ := net.ParseMAC(at.MAC)
	hear := func() error {
		for frame := make([]byte, 100); ; {
			n, _, err := unix.Recvfrom(arp, frame, 0)
			if err == nil && n >= 12 && string(frame[6:12]) == string(mac) {
				return nil
			}
			if err != nil && !errors.Is(err, unix.EINTR) {
				return err
			}
		}
	}
	for _, fresh := range []bool{false, true} {
		in, err := s.on[0].open(pod.Netns)
		must(t, err)
		var index int
		must(t, ns.Do(func() error {
			l, err := netlink.LinkByName(at.IfName)
			if err == nil {
				index = l.Attrs().Index
			}
			return err
		}))
		in.Announce(index, mac, []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")}, fresh)
		u := in.Unheard()
		in.Close()
		if fresh {
			if u != nil {
				t.Error("a link that was made now and carries is announced again")
			}
			continue
		}
		began := time.Now()
		must(t, hear())
		u.tell(make(chan struct{}))
		u.close()
		if took := time.Since(began); took < announceInterval || took > carrierTime-time.Second {
			t.Errorf("it took %s", took)
		}
		must(t, hear())
	}
}

// carrier pulls the first host's cable, or plugs it in.
func (s *site) carrier(set func(netlink.Link) error, running bool) {
	s.t.Helper()
	must(s.t, s.fabric.Do(func() error {
		port, err := netlink.LinkByName("h0-eth0")
		if err != nil {
			return err
		}
		return set(port)
	}))
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		var card netlink.Link
		must(s.t, s.hosts[0].Do(func() (err error) { card, err = netlink.LinkByName("eth0"); return err }))
		if running == (card.Attrs().RawFlags&unix.IFF_RUNNING != 0) {
			return
		}
		if time.Now().After(end) {
			s.t.Fatalf("eth0's carrier is not %v", running)
		}
	}
}

// TestKernelNamespaceEnds: a Pod that waits for a carrier to announce itself keeps its namespace until then, and no longer than until it is
// detached, or its link is down or has another MAC.
func TestKernelNamespaceEnds(t *testing.T) {
	s := newSite(t)
	s.carrier(netlink.LinkSetDown, false)
	inPod := func(change func(netlink.Link) error) func(*site, *lab.NS, Pod, model.Attachment) {
		return func(s *site, ns *lab.NS, _ Pod, _ model.Attachment) {
			must(s.t, ns.Do(func() error {
				l, err := netlink.LinkByName("eth0")
				if err != nil {
					return err
				}
				return change(l)
			}))
		}
	}
	for _, c := range []struct {
		name  string
		waits bool // a control: it is kept before
		then  func(*site, *lab.NS, Pod, model.Attachment)
	}{
		{"detached", true, func(s *site, _ *lab.NS, pod Pod, at model.Attachment) {
			must(s.t, s.on[0].Detach(s.t.Context(), Pod{Sandbox: pod.Sandbox}, []model.Attachment{at}))
		}},
		{"down", false, inPod(netlink.LinkSetDown)},
		{"another MAC", false, inPod(func(l netlink.Link) error { return netlink.LinkSetHardwareAddr(l, net.HardwareAddr{2, 0, 0, 0, 0, 9}) })},
	} {
		t.Run(c.name, func(t *testing.T) {
			ns, err := s.world.Add(strings.Fields(c.name)[0])
			must(t, err)
			must(t, s.fabric.Plug("sw", ns, "w", ""))
			there := func() bool {
				return s.fabric.Do(func() error { _, err := netlink.LinkByName(ns.Name + "-w"); return err }) == nil
			}
			file, err := os.Open(ns.Path)
			must(t, err)
			pod := Pod{Sandbox: ns.Name, Netns: file}
			at := attachment(model.MACVLAN, ns.Name, "eth0", "10.0.0.1/24")
			began := time.Now()
			_, err = s.on[0].Attach(t.Context(), pod, []model.Attachment{at})
			must(t, err)
			s.on[0].late.mu.Lock()
			teller := s.on[0].late.waiting[pod.Sandbox]
			s.on[0].late.mu.Unlock()
			if !c.waits {
				c.then(s, ns, pod, at)
			}
			must(t, file.Close())
			must(t, s.world.Remove(ns))
			if c.waits {
				time.Sleep(500 * time.Millisecond)
				if !there() {
					t.Fatal("nothing keeps the namespace: this shows nothing")
				}
				c.then(s, ns, pod, at)
			}
			if teller != nil {
				if <-teller.ended; time.Since(began) > carrierTime-time.Second {
					t.Fatal("it goes on waiting for a carrier")
				}
			}
			for there() { // the kernel takes its time
				if time.Since(began) > time.Minute {
					t.Fatal("the namespace does not end")
				}
				time.Sleep(10 * time.Millisecond)
			}
		})
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

// withoutIPv6 is a Pod on a kernel that was built without, or booted with ipv6.disable=1: there is no file of the family.
type withoutIPv6 struct{ podKernel }

func (p withoutIPv6) Sysctl(name, value string) error {
	if strings.HasPrefix(name, "ipv6/") {
		return fs.ErrNotExist
	}
	return p.podKernel.Sysctl(name, value)
}

func TestKernelWithoutIPv6(t *testing.T) {
	s := newSite(t)
	ns, pod := s.pod("pod")
	a := *s.on[0]
	a.open = func(netns *os.File) (podKernel, error) {
		in, err := s.on[0].open(netns)
		if err != nil {
			return nil, err
		}
		return withoutIPv6{in}, nil
	}
	at := attachment(model.MACVLAN, "pod", "net1", "10.0.0.1/24")
	at.Sysctls = []model.Sysctl{{Key: "net.ipv4.conf.IFNAME.arp_notify", Value: "1"}}
	_, err := a.Attach(t.Context(), pod, []model.Attachment{at})
	must(t, err)
	must(t, ns.Do(func() error {
		got, err := os.ReadFile("/proc/sys/net/ipv4/conf/net1/arp_notify")
		if strings.TrimSpace(string(got)) != "1" {
			t.Errorf("arp_notify is %s", got)
		}
		return err
	}))
	must(t, s.on[0].Detach(t.Context(), pod, []model.Attachment{at}))
	at.Sysctls[0].Key = "net.ipv6.conf.IFNAME.hop_limit"
	if _, err = a.Attach(t.Context(), pod, []model.Attachment{at}); err == nil || !strings.Contains(err.Error(), "interface net1") || !strings.Contains(err.Error(), "net.ipv6.conf.net1.hop_limit") {
		t.Errorf("what cannot be had: %v", err)
	}
}
