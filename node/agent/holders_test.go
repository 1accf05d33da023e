package agent

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"danm.io/danm/cni/server"
	"danm.io/danm/node/devplugin"
	"danm.io/danm/node/guard"
	"danm.io/danm/node/plan"
	"danm.io/danm/node/podresources"
	"danm.io/danm/spec/model"
)

func has(id, pod, resource string) given {
	return given{id: {{Pod: pod, Resource: resource}}}
}

// TestHolders: the first answer is waited for, later ones are asked for beside the loop and not often, and one that fails takes nothing back.
func TestHolders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, answer, away := 0, has("d", "a/old", "r"), error(nil)
		h := newHolders(func(context.Context) (given, error) { asked++; return answer, away })
		known := func(want string, times int) {
			t.Helper()
			is, err := h.Known()
			synctest.Wait()
			if got := fmt.Sprint(is, err); got != want || asked != times {
				t.Errorf("%s after %d questions, not %s after %d", got, asked, want, times)
			}
		}
		ctx, end := context.WithCancel(t.Context())
		defer end()
		go h.run(ctx)
		time.Sleep(time.Hour) // nobody wants to know
		known("map[d:[{a/old r}]] <nil>", 1)
		answer = has("d", "a/new", "r")
		for range 20 {
			known("map[d:[{a/old r}]] <nil>", 1)
		}
		time.Sleep(askEvery)
		known("map[d:[{a/old r}]] <nil>", 2)
		known("map[d:[{a/new r}]] <nil>", 2)
		away = errors.New("away")
		for range 60 {
			_, _ = h.Known()
			time.Sleep(time.Second)
		}
		if asked < 12 || asked > 22 {
			t.Errorf("in a minute it was asked %d times", asked-2)
		}
		if is, err := h.Known(); fmt.Sprint(is, err) != "map[d:[{a/new r}]] away" {
			t.Errorf("%v %v", is, err)
		}
		synctest.Wait()
		answer, away = has("d", "a/last", "r"), nil
		if is, err := h.Fresh(t.Context()); err != nil || is["d"][0].Pod != "a/last" {
			t.Errorf("%v %v", is, err)
		}
	})
}

// TestOldAnswersComeLate: an answer to an earlier question does not replace that to a later one.
func TestOldAnswersComeLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := true
		h := newHolders(func(context.Context) (given, error) {
			if slow {
				slow = false
				time.Sleep(time.Second)
				return nil, nil
			}
			return has("d", "a/new", "r"), nil
		})
		go func() { _, _ = h.Fresh(t.Context()) }()
		time.Sleep(time.Millisecond)
		synctest.Wait()
		_, err := h.Fresh(t.Context())
		must(t, err)
		time.Sleep(2 * time.Second)
		if is, err := h.Known(); err != nil || len(is) != 1 {
			t.Errorf("%v %v", is, err)
		}
	})
}

// TestASilentKubeletHoldsNothingUp: rounds do not wait for a kubelet that says nothing, and a submission does so for a bounded time.
func TestASilentKubeletHoldsNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		silent := false
		n.a.holders = newHolders(func(ctx context.Context) (given, error) {
			if silent {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return has("0000:01:02.0", "acme/web", "danm.io/a"), nil
		})
		must(t, n.k.AddLink(card("ens1", 1, 2)))
		st := bridgePlan(1400)
		st.Pools = []model.SRIOVPool{pool("a", "a", "ens1", 2)}
		n.write("r1", st)
		n.run(10 * time.Second)
		ctx, end := context.WithCancel(t.Context())
		defer end()
		go n.a.holders.run(ctx)
		silent = true
		for range 20 {
			began := time.Now()
			n.a.round(t.Context())
			if took := time.Since(began); took > 0 {
				t.Fatalf("a round took %s", took)
			}
			time.Sleep(5 * time.Second)
		}
		if pods := n.a.knownPods(); fmt.Sprint(pods[plan.VFKey("0000:01:02.0")], pods[plan.VFKey("0000:01:02.1")]) != "[acme/web] ["+unknownHolder+"]" {
			t.Errorf("%v", pods)
		}
		began := time.Now()
		n.a.pods(t.Context())
		if took := time.Since(began); took != askWithin {
			t.Errorf("for a submission it was waited %s", took)
		}
	})
}

