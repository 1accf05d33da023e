package guard

import (
	"context"
	"slices"
	"strings"
	"testing"

	"danm.io/danm/node/fake"
	"danm.io/danm/node/plan"
	"danm.io/danm/node/state"
	"danm.io/danm/spec/model"
)

func pool(name string, numVFs int, vfs ...model.Range32) model.SRIOVPool {
	return model.SRIOVPool{Name: name, PFs: model.PFSelector{Names: []string{"eth1"}}, NumVFs: numVFs, VFs: vfs, Trust: new(true), MaxTxRate: 100, ResourceName: "danm.io/" + name}
}

func programs(name string, numVFs int, vfs ...model.Range32) model.SRIOVPool {
	p := pool(name, numVFs, vfs...)
	p.Driver = plan.DriverVFIO
	return p
}

func withPools(pools ...model.SRIOVPool) plan.Desired {
	return plan.Desired{Plan: model.NodePlan{Pools: pools}}
}

// TestFunctionsThatPodsHaveStay: neither another number nor another driver takes a function from a Pod; everything else goes on, and
// when the Pod is gone so does that.
func TestFunctionsThatPodsHaveStay(t *testing.T) {
	k := machine(t)
	g := openGuard(t, t.TempDir(), k, "b", nil)
	submit := func(d plan.Desired, pods map[string][]string) Outcome {
		t.Helper()
		out, err := g.Submit(context.Background(), Submission{Desired: d, Digest: d.Plan.Digest(), Pods: pods, Disruptive: true})
		must(t, err)
		must(t, g.Confirm(context.Background(), d.Plan.Digest()))
		return out
	}
	submit(withPools(pool("fast", 4)), nil)
	vf1 := functionsOf(t, k)[1].PCI
	pods := map[string][]string{plan.VFKey(vf1): {"a/one"}, plan.SRIOVKey("eth1"): {"a/one"}}

	out := submit(withPools(pool("fast", 8)), pods)
	if len(functionsOf(t, k)) != 4 || len(out.Held) == 0 || !strings.Contains(texts(out.Held), "numvfs 4 -> 8") || !slices.Contains(out.Held[0].Pods, "a/one") {
		t.Fatalf("held %s, %d functions", texts(out.Held), len(functionsOf(t, k)))
	}
	out = submit(withPools(programs("fast", 4)), pods)
	after := functionsOf(t, k)
	if after[0].Driver != plan.DriverVFIO || after[1].Driver != plan.DriverKernel || !strings.Contains(texts(out.Held), "vf eth1/1 driver") || strings.Contains(texts(out.Held), "eth1/0") {
		t.Fatalf("held %s: %+v", texts(out.Held), after)
	}
	out = submit(plan.Desired{}, pods)
	if len(functionsOf(t, k)) != 4 || !strings.Contains(texts(out.Held), "numvfs 4 -> 0") || !strings.Contains(texts(out.Held), "~ link eth1 up up -> down") {
		t.Fatalf("held %s, run %s, %d functions", texts(out.Held), texts(out.Steps), len(functionsOf(t, k)))
	}
	submit(plan.Desired{}, nil)
	if len(functionsOf(t, k)) != 0 || len(g.ledger.Records()) != 0 {
		t.Fatalf("%d functions are left, records %v", len(functionsOf(t, k)), g.ledger.Records())
	}
}

// TestFunctionsElsewhereStay: an interface in a namespace that nobody told of is had by somebody.
func TestFunctionsElsewhereStay(t *testing.T) {
	observed := plan.Observed{Links: []plan.ObservedLink{{Link: model.Link{Name: "eth1", Kind: model.Physical, MTU: 1500, Up: true},
		SRIOV: &plan.ObservedPF{TotalVFs: 8, VFs: []plan.ObservedVF{{PCI: "0000:01:10.0", VFSettings: plan.VFSettings{Driver: plan.DriverKernel, Trust: "on", Rate: "0-100"}},
			{PCI: "0000:01:10.2", Away: true, VFSettings: plan.VFSettings{Driver: plan.DriverKernel, Trust: "on", Rate: "0-100"}}}}}}}
	for _, c := range []struct {
		d    plan.Desired
		held int
		run  string
	}{
		{withPools(pool("fast", 4)), 9, ""},
		{withPools(programs("fast", 2)), 1, "~ vf eth1/0 driver kernel -> vfio-pci"},
	} {
		run, held := hold(plan.Diff(c.d, observed).Steps, observed, nil, true)
		if len(held) != c.held || texts(run) != c.run {
			t.Errorf("held %s\nrun %s", texts(held), texts(run))
		}
	}
}

func functionsOf(t *testing.T, k *fake.Kernel) []plan.ObservedVF {
	t.Helper()
	o, err := k.Observe(context.Background())
	must(t, err)
	i := slices.IndexFunc(o.Links, func(l plan.ObservedLink) bool { return l.Name == "eth1" })
	return o.Links[i].SRIOV.VFs
}

func texts(steps []plan.Step) string {
	var out []string
	for _, s := range steps {
		out = append(out, s.String())
	}
	return strings.Join(out, "\n")
}

// TestRestoreKnowsThePodsOfTheLastReport: who asks for the last plan by hand does not say which Pods there are; the agent has.
func TestRestoreKnowsThePodsOfTheLastReport(t *testing.T) {
	k, dir := machine(t), t.TempDir()
	g := openGuard(t, dir, k, "b", nil)
	d := withPools(pool("fast", 4))
	_, err := g.Submit(context.Background(), Submission{Desired: d, Digest: d.Plan.Digest()})
	must(t, err)
	must(t, g.Confirm(context.Background(), d.Plan.Digest()))
	must(t, k.SetVF("eth1", 1, "driver", plan.DriverVFIO)) // a drift that only a step which ends the function mends
	must(t, k.SetVF("eth1", 2, "driver", plan.DriverVFIO))
	vf1 := functionsOf(t, k)[1].PCI
	must(t, state.Open(dir).WriteReport(state.Report{BootID: "b", Pods: map[string][]string{plan.VFKey(vf1): {"a/dpdk"}}}))
	_, err = g.Restore(context.Background())
	must(t, err)
	if after := functionsOf(t, k); after[1].Driver != plan.DriverVFIO || after[2].Driver != plan.DriverKernel {
		t.Errorf("%+v", after)
	}
}
