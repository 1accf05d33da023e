package render_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"danm.io/danm/render"
	"danm.io/danm/render/rendertest"
	"danm.io/danm/spec/model"
	"danm.io/danm/spec/segment"
	"github.com/google/go-cmp/cmp"
)

// assembled is what a node makes of its part and segments that went through bytes, in any order.
func assembled(t *testing.T, r *rand.Rand, part model.NodePart, shared map[string]model.Segment) model.NodeState {
	t.Helper()
	var mine []model.Segment
	for _, name := range part.Segments {
		encoded, data := segment.Encode(shared[name])
		s, err := segment.Decode(name, data)
		if encoded != name || err != nil {
			t.Fatalf("segment %s: encoded as %s, %v", name, encoded, err)
		}
		mine = append(mine, s)
	}
	r.Shuffle(len(mine), func(i, j int) { mine[i], mine[j] = mine[j], mine[i] })
	out, err := segment.Assemble(part, mine)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Part and segments make the node's state again; FabricPeers make its peers.
func TestSegmentsMakeTheState(t *testing.T) {
	eachRandom(t, 300, func(seed uint64, r *rand.Rand, b model.Bundle, was render.Result) {
		shared, parts, err := was.Segments()
		if err != nil || len(parts) != len(was.Nodes) {
			t.Fatalf("seed %d: %d parts, %v", seed, len(parts), err)
		}
		peers := was.FabricPeers()
		for i, want := range was.Nodes {
			got := assembled(t, r, parts[i], shared)
			for _, n := range got.Networks { // what the agent will do with FabricPeers
				if n.VXLAN && n.Fabric != "" {
					got.Peers = append(got.Peers, peersOf(got, n, peers)...)
				}
			}
			slices.SortFunc(got.Peers, func(a, b model.Peer) int {
				if a.Link != b.Link {
					return strings.Compare(a.Link, b.Link)
				}
				return a.Addr.Compare(b.Addr)
			})
			got.Peers = slices.Compact(got.Peers)
			// what the caller knows
			got.Home, got.Slot, got.Slots, got.Bundle, got.ConfirmTimeout = want.Home, want.Slot, want.Slots, want.Bundle, want.ConfirmTimeout
			if d := cmp.Diff(asJSON(t, want), asJSON(t, got)); d != "" {
				t.Fatalf("seed %d, node %s (-want +got):\n%s", seed, want.Node, d)
			}
		}
	})
}

func peersOf(s model.NodeState, n model.Network, shards []model.FabricPeers) (out []model.Peer) {
	for _, l := range s.Plan.Links {
		if l.VXLAN == nil || l.VXLAN.VNI != n.VNI || l.VXLAN.Group.IsValid() {
			continue
		}
		for _, shard := range shards {
			for _, p := range shard.Nodes {
				if shard.Fabric == n.Fabric && p.Node != s.Node {
					out = append(out, model.Peer{Link: l.Name, Addr: p.Address})
				}
			}
		}
	}
	return out
}

// At scale every segment and part is within its bound, and one changed network changes one segment.
func TestSegmentsAtScale(t *testing.T) {
	b := rendertest.Scale(rendertest.Shape{Nodes: 60, Groups: 3, Networks: 3000, Tenants: 20})
	was, parts, err := render.Render(b, model.Inventory{}).Segments()
	if err != nil {
		t.Fatal(err)
	}
	if len(was) < 4 {
		t.Fatalf("%d segments: nothing was cut", len(was))
	}
	for name, s := range was {
		if _, data := segment.Encode(s); len(data) > segment.MaxSegment {
			t.Errorf("%s has %d bytes", name, len(data))
		}
	}
	b.Networks[0].MTU = 1299
	now, after, err := render.Render(b, model.Inventory{}).Segments()
	if err != nil {
		t.Fatal(err)
	}
	fresh := 0
	for name := range now {
		if _, ok := was[name]; !ok {
			fresh++
		}
	}
	if fresh < 1 || fresh > 2 { // the network and its link may be in two
		t.Errorf("%d of %d segments are new after a change of one network", fresh, len(now))
	}
	changed := 0
	for i := range parts {
		if asJSON(t, parts[i]) != asJSON(t, after[i]) {
			changed++
		}
	}
	if changed != 20 {
		t.Errorf("%d parts changed, want those of one group", changed)
	}
}

func TestAssembleRefuses(t *testing.T) {
	b := rendertest.Scale(rendertest.Shape{Nodes: 2, Groups: 1, Networks: 3, Tenants: 1})
	shared, parts, err := render.Render(b, model.Inventory{}).Segments()
	if err != nil || len(shared) != 1 || len(parts[0].Segments) != 1 {
		t.Fatalf("%d segments, %v", len(shared), err)
	}
	name := parts[0].Segments[0]
	if _, err := segment.Assemble(parts[0], nil); !errors.Is(err, segment.ErrDigest) {
		t.Errorf("a missing segment: %v", err)
	}
	_, data := segment.Encode(shared[name])
	if _, err := segment.Decode(name, append(data, ' ')); !errors.Is(err, segment.ErrName) {
		t.Errorf("other bytes: %v", err)
	}
	big := model.Segment{Tenants: []model.Tenant{{Name: "t", Namespaces: []string{strings.Repeat("x", segment.MaxSegment)}}}}
	if _, err := segment.Cut(big); !errors.Is(err, segment.ErrTooBig) {
		t.Errorf("an item over the bound: %v", err)
	}
	if pieces, err := segment.Cut(model.Segment{}); err != nil || len(pieces) != 0 {
		t.Errorf("nothing: %d pieces, %v", len(pieces), err)
	}
}

func TestFabricPeersAreSharded(t *testing.T) {
	b := model.Bundle{
		Groups:   []model.NodeGroup{{Name: "g", Interfaces: []model.Link{{Name: "eth0", Kind: model.Physical}}}},
		Fabrics:  []model.Fabric{{Name: "f", Groups: []string{"g"}, Device: "eth0", VXLAN: &model.Underlay{Port: 4789}}},
		Networks: []model.Network{{Kind: model.ClusterNetwork, Name: "n", NetworkID: "n", Type: model.MACVLAN, Fabric: "f", VXLAN: true, VNI: 7, SpaceDomain: "f"}},
	}
	for i := range 400 {
		a := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 16)
		b.Nodes = append(b.Nodes, model.Node{Name: fmt.Sprintf("n%03d", i), Interfaces: map[string][]netip.Prefix{"eth0": {a}}})
	}
	all := func(b model.Bundle) map[int]string {
		out := map[int]string{}
		for _, s := range render.Render(b, model.Inventory{}).FabricPeers() {
			out[s.Shard] = asJSON(t, s)
		}
		return out
	}
	was := all(b)
	seen := strings.Count(strings.Join([]string{was[0], was[1], was[2], was[3]}, ""), `"address"`)
	if len(was) != 4 || seen != 400 {
		t.Fatalf("%d shards with %d nodes, want 4 with 400", len(was), seen)
	}
	b.Nodes = b.Nodes[:399]
	differ := 0
	for k, v := range all(b) {
		if was[k] != v {
			differ++
		}
	}
	if differ != 1 {
		t.Errorf("%d shards changed with one node", differ)
	}
}
