package guard

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"danm.io/danm/node/plan"
	"danm.io/danm/node/state"
)

var errDisk = errors.New("no space left")

// failing is a disk that takes nothing while on is true, of files whose name has the part.
type failing struct {
	on   atomic.Bool
	part string
}

func (f *failing) fault(_, path string) error {
	if f.on.Load() && strings.Contains(path, f.part) {
		return errDisk
	}
	return nil
}

// One revert is one attempt, however often the disk refuses to note it.
func TestOneRevertIsOneAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := &failing{part: journalName}
		k := machine(t)
		g := openGuard(t, scratch(t), k, "b", disk.fault)
		base := k.Dump()
		_, err := g.Submit(context.Background(), submission(planA()))
		must(t, err)
		disk.on.Store(true)
		time.Sleep(30 * time.Second)
		if k.Dump() != base || phase(g) != Reverting {
			t.Errorf("phase %s on a full disk\n%s", phase(g), k.Dump())
		}
		disk.on.Store(false)
		time.Sleep(5 * time.Second)
		st, _ := g.Status(context.Background())
		if st.Phase != Idle || st.Refusals[planA().Digest()].Attempts != 1 {
			t.Errorf("%s, %+v", st.Phase, st.Refusals)
		}
		must(t, g.Close(context.Background()))
	})
}

// What fails before the first kernel write is held against nobody: the plan is tried again as soon as it can be.
func TestADiskThatIsFullIsNotThePlansFault(t *testing.T) {
	for _, part := range []string{journalName, "ledger"} {
		synctest.Test(t, func(t *testing.T) {
			disk := &failing{part: part}
			disk.on.Store(true)
			k := machine(t)
			g := openGuard(t, scratch(t), k, "b", disk.fault)
			writes := k.Writes()
			for range MaxAttempts + 2 {
				if _, err := g.Submit(context.Background(), submission(planA())); !errors.Is(err, errDisk) {
					t.Errorf("%s: %v", part, err)
				}
				disk.on.Store(false)
				time.Sleep(5 * time.Second)
				disk.on.Store(true)
			}
			st, _ := g.Status(context.Background())
			if k.Writes() != writes || len(st.Refusals) > 0 || st.Phase != Idle {
				t.Errorf("%s: %d writes, %+v, %s", part, k.Writes()-writes, st.Refusals, st.Phase)
			}
			disk.on.Store(false)
			confirmed(t, g, planA())
			must(t, g.Close(context.Background()))
		})
	}
}

// nthFails fails its n-th step and remembers those behind it.
type nthFails struct {
	plan.Kernel
	n      int
	called []string
}

func (k *nthFails) Apply(ctx context.Context, s plan.Step) error {
	k.called = append(k.called, s.String())
	if len(k.called) == k.n {
		return errors.New("refused")
	}
	return k.Kernel.Apply(ctx, s)
}

// Nothing is applied on top of a step that failed.
func TestAFailedStepEndsThePlan(t *testing.T) {
	k := &nthFails{Kernel: machine(t), n: 2}
	g := openGuard(t, scratch(t), k, "b", nil)
	o, err := k.Observe(context.Background())
	must(t, err)
	steps := plan.Diff(submission(planA()).Desired, o).Steps
	if len(steps) < 4 {
		t.Fatal(steps)
	}
	if _, err := g.Submit(context.Background(), submission(planA())); !errors.Is(err, ErrStepFailed) {
		t.Fatal(err)
	}
	for _, s := range steps[2:] {
		for _, c := range k.called[2:] {
			if c == s.String() {
				t.Errorf("applied behind the failure: %s", s)
			}
		}
	}
}

// Pods of another boot are gone: they hold nothing back.
func TestPodsOfAnotherBootHoldNothing(t *testing.T) {
	for boot, waits := range map[string]bool{"b": true, "c": false} {
		dir := scratch(t)
		must(t, state.Open(dir).WriteReport(state.Report{BootID: boot, Pods: map[string][]string{"br_a": {"acme/a"}}}))
		if g := openGuard(t, dir, machine(t), "b", nil); (len(g.pods) > 0) != waits {
			t.Errorf("boot %s: %v", boot, g.pods)
		}
	}
}
