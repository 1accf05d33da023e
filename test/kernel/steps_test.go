package kernel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"danm.io/danm/node/link"
	"danm.io/danm/node/plan"
	"danm.io/danm/spec/model"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

func eth(name string) plan.ObservedLink {
	return plan.ObservedLink{Link: model.Link{Name: name, Kind: model.Physical, Up: true}, KernelKind: "veth"}
}

func (r real) find(t *testing.T, name string) plan.ObservedLink {
	t.Helper()
	o, err := r.Observe(t.Context())
	must(t, err)
	i := slices.IndexFunc(o.Links, func(l plan.ObservedLink) bool { return l.Name == name })
	if i < 0 {
		t.Fatalf("%s is not there:\n%s", name, o.Dump())
	}
	return o.Links[i]
}

func (r real) routes(t *testing.T) map[plan.ObjectID]plan.ObservedRoute {
	t.Helper()
	o, err := r.Observe(t.Context())
	must(t, err)
	out := map[plan.ObjectID]plan.ObservedRoute{}
	for _, x := range o.Routes {
		out[plan.RouteID(x.Route)] = x
	}
	return out
}

// TestKernelFinishesCreate: what an attempt that was cut off left of a link of ours becomes the whole link; one of another
// kind is in the way.
func TestKernelFinishesCreate(t *testing.T) {
	r := newReal(t)
	must(t, r.AddLink(plan.ObservedLink{Link: model.Link{Name: "br0", Kind: model.Bridge, Up: true}, KernelKind: "bridge", Group: plan.Group}))
	want := model.Link{Name: "vx", Kind: model.VXLAN, MTU: 1400, Up: true, Alias: "net a", Master: "br0", VXLAN: &model.VXLANOptions{VNI: 7, Port: 4789}}
	must(t, r.AddLink(plan.ObservedLink{Link: model.Link{Name: "vx", Kind: model.VXLAN, MTU: 1300, VXLAN: want.VXLAN}, Group: plan.Group}))
	must(t, r.Apply(t.Context(), plan.Step{Op: plan.CreateLink, Link: &want}))
	if got := r.find(t, "vx"); got.MTU != 1400 || !got.Up || got.Alias != "net a" || got.Master != "br0" {
		t.Errorf("%+v", got)
	}
	want.Name = "br0"
	if err := r.Apply(t.Context(), plan.Step{Op: plan.CreateLink, Link: &want}); !errors.Is(err, unix.EEXIST) {
		t.Errorf("a VXLAN in the place of a bridge: %v", err)
	}
}

// TestKernelDeletesTogether: links of ours end by one call, others stay; a link that a process left marked for it counts as
// ours, and what others have in that group keeps it from being used.
func TestKernelDeletesTogether(t *testing.T) {
	const doomed = plan.Group + 1
	r := newReal(t)
	var steps []plan.Step
	for i, group := range []uint32{plan.Group, plan.Group, doomed} {
		l := model.Link{Name: fmt.Sprintf("br%d", i), Kind: model.Bridge}
		must(t, r.AddLink(plan.ObservedLink{Link: l, Group: group}))
		steps = append(steps, plan.Step{Op: plan.DeleteLink, Link: &l})
		if got := r.find(t, l.Name).Group; got != plan.Group {
			t.Errorf("%s is in group %d", l.Name, got)
		}
	}
	must(t, r.AddLink(plan.ObservedLink{Link: model.Link{Name: "others", Kind: model.Bridge}}))
	theirs := plan.Step{Op: plan.DeleteLink, Link: &model.Link{Name: "others", Kind: model.Bridge}}
	if err := r.DeleteLinks(t.Context(), append(slices.Clone(steps), theirs)); !errors.Is(err, link.ErrNotOurs) {
		t.Errorf("another's link deleted: %v", err)
	}
	r.find(t, "others")
	must(t, r.DeleteLinks(t.Context(), append(steps, plan.Step{Op: plan.DeleteLink, Link: &model.Link{Name: "gone", Kind: model.Bridge}})))
	o, err := r.Observe(t.Context())
	must(t, err)
	for _, l := range o.Links {
		if strings.HasPrefix(l.Name, "br") {
			t.Errorf("%s is left", l.Name)
		}
	}
	r.find(t, "others")
	must(t, r.AddLink(plan.ObservedLink{Link: model.Link{Name: "stray", Kind: model.Bridge}, Group: doomed}))
	must(t, r.AddLink(plan.ObservedLink{Link: *steps[0].Link, Group: plan.Group}))
	if err := r.DeleteLinks(t.Context(), steps); !errors.Is(err, link.ErrNotOurs) {
		t.Errorf("the group was used beside a stranger's link: %v", err)
	}
	r.find(t, "stray")
}

