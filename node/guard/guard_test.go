package guard

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"danm.io/danm/node/ledger"
	"danm.io/danm/node/plan"
	"danm.io/danm/node/state"
	"danm.io/danm/spec/model"
)

func TestWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, dir := machine(t), scratch(t)
		g := openGuard(t, dir, k, "boot1", nil)
		base := k.Dump()
		t0 := time.Now()
		out, err := g.Submit(context.Background(), submission(planA()))
		must(t, err)
		if out.Confirmed || len(out.Steps) == 0 || out.Deadline.Sub(t0) != 15*time.Second {
			t.Fatalf("outcome %+v", out)
		}
		a := k.Dump()
		if a != dumpOf(t, planA()) || phase(g) != Waiting {
			t.Fatalf("phase %s, kernel\n%s", phase(g), a)
		}
		if again, err := g.Submit(context.Background(), submission(planA())); err != nil || !again.Deadline.Equal(out.Deadline) {
			t.Errorf("the same submission in its window: %+v, %v", again, err)
		}
		if _, err := g.Submit(context.Background(), submission(planB())); !errors.Is(err, ErrBusy) {
			t.Errorf("another submission in the window: %v", err)
		}
		if err := g.Confirm(context.Background(), planB().Digest()); !errors.Is(err, ErrNotWaiting) {
			t.Errorf("confirmation of another digest: %v", err)
		}
		time.Sleep(15*time.Second - time.Millisecond)
		synctest.Wait()
		if k.Dump() != a {
			t.Fatal("reverted before the deadline")
		}
		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if k.Dump() != base || phase(g) != Idle {
			t.Fatalf("after the deadline: phase %s, kernel\n%s", phase(g), k.Dump())
		}
		if err := g.Confirm(context.Background(), planA().Digest()); !errors.Is(err, ErrNotWaiting) {
			t.Errorf("confirmation after the revert: %v", err)
		}
		if r, _ := ledger.Load(dir); len(r) > 0 {
			t.Errorf("claims left: %v", r)
		}
		confirmed(t, g, planA())
		time.Sleep(time.Minute)
		synctest.Wait()
		if k.Dump() != a || phase(g) != Confirmed {
			t.Errorf("a confirmed plan did not stay: %s", k.Dump())
		}
	})
}

func TestConfirmAtTheDeadlineLoses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := openGuard(t, scratch(t), machine(t), "b", nil)
		out, err := g.Submit(context.Background(), submission(planA()))
		must(t, err)
		g.timer.Stop() // as if it were late: the confirmation is first in the queue
		time.Sleep(time.Until(out.Deadline))
		if err := g.Confirm(context.Background(), planA().Digest()); !errors.Is(err, ErrNotWaiting) {
			t.Errorf("confirmed at the deadline: %v", err)
		}
	})
}

// onApply looks at the disk at the moment of each kernel write.
type onApply struct {
	plan.Kernel
	look func()
}

func (k onApply) Apply(ctx context.Context, s plan.Step) error {
	k.look()
	return k.Kernel.Apply(ctx, s)
}

func (k onApply) DeleteLinks(ctx context.Context, steps []plan.Step) error {
	return oneByOne(ctx, k, steps)
}

func TestUndoAndClaimsAreDurableBeforeTheFirstWrite(t *testing.T) {
	dir, looks := scratch(t), 0
	k := machine(t)
	o, _ := k.Observe(context.Background())
	want := plan.Diff(submission(planA()).Desired, o).Claims
	g := openGuard(t, dir, onApply{k, func() {
		looks++
		j, err := loadJournal(dir)
		must(t, err)
		if j.Phase != Applying || j.Pending == nil || j.Pending.T0.IsZero() || j.Pending.Before == nil || j.Pending.Before.Dump() != o.Dump() || j.BootID != "b" {
			t.Errorf("at a kernel write the journal says %+v", j)
		}
		if r, err := ledger.Load(dir); err != nil || len(r) != len(want) {
			t.Errorf("at a kernel write the ledger says %v, %v", r, err)
		}
	}}, "b", nil)
	confirmed(t, g, planA())
	if looks == 0 || len(want) == 0 {
		t.Fatal("nothing was looked at")
	}
}

