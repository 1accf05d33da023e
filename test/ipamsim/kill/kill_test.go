package kill

import (
	"net/netip"
	"os"
	"testing"
	"time"

	"danm.io/danm/spec/model"
)

func TestMain(m *testing.M) {
	Child()
	os.Exit(m.Run())
}

func network(name string, vlan uint16, cidr string) model.Network {
	return model.Network{Kind: model.ClusterNetwork, Name: name, NetworkID: name, Type: model.MACVLAN, SpaceDomain: "edge", VLAN: vlan,
		IPv4: &model.Subnet{CIDR: netip.MustParsePrefix(cidr)}}
}

func config(t *testing.T) Config {
	t.Helper()
	d := 5 * time.Second
	if v := os.Getenv("DANM_IPAMSIM_KILL"); v != "" {
		var err error
		if d, err = time.ParseDuration(v); err != nil {
			t.Fatalf("DANM_IPAMSIM_KILL=%s: %v", v, err)
		}
	}
	return Config{Nodes: []string{"n0", "n1", "n2"}, Networks: []model.Network{network("tight", 1, "10.1.0.0/27"), network("wide", 2, "10.2.0.0/24")},
		Cooldown: time.Second, For: d, Lives: 600 * time.Millisecond}
}

// TestProcesses: processes with real journals are killed wherever they are, in the local home.
func TestProcesses(t *testing.T) {
	if stats := Run(t, config(t)); stats["filled"] != 30 {
		t.Errorf("%d Pods in a network of 30 addresses", stats["filled"])
	}
}

// TestProcessesThatClaim: the same in the cluster home. Blocks are claimed, given back and lent while processes die.
func TestProcessesThatClaim(t *testing.T) {
	cfg := config(t)
	cfg.Claimed = true
	if stats := Run(t, cfg); stats["filled"] != 30 {
		t.Errorf("%d Pods in a network of 30 addresses", stats["filled"])
	}
}
