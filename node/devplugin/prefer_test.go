package devplugin

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

func fields(text string) []string { return strings.Fields(text) }

// TestPreferred: stories whose answers a person would give.
func TestPreferred(t *testing.T) {
	var all []Device // functions 0 to 3 of ports 1 and 2 on node 0, and 3 and 4 on node 1
	for port := 1; port <= 4; port++ {
		for n := range 4 {
			all = append(all, vf(port, n, (port-1)/2))
		}
	}
	id := func(names string) (out []string) { // "1.0" is function 0 of port 1
		for _, n := range fields(names) {
			out = append(out, fmt.Sprintf("0000:%02x:02.%c", n[0]-'0', n[2]))
		}
		return out
	}
	r := Resource{Name: fast, Devices: all}
	for _, c := range []struct {
		what, available, must string
		size                  int
		want                  string
	}{
		{"two interfaces are of two ports of a node", "1.0 1.1 2.0 2.1 3.0 4.0", "", 2, "1.0 2.0"},
		{"one is of the node with the most left", "1.0 2.0 3.0 3.1 4.0", "", 1, "3.0"},
		{"one is of the port with the most left", "1.0 2.0 2.1", "", 1, "2.0"},
		{"a node that has all, though another has the lower number", "1.0 2.0 3.0 3.1 3.2", "", 3, "3.0 3.1 3.2"},
		{"what must be says which node", "1.0 1.1 1.2 2.0 4.1", "3.0", 2, "3.0 4.1"},
		{"what must be says which port is left", "1.1 1.2 1.3 2.3", "1.0", 2, "1.0 2.3"},
		{"no node has all", "1.0 2.0 3.0", "", 3, "1.0 2.0 3.0"},
		{"fewer than wanted", "1.0", "2.0", 5, "1.0 2.0"},
		{"what is not of the resource is not chosen", "9.0 1.0", "", 2, "1.0"},
		{"what must be stays, known or not", "1.0", "9.0", 2, "1.0 9.0"},
		{"none", "1.0", "", 0, ""},
	} {
		got, err := r.preferred(id(c.available), id(c.must), c.size)
		if err != nil || !slices.Equal(got, id(c.want)) {
			t.Errorf("%s: %q %v", c.what, got, err)
		}
	}
	if got, err := r.preferred(id("1.0"), id("1.1 1.2"), 1); err == nil {
		t.Errorf("must be more than may: %q", got)
	}
	if got, err := r.preferred(nil, nil, -1); err == nil {
		t.Errorf("less than none: %q", got)
	}
}

// TestPreferredRandom: against all subsets of small resources: as many as can be are of one node, and no other set of that node's burdens
// a port less; where some node has a port for each, no port is shared; and the order of what is given does not matter.
func TestPreferredRandom(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	crossed, shared := 0, 0
	for range 3000 {
		var r Resource
		for port := range 1 + rng.IntN(4) {
			node := rng.IntN(3) - 1
			for n := range 1 + rng.IntN(3) {
				r.Devices = append(r.Devices, vf(port, n, node))
			}
		}
		r.Devices = r.Devices[:min(len(r.Devices), 10)]
		var available, needed []string
		for _, d := range r.Devices {
			switch rng.IntN(6) {
			case 0:
			case 1:
				needed = append(needed, d.ID)
				if rng.IntN(2) == 0 {
					available = append(available, d.ID) // the kubelet says what must be in both
				}
			default:
				available = append(available, d.ID)
			}
		}
		size := len(needed) + rng.IntN(5)
		got, err := r.preferred(available, needed, size)
		must(t, err)
		for range 3 {
			rng.Shuffle(len(available), func(i, j int) { available[i], available[j] = available[j], available[i] })
			rng.Shuffle(len(needed), func(i, j int) { needed[i], needed[j] = needed[j], needed[i] })
			if again, _ := r.preferred(available, needed, size); !slices.Equal(again, got) {
				t.Fatalf("%v of %v, %v: %v and %v", size, available, needed, got, again)
			}
		}
		best, among := bestOf(r, available, needed, size)
		has := scoreOf(r, got)
		if !among(got) {
			t.Fatalf("%d of %v with %v: %v", size, available, needed, got)
		}
		if has.node != best.node {
			t.Fatalf("%d of %v with %v: %v has %d of a node, not %d", size, available, needed, got, has.node, best.node)
		}
		if len(needed) == 0 && best.port == 1 && has.port != 1 {
			t.Fatalf("%d of %v: %v shares a port", size, available, got)
		}
		if within := onNodesOf(r, available, got); len(needed) == 0 && has.node == len(got) {
			if best, _ := bestOf(r, within, nil, size); has.port != best.port {
				t.Fatalf("%d of %v: %v has %d of a port, not %d", size, within, got, has.port, best.port)
			}
		}
		if has.node < len(got) {
			crossed++
		}
		if has.port > 1 {
			shared++
		}
	}
	if crossed < 100 || shared < 100 {
		t.Errorf("control: %d allocations cross nodes, %d share a port", crossed, shared)
	}
}

// score says of a set of devices how many are of the node that has most of them, and, where that has all, how many of one port.
type score struct{ node, port int }

func scoreOf(r Resource, ids []string) (s score) {
	nodes, ports := map[int]int{}, map[string]int{}
	for _, id := range ids {
		d, _ := r.device(id)
		nodes[d.NUMA]++
		s.node = max(s.node, nodes[d.NUMA])
		ports[d.PF]++
		s.port = max(s.port, ports[d.PF])
	}
	if len(nodes) > 1 {
		s.port = 0
	}
	return s
}

// onNodesOf are those of ids that are of nodes which the chosen are of.
func onNodesOf(r Resource, ids, chosen []string) (out []string) {
	nodes := map[int]bool{}
	for _, id := range chosen {
		d, _ := r.device(id)
		nodes[d.NUMA] = true
	}
	for _, id := range ids {
		if d, _ := r.device(id); nodes[d.NUMA] {
			out = append(out, id)
		}
	}
	return out
}

// bestOf tries all sets of the size, or of as many as there are.
func bestOf(r Resource, available, must []string, size int) (best score, among func([]string) bool) {
	all := slices.Concat(must, available)
	slices.Sort(all)
	all = slices.Compact(all)
	size = min(size, len(all))
	var sets []string
	for set := range 1 << len(all) {
		if bits.OnesCount(uint(set)) != size {
			continue
		}
		var ids []string
		for i, id := range all {
			if set>>i&1 == 1 {
				ids = append(ids, id)
			}
		}
		if slices.ContainsFunc(must, func(m string) bool { return !slices.Contains(ids, m) }) {
			continue
		}
		sets = append(sets, fmt.Sprint(ids))
		s := scoreOf(r, ids)
		if s.node > best.node || s.node == best.node && s.port < best.port {
			best = s
		}
	}
	return best, func(ids []string) bool { return slices.Contains(sets, fmt.Sprint(ids)) }
}
