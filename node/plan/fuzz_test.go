package plan_test

import (
	"math/rand/v2"
	"testing"

	"danm.io/danm/node/plan"
	"danm.io/danm/spec/model"
	"sigs.k8s.io/yaml"
)

// FuzzDiff: whatever is declared and observed, Diff ends, neither it nor the dry run, the texts or the undo panic, and
// foreign links come out of the dry run as they were.
func FuzzDiff(f *testing.F) {
	type input struct {
		Desired  plan.Desired
		Observed plan.Observed
	}
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 9))
		n := newNode(world(f, r))
		_, _, err := n.to(randomDesired(r))
		must(f, err)
		o, err := n.observe()
		must(f, err)
		data, err := yaml.Marshal(input{randomDesired(r), o})
		must(f, err)
		f.Add(string(data))
	}
	f.Add("Desired: {Plan: {links: [{name: a, kind: vlan, parent: a}, {name: a, kind: vxlan}, {kind: physical}], routes: [{to: 10.0.0.0/8, dev: a}, {}]}, Peers: [{}]}")
	f.Add("Observed: {owned: [{id: link}, {id: property/a}, {id: address/a/x}, {id: ''}], links: [{name: a, kind: vxlan, group: 3266}, {name: b, parent: b}]}")
	f.Fuzz(func(t *testing.T, data string) {
		var in input
		if yaml.Unmarshal([]byte(data), &in) != nil {
			return
		}
		p := plan.Diff(in.Desired, in.Observed)
		_ = p.Text()
		after := plan.Simulate(in.Observed, p.Steps)
		_ = plan.Revert(in.Observed, after, p.Steps)
		for _, s := range p.Steps {
			if s.Op == plan.DeleteLink && s.Link.Kind == model.Physical && !isGroup(in.Observed, s.Link.Name) {
				t.Errorf("%s", s)
			}
		}
	})
}

func isGroup(o plan.Observed, name string) bool {
	for _, l := range o.Links {
		if l.Name == name && l.Group == plan.Group {
			return true
		}
	}
	return false
}
