package render_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"danm.io/danm/render"
	"danm.io/danm/render/rendertest"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
	"danm.io/danm/spec/segment"
)

// The budget counts the render alone; the test's limit is wider, because tests run beside others.
func TestScale(t *testing.T) {
	b := rendertest.Scale(rendertest.Budget)
	start := time.Now()
	r := render.Render(b, model.Inventory{})
	took := time.Since(start)
	if len(r.Diagnostics) > 0 {
		t.Fatal(r.Diagnostics[0])
	}
	if len(r.Nodes) != rendertest.Budget.Nodes {
		t.Fatalf("%d node states", len(r.Nodes))
	}
	t.Logf("rendered in %v", took)
	if took > 20*time.Second {
		t.Errorf("took %v", took)
	}
	for _, i := range []int{0, 1, 19, 20, 4999} {
		s := r.Nodes[i]
		if got, want := len(s.Plan.Links), 2+50; got != want {
			t.Errorf("%s: %d links, want %d", s.Node, got, want)
		}
		if s.Digest != s.Plan.Digest() {
			t.Errorf("%s: digest is not its plan's", s.Node)
		}
	}
}

func BenchmarkRender(b *testing.B) {
	bundle := rendertest.Scale(rendertest.Budget)
	b.ReportAllocs()
	for b.Loop() {
		if r := render.Render(bundle, model.Inventory{}); r.Diagnostics.HasErrors() {
			b.Fatal(r.Diagnostics)
		}
	}
}

// Reserved addresses are kept out of what is given out by itself, on nodes; the objects tell them as reservations.
func TestReservationsAreWithheld(t *testing.T) {
	a := func(s string) netip.Addr { return netip.MustParseAddr(s) }
	v4 := &model.Subnet{CIDR: netip.MustParsePrefix("10.0.0.0/24"), Exclude: []model.AddrRange{{First: a("10.0.0.50"), Last: a("10.0.0.60")}}}
	b := model.Bundle{
		Nodes:  []model.Node{{Name: "n"}},
		Groups: []model.NodeGroup{{Name: "g", Interfaces: []model.Link{{Name: "eth0", Kind: model.Physical}}}},
		Networks: []model.Network{{Kind: model.ClusterNetwork, Name: "x", NetworkID: "x", Type: model.MACVLAN, HostDevice: "eth0", IPv4: v4,
			Reserved: []model.Reservation{{Name: "vip", IP: a("10.0.0.9")}, {Name: "six", IP6: a("fd00::1")}}}},
	}
	r := render.Render(b, model.Inventory{})
	want := []model.AddrRange{{First: a("10.0.0.9"), Last: a("10.0.0.9")}, {First: a("10.0.0.50"), Last: a("10.0.0.60")}}
	if got := r.Nodes[0].Networks[0].IPv4.Exclude; !slices.Equal(got, want) {
		t.Errorf("excluded %v", got)
	}
	if len(v4.Exclude) != 1 || len(r.Networks[0].IPv4.Exclude) != 1 {
		t.Error("the bundle's own network was changed")
	}
}

// onEth0 is a bundle with these networks on a fabric f, which is eth0 of every node.
func onEth0(nodes int, networks ...model.Network) model.Bundle {
	b := model.Bundle{
		Groups:   []model.NodeGroup{{Name: "g", Interfaces: []model.Link{{Name: "eth0", Kind: model.Physical}}}},
		Fabrics:  []model.Fabric{{Name: "f", Groups: []string{"g"}, Device: "eth0", VLANRanges: []model.Range32{{First: 100, Last: 101}}, VXLAN: &model.Underlay{Port: 4789}}},
		Networks: networks,
	}
	for i := range nodes {
		a := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 16)
		b.Nodes = append(b.Nodes, model.Node{Name: fmt.Sprintf("n%03d", i), Slot: i, Interfaces: map[string][]netip.Prefix{"eth0": {a}}})
	}
	return b
}

func onFabric(name string) model.Network {
	return model.Network{Kind: model.ClusterNetwork, Name: name, NetworkID: name, Type: model.MACVLAN, Fabric: "f", SpaceDomain: "f"}
}

func codes(l diag.List) string {
	var out []string
	for _, d := range l {
		out = append(out, string(d.Severity)+" "+string(d.Code))
	}
	return strings.Join(out, ", ")
}

// What two groups say alike is there once; a sysctl of two values is a conflict.
func TestGroupsOfOneNode(t *testing.T) {
	b := onEth0(1)
	b.Groups[0].Routes = []model.Route{{To: netip.MustParsePrefix("10.9.0.0/16"), Dev: "eth0"}}
	b.Groups[0].Rules = []model.Rule{{Priority: 100, Family: 4, Table: 7}}
	b.Groups[0].Sysctls = []model.Sysctl{{Key: "net.ipv4.ip_forward", Value: "1"}}
	b.Groups = append(b.Groups, b.Groups[0])
	b.Groups[1].Name = "h"
	r := render.Render(b, model.Inventory{})
	if len(r.Diagnostics) > 0 {
		t.Fatal(r.Diagnostics)
	}
	if p := r.Nodes[0].Plan; len(p.Links) != 1 || len(p.Routes) != 1 || len(p.Rules) != 1 || len(p.Sysctls) != 1 {
		t.Errorf("%+v", p)
	}
	b.Groups[1].Sysctls = []model.Sysctl{{Key: "net.ipv4.ip_forward", Value: "0"}}
	if got := codes(render.Render(b, model.Inventory{}).Diagnostics); got != "error SysctlConflict" {
		t.Errorf("two values of one sysctl: %s", got)
	}
}

