package probe

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"danm.io/danm/test/lab"
)

func TestClaimsARP(t *testing.T) {
	self, other := net.HardwareAddr{2, 0, 0, 0, 0, 1}, net.HardwareAddr{2, 0, 0, 0, 0, 2}
	a, b, none := netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("192.0.2.8"), netip.IPv4Unspecified()
	packet := func(op byte, mac net.HardwareAddr, from, target netip.Addr) []byte {
		p := arpRequest(mac, from, target)
		p[7] = op
		return p
	}
	for _, r := range []struct {
		what   string
		packet []byte
		claims bool
	}{
		{"a reply from it", packet(2, other, a, none), true},
		{"a request from it", packet(1, other, a, b), true},
		{"another's probe for it", packet(1, other, none, a), true},
		{"our own probe", packet(1, self, none, a), false},
		{"our own, from it", packet(1, self, a, a), false},
		{"somebody looks for it", packet(1, other, b, a), false},
		{"a reply from another", packet(2, other, b, none), false},
		{"a probe for another", packet(1, other, none, b), false},
		{"cut short", packet(2, other, a, none)[:27], false},
		{"not Ethernet and IPv4", append([]byte{0, 6, 8, 0, 8, 4}, packet(2, other, a, none)[6:]...), false},
	} {
		mac, got := claimsARP(r.packet, a, self)
		if got != r.claims || got && mac.String() != other.String() {
			t.Errorf("%s: %v %s", r.what, got, mac)
		}
	}
}

// FuzzClaimsND: whatever stands in a packet, reading it ends.
func FuzzClaimsND(f *testing.F) {
	a := netip.MustParseAddr("2001:db8::7")
	na := append(dadSolicitation(a, a), 2, 1, 2, 0, 0, 0, 0, 9)
	na[40] = 136
	f.Add(na)
	f.Add(na[:64])
	f.Add(append(append([]byte{}, na[:64]...), 1, 0, 0, 0, 0, 0, 0, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		mac, yes := claimsND(b, a)
		if yes && (len(b) < 64 || mac != nil && len(mac) != 6) || !yes && mac != nil {
			t.Errorf("%v %v", mac, yes)
		}
	})
}

func TestClaimsND(t *testing.T) {
	a := netip.MustParseAddr("2001:db8::7")
	na := append(dadSolicitation(a, a), 1, 1, 0, 0, 0, 0, 0, 1, 2, 1, 2, 0, 0, 0, 0, 9) // after another option
	if _, yes := claimsND(na, a); yes {
		t.Error("a solicitation is taken for an answer")
	}
	na[40] = 136
	if mac, yes := claimsND(na, a); !yes || mac.String() != "02:00:00:00:00:09" {
		t.Errorf("%v %s", yes, mac)
	}
	if mac, yes := claimsND(na[:64], a); !yes || mac != nil {
		t.Errorf("without options: %v %s", yes, mac)
	}
	if _, yes := claimsND(na, a.Next()); yes {
		t.Error("another's answer")
	}
}

