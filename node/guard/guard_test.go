package guard

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"danm.io/danm/node/fake"
	"danm.io/danm/node/ledger"
	"danm.io/danm/node/plan"
	"danm.io/danm/node/state"
	"danm.io/danm/spec/model"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// scratch is a state directory in memory where there is one: sweeps make thousands of fsyncs whose cost is not their subject.
func scratch(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "danm-guard-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// machine is a kernel with hardware and things that are not ours.
func machine(t testing.TB) *fake.Kernel {
	t.Helper()
	k := fake.New()
	for _, l := range []plan.ObservedLink{
		{Link: model.Link{Name: "eth0", Kind: model.Physical, MTU: 1500, Up: true, Addresses: []netip.Prefix{prefix("192.0.2.10/24")}}, MAC: "02:00:00:00:00:01"},
		{Link: model.Link{Name: "eth1", Kind: model.Physical, MTU: 1500}, MAC: "02:00:00:00:00:02"},
		{Link: model.Link{Name: "docker0", Kind: model.Bridge, MTU: 1500, Up: true, Addresses: []netip.Prefix{prefix("172.17.0.1/16")}}, KernelKind: "bridge"},
	} {
		must(t, k.AddLink(l))
	}
	must(t, k.AddRoute(plan.ObservedRoute{Route: model.Route{To: prefix("0.0.0.0/0"), Via: netip.MustParseAddr("192.0.2.1"), Dev: "eth0"}, Protocol: 3}))
	return k
}

func vxlan(name string, vni uint32, mtu int, master string) model.Link {
	return model.Link{Name: name, Kind: model.VXLAN, Parent: "eth0", MTU: mtu, Up: true, Master: master,
		VXLAN: &model.VXLANOptions{VNI: vni, Port: 4789, Local: netip.MustParseAddr("192.0.2.10")}}
}

func planA() model.NodePlan {
	return model.NodePlan{Links: []model.Link{
		{Name: "br_a", Kind: model.Bridge, MTU: 1400, Up: true, Addresses: []netip.Prefix{prefix("10.1.0.1/24")}},
		{Name: "eth1", Kind: model.Physical, MTU: 1600, Up: true},
		vxlan("vx_a", 100, 1400, "br_a"),
	}, Routes: []model.Route{{To: prefix("10.9.0.0/16"), Via: netip.MustParseAddr("10.1.0.2"), Dev: "br_a"}}}
}

// planB changes, removes, adds and replaces.
func planB() model.NodePlan {
	return model.NodePlan{Links: []model.Link{
		{Name: "br_a", Kind: model.Bridge, MTU: 1300, Up: true, Addresses: []netip.Prefix{prefix("10.1.0.9/24"), prefix("fd00:1::1/64")}},
		vxlan("vx_a", 101, 1300, "br_a"),
		vxlan("vx_b", 102, 1300, ""),
	}, Routes: []model.Route{{To: prefix("10.8.0.0/16"), Via: netip.MustParseAddr("10.1.0.3"), Dev: "br_a"}}}
}

func peersOf(p model.NodePlan) []model.Peer {
	var out []model.Peer
	for _, l := range p.Links {
		if l.VXLAN != nil {
			out = append(out, model.Peer{Link: l.Name, Addr: netip.MustParseAddr("192.0.2.11")})
		}
	}
	return out
}

func submission(p model.NodePlan) Submission {
	return Submission{Desired: plan.Desired{Plan: p, Peers: peersOf(p)}, Digest: p.Digest(), Revision: "main@" + p.Digest()[7:15], ConfirmTimeout: 15 * time.Second}
}

func openGuard(t testing.TB, dir string, k plan.Kernel, boot string, fault state.Fault) *Guard {
	t.Helper()
	g, err := Open(context.Background(), Options{Dir: dir, Kernel: k, BootID: boot, Fault: fault})
	must(t, err)
	return g
}

// confirmed brings a plan through its window.
func confirmed(t testing.TB, g *Guard, p model.NodePlan) Outcome {
	t.Helper()
	out, err := g.Submit(context.Background(), submission(p))
	must(t, err)
	must(t, g.Confirm(context.Background(), p.Digest()))
	return out
}

// dumpOf is what a machine looks like under a plan, found without the guard.
func dumpOf(t testing.TB, p model.NodePlan) string {
	t.Helper()
	k := machine(t)
	o, err := k.Observe(context.Background())
	must(t, err)
	for _, s := range plan.Diff(plan.Desired{Plan: p, Peers: peersOf(p)}, o).Steps {
		must(t, k.Apply(context.Background(), s))
	}
	return k.Dump()
}

func phase(g *Guard) Phase {
	st, _ := g.Status(context.Background())
	return st.Phase
}

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

// oneByOne lets a wrapper's Apply see each deletion of a batch.
func oneByOne(ctx context.Context, k plan.Kernel, steps []plan.Step) error {
	for _, s := range steps {
		if err := k.Apply(ctx, s); err != nil {
			return err
		}
	}
	return nil
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

// killer ends the process at its n-th point: before and after each kernel call, before each act of a file write.
type killer struct {
	plan.Kernel
	mu   sync.Mutex
	at   int
	seen int
	dead bool
	last string
}

func (k *killer) point(what string) {
	k.mu.Lock()
	if k.seen++; k.seen == k.at {
		k.dead, k.last = true, what
	}
	dead := k.dead
	k.mu.Unlock()
	if dead {
		runtime.Goexit()
	}
}

func (k *killer) fault(act, path string) error { k.point(act + " " + path); return nil }

func (k *killer) Observe(ctx context.Context, sysctls ...string) (plan.Observed, error) {
	k.point("observe")
	return k.Kernel.Observe(ctx, sysctls...)
}

func (k *killer) Apply(ctx context.Context, s plan.Step) error {
	k.point("before " + s.String())
	err := k.Kernel.Apply(ctx, s)
	k.point("after " + s.String())
	return err
}

func (k *killer) DeleteLinks(ctx context.Context, steps []plan.Step) error {
	return oneByOne(ctx, k, steps)
}

// in runs f as the main goroutine of a process that may be killed.
func in(f func()) {
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	<-done
}

// stories are what may happen to plan B after A was confirmed.
var stories = map[string]func(g *Guard){
	"confirmed": func(g *Guard) {
		_, _ = g.Submit(context.Background(), submission(planB()))
		_ = g.Confirm(context.Background(), planB().Digest())
	},
	"timeout": func(g *Guard) {
		_, _ = g.Submit(context.Background(), submission(planB()))
		time.Sleep(20 * time.Second)
	},
	"stopped": func(g *Guard) {
		_, _ = g.Submit(context.Background(), submission(planB()))
		_ = g.Close(context.Background())
	},
}

// oldOrNew asserts that kernel, journal and ledger agree on one of the two plans.
func oldOrNew(t *testing.T, what, dir string, k *fake.Kernel, g *Guard, dumps map[string]string) {
	t.Helper()
	st, _ := g.Status(context.Background())
	if st.Phase.Open() || st.Confirmed == nil {
		t.Fatalf("%s: phase %s", what, st.Phase)
	}
	if want := dumps[st.Confirmed.Digest]; k.Dump() != want {
		t.Fatalf("%s: confirmed is %s, but the kernel is between\n%s\nwant\n%s", what, st.Confirmed.Revision, k.Dump(), want)
	}
	o, _ := k.Observe(context.Background())
	o.Owned, _ = ledger.Load(dir)
	p := plan.Diff(st.Confirmed.Desired, o)
	if st.Confirmed.Digest == planB().Digest() {
		p.Released = nil // dropped after the confirmation is durable; a kill in between leaves them to the next diff
	}
	if !p.Empty() || len(p.Blocked) > 0 {
		t.Fatalf("%s: the ledger does not fit the confirmed plan: %+v", what, p)
	}
}

// kill -9 at every journal write and kernel call of every story, and once more at points of the recovery.
func TestKilledAnywhereOldOrNew(t *testing.T) {
	dumps := map[string]string{planA().Digest(): dumpOf(t, planA()), planB().Digest(): dumpOf(t, planB())}
	for name, story := range stories {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			points := 0
			for n := 1; ; n++ {
				alive := false
				for m := 0; m < 40; m += 2 + m/2 { // 0: the recovery is not disturbed; every fifth n is killed twice
					if m > 0 && n%5 != 0 {
						break
					}
					synctest.Test(t, func(t *testing.T) {
						k, dir := machine(t), scratch(t)
						confirmed(t, openGuard(t, dir, k, "b", nil), planA())
						first := &killer{Kernel: k, at: n}
						in(func() { story(openGuard(t, dir, first, "b", first.fault)) })
						synctest.Wait()
						if alive = !first.dead; alive {
							return
						}
						second := &killer{Kernel: k, at: m}
						in(func() { openGuard(t, dir, second, "b", second.fault) })
						g := openGuard(t, dir, k, "b", nil)
						oldOrNew(t, fmt.Sprintf("killed at %d (%s), then at %d (%s)", n, first.last, m, second.last), dir, k, g, dumps)
						confirmed(t, g, planB()) // and life goes on
						if k.Dump() != dumps[planB().Digest()] {
							t.Fatalf("after a kill at %d the next plan does not fit\n%s", n, k.Dump())
						}
					})
					if alive {
						break
					}
				}
				if alive {
					points = n - 1
					break
				}
			}
			if points < 40 {
				t.Errorf("only %d points swept", points)
			}
		})
	}
}

