package ipamsim

import (
	"slices"
	"testing"
	"time"

	"danm.io/danm/spec/model"
)

func cluster(nodes int, seed uint64, spaces []Space) Config {
	const cooldown = 30 * time.Second
	h := &Cluster{Cooldown: cooldown, Lease: time.Hour}
	for _, sp := range spaces {
		h.Networks = append(h.Networks, sp.Net)
	}
	return Config{Home: h, Nodes: nodes, Seed: seed, Spaces: spaces, Cooldown: cooldown, Slow: true}
}

// clusterSpaces are the small ones, and one that keeps addresses for Pods of StatefulSets.
func clusterSpaces() []Space {
	return append(smallSpaces(), Space{Net: sticky(network("sticky", 6, 0, subnet("10.6.0.0/26"), nil)), Weight: 2})
}

func sticky(n model.Network) model.Network {
	n.Sticky = true
	return n
}

// TestClusterHome: four nodes that claim, ask and cede in tight spaces, with every fault there is.
func TestClusterHome(t *testing.T) {
	cfg := cluster(4, seed(t, 3), clusterSpaces())
	cfg.Calls = operations(t, 5_000)
	run(t, cfg)
}

// TestNothingIsFrozenForNothing: whatever is killed, cut off or late, no block is frozen as long as no memory is lost, and the same
// addresses are given out again and again.
func TestNothingIsFrozenForNothing(t *testing.T) {
	cfg := cluster(4, seed(t, 7), clusterSpaces())
	cfg.Mild, cfg.Calls = true, operations(t, 5_000)
	if r := run(t, cfg); r.Stats["op kill"] == 0 || r.Stats["op cut API"] == 0 || r.Stats["audit"] == 0 || r.Stats["op lose journal"] > 0 {
		t.Errorf("%v", r.Stats)
	}
}

// TestClusterHomeManyNodes: two hundred nodes, and spaces of which each can have a little.
func TestClusterHomeManyNodes(t *testing.T) {
	cfg := cluster(200/(2*fewer-1), seed(t, 4), slices.Concat(manySpaces(), []Space{
		{Net: sticky(network("sticky", 6, 0, subnet("10.6.0.0/24"), nil)), Weight: 1}}))
	cfg.Busy, cfg.Slow = true, false
	cfg.Calls = operations(t, 4_000)
	run(t, cfg)
}