// Flooding by unicast is warned of above 64 nodes and refused above 500.
func TestUnicastPeersAreBounded(t *testing.T) {
	n := onFabric("n")
	n.VXLAN, n.VNI = true, 7
	for nodes, want := range map[int]string{64: "", 65: "warning UnicastPeersMany", 500: "warning UnicastPeersMany", 501: "error UnicastPeersMany"} {
		if r := render.Render(onEth0(nodes, n), model.Inventory{}); codes(r.Diagnostics) != want || (len(r.Nodes) == 0) != r.Diagnostics.HasErrors() {
			t.Errorf("%d nodes: %d states, %s, want %s", nodes, len(r.Nodes), codes(r.Diagnostics), want)
		}
	}
}

// VXLAN packets come from an address that other nodes can reach, not from the link's own. fec0:: sorts behind fe80::.
func TestUnderlayIsNotLinkLocal(t *testing.T) {
	n := onFabric("n")
	n.VXLAN, n.VNI = true, 7
	b := onEth0(2, n)
	for i := range b.Nodes {
		b.Nodes[i].Interfaces["eth0"] = []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("fe80::%d/64", i+1)), netip.MustParsePrefix(fmt.Sprintf("fec0::%d/64", i+1))}
	}
	r := render.Render(b, model.Inventory{})
	if len(r.Diagnostics) > 0 {
		t.Fatal(r.Diagnostics)
	}
	s := r.Nodes[0]
	if len(s.Peers) != 1 || s.Peers[0].Addr != netip.MustParseAddr("fec0::2") || s.Plan.Links[1].VXLAN.Local != netip.MustParseAddr("fec0::1") {
		t.Errorf("peers %v, link %+v", s.Peers, s.Plan.Links[1].VXLAN)
	}
}

// A number that is kept for a network that is gone, or that a partner has on another fabric, is nobody's.
func TestNumbersOfOthers(t *testing.T) {
	n := onFabric("n")
	n.VLANAuto = true
	r := render.Render(onEth0(1, n), model.Inventory{Assignments: map[string]uint32{"gone": 100}})
	if len(r.Diagnostics) > 0 || r.Networks[0].VLAN != 101 {
		t.Errorf("beside a kept number: %d, %v", r.Networks[0].VLAN, r.Diagnostics)
	}
	p := onFabric("p")
	p.Fabric, p.SpaceDomain, p.VLAN = "other", "other", 7
	n.SharedWith, p.SharedWith = []string{"p"}, []string{"n"}
	b := onEth0(1, n, p)
	b.Groups[0].Interfaces = append(b.Groups[0].Interfaces, model.Link{Name: "eth1", Kind: model.Physical})
	b.Fabrics = append(b.Fabrics, model.Fabric{Name: "other", Groups: []string{"g"}, Device: "eth1"})
	r = render.Render(b, model.Inventory{})
	if len(r.Diagnostics) > 0 || r.Networks[0].VLAN != 100 {
		t.Errorf("with a partner elsewhere: %d, %v", r.Networks[0].VLAN, r.Diagnostics)
	}
}

// A node that the bundle and the inventory have is the bundle's.
func TestBundleNodesComeFirst(t *testing.T) {
	b := onEth0(2)
	r := render.Render(b, model.Inventory{Nodes: []model.Node{{Name: "n001", Slot: 9}, {Name: "n002", Slot: 2}}})
	var got []string
	for _, s := range r.Nodes {
		got = append(got, fmt.Sprintf("%s %d", s.Node, s.Slot))
	}
	if want := []string{"n000 0", "n001 1", "n002 2"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// The kernel takes an alias of 255 bytes (IFALIASZ-1).
func TestAliasIsCut(t *testing.T) {
	var networks []model.Network
	for i := range 60 {
		n := onFabric(fmt.Sprintf("net%02d", i))
		n.VLAN = 100
		networks = append(networks, n)
	}
	r := render.Render(onEth0(1, networks...), model.Inventory{})
	if len(r.Diagnostics) > 0 {
		t.Fatal(r.Diagnostics)
	}
	i := slices.IndexFunc(r.Nodes[0].Plan.Links, func(l model.Link) bool { return l.Kind == model.VLAN })
	if a := r.Nodes[0].Plan.Links[i].Alias; len(a) != 255 || !strings.HasPrefix(a, "danm: net00, net01, ") || !strings.HasSuffix(a, "...") {
		t.Errorf("%d bytes: %s", len(a), a)
	}
}

// A network for tenants that have no namespace must not become everyone's.
func TestGrantedToNobody(t *testing.T) {
	b := onEth0(1, onFabric("n"))
	b.Tenants = []model.Tenant{{Name: "t", Networks: []string{"n"}}}
	if got := codes(render.Render(b, model.Inventory{}).Diagnostics); got != "error NetworkReachesNobody" {
		t.Errorf("got %q", got)
	}
}

// A node whose own part outgrows its bound is named.
func TestPartIsBounded(t *testing.T) {
	b := onEth0(2)
	for i := range 3000 {
		b.Nodes[1].Interfaces["eth0"] = append(b.Nodes[1].Interfaces["eth0"], netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}), 32))
	}
	_, _, err := render.Render(b, model.Inventory{}).Segments()
	if !errors.Is(err, segment.ErrTooBig) || !strings.Contains(err.Error(), "n001") {
		t.Errorf("got %v", err)
	}
}