// TestEachHolderKeepsADevice: a device is somebody's whoever of its holders is told.
func TestEachHolderKeepsADevice(t *testing.T) {
	got, err := firstPods(given{"d": []podresources.Holder{{Pod: "a/a", Resource: "x"}, {Pod: "b/b", Resource: "y"}}}, errors.New("away"))
	if fmt.Sprint(got, err) != "map[d:a/a] away" {
		t.Errorf("%v %v", got, err)
	}
}

// TestGivenAsSomethingElse: a function that a Pod got, also while the plan was in its window, is not healthy under the name that the plan
// gives its pool, nor in the pool that has it now; when the Pod is gone it is. Whom the kubelet does not tell of, its record does.
func TestGivenAsSomethingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		l := card("ens1", 1, 3)
		must(t, n.k.AddLink(l))
		sysfs(t, n.dir, l)
		said := ""
		n.a.opts.Offer = func(r []devplugin.Resource) { said = text(r) }
		n.a.vfFiles.sys.Root = n.dir
		answer, asked := given{}, 0
		n.a.holders = newHolders(func(context.Context) (given, error) { asked++; return answer, nil })
		ctx, end := context.WithCancel(t.Context())
		defer end()
		go n.a.holders.run(ctx)
		settle := func(rev string, want string, p ...model.SRIOVPool) {
			t.Helper()
			st := bridgePlan(1400)
			st.Pools = p
			n.write(rev, st, probes("gw"))
			n.run(5 * time.Second)
			if n.revision() != rev || said != want {
				t.Errorf("%s: %q, not %q", n.revision(), said, want)
			}
		}
		settle("r1", "")
		n.run(time.Minute)
		if asked != 0 {
			t.Errorf("without a pool the kubelet was asked %d times", asked)
		}
		settle("r2", "none:", pool("n", "none", "ens9", 3))
		settle("r3", "fast: 01:02.0 01:02.1; slow: 01:02.2", pool("a", "fast", "ens1", 3, vfs(0, 1)), pool("b", "slow", "ens1", 3, vfs(2, 2)))
		n.a.opts.Guard = late{n.front, func() { answer = has("0000:01:02.0", "acme/web", "danm.io/fast") }}
		settle("r4", "faster: 01:02.0(acme/web has it as danm.io/fast) 01:02.1; slow: 01:02.2", pool("a", "faster", "ens1", 3, vfs(0, 1)), pool("b", "slow", "ens1", 3, vfs(2, 2)))
		n.a.held = func() []server.Held {
			return []server.Held{{Device: "0000:01:02.1", Pool: "danm.io/faster", Pod: "acme/db"}}
		}
		settle("r5", "faster: 01:02.2; slow: 01:02.0(acme/web has it as danm.io/fast) 01:02.1(acme/db has it as danm.io/faster)", pool("a", "faster", "ens1", 3, vfs(2, 2)), pool("b", "slow", "ens1", 3, vfs(0, 1)))
		answer = nil
		n.a.held = func() []server.Held { return nil }
		n.run(30 * time.Second)
		if said != "faster: 01:02.2; slow: 01:02.0 01:02.1" {
			t.Errorf("of Pods that are gone: %q", said)
		}
	})
}

// late is a guard that things happen behind, between a submission and its end.
type late struct {
	*front
	happens func()
}

func (l late) Submit(ctx context.Context, s guard.Submission) (guard.Outcome, error) {
	defer l.happens()
	return l.front.Submit(ctx, s)
}
