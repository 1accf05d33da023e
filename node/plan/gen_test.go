package plan_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"danm.io/danm/node/fake"
	"danm.io/danm/node/plan"
	"danm.io/danm/spec/model"
)

// node is a fake kernel with its ledger, run as the guard would.
type node struct {
	kernel *fake.Kernel
	ledger map[plan.ObjectID]plan.Record
}

func newNode(k *fake.Kernel) *node { return &node{kernel: k, ledger: map[plan.ObjectID]plan.Record{}} }

func (n *node) observe() (plan.Observed, error) {
	o, err := n.kernel.Observe(context.Background(), everySysctl...)
	o.Owned = slices.SortedFunc(maps.Values(n.ledger), func(a, b plan.Record) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return o, err
}

// to applies one desired state: claims, steps, releases.
func (n *node) to(d plan.Desired) (before plan.Observed, p plan.Plan, err error) {
	before, err = n.observe()
	if err != nil {
		return before, p, err
	}
	p = plan.Diff(d, before)
	for _, c := range p.Claims {
		n.ledger[c.ID] = c
	}
	for _, s := range p.Steps {
		if err := n.kernel.Apply(context.Background(), s); err != nil {
			return before, p, err
		}
	}
	for _, id := range p.Released {
		delete(n.ledger, id)
	}
	return before, p, nil
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

func chance(r *rand.Rand, percent int) bool { return r.IntN(100) < percent }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// world makes a kernel with hardware and foreign objects, some in the way of what plans want.
func world(t testing.TB, r *rand.Rand) *fake.Kernel {
	k := fake.New()
	hw := func(name, pci string, mtu, max int, up bool) plan.ObservedLink {
		return plan.ObservedLink{Link: model.Link{Name: name, Kind: model.Physical, MTU: mtu, Up: up}, MAC: "02:00:00:00:00:" + pci[len(pci)-2:], PCI: pci, Driver: "virtio_net", MaxMTU: max}
	}
	eth0, eth1 := hw("eth0", "0000:00:10", pick(r, 1500, 9000), 9216, true), hw("eth1", "0000:00:11", 1500, 0, chance(r, 50))
	eth0.AltNames = []string{"enp0s16"}
	eth0.SRIOV, eth1.SRIOV = &plan.ObservedPF{TotalVFs: 8, Vendor: "8086", Device: "1572"}, &plan.ObservedPF{TotalVFs: 4, Vendor: "8086", Device: "10c9"}
	must(t, k.AddLink(eth0))
	must(t, k.AddLink(eth1))
	foreignVFs(t, k, r)
	must(t, k.AddAddress("eth0", netip.MustParsePrefix("192.0.2.10/24")))
	must(t, k.AddRoute(plan.ObservedRoute{Route: model.Route{To: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("192.0.2.1"), Dev: "eth0"}, Protocol: 3}))
	for i := range 6 {
		addForeign(k, r, i)
	}
	foreignRule(k, r)
	return k
}

// addForeign tries one foreign object; refusals of the kernel are fine.
func addForeign(k *fake.Kernel, r *rand.Rand, i int) {
	name := fmt.Sprintf("other%d", i)
	l := plan.ObservedLink{Link: model.Link{Name: name, Up: true, MTU: 1400}, Group: pick[uint32](r, 0, 0, 7)}
	switch r.IntN(8) {
	case 0:
		l.Kind, l.KernelKind = model.Bridge, "bridge"
	case 1:
		l.Kind, l.KernelKind, l.Parent, l.VLANID = model.VLAN, "vlan", "eth0", uint16(10+r.IntN(4))
	case 2:
		l.Kind, l.KernelKind, l.Parent = model.VXLAN, "vxlan", "eth0"
		l.VXLAN = &model.VXLANOptions{VNI: uint32(100 + r.IntN(4)), Port: 4789}
	case 3:
		l.Kind, l.KernelKind = model.Dummy, "dummy"
	case 4: // in the way by name, perhaps identical
		want := randomLink(r, pick(r, "a", "b", "c", "d"), []string{"eth0"}, nil)
		l.Link, l.KernelKind = want, string(want.Kind)
		l.Addresses, l.Alias, l.Up, l.PortVLANs, l.Adopt = nil, "", true, nil, ""
		if l.Bond != nil {
			l.Bond.XmitHashPolicy, l.Bond.LACPRate = "layer2", "slow"
			if l.Bond.MIIMonitor == 0 {
				l.Bond.UpDelay, l.Bond.DownDelay = 0, 0
			}
		}
		if l.MTU > 1400 {
			l.MTU = 1400
		}
	case 5:
		_ = k.AddRoute(plan.ObservedRoute{Route: model.Route{To: pick(r, routeTargets...), Dev: "eth0", Metric: uint32(r.IntN(2))}, Protocol: 4})
		return
	case 6:
		_ = k.AddAddress("eth0", pick(r, addressPool...))
		return
	case 7:
		_ = k.AddRoute(plan.ObservedRoute{Route: model.Route{To: pick(r, routeTargets...), Via: netip.MustParseAddr("192.0.2.7"), Table: uint32(r.IntN(2) * 77)}, Protocol: 186})
		return
	}
	_ = k.AddLink(l)
}

var addressPool = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("10.0.0.2/24"), netip.MustParsePrefix("10.0.0.1/16"),
	netip.MustParsePrefix("10.1.0.1/24"), netip.MustParsePrefix("fd00::1/64"), netip.MustParsePrefix("fd00::1/48"), netip.MustParsePrefix("fd00:1::2/64"),
}

var routeTargets = []netip.Prefix{
	netip.MustParsePrefix("10.8.0.0/16"), netip.MustParsePrefix("10.9.0.0/16"), netip.MustParsePrefix("fd08::/32"), netip.MustParsePrefix("0.0.0.0/0"),
}

// randomLink varies every field of a link that we make.
func randomLink(r *rand.Rand, name string, parents, masters []string) model.Link {
	l := model.Link{Name: name, Alias: pick(r, "", "net "+name), MTU: pick(r, 0, 0, 1400, 1300)}
	switch r.IntN(6) {
	case 0:
		l.Kind, l.Filtering = model.Bridge, chance(r, 40)
		if l.Filtering && chance(r, 50) {
			l.PortVLANs = randomVLANs(r)
		}
	case 3:
		l.Kind, l.Bond = model.Bond, randomBond(r)
	case 4:
		l.Kind, l.Table, l.MTU = model.VRF, pick[uint32](r, 90, 1000), 0
	case 5:
		l.Kind = model.Dummy
	case 1:
		l.Kind, l.Parent, l.VLANID = model.VLAN, pick(r, parents...), uint16(10+r.IntN(6))
	case 2:
		l.Kind = model.VXLAN
		l.VXLAN = &model.VXLANOptions{VNI: uint32(100 + r.IntN(6)), Port: pick(r, 4789, 4789, 8472), Learning: chance(r, 50)}
		if chance(r, 80) {
			l.Parent = pick(r, parents...)
		}
		if chance(r, 30) {
			l.VXLAN.Group = pick(r, netip.MustParseAddr("239.0.0.1"), netip.MustParseAddr("ff05::1"))
		}
		if chance(r, 30) && !l.VXLAN.Group.Is6() {
			l.VXLAN.Local = pick(r, netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("10.0.0.1"))
		}
	}
	if len(masters) > 0 && l.Kind != model.VRF && chance(r, 40) {
		l.Master = pick(r, masters...)
		if chance(r, 30) {
			l.PortVLANs = randomVLANs(r)
		}
	}
	if chance(r, 5) {
		l.Adopt = model.AdoptNever
	}
	for _, a := range addressPool {
		if l.Master == "" && chance(r, 15) && !slices.ContainsFunc(l.Addresses, func(b netip.Prefix) bool { return a.Addr() == b.Addr() }) {
			l.Addresses = append(l.Addresses, a)
		}
	}
	return l
}

// randomDesired is a plan over a small space of names and ids, so that plans of a sequence collide.
func randomDesired(r *rand.Rand) plan.Desired {
	var d plan.Desired
	parents, masters := []string{"eth0"}, []string{}
	if chance(r, 70) {
		l := model.Link{Name: "uplink", Kind: model.Physical, Match: pick(r, &model.Match{Name: "enp0s16"}, &model.Match{PCI: "0000:00:10"}, &model.Match{MAC: "02:00:00:00:00:10", Driver: "virtio_net"})}
		l.MTU = pick(r, 0, 0, 1500, 9000, 9216, 10000)
		l.Up = chance(r, 50)
		if chance(r, 30) {
			l.Addresses = []netip.Prefix{pick(r, addressPool...)}
		}
		d.Plan.Links, parents = append(d.Plan.Links, l), []string{"uplink"}
	}
	if chance(r, 60) {
		l := model.Link{Name: "eth1", Kind: model.Physical, MTU: pick(r, 0, 1400, 2000), Up: chance(r, 60), Master: pick(r, "", "", "a", "e")}
		if l.Master != "" && chance(r, 40) {
			l.PortVLANs = randomVLANs(r)
		}
		if l.Master == "" && chance(r, 40) {
			l.Addresses = []netip.Prefix{pick(r, addressPool...)}
		}
		d.Plan.Links = append(d.Plan.Links, l)
		parents = append(parents, "eth1")
	}
	if chance(r, 5) {
		d.Plan.Links = append(d.Plan.Links, model.Link{Name: "eth9", Kind: model.Physical, Up: true})
		parents = append(parents, "eth9")
	}
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		if !chance(r, 60) {
			continue
		}
		l := randomLink(r, name, parents, masters)
		d.Plan.Links = append(d.Plan.Links, l)
		if l.Kind == model.Bridge || l.Kind == model.Bond || l.Kind == model.VRF {
			masters = append(masters, name)
		}
		if chance(r, 50) && l.Master == "" {
			parents = append(parents, name)
		}
		if l.Kind == model.VXLAN && !l.VXLAN.Group.IsValid() {
			for _, a := range []string{"192.0.2.20", "192.0.2.21", "fd00::20"} {
				if chance(r, 50) {
					d.Peers = append(d.Peers, model.Peer{Link: name, Addr: netip.MustParseAddr(a)})
				}
			}
		}
		for _, a := range l.Addresses {
			if chance(r, 40) {
				d.Plan.Routes = append(d.Plan.Routes, model.Route{To: pick(r, routeTargets...), Via: a.Addr().Next().Next(), Dev: name, Metric: uint32(r.IntN(2) * 50), Table: pick[uint32](r, 0, 254, 90)})
			}
		}
		if chance(r, 20) && l.Master == "" {
			d.Plan.Routes = append(d.Plan.Routes, model.Route{To: pick(r, routeTargets...), Dev: name, Metric: uint32(r.IntN(2))})
		}
	}
	d.Plan.Routes = slices.DeleteFunc(d.Plan.Routes, func(x model.Route) bool { return x.Via.IsValid() && x.Via.Is4() != x.To.Addr().Is4() })
	seen := map[plan.ObjectID]bool{}
	d.Plan.Routes = slices.DeleteFunc(d.Plan.Routes, func(x model.Route) bool { dup := seen[plan.RouteID(x)]; seen[plan.RouteID(x)] = true; return dup })
	d.Plan.Rules, d.Plan.Sysctls, d.Plan.Pools = randomRules(r), randomSysctls(r), randomPools(r)
	slices.SortFunc(d.Plan.Links, func(a, b model.Link) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return d
}
