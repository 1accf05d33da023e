package attach

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"danm.io/danm/spec/model"
	"danm.io/danm/test/lab"
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
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
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
					if err := spaces[0].Ping(address, 30*time.Second); err != nil {
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
	b.Sysctls = []model.Sysctl{{Key: "net.ipv4.conf.IFNAME.rp_filter", Value: "2"}, {Key: "net.ipv6.conf.IFNAME.accept_ra", Value: "2"}}
	c := attachment(model.BRIDGE, sandbox, "port2", "10.1.0.1/24")
	return []model.Attachment{a, b, c}
}

// Every failing call leaves Pod and host exactly as before; the same for a caller who goes away at that moment.
func TestKernelAttachIsAllOrNothing(t *testing.T) {
	s := newSite(t)
	_, pod := s.pod("pod")
	allOrNothing(t, s, pod, rich(pod.Sandbox), 40)
}

func allOrNothing(t *testing.T, s *site, pod Pod, want []model.Attachment, leastCalls int) {
	t.Helper()
	ns := &lab.NS{Name: pod.Sandbox, Path: pod.Netns.Name()}
	podBefore, hostBefore := dump(t, ns), s.host()
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
			if after := s.host(); after != hostBefore {
				t.Fatalf("%s at call %d left in the host:\n%s\nbefore:\n%s", how, n, after, hostBefore)
			}
		}
		if calls < leastCalls {
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
	_, pod := s.pod("pod")
	detachIsRepeatable(t, s, pod, rich(pod.Sandbox))
}

func detachIsRepeatable(t *testing.T, s *site, pod Pod, want []model.Attachment) {
	t.Helper()
	ns := &lab.NS{Name: pod.Sandbox, Path: pod.Netns.Name()}
	podBefore, hostBefore := dump(t, ns), s.host()
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
		if after := dump(t, ns) + s.host(); after != podBefore+hostBefore {
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
	if _, err := s.on[0].Attach(t.Context(), pod, []model.Attachment{missing}); !gone(err) || !errors.Is(err, ErrHostLink) || !strings.Contains(err.Error(), "net1") || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("no such device: %v", err)
	}
	if _, err := s.on[0].Attach(t.Context(), pod, []model.Attachment{strange}); !errors.Is(err, ErrType) || !strings.Contains(err.Error(), "net2") {
		t.Errorf("no such type: %v", err)
	}
	full := attachment(model.MACVLAN, "pod", "net1")
	full.MTU = 9000
	if _, err := s.on[0].Attach(t.Context(), pod, []model.Attachment{full}); !errors.Is(err, unix.EINVAL) {
		t.Errorf("MTU above the parent's: %v", err)
	}
}