// TestKernelAddAddress: the same address with another prefix length is not the one wanted, and an IPv6 address can be a
// source at once.
func TestKernelAddAddress(t *testing.T) {
	r := newReal(t)
	must(t, r.AddLink(eth("eth0")))
	add := func(p string) error {
		return r.Apply(t.Context(), plan.Step{Op: plan.AddAddress, LinkName: "eth0", Address: netip.MustParsePrefix(p)})
	}
	must(t, add("fd00::1/64"))
	must(t, add("fd00::1/64"))
	if err := add("fd00::1/48"); !errors.Is(err, unix.EEXIST) {
		t.Errorf("another prefix length: %v", err)
	}
	l, err := r.h.LinkByName("eth0")
	must(t, err)
	have, err := link.AddressesOn(r.h, l)
	must(t, err)
	if !slices.ContainsFunc(have, func(a netlink.Addr) bool {
		return a.IPNet.String() == "fd00::1/64" && a.Flags&unix.IFA_F_TENTATIVE == 0
	}) {
		t.Errorf("%v", have)
	}
}

// TestKernelRoutesOfOthers: with the last IPv4 address the kernel drops all IPv4 routes of the link. Those that it takes
// without the address are back, also the one that stands on another.
func TestKernelRoutesOfOthers(t *testing.T) {
	r := newReal(t)
	must(t, r.AddLink(eth("eth0")))
	address := netip.MustParsePrefix("192.0.2.10/24")
	must(t, r.AddAddress("eth0", address))
	for _, m := range []model.Route{
		{To: netip.MustParsePrefix("10.20.0.0/24"), Dev: "eth0"},
		{To: netip.MustParsePrefix("10.9.0.0/16"), Via: netip.MustParseAddr("10.20.0.1"), Dev: "eth0"},
		{To: netip.MustParsePrefix("10.8.0.0/16"), Via: netip.MustParseAddr("192.0.2.1"), Dev: "eth0"},
	} {
		must(t, r.AddRoute(plan.ObservedRoute{Route: m, Protocol: 4}))
	}
	eth0, err := r.h.LinkByName("eth0")
	must(t, err)
	hop := func(gw string) *netlink.NexthopInfo {
		return &netlink.NexthopInfo{LinkIndex: eth0.Attrs().Index, Gw: net.ParseIP(gw)}
	}
	must(t, r.h.RouteAdd(&netlink.Route{Dst: ipNet(netip.MustParsePrefix("10.30.0.0/16")), Protocol: 4, MultiPath: []*netlink.NexthopInfo{hop("10.20.0.1"), hop("10.20.0.2")}}))
	want := r.routes(t)
	delete(want, "route/254/10.8.0.0/16/0") // its gateway went with the address
	must(t, r.Apply(t.Context(), plan.Step{Op: plan.DeleteAddress, LinkName: "eth0", Address: address}))
	must(t, diffRoutes(want, r.routes(t)))
}

// TestKernelRouteSteps: a route of ours moves to another device behind the same gateway, and is deleted whatever its next
// hop has become.
func TestKernelRouteSteps(t *testing.T) {
	r := newReal(t)
	for name, a := range map[string]string{"eth0": "192.0.2.10/24", "eth1": "192.0.2.11/24"} {
		must(t, r.AddLink(eth(name)))
		must(t, r.AddAddress(name, netip.MustParsePrefix(a)))
	}
	m := model.Route{To: netip.MustParsePrefix("10.9.0.0/16"), Via: netip.MustParseAddr("192.0.2.1"), Dev: "eth0", Table: plan.MainTable}
	must(t, r.Apply(t.Context(), plan.Step{Op: plan.AddRoute, Route: &m}))
	moved := m
	moved.Dev = "eth1"
	must(t, r.Apply(t.Context(), plan.Step{Op: plan.AddRoute, Route: &moved}))
	must(t, diffRoutes(map[plan.ObjectID]plan.ObservedRoute{plan.RouteID(m): {Route: moved, Protocol: plan.RouteProtocol}}, r.routes(t)))
	m.Via = netip.MustParseAddr("192.0.2.2")
	must(t, r.Apply(t.Context(), plan.Step{Op: plan.DeleteRoute, Route: &m}))
	must(t, diffRoutes(map[plan.ObjectID]plan.ObservedRoute{}, r.routes(t)))
}

