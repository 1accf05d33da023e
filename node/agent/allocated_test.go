package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"danm.io/danm/node/plan"
	"danm.io/danm/node/state"
	"danm.io/danm/spec/model"
)

func TestWhoHasFunctions(t *testing.T) {
	functions := map[string]string{"0000:01:10.0": "ens1", "0000:01:10.2": "ens1", "0000:02:10.0": "ens2"}
	attached := map[string][]string{"eth0": {"a/macvlan"}, "vf/0000:01:10.0": {"a/old"}, "sriov/gone": {"a/renamed"}}
	given := map[string]string{"0000:01:10.2": "b/new", "0000:09:10.0": "c/elsewhere"}
	for _, c := range []struct {
		unknown bool
		want    string
	}{
		{false, "map[eth0:[a/macvlan] sriov/ens1:[a/old b/new] sriov/gone:[a/renamed] vf/0000:01:10.0:[a/old] vf/0000:01:10.2:[b/new]]"},
		{true, fmt.Sprintf("map[eth0:[a/macvlan] sriov/ens1:[a/old b/new] sriov/ens2:[%s] sriov/gone:[a/renamed] vf/0000:01:10.0:[a/old] vf/0000:01:10.2:[b/new] vf/0000:02:10.0:[%[1]s]]", unknownHolder)},
	} {
		pods := map[string][]string{}
		for k, v := range attached {
			pods[k] = v
		}
		if got := fmt.Sprint(withFunctions(pods, functions, given, c.unknown)); got != c.want {
			t.Errorf("unknown %v:\n%s\n%s", c.unknown, got, c.want)
		}
	}
	if fmt.Sprint(attached["vf/0000:01:10.0"]) != "[a/old]" {
		t.Error("the server's list was changed")
	}
}

// TestTheKubeletIsAskedForPoolsOnly: a node without pools asks nobody, and one whose kubelet is away takes nothing from Pods.
func TestTheKubeletIsAskedForPoolsOnly(t *testing.T) {
	asked := 0
	a := &Agent{holders: newHolders(func(context.Context) (given, error) { asked++; return nil, errors.New("away") })}
	a.opts.defaults()
	a.log, a.dir, a.bootID = a.opts.Log, state.Open(t.TempDir()), "b"
	if pods := a.pods(t.Context()); asked != 0 || len(pods) != 0 {
		t.Errorf("asked %d times, %v", asked, pods)
	}
	reported := map[string][]string{"vf/0000:01:10.0": {"a/dpdk"}, "eth0": {"a/gone"}}
	for boot, want := range map[string]string{"before": "map[]", "b": "map[vf/0000:01:10.0:[a/dpdk]]"} { // nothing is observed yet, so the last report is true
		if err := a.dir.WriteReport(state.Report{BootID: boot, Pods: reported}); err != nil {
			t.Fatal(err)
		}
		if pods := a.pods(t.Context()); asked != 0 || fmt.Sprint(pods) != want {
			t.Errorf("boot %s: %v", boot, pods)
		}
	}
	functions := cardsOf(plan.Observed{Links: []plan.ObservedLink{{Link: model.Link{Name: "ens1"}, SRIOV: &plan.ObservedPF{VFs: []plan.ObservedVF{{PCI: "0000:01:10.0"}, {}}}}}})
	a.functions.Store(&functions)
	if pods := a.pods(t.Context()); asked != 1 || fmt.Sprint(pods["sriov/ens1"]) != "["+unknownHolder+"]" {
		t.Errorf("asked %d times, %v", asked, pods)
	}
}

// TestWhatComesLater: a plan is not undone because a new function's interface, or its card's carrier, takes its time.
func TestWhatComesLater(t *testing.T) {
	for property, want := range map[string]bool{"mtu": true, "rate": true, "trust": false, "driver": false} {
		if got := comesLater(plan.Step{Op: plan.SetVF, Property: property}); got != want {
			t.Errorf("%s: %v", property, got)
		}
	}
	if comesLater(plan.Step{Op: plan.SetLink, Property: "mtu"}) {
		t.Error("the MTU of a link of the plan")
	}
}

func TestWhatAPlanEnds(t *testing.T) {
	o := plan.Observed{Links: []plan.ObservedLink{
		{Link: model.Link{Name: "ens1"}, SRIOV: &plan.ObservedPF{VFs: []plan.ObservedVF{{PCI: "0000:01:10.0"}, {PCI: "0000:01:10.2"}}}},
		{Link: model.Link{Name: "ens2"}, SRIOV: &plan.ObservedPF{VFs: []plan.ObservedVF{{PCI: "0000:02:10.0"}, {PCI: "0000:02:10.2"}}}},
	}}
	steps := []plan.Step{
		{Op: plan.SetLink, LinkName: "ens1", Property: "numvfs", From: "2", To: "4", Disruption: plan.DestroysPods},
		{Op: plan.SetVF, LinkName: "ens1", VF: &plan.VFRef{Number: 3}, Property: "driver", Disruption: plan.None},
		{Op: plan.SetVF, LinkName: "ens2", VF: &plan.VFRef{Number: 1, PCI: "0000:02:10.2"}, Property: "driver", Disruption: plan.DestroysPods},
		{Op: plan.SetVF, LinkName: "ens2", VF: &plan.VFRef{Number: 0, PCI: "0000:02:10.0"}, Property: "trust", Disruption: plan.None},
		{Op: plan.DeleteLink, Link: &model.Link{Name: "vlan5"}, Disruption: plan.DestroysPods},
	}
	got := ending(steps, o)
	if len(got) != 3 || !strings.Contains(got["0000:01:10.0"], "numvfs 2 -> 4") || got["0000:01:10.2"] == "" || got["0000:02:10.2"] == "" {
		t.Errorf("%v", got)
	}
}
