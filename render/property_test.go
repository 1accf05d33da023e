package render_test

import (
	"encoding/json"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"danm.io/danm/render"
	"danm.io/danm/spec/model"
)

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func eachRandom(t *testing.T, count uint64, f func(seed uint64, r *rand.Rand, b model.Bundle, was render.Result)) {
	t.Helper()
	for seed := range count {
		r := rand.New(rand.NewPCG(seed, 2))
		b := randomBundle(r)
		before := asJSON(t, b)
		was := render.Render(b, model.Inventory{})
		if len(was.Diagnostics) > 0 {
			t.Fatalf("seed %d: %v", seed, was.Diagnostics)
		}
		if asJSON(t, b) != before {
			t.Fatalf("seed %d: Render changed its argument", seed)
		}
		f(seed, r, b, was)
	}
}

func TestSameInputSameBytes(t *testing.T) {
	eachRandom(t, 200, func(seed uint64, r *rand.Rand, b model.Bundle, was render.Result) {
		for range 3 {
			if asJSON(t, render.Render(b, model.Inventory{})) != asJSON(t, was) {
				t.Fatalf("seed %d: a second render differs", seed)
			}
		}
	})
}

// One changed network changes only the nodes it reaches, and of the API objects only its own.
func TestChangeReachesOnlyItsNodes(t *testing.T) {
	changed, kept := 0, 0
	eachRandom(t, 500, func(seed uint64, r *rand.Rand, b model.Bundle, was render.Result) {
		if len(b.Networks) == 0 {
			return
		}
		k := r.IntN(len(b.Networks))
		b.Networks = slices.Clone(b.Networks)
		n := &b.Networks[k]
		n.MTU, n.NetworkID = 1290, "zz"
		now := render.Render(b, model.Inventory{})
		for i := range was.Nodes {
			reached := slices.ContainsFunc(was.Nodes[i].Networks, func(x model.Network) bool { return x.Key() == n.Key() })
			same := asJSON(t, was.Nodes[i]) == asJSON(t, now.Nodes[i])
			switch {
			case reached && same:
				t.Fatalf("seed %d: node %s has network %s and does not notice its change", seed, was.Nodes[i].Node, n.Key())
			case !reached && !same:
				t.Fatalf("seed %d: node %s has no network %s and changed with it", seed, was.Nodes[i].Node, n.Key())
			case same:
				kept++
			default:
				changed++
			}
		}
		for i := range was.Objects {
			if same := asJSON(t, was.Objects[i]) == asJSON(t, now.Objects[i]); same == (was.Objects[i].Namespace == n.Namespace && was.Objects[i].Name == n.Name) {
				t.Fatalf("seed %d: object %s/%s: same %v", seed, was.Objects[i].Namespace, was.Objects[i].Name, same)
			}
		}
	})
	if changed < 100 || kept < 100 {
		t.Fatalf("%d nodes changed, %d did not: the generator lost its shape", changed, kept)
	}
}

// Taking away all networks of one namespace leaves what the others have as it was.
func TestTenantsAreIndependent(t *testing.T) {
	compared := 0
	eachRandom(t, 500, func(seed uint64, r *rand.Rand, b model.Bundle, was render.Result) {
		mine := func(n model.Network) bool { return n.Namespace == "ns0" }
		shares := func(n model.Network) bool { // on a VLAN or VNI of ns0: these two are related
			return slices.ContainsFunc(b.Networks, func(p model.Network) bool {
				return mine(p) && p.ID() != 0 && p.ID() == n.ID() && p.VXLAN == n.VXLAN && p.SpaceDomain == n.SpaceDomain
			})
		}
		rest := b
		rest.Networks = slices.DeleteFunc(slices.Clone(b.Networks), mine)
		now := render.Render(rest, model.Inventory{})
		for i := range was.Nodes {
			for _, n := range was.Nodes[i].Networks {
				if mine(n) || shares(n) {
					continue
				}
				k := slices.IndexFunc(now.Nodes[i].Networks, func(x model.Network) bool { return x.Key() == n.Key() })
				if k < 0 || asJSON(t, now.Nodes[i].Networks[k]) != asJSON(t, n) {
					t.Fatalf("seed %d: network %s changed on %s when namespace ns0 lost its own", seed, n.Key(), was.Nodes[i].Node)
				}
				compared++
				if n.Device == "" {
					continue
				}
				l := slices.IndexFunc(was.Nodes[i].Plan.Links, func(l model.Link) bool { return l.Name == n.Device })
				m := slices.IndexFunc(now.Nodes[i].Plan.Links, func(l model.Link) bool { return l.Name == n.Device })
				if m < 0 || asJSON(t, was.Nodes[i].Plan.Links[l]) != asJSON(t, now.Nodes[i].Plan.Links[m]) {
					t.Fatalf("seed %d: link %s of %s changed on %s", seed, n.Device, n.Key(), was.Nodes[i].Node)
				}
			}
		}
	})
	if compared < 500 {
		t.Fatalf("only %d networks compared", compared)
	}
}

