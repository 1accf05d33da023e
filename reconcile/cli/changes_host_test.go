package cli

import (
	"slices"
	"testing"
	"time"

	"danm.io/danm/spec/model"
)

// TestPolicyAndPoolChanges: what has no step on a node has a line of its own.
func TestPolicyAndPoolChanges(t *testing.T) {
	two, three := 2, 3
	was := Document{Bundle: "b", Rollout: &model.Rollout{CanaryCount: 1, MaxUnavailable: model.IntOrPercent{Percent: 10}, Soak: 30 * time.Second},
		Prune: &model.Prune{MaxNetworks: &two}, Pools: []model.SRIOVPool{{Name: "fast", NumVFs: 8, ResourceName: "danm.io/fast"}, {Name: "old", NumVFs: 1, ResourceName: "danm.io/old"}}}
	now := Document{Bundle: "b", VersionPolicy: "Monotonic",
		Rollout: &model.Rollout{CanaryCount: 2, CanarySelector: map[string]string{"site": "lab", "a": "b"}, MaxUnavailable: model.IntOrPercent{Int: 3}, Soak: time.Minute, RevertOnFailure: true, AllowsDisruptive: true},
		Prune:   &model.Prune{MaxNetworks: &three}, Pools: []model.SRIOVPool{{Name: "fast", NumVFs: 16, ResourceName: "danm.io/fast"}, {Name: "new", NumVFs: 2, ResourceName: "danm.io/new"}},
		Origins: map[string]model.Origin{"SRIOVPool/new": {File: "p.yaml", Line: 3}}}
	want := []Change{
		{Sign: "~", Kind: "Bundle", Key: "b", Text: "prune.maxNetworks 2 -> 3, rollout.canary 1 of all nodes -> 2 of a=b,site=lab, rollout.disruptive Deny -> Allow, rollout.maxUnavailable 10% -> 3, rollout.onFailure Halt -> Revert, rollout.soak 30s -> 1m0s, versionPolicy none -> Monotonic"},
		{Sign: "~", Kind: "SRIOVPool", Key: "fast", Text: "numVFs 8 -> 16"},
		{Sign: "+", Kind: "SRIOVPool", Key: "new", File: "p.yaml", Line: 3, Text: "danm.io/new on all nodes, 2 VFs a function"},
		{Sign: "-", Kind: "SRIOVPool", Key: "old", Text: "danm.io/old on all nodes, 1 VF a function"},
	}
	if got := changesOf(was, now); !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
	if got := changesOf(now, now); len(got) > 0 {
		t.Errorf("changes between equals: %+v", got)
	}
}
