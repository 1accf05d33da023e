package guard

import (
	"context"
	"net/netip"
	"os"
	"testing"
	"time"

	"danm.io/danm/node/fake"
	"danm.io/danm/node/plan"
	"danm.io/danm/node/state"
	"danm.io/danm/spec/model"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// scratch is a state directory in memory where there is one: sweeps make thousands of fsyncs whose cost is not their subject.
func scratch(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "danm-guard-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// machine is a kernel with hardware and things that are not ours.
func machine(t testing.TB) *fake.Kernel {
	t.Helper()
	k := fake.New()
	for _, l := range []plan.ObservedLink{
		{Link: model.Link{Name: "eth0", Kind: model.Physical, MTU: 1500, Up: true, Addresses: []netip.Prefix{prefix("192.0.2.10/24")}}, MAC: "02:00:00:00:00:01"},
		{Link: model.Link{Name: "eth1", Kind: model.Physical, MTU: 1500}, MAC: "02:00:00:00:00:02", SRIOV: &plan.ObservedPF{TotalVFs: 8}},
		{Link: model.Link{Name: "docker0", Kind: model.Bridge, MTU: 1500, Up: true, Addresses: []netip.Prefix{prefix("172.17.0.1/16")}}, KernelKind: "bridge"},
	} {
		must(t, k.AddLink(l))
	}
	must(t, k.AddRoute(plan.ObservedRoute{Route: model.Route{To: prefix("0.0.0.0/0"), Via: netip.MustParseAddr("192.0.2.1"), Dev: "eth0"}, Protocol: 3}))
	return k
}

func vxlan(name string, vni uint32, mtu int, master string) model.Link {
	return model.Link{Name: name, Kind: model.VXLAN, Parent: "eth0", MTU: mtu, Up: true, Master: master,
		VXLAN: &model.VXLANOptions{VNI: vni, Port: 4789, Local: netip.MustParseAddr("192.0.2.10")}}
}

func planA() model.NodePlan {
	return model.NodePlan{Links: []model.Link{
		{Name: "br_a", Kind: model.Bridge, MTU: 1400, Up: true, Addresses: []netip.Prefix{prefix("10.1.0.1/24")}},
		{Name: "eth1", Kind: model.Physical, MTU: 1600, Up: true},
		vxlan("vx_a", 100, 1400, "br_a"),
	}, Routes: []model.Route{{To: prefix("10.9.0.0/16"), Via: netip.MustParseAddr("10.1.0.2"), Dev: "br_a"}},
		Pools: []model.SRIOVPool{pool("fast", 2)}}
}

// planB changes, removes, adds and replaces.
func planB() model.NodePlan {
	return model.NodePlan{Links: []model.Link{
		{Name: "br_a", Kind: model.Bridge, MTU: 1300, Up: true, Addresses: []netip.Prefix{prefix("10.1.0.9/24"), prefix("fd00:1::1/64")}},
		vxlan("vx_a", 101, 1300, "br_a"),
		vxlan("vx_b", 102, 1300, ""),
	}, Routes: []model.Route{{To: prefix("10.8.0.0/16"), Via: netip.MustParseAddr("10.1.0.3"), Dev: "br_a"}},
		Pools: []model.SRIOVPool{pool("fast", 3, model.Range32{First: 1, Last: 1}), programs("user", 3, model.Range32{First: 2, Last: 2})}}
}

func peersOf(p model.NodePlan) []model.Peer {
	var out []model.Peer
	for _, l := range p.Links {
		if l.VXLAN != nil {
			out = append(out, model.Peer{Link: l.Name, Addr: netip.MustParseAddr("192.0.2.11")})
		}
	}
	return out
}

func submission(p model.NodePlan) Submission {
	return Submission{Desired: plan.Desired{Plan: p, Peers: peersOf(p)}, Digest: p.Digest(), Revision: "main@" + p.Digest()[7:15], ConfirmTimeout: 15 * time.Second}
}

func openGuard(t testing.TB, dir string, k plan.Kernel, boot string, fault state.Fault) *Guard {
	t.Helper()
	g, err := Open(context.Background(), Options{Dir: dir, Kernel: k, BootID: boot, Fault: fault})
	must(t, err)
	return g
}

// confirmed brings a plan through its window.
func confirmed(t testing.TB, g *Guard, p model.NodePlan) Outcome {
	t.Helper()
	out, err := g.Submit(context.Background(), submission(p))
	must(t, err)
	must(t, g.Confirm(context.Background(), p.Digest()))
	return out
}

// dumpOf is what a machine looks like under a plan, found without the guard.
func dumpOf(t testing.TB, p model.NodePlan) string {
	t.Helper()
	k := machine(t)
	o, err := k.Observe(context.Background())
	must(t, err)
	for _, s := range plan.Diff(plan.Desired{Plan: p, Peers: peersOf(p)}, o).Steps {
		must(t, k.Apply(context.Background(), s))
	}
	return k.Dump()
}

func phase(g *Guard) Phase {
	st, _ := g.Status(context.Background())
	return st.Phase
}