func TestHold(t *testing.T) {
	bridge := func(name string) plan.ObservedLink {
		return plan.ObservedLink{Link: model.Link{Name: name, Kind: model.Bridge}}
	}
	observed := plan.Observed{Links: []plan.ObservedLink{bridge("br0"), {Link: vxlan("vx0", 7, 1400, "br0")}, bridge("free")}}
	pods := map[string][]string{"br0": {"ns/p"}}
	route := model.Route{To: prefix("10.0.0.0/8"), Dev: "br0"}
	link := func(l model.Link) *model.Link { return &l }
	del := plan.Step{Op: plan.DeleteLink, ID: "link/br0", Link: link(bridge("br0").Link), Disruption: plan.DestroysPods}
	for name, tc := range map[string]struct {
		step plan.Step
		held bool
	}{
		"the link itself":         {del, true},
		"a port of it":            {plan.Step{Op: plan.SetLink, ID: "property/vx0/up", LinkName: "vx0", Property: "up", To: "down", Disruption: plan.LinkDown}, true},
		"its device":              {plan.Step{Op: plan.SetLink, ID: "property/eth0/up", LinkName: "eth0", Property: "up", To: "down", Disruption: plan.LinkDown}, true},
		"mild":                    {plan.Step{Op: plan.SetLink, ID: "property/free/mtu", LinkName: "free", Property: "mtu", Disruption: plan.Blip}, false},
		"another":                 {plan.Step{Op: plan.DeleteLink, ID: "link/free", Link: link(bridge("free").Link), Disruption: plan.DestroysPods}, false},
		"new on top":              {plan.Step{Op: plan.CreateLink, ID: "link/n", Link: &model.Link{Name: "n", Kind: model.VLAN, Parent: "br0", VLANID: 5}, Disruption: plan.None}, true},
		"new port":                {plan.Step{Op: plan.CreateLink, ID: "link/n", Link: link(vxlan("n", 8, 1400, "br0")), Disruption: plan.None}, true},
		"port moved in":           {plan.Step{Op: plan.SetLink, ID: "property/e/master", LinkName: "e", Property: "master", To: "br0", Disruption: plan.None}, true},
		"route by it":             {plan.Step{Op: plan.AddRoute, ID: "route/254/10.0.0.0/8/0", Route: &route, Disruption: plan.None}, true},
		"peer elsewhere":          {plan.Step{Op: plan.AddPeer, ID: "peer", Peer: &model.Peer{Link: "vx9"}, Disruption: plan.None}, false},
		"address elsewhere":       {plan.Step{Op: plan.AddAddress, ID: "address/free/x", LinkName: "free", Disruption: plan.None}, false},
		"same VNI, but free port": {plan.Step{Op: plan.CreateLink, ID: "link/n", Link: link(vxlan("n", 9, 1400, "")), Disruption: plan.None}, false},
	} {
		run, held := hold([]plan.Step{del, tc.step}, observed, pods, false)
		if len(run)+len(held) != 2 || (len(held) == 2) != tc.held || len(held[0].Pods) != 1 {
			t.Errorf("%s: run %v, held %v", name, run, held)
		}
	}
	down := plan.Step{Op: plan.SetLink, ID: "property/br0/up", LinkName: "br0", Property: "up", To: "down", Disruption: plan.LinkDown}
	if run, held := hold([]plan.Step{down}, observed, pods, true); len(run) != 1 || len(run[0].Pods) != 1 || len(held) > 0 {
		t.Errorf("allowed, and going down: run %v, held %v", run, held)
	}
	if run, held := hold([]plan.Step{del}, observed, pods, true); len(run) > 0 || len(held) != 1 {
		t.Errorf("allowed, and destroying: run %v, held %v", run, held)
	}
	port := plan.Step{Op: plan.DeleteLink, ID: "link/vx0", Link: link(observed.Links[1].Link), Disruption: plan.DestroysPods}
	if run, held := hold([]plan.Step{port}, observed, pods, true); len(run) != 1 || len(held) > 0 {
		t.Errorf("allowed, the port of the Pods' bridge: run %v, held %v", run, held)
	}
	if run, held := hold([]plan.Step{port}, observed, map[string][]string{"vx0": {"ns/q"}}, true); len(run) > 0 || len(held) != 1 {
		t.Errorf("allowed, with a Pod on the port itself: run %v, held %v", run, held)
	}
	gone := plan.Step{Op: plan.DeleteLink, ID: "link/vx0", Link: link(vxlan("vx0", 7, 0, "")), Disruption: plan.DestroysPods}
	next := plan.Step{Op: plan.CreateLink, ID: "link/n", Link: link(vxlan("n", 7, 1400, "")), Disruption: plan.None}
	if run, _ := hold([]plan.Step{gone, next}, observed, pods, false); len(run) > 0 {
		t.Errorf("made beside the held one with its VNI: %v", run)
	}
	if run, held := hold([]plan.Step{del, next}, observed, nil, false); len(run) != 2 || len(held) > 0 {
		t.Errorf("without Pods: run %v, held %v", run, held)
	}
}

