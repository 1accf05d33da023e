package cli

import (
	"strings"
	"testing"

	"danm.io/danm/node/plan"
	"danm.io/danm/spec/model"
)

// TestFunctionsAreFolded: what happens to many virtual functions is one line, and Pods or other values make lines of their own.
func TestFunctionsAreFolded(t *testing.T) {
	var p plan.Plan
	for _, x := range []struct {
		n         int
		from, pod string
	}{{0, "", ""}, {1, "", ""}, {2, "on", ""}, {3, "", ""}, {4, "", "a/b"}, {5, "", ""}, {10, "", ""}} {
		s := plan.Step{Op: plan.SetVF, LinkName: "ens1", Property: "trust", From: x.from, To: "off", VF: &plan.VFRef{Number: x.n}, Disruption: plan.None}
		if x.pod != "" {
			s.Pods = []string{x.pod}
		}
		p.Steps = append(p.Steps, s)
	}
	var got []string
	for _, r := range rows(p) {
		got = append(got, r.text+" "+r.pods)
	}
	want := "~ vf ens1/0-1,3,5,10 trust -> off -\n~ vf ens1/2 trust on -> off -\n~ vf ens1/4 trust -> off 1 (a/b)"
	if strings.Join(got, "\n") != want {
		t.Errorf("%s", strings.Join(got, "\n"))
	}
}

// TestARateIsAddedInADryRun: what a pool begins to say of functions that it has is a step, not something that the card does not tell.
func TestARateIsAddedInADryRun(t *testing.T) {
	pool := func(rate int) model.NodePlan {
		return model.NodePlan{Pools: []model.SRIOVPool{{Name: "p", PFs: model.PFSelector{Names: []string{"ens1"}}, NumVFs: 2, MaxTxRate: rate, ResourceName: "x/y"}}}
	}
	before := asIfApplied(plan.Desired{Plan: pool(0)}, assumed(pool(0), pool(100), nil))
	if text := plan.Diff(plan.Desired{Plan: pool(100)}, before).Text(); strings.Contains(text, "blocked") || !strings.Contains(text, "~ vf ens1/1 rate 0-0 -> 0-100") {
		t.Errorf("%s", text)
	}
}

// TestAssumedCards: a dry run that knows no hardware believes in the cards that pools name; one that knows it, in none that is not there.
func TestAssumedCards(t *testing.T) {
	pool := func(s model.PFSelector) model.NodePlan {
		return model.NodePlan{Pools: []model.SRIOVPool{{Name: "p", PFs: s, NumVFs: 2, ResourceName: "x/y"}}}
	}
	steps := func(p model.NodePlan, cards ...model.NIC) string {
		return plan.Diff(plan.Desired{Plan: p}, assumed(model.NodePlan{}, p, cards)).Text()
	}
	for name, c := range map[string]struct{ got, want string }{
		"by name":        {steps(pool(model.PFSelector{Names: []string{"ens1"}, Vendors: []string{"8086"}, Drivers: []string{"ice"}})), "~ link ens1 numvfs 0 -> 2"},
		"by address":     {steps(pool(model.PFSelector{PCI: []string{"0000:3b:00.0"}})), "~ link 0000:3b:00.0 numvfs 0 -> 2"},
		"by vendor":      {steps(pool(model.PFSelector{Vendors: []string{"8086"}})), ""},
		"known":          {steps(pool(model.PFSelector{Vendors: []string{"8086"}}), model.NIC{Name: "eth7", Vendor: "8086", TotalVFs: 4}), "~ link eth7 numvfs 0 -> 2"},
		"too many":       {steps(pool(model.PFSelector{Names: []string{"eth7"}}), model.NIC{Name: "eth7", TotalVFs: 1}), "above the device's maximum 1"},
		"known, no card": {steps(pool(model.PFSelector{Names: []string{"ens1"}}), model.NIC{Name: "eth7", TotalVFs: 4}), ""},
	} {
		if c.want == "" && c.got != "" || !strings.Contains(c.got, c.want) {
			t.Errorf("%s: %q, want %q", name, c.got, c.want)
		}
	}
}