// Every kernel call fails once, in each way, in each story: the guard itself ends at the old or the new plan.
func TestEveryKernelCallFailsOnce(t *testing.T) {
	dumps := map[string]string{planA().Digest(): dumpOf(t, planA()), planB().Digest(): dumpOf(t, planB())}
	for _, mode := range []fake.Fault{fake.Before, fake.After, fake.Half} {
		for name, story := range stories {
			t.Run(fmt.Sprintf("%s/%d", name, mode), func(t *testing.T) {
				t.Parallel()
				for n := 1; ; n++ {
					ran := false
					synctest.Test(t, func(t *testing.T) {
						k, dir := machine(t), scratch(t)
						g := openGuard(t, dir, k, "b", nil)
						confirmed(t, g, planA())
						from := k.Calls()
						k.FailAt(n, mode)
						story(g)
						time.Sleep(5 * time.Second)
						synctest.Wait()
						if ran = k.Calls()-from >= n; ran {
							if name == "stopped" {
								g = openGuard(t, dir, k, "b", nil)
							}
							oldOrNew(t, fmt.Sprintf("call %d failed", n), dir, k, g, dumps)
						}
					})
					if !ran {
						if n < 10 {
							t.Errorf("only %d calls swept", n-1)
						}
						return
					}
				}
			})
		}
	}
}