// Dry run equals run: what Diff says beforehand is what the journal shows afterwards. A plan that needs nothing writes
// nothing but its digest; the second time nothing at all.
func TestStepsAreTheDiffsAndNoOpIsQuiet(t *testing.T) {
	k, dir := machine(t), scratch(t)
	fileWrites := 0
	g := openGuard(t, dir, k, "b", func(act, _ string) error {
		if act == "rename" {
			fileWrites++
		}
		return nil
	})
	o, _ := k.Observe(context.Background())
	want := plan.Diff(submission(planA()).Desired, o).Steps
	confirmed(t, g, planA())
	st, _ := g.Status(context.Background())
	if fmt.Sprint(st.Confirmed.Steps) != fmt.Sprint(want) {
		t.Errorf("journal %v, diff %v", st.Confirmed.Steps, want)
	}
	writes, kernel := fileWrites, k.Writes()
	for range 3 {
		out, err := g.Submit(context.Background(), submission(planA()))
		if err != nil || !out.Confirmed {
			t.Fatal(out, err)
		}
		if _, err := g.Repair(context.Background(), submission(planA()).Desired, nil); err != nil {
			t.Fatal(err)
		}
	}
	if fileWrites != writes || k.Writes() != kernel {
		t.Errorf("no-op wrote %d files and %d objects", fileWrites-writes, k.Writes()-kernel)
	}
}

func TestQuarantine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, dir := machine(t), scratch(t)
		ctx := context.Background()
		g := openGuard(t, dir, k, "b", nil)
		lose := func(v Verdict) {
			t.Helper()
			_, err := g.Submit(ctx, submission(planA()))
			must(t, err)
			time.Sleep(16 * time.Second)
			synctest.Wait()
			must(t, g.Judge(ctx, planA().Digest(), v, "gw"))
			if err := g.Judge(ctx, planA().Digest(), Guilty, "x"); err == nil {
				t.Fatal("a verdict was changed")
			}
		}
		lose(Guilty)
		g = openGuard(t, dir, k, "b", nil) // on disk
		if _, err := g.Submit(ctx, submission(planA())); !errors.Is(err, ErrQuarantined) {
			t.Errorf("guilty plan: %v", err)
		}
		if _, err := g.Submit(ctx, submission(planB())); err != nil { // only the digest is refused
			t.Error(err)
		}
		must(t, g.Close(ctx))
		g = openGuard(t, dir, k, "b", nil)
		must(t, g.Retry(ctx, planA().Digest()))
		for range MaxAttempts {
			lose(Inconclusive)
		}
		if _, err := g.Submit(ctx, submission(planA())); !errors.Is(err, ErrQuarantined) {
			t.Errorf("after %d attempts: %v", MaxAttempts, err)
		}
		must(t, g.Retry(ctx, ""))
		confirmed(t, g, planA())
		if st, _ := g.Status(ctx); len(st.Refusals) > 0 {
			t.Errorf("held against a confirmed plan: %v", st.Refusals)
		}
	})
}

func TestPauseStopsWritesAndRestoreWorks(t *testing.T) {
	k, dir := machine(t), scratch(t)
	ctx := context.Background()
	g := openGuard(t, dir, k, "b", nil)
	if _, err := g.Restore(ctx); !errors.Is(err, ErrNotConfirmed) {
		t.Errorf("restore of nothing: %v", err)
	}
	confirmed(t, g, planA())
	must(t, g.Pause(ctx))
	must(t, k.DeleteLink("br_a"))
	writes := k.Writes()
	g = openGuard(t, dir, k, "b", nil) // durable
	if _, err := g.Submit(ctx, submission(planB())); !errors.Is(err, ErrPaused) {
		t.Errorf("submit: %v", err)
	}
	if _, err := g.Repair(ctx, submission(planA()).Desired, nil); !errors.Is(err, ErrPaused) {
		t.Errorf("repair: %v", err)
	}
	if k.Writes() != writes {
		t.Error("wrote while paused")
	}
	steps, err := g.Restore(ctx)
	if err != nil || len(steps) == 0 || k.Dump() != dumpOf(t, planA()) {
		t.Errorf("restore: %v, %v\n%s", steps, err, k.Dump())
	}
	must(t, g.Resume(ctx))
	_, err = g.Submit(ctx, submission(planB()))
	must(t, err)
	if _, err := g.Restore(ctx); err != nil || k.Dump() != dumpOf(t, planA()) || phase(g) != Confirmed {
		t.Errorf("restore in the window: %v\n%s", err, k.Dump())
	}
}

