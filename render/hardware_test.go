package render

import (
	"testing"

	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

func TestMTUAboveACard(t *testing.T) {
	inv := map[string][]model.NIC{"n": {{Name: "ens1", AltNames: []string{"enp1s0"}, MAC: "02:00:00:00:00:01", PCI: "0000:01:00.0", Driver: "ice", MaxMTU: 9000}, {Name: "ens2"}}}
	for name, tc := range map[string]struct {
		link model.Link
		want int
	}{
		"within":       {model.Link{Name: "ens1", Kind: model.Physical, MTU: 9000}, 0},
		"above":        {model.Link{Name: "ens1", Kind: model.Physical, MTU: 9001}, 1},
		"other name":   {model.Link{Name: "enp1s0", Kind: model.Physical, MTU: 9001}, 1},
		"by PCI":       {model.Link{Name: "fast", Kind: model.Physical, MTU: 9001, Match: &model.Match{PCI: "0000:01:00.0", Driver: "ice"}}, 1},
		"by MAC":       {model.Link{Name: "fast", Kind: model.Physical, MTU: 9001, Match: &model.Match{MAC: "02:00:00:00:00:01"}}, 1},
		"other driver": {model.Link{Name: "fast", Kind: model.Physical, MTU: 9001, Match: &model.Match{PCI: "0000:01:00.0", Driver: "mlx5_core"}}, 0},
		"not known":    {model.Link{Name: "ens2", Kind: model.Physical, MTU: 65000}, 0},
		"not declared": {model.Link{Name: "ens1", Kind: model.Physical}, 0},
		"no card":      {model.Link{Name: "ens1", Kind: model.Bridge, MTU: 9001}, 0},
	} {
		got := cardWarnings([]model.NodeState{{Node: "n", Plan: model.NodePlan{Links: []model.Link{tc.link}}}, {Node: "m", Plan: model.NodePlan{Links: []model.Link{tc.link}}}}, inv)
		if len(got) != tc.want || tc.want == 1 && (got[0].Code != diag.MTUAboveCard || got.HasErrors()) {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestNodesKnowWhetherStepsMayDisrupt(t *testing.T) {
	for _, allowed := range []bool{true, false} {
		r := Render(model.Bundle{Slots: 1, Nodes: []model.Node{{Name: "n"}}, Rollout: model.Rollout{AllowsDisruptive: allowed}}, model.Inventory{})
		if len(r.Nodes) != 1 || r.Nodes[0].Disruptive != allowed {
			t.Errorf("%v: %+v", allowed, r)
		}
	}
}
