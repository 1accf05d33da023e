package kernel

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"danm.io/danm/node/link"
	"danm.io/danm/node/plan"
	"danm.io/danm/spec/model"
	"danm.io/danm/test/lab"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// noKernel says why there are no namespaces to test in; then only the fake is tested.
var noKernel error

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		if err := playRole(role); err != nil {
			println(role + ": " + err.Error())
			os.Exit(1)
		}
		return
	}
	code, done, err := lab.Isolate()
	if done && err == nil {
		os.Exit(code)
	}
	noKernel = err
	os.Exit(m.Run())
}

// real is a namespace with the hands of others on it.
type real struct {
	*link.Kernel
	h  *link.Handle
	ns *lab.NS
}

func newReal(t *testing.T) real {
	t.Helper()
	if noKernel != nil {
		t.Skip("no namespaces: ", noKernel)
	}
	world, err := lab.NewWorld(t.TempDir())
	must(t, err)
	t.Cleanup(func() { must(t, world.Close()) })
	ns, err := world.Add("host")
	must(t, err)
	r := real{ns: ns}
	must(t, ns.Do(func() (err error) {
		if r.Kernel, err = link.New("/"); err != nil {
			return err
		}
		r.h, err = link.NewHandle()
		return err
	}))
	t.Cleanup(func() { r.h.Close(); r.Close() })
	return r
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// knows tries to make a link of the kind.
func (r real) knows(kind string) bool {
	a := netlink.NewLinkAttrs()
	a.Name = "danmprobe"
	var err error
	switch kind {
	case "vlan":
		below := netlink.NewLinkAttrs() // not lo: it takes no VLANs anywhere (NETIF_F_VLAN_CHALLENGED)
		below.Name = "danmbelow"
		veth := &netlink.Veth{LinkAttrs: below, PeerName: "danmbelow-far"}
		if r.h.LinkAdd(veth) != nil {
			return false
		}
		defer func() { _ = r.h.LinkDel(veth) }()
		l, lookup := r.h.LinkByName(below.Name)
		if lookup != nil {
			return false
		}
		a.ParentIndex = l.Attrs().Index
		err = r.h.LinkAdd(&netlink.Vlan{LinkAttrs: a, VlanId: 1, VlanProtocol: netlink.VLAN_PROTOCOL_8021Q})
	case "filtering":
		on := true
		if err := r.h.LinkAdd(&netlink.Bridge{LinkAttrs: a, VlanFiltering: &on}); err != nil {
			return false
		}
		lists, listErr := r.h.BridgeVlanList()
		l, lookup := r.h.LinkByName(a.Name)
		known := listErr == nil && lookup == nil && len(lists[int32(l.Attrs().Index)]) > 0
		if lookup == nil {
			_ = r.h.LinkDel(l)
		}
		return known
	case "vrf":
		err = r.h.LinkAdd(&netlink.Vrf{LinkAttrs: a, Table: 77})
	default:
		err = r.h.LinkAdd(&netlink.GenericLink{LinkAttrs: a, LinkType: kind})
	}
	if errors.Is(err, unix.EOPNOTSUPP) {
		return false
	}
	if l, err := r.h.LinkByName(a.Name); err == nil {
		_ = r.h.LinkDel(l)
	}
	return true
}

func (r real) AddLink(l plan.ObservedLink) error {
	a := netlink.NewLinkAttrs()
	a.Name, a.MTU, a.Group = l.Name, l.MTU, l.Group
	if l.Parent != "" {
		p, err := r.h.LinkByName(l.Parent)
		if err != nil {
			return err
		}
		a.ParentIndex = p.Attrs().Index
	}
	var n netlink.Link
	switch l.Kind {
	case model.Bridge:
		n = &netlink.Bridge{LinkAttrs: a}
	case model.VLAN:
		n = &netlink.Vlan{LinkAttrs: a, VlanId: int(l.VLANID), VlanProtocol: netlink.VLAN_PROTOCOL_8021Q}
	case model.VXLAN:
		x := &netlink.Vxlan{LinkAttrs: a, VtepDevIndex: a.ParentIndex, VxlanId: int(l.VXLAN.VNI), Port: l.VXLAN.Port, Learning: l.VXLAN.Learning}
		x.LinkAttrs.ParentIndex = 0
		if l.VXLAN.Group.IsValid() {
			x.Group = l.VXLAN.Group.AsSlice()
		}
		n = x
	case model.Dummy:
		n = &netlink.Dummy{LinkAttrs: a}
	default:
		n = &netlink.Veth{LinkAttrs: a, PeerName: l.Name + "-far"}
	}
	if err := r.h.LinkAdd(n); err != nil {
		return err
	}
	if l.KernelKind == "veth" {
		if err := r.SetLink(l.Name+"-far", "up", "up"); err != nil {
			return err
		}
	}
	if l.Master != "" {
		if err := r.SetLink(l.Name, "master", l.Master); err != nil {
			return err
		}
	}
	if l.Up {
		return r.SetLink(l.Name, "up", "up")
	}
	return nil
}

func (r real) DeleteLink(name string) error {
	l, err := r.h.LinkByName(name)
	if err != nil {
		return err
	}
	return r.h.LinkDel(l)
}

func (r real) SetLink(name, property, value string) error {
	l, err := r.h.LinkByName(name)
	if err != nil {
		return err
	}
	switch property {
	case "mtu":
		mtu, err := strconv.Atoi(value)
		if err != nil {
			return err
		}
		return r.h.LinkSetMTU(l, mtu)
	case "alias":
		return r.h.LinkSetAlias(l, value)
	case "master":
		if value == "" {
			return r.h.LinkSetNoMaster(l)
		}
		m, err := r.h.LinkByName(value)
		if err != nil {
			return err
		}
		return r.h.LinkSetMaster(l, m)
	}
	if value == "up" {
		return r.h.LinkSetUp(l)
	}
	return r.h.LinkSetDown(l)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func (r real) AddAddress(name string, p netip.Prefix) error {
	l, err := r.h.LinkByName(name)
	if err != nil {
		return err
	}
	a := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return r.h.AddrAdd(l, a)
}

func (r real) DeleteAddress(name string, p netip.Prefix) error {
	l, err := r.h.LinkByName(name)
	if err != nil {
		return err
	}
	return r.h.AddrDel(l, &netlink.Addr{IPNet: ipNet(p)})
}

func (r real) route(m plan.ObservedRoute) (*netlink.Route, error) {
	out := &netlink.Route{Dst: ipNet(m.To), Table: int(m.Table), Priority: int(m.Metric), Protocol: netlink.RouteProtocol(m.Protocol)}
	if m.Via.IsValid() {
		out.Gw = m.Via.AsSlice()
	} else if m.To.Addr().Is4() {
		out.Scope = netlink.SCOPE_LINK
	}
	if m.Dev != "" {
		l, err := r.h.LinkByName(m.Dev)
		if err != nil {
			return nil, err
		}
		out.LinkIndex = l.Attrs().Index
	}
	return out, nil
}

func (r real) AddRoute(m plan.ObservedRoute) error {
	out, err := r.route(m)
	if err != nil {
		return err
	}
	return r.h.RouteAdd(out)
}

func (r real) DeleteRoute(m plan.ObservedRoute) error {
	out, err := r.route(m)
	if err != nil {
		return err
	}
	return r.h.RouteDel(out)
}

func (r real) SetSysctl(key, value string) error {
	return r.ns.Do(func() error {
		return os.WriteFile("/proc/sys/"+strings.NewReplacer(".", "/", "/", ".").Replace(key), []byte(value), 0)
	})
}

func (r real) AddRule(m plan.ObservedRule) error { return r.h.RuleAdd(foreignRule(m)) }

func (r real) DeleteRule(m plan.ObservedRule) error { return r.h.RuleDel(foreignRule(m)) }

func foreignRule(m plan.ObservedRule) *netlink.Rule {
	out := netlink.NewRule()
	out.Family, out.Priority, out.Table, out.IifName, out.Protocol = netlink.FAMILY_V4, int(m.Priority), int(m.Table), m.IIF, uint8(m.Protocol)
	if m.From.IsValid() {
		out.Src = ipNet(m.From)
	}
	return out
}

func TestKernelScripts(t *testing.T) {
	for _, file := range scripts(t) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) { play(t, file, newReal(t)) })
	}
}