func TestRepair(t *testing.T) {
	k := machine(t)
	ctx := context.Background()
	g := openGuard(t, scratch(t), k, "b", nil)
	confirmed(t, g, planA())
	if _, err := g.Repair(ctx, submission(planB()).Desired, nil); !errors.Is(err, ErrNotConfirmed) {
		t.Errorf("repair towards an unconfirmed plan: %v", err)
	}
	must(t, k.DeleteLink("vx_a"))
	out, err := g.Repair(ctx, submission(planA()).Desired, []plan.ObjectID{"link/vx_a"})
	if err == nil && slices.ContainsFunc(out.Steps, func(s plan.Step) bool { return s.ID == "link/vx_a" }) {
		t.Error("a skipped object was repaired")
	}
	if out, err = g.Repair(ctx, submission(planA()).Desired, nil); err != nil || k.Dump() != dumpOf(t, planA()) {
		t.Errorf("%v, rest %v\n%s", err, out.Rest, k.Dump())
	}
	d := submission(planA()).Desired
	d.Peers = append(slices.Clone(d.Peers), model.Peer{Link: "vx_a", Addr: netip.MustParseAddr("192.0.2.12")})
	if out, err = g.Repair(ctx, d, nil); err != nil || len(out.Steps) != 1 || phase(g) != Confirmed {
		t.Errorf("new peer: %v %v", out, err)
	}
	if st, _ := g.Status(ctx); len(st.Confirmed.Desired.Peers) != 2 {
		t.Error("the new peer would be lost after a reboot")
	}
}

func TestStepsWaitForPods(t *testing.T) {
	k := machine(t)
	ctx := context.Background()
	g := openGuard(t, scratch(t), k, "b", nil)
	confirmed(t, g, planA())
	s := submission(planB()) // replaces vx_a, which is a port of br_a
	s.Pods = map[string][]string{"br_a": {"acme/sip-0"}}
	out, err := g.Submit(ctx, s)
	must(t, err)
	if len(out.Held) == 0 {
		t.Fatal("nothing is held")
	}
	for _, h := range out.Held {
		if h.Disruption.Rank() >= plan.LinkDown.Rank() && !slices.Contains(h.Pods, "acme/sip-0") {
			t.Errorf("%s names %v", h, h.Pods)
		}
	}
	for _, r := range out.Steps {
		if r.Disruption.Rank() >= plan.LinkDown.Rank() && (stepLink(r) == "br_a" || stepLink(r) == "vx_a") {
			t.Errorf("executed under a Pod: %s", r)
		}
	}
	must(t, g.Confirm(ctx, s.Digest))
	if again, err := g.Submit(ctx, s); err != nil || !again.Confirmed || len(again.Held) != len(out.Held) {
		t.Errorf("held again: %+v %v", again, err)
	}
	// A guard that starts again does not forget them: restoring would destroy what an agent that is away cannot speak for.
	must(t, state.Open(g.opts.Dir).WriteReport(state.Report{BootID: "b", Pods: s.Pods}))
	held := k.Dump()
	g = openGuard(t, g.opts.Dir, k, "b", nil)
	if _, err := g.Restore(ctx); err != nil || k.Dump() != held {
		t.Errorf("restored under a Pod: %v\n%s", err, k.Dump())
	}
	s.Pods = nil
	if out, err = g.Submit(ctx, s); err != nil || len(out.Held) > 0 {
		t.Fatal(out, err)
	}
	must(t, g.Confirm(ctx, s.Digest))
	if k.Dump() != dumpOf(t, planB()) {
		t.Errorf("after the Pods left\n%s", k.Dump())
	}
}