// TestKernelSees leaves out what is not part of the model and what the kernel makes by itself.
func TestKernelSees(t *testing.T) {
	r := newReal(t)
	for _, name := range []string{"eth0", "eth1", "eth2"} { // far's veth has the index of one of them
		must(t, r.AddLink(eth(name)))
	}
	must(t, r.ns.Do(func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/default/addr_gen_mode", []byte("3"), 0) })) // RFC 7217
	must(t, r.AddLink(eth("stable")))
	stable, err := r.h.LinkByName("stable")
	must(t, err)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) { // it comes with the carrier
		if have, err := link.AddressesOn(r.h, stable); err == nil && len(have) > 0 && have[0].Flags&unix.IFA_F_STABLE_PRIVACY != 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the kernel gives the link no address")
		}
	}
	if got := r.find(t, "stable").Addresses; len(got) != 0 {
		t.Errorf("the kernel's own link-local address: %v", got)
	}

	must(t, r.AddRoute(plan.ObservedRoute{Route: model.Route{To: netip.MustParsePrefix("10.9.0.0/16"), Dev: "eth0", Table: unix.RT_TABLE_LOCAL}, Protocol: 4}))
	must(t, diffRoutes(map[plan.ObjectID]plan.ObservedRoute{}, r.routes(t)))

	external := netlink.NewLinkAttrs()
	external.Name = "external"
	must(t, r.h.LinkAdd(&netlink.Vxlan{LinkAttrs: external, FlowBased: true, Port: 8472}))
	if got := r.find(t, "external"); got.Kind != model.Physical || got.KernelKind != "vxlan" {
		t.Errorf("a VXLAN without a VNI of its own: %+v", got)
	}

	must(t, r.AddLink(plan.ObservedLink{Link: model.Link{Name: "vx", Kind: model.VXLAN, Up: true, VXLAN: &model.VXLANOptions{VNI: 7, Port: 4789}}}))
	vx, err := r.h.LinkByName("vx")
	must(t, err)
	must(t, r.h.NeighAppend(&netlink.Neigh{LinkIndex: vx.Attrs().Index, Family: unix.AF_BRIDGE, State: unix.NUD_NOARP | unix.NUD_PERMANENT, Flags: unix.NTF_SELF,
		IP: []byte{192, 0, 2, 9}, HardwareAddr: []byte{2, 0, 0, 0, 0, 9}}))
	o, err := r.Observe(t.Context())
	must(t, err)
	if len(o.Peers) != 0 {
		t.Errorf("a way to one MAC is no flood entry: %v", o.Peers)
	}
}

// TestKernelParentElsewhere: the index of a device in another namespace names nothing here.
func TestKernelParentElsewhere(t *testing.T) {
	r, far := newReal(t), newReal(t)
	for _, name := range []string{"eth0", "eth1", "eth2"} {
		must(t, r.AddLink(eth(name)))
	}
	must(t, far.AddLink(eth("nic")))
	nic, err := far.h.LinkByName("nic")
	must(t, err)
	if _, err := r.h.LinkByIndex(nic.Attrs().Index); err != nil {
		t.Fatalf("the index %d is to mean something here: %v", nic.Attrs().Index, err)
	}
	here, err := os.Open(r.ns.Path)
	must(t, err)
	defer here.Close()
	a := netlink.NewLinkAttrs()
	a.Name, a.ParentIndex, a.Namespace = "mv", nic.Attrs().Index, netlink.NsFd(int(here.Fd()))
	must(t, far.h.LinkAdd(&netlink.Macvlan{LinkAttrs: a, Mode: netlink.MACVLAN_MODE_BRIDGE}))
	if got := r.find(t, "mv"); got.Parent != "" {
		t.Errorf("it stands on %s", got.Parent)
	}
}

// TestKernelCanceled: after the end of the context nothing is done.
func TestKernelCanceled(t *testing.T) {
	r := newReal(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	br := model.Link{Name: "br0", Kind: model.Bridge}
	if err := r.Apply(ctx, plan.Step{Op: plan.CreateLink, Link: &br}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := r.h.LinkByName("br0"); err == nil {
		t.Error("it is made all the same")
	}
}

// TestKernelClose leaves no descriptor of the namespace behind: it would keep the namespace alive.
func TestKernelClose(t *testing.T) {
	r := newReal(t)
	held := func() (n int) {
		var want unix.Stat_t
		must(t, unix.Stat(r.ns.Path, &want))
		fds, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		for _, fd := range fds {
			var got unix.Stat_t
			if unix.Stat(filepath.Join("/proc/self/fd", fd.Name()), &got) == nil && got.Dev == want.Dev && got.Ino == want.Ino {
				n++
			}
		}
		return n
	}
	before := held()
	k, err := link.At(r.ns.Path, "/nowhere")
	must(t, err)
	if held() <= before {
		t.Fatal("an open namespace is not seen")
	}
	k.Close()
	if after := held(); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func diffRoutes(want, got map[plan.ObjectID]plan.ObservedRoute) error {
	text := func(of map[plan.ObjectID]plan.ObservedRoute) string {
		var o plan.Observed
		for _, x := range of {
			o.Routes = append(o.Routes, x)
		}
		return o.Dump()
	}
	return diff(text(want), text(got))
}