// TestKernelInUse has a stranger on the other end of a cable, who answers for its addresses and no others.
func TestKernelInUse(t *testing.T) {
	if !inNamespaces(t) {
		return
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	w, err := lab.NewWorld(t.TempDir())
	must(err)
	defer w.Close()
	stranger, err := w.Add("stranger")
	must(err)
	f, err := os.Open(stranger.Path)
	must(err)
	// The asking side has no address and IPv6 is off, as on the parent of Pods' links.
	must(os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0))
	must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "h0"}, PeerName: "s0", PeerNamespace: netlink.NsFd(int(f.Fd()))}))
	_ = f.Close()
	h0, err := netlink.LinkByName("h0")
	must(err)
	must(netlink.LinkSetUp(h0))
	askFor := func(long time.Duration, link, addr string) (bool, string, time.Duration, error) {
		ctx, cancel := context.WithTimeout(context.Background(), long)
		defer cancel()
		start := time.Now()
		inUse, mac, err := InUse(ctx, link, netip.MustParseAddr(addr))
		return inUse, mac, time.Since(start), err
	}
	ask := func(link, addr string) (bool, string, time.Duration, error) {
		return askFor(300*time.Millisecond, link, addr)
	}
	addresses := []string{"192.0.2.7", "2001:db8::7"}
	if inUse, _, _, err := ask("h0", "192.0.2.7"); inUse || err == nil {
		t.Logf("a cable whose other end is down: in use %v, %v", inUse, err) // what the kernel says of it differs
	}
	var mac string
	must(stranger.Do(func() error {
		l, err := netlink.LinkByName("s0")
		if err != nil {
			return err
		}
		mac = l.Attrs().HardwareAddr.String()
		return netlink.LinkSetUp(l)
	}))
	for _, a := range addresses { // control
		if inUse, _, took, err := ask("h0", a); inUse || err != nil || took < 250*time.Millisecond {
			t.Errorf("%s is nobody's: in use %v, %v after %s", a, inUse, err, took)
		}
	}
	must(stranger.Do(func() error {
		l, err := netlink.LinkByName("s0")
		if err != nil {
			return err
		}
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/s0/disable_ipv6", []byte("0"), 0); err != nil {
			return err
		}
		for _, s := range addresses {
			bits := "/24"
			if s == addresses[1] {
				bits = "/64"
			}
			a, err := netlink.ParseAddr(s + bits)
			if err != nil {
				return err
			}
			a.Flags = 2 // IFA_F_NODAD: usable at once
			if err := netlink.AddrAdd(l, a); err != nil {
				return err
			}
		}
		return nil
	}))
	for _, a := range addresses {
		inUse, got, took, err := askFor(10*time.Second, "h0", a) // ends at the first answer
		t.Logf("%s: in use %v by %s after %s", a, inUse, got, took)
		if !inUse || got != mac || err != nil {
			t.Errorf("%s: in use %v by %q, want %q, %v", a, inUse, got, mac, err)
		}
	}
	// A card passes on what it was told to listen to; a cable passes on everything.
	users := func(group string) int { // of a group on h0: the kernel itself may be one
		groups, _ := os.ReadFile("/proc/thread-self/net/dev_mcast") // the first thread may have been left in another namespace
		for line := range strings.Lines(string(groups)) {
			if f := strings.Fields(line); len(f) == 5 && f[1] == "h0" && f[4] == group {
				n, _ := strconv.Atoi(f[2])
				return n
			}
		}
		return 0
	}
	const all, solicited = "333300000001", "3333ff000009"
	kernels, asked := users(all), make(chan error, 1)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	go func() {
		_, _, err := InUse(ctx, "h0", netip.MustParseAddr("2001:db8::9"))
		asked <- err
	}()
	for ; users(all) <= kernels || users(solicited) == 0; time.Sleep(time.Millisecond) {
		if ctx.Err() != nil {
			t.Fatal("the link does not listen to where answers go")
		}
	}
	cancel()
	if err := <-asked; !errors.Is(err, context.Canceled) {
		t.Errorf("asked in vain, and left alone: %v", err)
	}
	if users(all) != kernels || users(solicited) != 0 {
		t.Errorf("it goes on listening: %d, %d before, and %d", users(all), kernels, users(solicited))
	}
	for _, a := range []string{"192.0.2.8", "2001:db8::8"} {
		if inUse, _, _, err := ask("h0", a); inUse || err != nil {
			t.Errorf("%s: in use %v, %v", a, inUse, err)
		}
	}
	// The stranger learned nothing from being asked.
	must(stranger.Do(func() error {
		l, err := netlink.LinkByName("s0")
		if err != nil {
			return err
		}
		neighbours, err := netlink.NeighList(l.Attrs().Index, netlink.FAMILY_V4)
		if len(neighbours) > 0 {
			t.Errorf("neighbours: %v", neighbours)
		}
		return err
	}))
	own, err := netlink.ParseAddr("192.0.2.9/24")
	must(err)
	must(netlink.AddrAdd(h0, own))
	if inUse, _, _, err := ask("h0", "192.0.2.9"); !inUse || err != nil {
		t.Errorf("the host's own: %v, %v", inUse, err)
	}
	must(netlink.LinkSetDown(h0))
	for _, link := range []string{"h0", "none", "lo"} {
		if inUse, _, _, err := ask(link, "192.0.2.7"); inUse || err == nil {
			t.Errorf("%s: in use %v, %v", link, inUse, err)
		}
	}
}
