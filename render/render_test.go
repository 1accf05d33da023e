package render_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"danm.io/danm/render"
	"danm.io/danm/render/rendertest"
	"danm.io/danm/spec/model"
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