// Every file act fails once, as on a full disk: no plan is half applied for longer than the disk is full.
func TestEveryFileActFailsOnce(t *testing.T) {
	dumps := map[string]string{planA().Digest(): dumpOf(t, planA()), planB().Digest(): dumpOf(t, planB())}
	for name, story := range stories {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for n := 1; ; n++ {
				struck := false
				synctest.Test(t, func(t *testing.T) {
					k, dir := machine(t), scratch(t)
					confirmed(t, openGuard(t, dir, k, "b", nil), planA())
					seen := 0
					g := openGuard(t, dir, k, "b", func(act, _ string) error {
						if seen++; seen == n {
							struck = true
							return errors.New("no space left on device")
						}
						return nil
					})
					story(g)
					time.Sleep(20 * time.Second) // an unconfirmed plan ends by its window
					synctest.Wait()
					if name == "stopped" {
						g = openGuard(t, dir, k, "b", nil)
					}
					oldOrNew(t, fmt.Sprintf("act %d failed", n), dir, k, g, dumps)
				})
				if !struck {
					if n < 20 {
						t.Errorf("only %d acts swept", n-1)
					}
					return
				}
			}
		})
	}
}

// A reboot in the window: the kernel is as hardware and installer left it, the undo is void, the confirmed plan comes back.
func TestRebootDiscardsTheUndo(t *testing.T) {
	k, dir := machine(t), scratch(t)
	g := openGuard(t, dir, k, "boot1", nil)
	confirmed(t, g, planA())
	_, err := g.Submit(context.Background(), submission(planB()))
	must(t, err)
	k = machine(t)
	g = openGuard(t, dir, k, "boot2", nil)
	if k.Dump() != dumpOf(t, planA()) {
		t.Errorf("after the reboot\n%s", k.Dump())
	}
	st, _ := g.Status(context.Background())
	if st.Phase != Confirmed || st.Undone == nil || st.Undone.Verdict != Inconclusive || st.BootID != "boot2" {
		t.Errorf("status %+v", st)
	}
	writes := k.Writes()
	openGuard(t, dir, k, "boot2", nil)
	if k.Writes() != writes {
		t.Error("a restart without a reboot wrote to the kernel")
	}
}

