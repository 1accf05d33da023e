package ipamsim

import (
	"os"
	"testing"
	"time"
)

func cluster(nodes int, seed uint64, spaces []Space) Config {
	const cooldown = 30 * time.Second
	h := &Cluster{Cooldown: cooldown, Lease: 12 * time.Hour}
	for _, sp := range spaces {
		h.Networks = append(h.Networks, sp.Net)
	}
	return Config{Home: h, Nodes: nodes, Seed: seed, Spaces: spaces, Cooldown: cooldown}
}

// TestClusterHome: four nodes that claim, ask and cede in tight spaces, with every fault there is.
func TestClusterHome(t *testing.T) {
	if os.Getenv("DANM_IPAMSIM_CLUSTER") == "" {
		t.Skip("not every seed passes yet: in some, Pods that fill a space to the last address wait for hours; DANM_IPAMSIM_CLUSTER=1 runs it")
	}
	cfg := cluster(4, seed(t, 3), smallSpaces())
	cfg.Calls = operations(t, 8_000)
	ops := Plan(cfg, cfg.Calls)
	report(t, cfg, ops, Run(t, cfg, ops))
}
