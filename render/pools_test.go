package render

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
	"github.com/google/go-cmp/cmp"
)

// cardOf is a card with everything a selector may ask for.
func cardOf(name, pci string, total int) model.NIC {
	return model.NIC{Name: name, PCI: pci, MAC: "02:00:00:00:00:0" + name[len(name)-1:], Vendor: "8086", Device: "158b", Driver: "i40e", TotalVFs: total}
}

func poolOf(name string, numVFs int, pfs model.PFSelector, vfs ...model.Range32) model.SRIOVPool {
	return model.SRIOVPool{Name: name, NumVFs: numVFs, PFs: pfs, VFs: vfs, ResourceName: "danm.io/" + name}
}

func TestPoolsAndCards(t *testing.T) {
	one, two := cardOf("ens1", "0000:01:00.0", 8), cardOf("ens2", "0000:02:00.0", 8)
	dead := cardOf("ens3", "0000:03:00.0", 0)
	vf := model.NIC{Name: "ens1v0", PCI: "0000:01:10.0", Vendor: "8086", Device: "154c", PF: "0000:01:00.0"}
	byName, byPCI, byVendor := model.PFSelector{Names: []string{"ens1"}}, model.PFSelector{PCI: []string{"0000:01:00.0"}}, model.PFSelector{Vendors: []string{"8086"}}
	first, last := model.Range32{First: 0, Last: 3}, model.Range32{First: 4, Last: 7}
	cards := map[string][]model.NIC{"n": {one, vf, two, dead}}
	node := model.Node{Name: "n", Labels: map[string]string{"site": "edge"}}
	physical := func(l model.Link) model.NodeGroup {
		l.Kind = model.Physical
		return model.NodeGroup{Name: "g", Interfaces: []model.Link{l}}
	}
	for _, tc := range []struct {
		name     string
		bundle   model.Bundle
		hardware map[string][]model.NIC
		want     []string
	}{
		{"none", model.Bundle{}, cards, nil},
		{"as many as there can be", model.Bundle{SRIOVPools: []model.SRIOVPool{poolOf("a", 8, byName)}}, cards, nil},
		{"one too many", model.Bundle{SRIOVPools: []model.SRIOVPool{poolOf("a", 9, byName)}}, cards,
			[]string{"error VFsAboveCard pool a wants 9 virtual functions of ens1 on n, which can have 8"}},
		{"one too many of two cards", model.Bundle{SRIOVPools: []model.SRIOVPool{poolOf("a", 9, byVendor)}}, cards,
			[]string{"error VFsAboveCard pool a wants 9 virtual functions of ens1 on n, which can have 8", "error VFsAboveCard pool a wants 9 virtual functions of ens2 on n, which can have 8"}},
		{"a maximum that is not told", model.Bundle{SRIOVPools: []model.SRIOVPool{poolOf("a", 9, byName)}}, map[string][]model.NIC{"n": {{Name: "ens1", VFs: 4}}}, nil},
		{"named, without SR-IOV", model.Bundle{SRIOVPools: []model.SRIOVPool{poolOf("a", 4, model.PFSelector{Names: []string{"ens3"}})}}, cards,
			[]string{"warning NoSRIOV pool a finds ens3 on n, which has no SR-IOV, or has it switched off in its firmware"}},
		{"named by its address, without SR-IOV", model.Bundle{SRIOVPools: []model.SRIOVPool{poolOf("a", 4, model.PFSelector{PCI: []string{"0000:03:00.0"}})}}, cards,
			[]string{"warning NoSRIOV pool a finds ens3 on n, which has no SR-IOV, or has it switched off in its firmware"}},
		{"of a sort, one without SR-IOV", model.Bundle{SRIOVPools: []model.SRIOVPool{poolOf("a", 4, byVendor)}}, cards, nil},
		{"of a sort, all without SR-IOV", model.Bundle{SRIOVPools: []model.SRIOVPool{poolOf("a", 4, byVendor)}}, map[string][]model.NIC{"n": {dead, vf}},
			[]string{"warning PoolFindsNothing pool a looks for a card with SR-IOV and vendor 8086; there is none on n"}},
		{"no such card", model.Bundle{SRIOVPools: []model.SRIOVPool{poolOf("a", 4, model.PFSelector{Names: []string{"ens8", "ens9"}, Drivers: []string{"ice"}})}}, cards,
			[]string{"warning PoolFindsNothing pool a looks for a card with SR-IOV and name ens8 or ens9 and driver ice; there is none on n"}},
		{"only its virtual functions are like it", model.Bundle{SRIOVPools: []model.SRIOVPool{poolOf("a", 4, model.PFSelector{Devices: []string{"154c"}})}}, cards,
			[]string{"warning PoolFindsNothing pool a looks for a card with SR-IOV and device 154c; there is none on n"}},
		{"cards are not known", model.Bundle{SRIOVPools: []model.SRIOVPool{poolOf("a", 9, byName), poolOf("b", 4, model.PFSelector{Names: []string{"ens9"}})}}, nil, nil},
		{"no such node", model.Bundle{SRIOVPools: []model.SRIOVPool{{Name: "a", NumVFs: 4, PFs: byName, NodeSelector: map[string]string{"site": "lab", "rack": "1"}}}}, cards,
			[]string{"warning PoolOnNoNode pool a is on no node: none has the labels rack=1,site=lab"}},
		{"two names of one card, all of it", model.Bundle{SRIOVPools: []model.SRIOVPool{poolOf("a", 8, byName), poolOf("b", 8, byPCI)}}, cards,
			[]string{"error VFOverlap pools a and b find one card, ens1 on n, and both have its virtual function 0"}},
		{"two names of one card, a function of both", model.Bundle{SRIOVPools: []model.SRIOVPool{poolOf("a", 8, byName, first), poolOf("b", 8, byPCI, model.Range32{First: 3, Last: 7})}}, cards,
			[]string{"error VFOverlap pools a and b find one card, ens1 on n, and both have its virtual function 3"}},
		{"two names of one card, shared", model.Bundle{SRIOVPools: []model.SRIOVPool{poolOf("a", 8, byName, first), poolOf("b", 8, byPCI, last)}}, cards, nil},
		{"two names of one card, two numbers", model.Bundle{SRIOVPools: []model.SRIOVPool{poolOf("a", 8, byName, first), poolOf("b", 7, byPCI, model.Range32{First: 4, Last: 6})}}, cards,
			[]string{"error NumVFsDiffer pools a and b find one card, ens1 on n, and want 8 and 7 virtual functions made"}},
		{"two cards", model.Bundle{SRIOVPools: []model.SRIOVPool{poolOf("a", 8, byName), poolOf("b", 4, model.PFSelector{PCI: []string{"0000:02:00.0"}})}}, cards, nil},
		{"a card with addresses", model.Bundle{Groups: []model.NodeGroup{physical(model.Link{Name: "up", Match: &model.Match{PCI: "0000:01:00.0"}, Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")}})}, SRIOVPools: []model.SRIOVPool{poolOf("a", 8, byPCI)}}, cards,
			[]string{"warning PFInUse pool a makes virtual functions of ens1 on n, which has addresses of the host as up"}},
		{"a card that the pool names as the group does", model.Bundle{Groups: []model.NodeGroup{physical(model.Link{Name: "ens1", Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")}})}, SRIOVPools: []model.SRIOVPool{poolOf("a", 8, byName)}}, cards, nil},
		{"a bond's port", model.Bundle{Groups: []model.NodeGroup{{Name: "g", Interfaces: []model.Link{{Name: "bond0", Kind: model.Bond}, {Name: "ens1", Kind: model.Physical, Master: "bond0"}}}}, SRIOVPools: []model.SRIOVPool{poolOf("a", 8, byPCI)}}, cards,
			[]string{"warning PFInUse pool a makes virtual functions of ens1 on n, which is a port of bond0"}},
		{"a card in a VRF", model.Bundle{Groups: []model.NodeGroup{{Name: "g", Interfaces: []model.Link{{Name: "ens1", Kind: model.Physical, Master: "red"}, {Name: "red", Kind: model.VRF}}}}, SRIOVPools: []model.SRIOVPool{poolOf("a", 8, byPCI)}}, cards, nil},
		{"a card with a VLAN", model.Bundle{Groups: []model.NodeGroup{{Name: "g", Interfaces: []model.Link{{Name: "ens1", Kind: model.Physical}, {Name: "oam", Kind: model.VLAN, Parent: "ens1", VLANID: 7}}}}, SRIOVPools: []model.SRIOVPool{poolOf("a", 8, byPCI)}}, cards,
			[]string{"warning PFInUse pool a makes virtual functions of ens1 on n, which carries oam"}},
		{"a fabric's card", model.Bundle{Groups: []model.NodeGroup{physical(model.Link{Name: "ens1"})}, Fabrics: []model.Fabric{{Name: "f", Groups: []string{"g"}, Device: "ens1"}}, SRIOVPools: []model.SRIOVPool{poolOf("a", 8, byPCI)}}, cards,
			[]string{"warning PFInUse pool a makes virtual functions of ens1 on n, which carries fabric f"}},
		{"a fabric of other nodes", model.Bundle{Groups: []model.NodeGroup{physical(model.Link{Name: "ens1"}), {Name: "h", Selector: map[string]string{"site": "lab"}, Interfaces: []model.Link{{Name: "ens1", Kind: model.Physical}}}},
			Fabrics: []model.Fabric{{Name: "f", Groups: []string{"h"}, Device: "ens1"}}, SRIOVPools: []model.SRIOVPool{poolOf("a", 8, byPCI)}}, cards, nil},
	} {
		tc.bundle.Nodes = []model.Node{node}
		r := Render(tc.bundle, model.Inventory{Hardware: tc.hardware})
		if d := cmp.Diff(tc.want, said(r.Diagnostics)); d != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, d)
		}
		if r.Diagnostics.HasErrors() != (len(r.Nodes) == 0) {
			t.Errorf("%s: plans are handed out with errors, or kept back without", tc.name)
		}
		tc.bundle.Nodes = nil // the same in a cluster: what one node's card cannot do stops no other
		cluster := Render(tc.bundle, model.Inventory{Hardware: tc.hardware, Nodes: []model.Node{node}, Underlays: map[string]map[string]netip.Addr{}})
		if cluster.Diagnostics.HasErrors() || len(cluster.Diagnostics) != len(tc.want) || len(cluster.Nodes) != 1 {
			t.Errorf("%s, in a cluster: %v", tc.name, cluster.Diagnostics)
		}
	}
}

// TestHardwareOfNoNode: cards of a node that there is not are told of, but not in a cluster, where nodes go before their reports.
func TestHardwareOfNoNode(t *testing.T) {
	inv := model.Inventory{Hardware: map[string][]model.NIC{"worker-1": nil, "worker-8": {cardOf("ens1", "0000:01:00.0", 8)}, "lab": nil}, Nodes: []model.Node{{Name: "worker-1"}}}
	b := model.Bundle{Nodes: []model.Node{{Name: "worker-2"}}, SRIOVPools: []model.SRIOVPool{poolOf("a", 9, model.PFSelector{Names: []string{"ens1"}})}}
	got := Render(b, inv).Diagnostics
	want := []string{"warning HardwareOfNoNode the inventory has cards of node lab, which is not in the bundle", "warning HardwareOfNoNode the inventory has cards of node worker-8, which is not in the bundle"}
	if d := cmp.Diff(want, said(got)); d != "" {
		t.Fatal(d)
	}
	if got[0].Path != "hardware.lab" || got[0].Hint != "correct the name, or add the node to nodes of the Topology or of the inventory" || got[1].Hint != `did you mean "worker-1"?` {
		t.Errorf("%+v", got)
	}
	inv.Underlays = map[string]map[string]netip.Addr{}
	if got := Render(b, inv).Diagnostics; len(got) != 0 {
		t.Errorf("in a cluster: %v", got)
	}
}

func said(l diag.List) []string {
	var out []string
	for _, d := range l {
		out = append(out, fmt.Sprintf("%s %s %s", d.Severity, d.Code, d.Summary))
	}
	return out
}

// A problem of many nodes is said once; one node that has the card, or has not told yet, is enough to say nothing of what is not found.
func TestPoolsOnManyNodes(t *testing.T) {
	b := model.Bundle{Origins: map[string]model.Origin{"SRIOVPool/a": {File: "p.yaml", Line: 7}}, SRIOVPools: []model.SRIOVPool{poolOf("a", 9, model.PFSelector{Names: []string{"ens1"}})}}
	inv := model.Inventory{Hardware: map[string][]model.NIC{}}
	for i := range 5 {
		name := fmt.Sprintf("n%d", i)
		b.Nodes = append(b.Nodes, model.Node{Name: name})
		inv.Hardware[name] = []model.NIC{cardOf("ens1", "0000:01:00.0", 8)}
	}
	got := Render(b, inv).Diagnostics
	if want := []string{"error VFsAboveCard pool a wants 9 virtual functions of ens1 on n0, n1, n2 and 2 more, which can have 8"}; !slices.Equal(said(got), want) || got[0].File != "p.yaml" || got[0].Line != 7 {
		t.Errorf("%v", got)
	}
	b.SRIOVPools[0].PFs.Names = []string{"ens9"}
	if got := Render(b, inv).Diagnostics; len(got) != 1 || got[0].Code != diag.PoolFindsNothing || got[0].Summary != "pool a looks for a card with SR-IOV and name ens9; there is none on n0, n1, n2 and 2 more" {
		t.Errorf("%v", got)
	}
	was := inv.Hardware["n3"]
	inv.Hardware["n3"] = append(was, cardOf("ens9", "0000:09:00.0", 16))
	if got := Render(b, inv).Diagnostics; len(got) != 0 {
		t.Errorf("one has it: %v", got)
	}
	delete(inv.Hardware, "n3")
	if got := Render(b, inv).Diagnostics; len(got) != 0 {
		t.Errorf("one has not told: %v", got)
	}
}

// TestPoolsAgainstClaims: pools get along where no virtual function of a card is claimed twice, none beyond the card's maximum, and no card
// is wanted with two numbers of them.
func TestPoolsAgainstClaims(t *testing.T) {
	r := rand.New(rand.NewPCG(21, 22))
	verdicts := map[bool]int{}
	for round := range 3000 {
		var cards []model.NIC
		for i := range 3 {
			n := cardOf(fmt.Sprintf("ens%d", i), fmt.Sprintf("0000:0%d:00.0", i), 4+r.IntN(5))
			n.Vendor = []string{"8086", "15b3"}[r.IntN(2)]
			cards = append(cards, n)
		}
		var pools []model.SRIOVPool
		claims, numbers, want := map[string]int{}, map[string]int{}, false
		for i := range 1 + r.IntN(3) {
			p := poolOf(string(rune('a'+i)), 4, model.PFSelector{})
			if r.IntN(8) == 0 {
				p.NumVFs = 5
			}
			meant := func(n model.NIC) bool { return true }
			switch k := r.IntN(3); r.IntN(4) {
			case 0:
				p.PFs.Names, meant = []string{cards[k].Name}, func(n model.NIC) bool { return n.Name == cards[k].Name }
			case 1, 2:
				p.PFs.PCI, meant = []string{cards[k].PCI}, func(n model.NIC) bool { return n.PCI == cards[k].PCI }
			case 3:
				p.PFs.Vendors, meant = []string{"8086"}, func(n model.NIC) bool { return n.Vendor == "8086" }
			}
			low, high := 0, p.NumVFs-1
			if r.IntN(3) > 0 {
				low = r.IntN(4)
				high = low + r.IntN(4-low)
				p.VFs = []model.Range32{{First: uint32(low), Last: uint32(high)}}
			}
			for _, n := range cards {
				if !meant(n) {
					continue
				}
				want = want || p.NumVFs > n.TotalVFs || numbers[n.Name] != 0 && numbers[n.Name] != p.NumVFs
				numbers[n.Name] = p.NumVFs
				for v := low; v <= high; v++ {
					claims[fmt.Sprint(n.Name, v)]++
					want = want || claims[fmt.Sprint(n.Name, v)] > 1
				}
			}
			pools = append(pools, p)
		}
		got := Render(model.Bundle{Nodes: []model.Node{{Name: "n"}}, SRIOVPools: pools}, model.Inventory{Hardware: map[string][]model.NIC{"n": cards}}).Diagnostics
		if got.HasErrors() != want {
			t.Fatalf("round %d: the claims say %v, render %v\n%+v\n%+v", round, want, got, pools, cards)
		}
		verdicts[want]++
	}
	if verdicts[true] < 600 || verdicts[false] < 600 {
		t.Errorf("the generator is lopsided: %v", verdicts)
	}
}