// TestKernelSubscribe: a change of any sort wakes, silence does not, the end of the context closes.
func TestKernelSubscribe(t *testing.T) {
	r := newReal(t)
	must(t, r.ns.Do(func() error { // IPv6 talks by itself: duplicate address detection, link-local routes
		return os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
	}))
	must(t, r.AddLink(plan.ObservedLink{Link: model.Link{Name: "eth0", Kind: model.Physical, Up: true}, KernelKind: "veth"}))
	must(t, r.AddLink(plan.ObservedLink{Link: model.Link{Name: "vx", Kind: model.VXLAN, Up: true, VXLAN: &model.VXLANOptions{VNI: 7, Port: 4789}}, KernelKind: "vxlan"}))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ch, err := r.Subscribe(ctx)
	must(t, err)
	route := plan.ObservedRoute{Route: model.Route{To: netip.MustParsePrefix("10.9.0.0/16"), Dev: "eth0"}, Protocol: 4}
	drain(ch)
	for what, change := range map[string]func() error{
		"link":    func() error { return r.SetLink("eth0", "mtu", "1400") },
		"address": func() error { return r.AddAddress("eth0", netip.MustParsePrefix("192.0.2.1/24")) },
		"route":   func() error { return r.AddRoute(route) },
		"rule": func() error {
			return r.AddRule(plan.ObservedRule{Rule: model.Rule{Priority: 77, Table: 100}, Protocol: 4})
		},
		"peer": func() error {
			p := model.Peer{Link: "vx", Addr: netip.MustParseAddr("192.0.2.9")}
			return r.Apply(ctx, plan.Step{Op: plan.AddPeer, Peer: &p})
		},
	} {
		must(t, change())
		select {
		case <-ch:
		case <-time.After(5 * time.Second):
			t.Fatalf("a changed %s wakes nobody", what)
		}
		drain(ch)
	}
	eth0, err := r.h.LinkByName("eth0")
	must(t, err)
	must(t, r.h.NeighSet(&netlink.Neigh{LinkIndex: eth0.Attrs().Index, State: unix.NUD_PERMANENT, IP: net.IPv4(192, 0, 2, 7), HardwareAddr: make([]byte, 6)}))
	select {
	case <-ch:
		t.Fatal("woken by a neighbour, which is no drift")
	case <-time.After(100 * time.Millisecond):
	}
	cancel()
	select {
	case _, open := <-ch:
		if open {
			t.Fatal("woken by the end of the context")
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the channel is not closed")
	}
}

// drain waits until the events of one change have all come.
func drain(ch <-chan struct{}) {
	for {
		select {
		case <-ch:
		case <-time.After(300 * time.Millisecond):
			return
		}
	}
}

// TestKernelRefuses: whatever a step says, links and routes without our marks stay.
func TestKernelRefuses(t *testing.T) {
	r := newReal(t)
	ctx := t.Context()
	must(t, r.AddLink(plan.ObservedLink{Link: model.Link{Name: "br0", Kind: model.Bridge, Up: true}, KernelKind: "bridge"}))
	must(t, r.AddAddress("br0", netip.MustParsePrefix("192.0.2.1/24")))
	foreign := model.Route{To: netip.MustParsePrefix("10.9.0.0/16"), Via: netip.MustParseAddr("192.0.2.7")}
	must(t, r.AddRoute(plan.ObservedRoute{Route: foreign, Protocol: 4}))
	before, err := r.Observe(ctx)
	must(t, err)
	br0 := model.Link{Name: "br0", Kind: model.Bridge}
	other := model.Route{To: foreign.To, Via: netip.MustParseAddr("192.0.2.8")}
	for want, s := range map[error]plan.Step{
		link.ErrNotOurs: {Op: plan.DeleteLink, Link: &br0},
		unix.EEXIST:     {Op: plan.CreateLink, Link: &br0},
		link.ErrStep:    {Op: plan.CreateLink},
	} {
		if err := r.Apply(ctx, s); !errors.Is(err, want) {
			t.Errorf("%s: want %v, got %v", s.Op, want, err)
		}
	}
	if err := r.Apply(ctx, plan.Step{Op: plan.AddRoute, Route: &other}); !errors.Is(err, unix.EEXIST) {
		t.Errorf("replacing a foreign route: %v", err)
	}
	must(t, r.Apply(ctx, plan.Step{Op: plan.DeleteRoute, Route: &foreign})) // ours is not there: no error, and theirs stays
	must(t, r.Apply(ctx, plan.Step{Op: plan.DeleteLink, Link: &model.Link{Name: "nobody", Kind: model.Bridge}}))
	after, err := r.Observe(ctx)
	must(t, err)
	if !before.Equal(after) {
		t.Errorf("changed:\n%s\n%s", before.Dump(), after.Dump())
	}
	canceled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := r.Observe(canceled); !errors.Is(err, context.Canceled) {
		t.Errorf("observing after the end: %v", err)
	}
}