func TestRebootWithoutAConfirmedPlanTouchesNothing(t *testing.T) {
	k, dir := machine(t), scratch(t)
	_, err := openGuard(t, dir, k, "boot1", nil).Submit(context.Background(), submission(planA()))
	must(t, err)
	k = machine(t)
	g := openGuard(t, dir, k, "boot2", nil)
	if k.Writes() != 0 || phase(g) != Idle {
		t.Errorf("%d writes, phase %s", k.Writes(), phase(g))
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

// The end depends on the last confirmed plan alone, whatever was tried, killed, reverted and drifted before.
func TestHistoryDoesNotMatter(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 11))
	rounds := 300
	if testing.Short() {
		rounds = 50
	}
	for i := range rounds {
		synctest.Test(t, func(t *testing.T) {
			k, dir := machine(t), scratch(t)
			base := k.Dump()
			g := openGuard(t, dir, k, "b", nil)
			for range 2 + rng.IntN(5) {
				p := randomPlan(rng)
				if rng.IntN(4) == 0 {
					k.FailAt(1+rng.IntN(8), fake.Fault(rng.IntN(3)))
				}
				_, _ = g.Submit(context.Background(), submission(p))
				switch rng.IntN(4) {
				case 0:
					_ = g.Confirm(context.Background(), p.Digest())
				case 1:
					time.Sleep(20 * time.Second)
				case 2:
					_ = g.Close(context.Background())
					time.Sleep(time.Second)
					g = openGuard(t, dir, k, "b", nil)
				case 3: // killed: the window's timer dies with it
					g.op.Lock()
					g.closed = true
					g.op.Unlock()
					g = openGuard(t, dir, k, "b", nil)
				}
				time.Sleep(5 * time.Second)
				synctest.Wait()
				if st, _ := g.Status(context.Background()); st.Phase == Waiting {
					must(t, g.Confirm(context.Background(), st.Pending.Digest))
				} else if st.Confirmed != nil && k.Dump() != dumpOf(t, st.Confirmed.Desired.Plan) {
					t.Fatalf("sequence %d: between\n%s\nwant\n%s", i, k.Dump(), dumpOf(t, st.Confirmed.Desired.Plan))
				}
			}
			for range 10 { // a fault that has not struck yet belongs to no one
				_, _ = k.Observe(context.Background())
			}
			must(t, g.Retry(context.Background(), ""))
			last := randomPlan(rng)
			for _, end := range []struct {
				p    model.NodePlan
				dump string
			}{{last, dumpOf(t, last)}, {model.NodePlan{}, base}} {
				confirmed(t, g, end.p)
				if k.Dump() != end.dump {
					t.Fatalf("sequence %d ends at\n%s\nwant\n%s", i, k.Dump(), end.dump)
				}
			}
			if r, _ := ledger.Load(dir); len(r) > 0 {
				t.Fatalf("sequence %d leaves records %v", i, r)
			}
		})
	}
}

func randomPlan(rng *rand.Rand) model.NodePlan {
	var p model.NodePlan
	mtu := 1280 + rng.IntN(3)*10
	for _, br := range []string{"br_a", "br_b"} {
		if rng.IntN(2) == 0 {
			continue
		}
		l := model.Link{Name: br, Kind: model.Bridge, MTU: mtu, Up: true}
		for a := range rng.IntN(3) {
			l.Addresses = append(l.Addresses, prefix(fmt.Sprintf("10.%d.%d.1/24", br[3], a)))
		}
		p.Links = append(p.Links, l)
		if len(l.Addresses) > 0 && rng.IntN(2) == 0 {
			p.Routes = append(p.Routes, model.Route{To: prefix(fmt.Sprintf("10.200.%d.0/24", br[3])), Via: netip.MustParseAddr(fmt.Sprintf("10.%d.0.2", br[3])), Dev: br})
		}
	}
	if rng.IntN(2) == 0 {
		e := model.Link{Name: "eth1", Kind: model.Physical, Up: true, MTU: []int{0, 1500, 1700}[rng.IntN(3)]}
		if len(p.Links) > 0 && rng.IntN(2) == 0 {
			e.Master = p.Links[0].Name
		}
		p.Links = append(p.Links, e)
	}
	masters := []string{""}
	for _, l := range p.Links {
		if l.Kind == model.Bridge {
			masters = append(masters, l.Name)
		}
	}
	for i := range 2 {
		if rng.IntN(2) == 0 {
			p.Links = append(p.Links, vxlan(fmt.Sprintf("vx_%d", i), uint32(100+2*rng.IntN(2)+i), mtu, masters[rng.IntN(len(masters))]))
		}
	}
	return p
}