// Everything in a state is sorted, so that equal states are equal bytes wherever they come from.
func TestSorted(t *testing.T) {
	eachRandom(t, 200, func(seed uint64, _ *rand.Rand, _ model.Bundle, was render.Result) {
		ok := slices.IsSortedFunc(was.Nodes, func(a, b model.NodeState) int { return strings.Compare(a.Node, b.Node) })
		for _, s := range was.Nodes {
			ok = ok && slices.IsSortedFunc(s.Plan.Links, func(a, b model.Link) int { return strings.Compare(a.Name, b.Name) })
			ok = ok && slices.IsSortedFunc(s.Networks, func(a, b model.Network) int {
				return strings.Compare(a.Namespace+"\x00"+a.Name, b.Namespace+"\x00"+b.Name)
			})
			ok = ok && slices.IsSortedFunc(s.Plan.Rules, func(a, b model.Rule) int { return int(a.Priority) - int(b.Priority) })
			ok = ok && slices.IsSortedFunc(s.Plan.Sysctls, func(a, b model.Sysctl) int { return strings.Compare(a.Key, b.Key) })
			ok = ok && slices.IsSortedFunc(s.Peers, func(a, b model.Peer) int { return strings.Compare(a.Link, b.Link) })
			for _, l := range s.Plan.Links {
				ok = ok && slices.IsSortedFunc(l.Addresses, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
			}
		}
		if !ok {
			t.Fatalf("seed %d: not sorted", seed)
		}
	})
}

// What was given out once never moves, whatever is added or removed in whatever order; nobody gets a number twice.
func TestAssignmentsStay(t *testing.T) {
	given := 0
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 3))
		b := model.Bundle{
			Groups: []model.NodeGroup{{Name: "g", Interfaces: []model.Link{{Name: "eth0", Kind: model.Physical}, {Name: "eth1", Kind: model.Physical}}}},
			Fabrics: []model.Fabric{
				{Name: "a", Groups: []string{"g"}, Device: "eth0", VLANRanges: []model.Range32{{First: 100, Last: 105}}, VNIRanges: []model.Range32{{First: 102, Last: 109}}, VXLAN: &model.Underlay{Port: 4789}},
				{Name: "b", Groups: []string{"g"}, Device: "eth0", VLANRanges: []model.Range32{{First: 100, Last: 109}}},
				{Name: "c", Groups: []string{"g"}, Device: "eth1", VLANRanges: []model.Range32{{First: 100, Last: 109}}},
			},
		}
		kept := map[string]uint32{}
		for range 30 {
			if len(b.Networks) > 0 && r.IntN(3) == 0 {
				gone := r.IntN(len(b.Networks))
				if r.IntN(2) == 0 {
					delete(kept, b.Networks[gone].Key())
				}
				b.Networks = slices.Delete(slices.Clone(b.Networks), gone, gone+1)
			} else {
				n := model.Network{Kind: model.ClusterNetwork, Name: string(rune('a'+r.IntN(26))) + string(rune('a'+r.IntN(26))), Type: model.MACVLAN, Fabric: []string{"a", "b", "c"}[r.IntN(3)]}
				n.NetworkID = n.Name
				n.VXLAN = n.Fabric == "a" && r.IntN(2) == 0
				n.VLANAuto = !n.VXLAN
				if slices.ContainsFunc(b.Networks, func(x model.Network) bool { return x.Name == n.Name }) || kept[n.Key()] != 0 {
					continue
				}
				b.Networks = append(slices.Clone(b.Networks), n)
				slices.SortFunc(b.Networks, func(x, y model.Network) int { return strings.Compare(x.Name, y.Name) })
			}
			got := render.Render(b, model.Inventory{Assignments: kept})
			if len(got.Diagnostics) > 0 { // the ranges are small on purpose: full is an answer, and the last network has to go
				b.Networks = slices.DeleteFunc(slices.Clone(b.Networks), func(n model.Network) bool { return kept[n.Key()] == 0 })
				continue
			}
			taken := map[string]string{}
			for _, n := range got.Networks {
				if was := kept[n.Key()]; was != 0 && was != n.ID() || n.ID() < 100 || n.ID() > 109 {
					t.Fatalf("seed %d: %s had %d and has %d", seed, n.Key(), was, n.ID())
				}
				space := map[string]string{"a": "eth0", "b": "eth0", "c": "eth1"}[n.Fabric]
				if n.VXLAN {
					space = "vni"
				}
				slot := space + " " + string(rune(n.ID()))
				if other := taken[slot]; other != "" {
					t.Fatalf("seed %d: %s and %s both have %d", seed, other, n.Key(), n.ID())
				}
				taken[slot] = n.Key()
				kept[n.Key()] = n.ID()
				given++
			}
		}
	}
	if given < 5000 {
		t.Fatalf("only %d numbers given out", given)
	}
}
