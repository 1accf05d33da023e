package probe

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"danm.io/danm/spec/model"
	"danm.io/danm/test/lab"
)

const isolated = "DANM_PROBE_KERNEL"

// TestMain gives the second run of a kernel test namespaces of its own.
func TestMain(m *testing.M) {
	if os.Getenv(isolated) != "" {
		if code, done, err := lab.Isolate(); done {
			if err != nil {
				println(err.Error())
				code = 77
			}
			os.Exit(code)
		}
	}
	os.Exit(m.Run())
}

// inNamespaces runs the test again in namespaces of its own; true in that second run.
func inNamespaces(t *testing.T) bool {
	t.Helper()
	if os.Getenv(isolated) != "" {
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), isolated+"=1")
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == 77 {
		t.Skipf("no user namespaces: %s", out)
	}
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// TestKernelProbes has a gateway in another namespace, over a cable.
func TestKernelProbes(t *testing.T) {
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
	gw, err := w.Add("gw")
	must(err)
	f, err := os.Open(gw.Path)
	must(err)
	must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "h0"}, PeerName: "g0", PeerNamespace: netlink.NsFd(int(f.Fd()))}))
	_ = f.Close()
	up := func(name string, addrs ...string) error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		for _, s := range addrs {
			a, err := netlink.ParseAddr(s)
			if err != nil {
				return err
			}
			a.Flags = 2 // IFA_F_NODAD: usable at once
			if err := netlink.AddrAdd(l, a); err != nil {
				return err
			}
		}
		return netlink.LinkSetUp(l)
	}
	must(up("h0", "192.0.2.10/24", "2001:db8::10/64"))
	must(gw.Do(func() error { return up("g0", "192.0.2.1/24", "2001:db8::1/64") }))

	gateway := func(addr string) Env {
		return Env{Gateways: func(context.Context) ([]Gateway, error) {
			return []Gateway{{Link: "h0", Addr: netip.MustParseAddr(addr)}}, nil
		}}
	}
	type row struct {
		name string
		p    model.Probe
		env  Env
		pass bool
	}
	rows := []row{
		{"arp", model.Probe{Kind: model.ProbeGateway}, gateway("192.0.2.1"), true},
		{"arp, nobody", model.Probe{Kind: model.ProbeGateway}, gateway("192.0.2.99"), false},
		{"nd", model.Probe{Kind: model.ProbeGateway}, gateway("2001:db8::1"), true},
		{"nd, nobody", model.Probe{Kind: model.ProbeGateway}, gateway("2001:db8::99"), false},
		{"one of two", model.Probe{Kind: model.ProbeGateway}, Env{Gateways: func(context.Context) ([]Gateway, error) {
			return []Gateway{{"h0", netip.MustParseAddr("192.0.2.99")}, {"h0", netip.MustParseAddr("192.0.2.1")}}, nil
		}}, true},
		{"icmp", model.Probe{Kind: model.ProbeICMP, Target: "192.0.2.1"}, Env{}, true},
		{"icmp, nobody", model.Probe{Kind: model.ProbeICMP, Target: "192.0.2.99"}, Env{}, false},
		{"icmp6", model.Probe{Kind: model.ProbeICMP, Target: "2001:db8::1"}, Env{}, true},
		{"icmp6, nobody", model.Probe{Kind: model.ProbeICMP, Target: "2001:db8::99"}, Env{}, false},
	}
	check := func(when string, rows []row) {
		var wg sync.WaitGroup
		for _, r := range rows {
			r.p.Timeout = 10 * time.Second // ends at the first answer
			if !r.pass {
				r.p.Timeout = time.Second
			}
			wg.Go(func() {
				if err := run(t, r.p, r.env); (err == nil) != r.pass {
					t.Errorf("%s: %s: %v", when, r.name, err)
				}
			})
		}
		wg.Wait()
	}
	check("up", rows)
	must(gw.Do(func() error {
		l, err := netlink.LinkByName("g0")
		if err != nil {
			return err
		}
		return netlink.LinkSetDown(l)
	}))
	for i := range rows {
		rows[i].pass = false // at once, though the neighbour table still knows them
	}
	check("cut", rows)
}
