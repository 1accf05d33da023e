package guard

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"danm.io/danm/node/fake"
	"danm.io/danm/node/ledger"
	"danm.io/danm/node/plan"
)

// oneByOne lets a wrapper's Apply see each deletion of a batch.
func oneByOne(ctx context.Context, k plan.Kernel, steps []plan.Step) error {
	for _, s := range steps {
		if err := k.Apply(ctx, s); err != nil {
			return err
		}
	}
	return nil
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
