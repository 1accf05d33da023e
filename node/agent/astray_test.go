package agent

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"danm.io/danm/node/devplugin"
	"danm.io/danm/node/plan"
	"danm.io/danm/node/podresources"
	"danm.io/danm/node/sriov"
	"danm.io/danm/spec/model"
)

// TestAstray: a function that is away and that nobody has is offered as long as it may be on its way, then not until it is back or somebody
// has it; each absence has its own time.
func TestAstray(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const lost = "a: 01:02.0(it is in another network namespace, and no Pod known here has it: end what holds it there, or move it back)"
		l, stray := card("ens1", 1, 1), &astray{}
		st := model.NodeState{Plan: model.NodePlan{Pools: []model.SRIOVPool{pool("a", "a", "ens1", 1)}}}
		away := errors.New("the kubelet does not answer")
		for i, c := range []struct {
			after  time.Duration
			away   bool
			has    given
			want   string
			unseen bool  // a round in which nobody looks is before it
			err    error // the kubelet's
		}{
			{after: 0, away: true, has: nil, want: "a: 01:02.0"},
			{after: astrayAfter - time.Second, away: true, has: nil, want: "a: 01:02.0"},
			{after: 0, away: false, has: nil, want: "a: 01:02.0"},
			{after: time.Minute, away: true, has: nil, want: "a: 01:02.0"}, // on its way anew
			{after: astrayAfter - time.Second, away: true, has: nil, want: "a: 01:02.0"},
			{after: time.Second, away: true, has: nil, want: lost},
			{after: time.Second, away: true, has: given{"0000:01:02.0": {{Pod: "x/y", Resource: "danm.io/a"}}}, want: "a: 01:02.0"},
			{after: time.Hour, away: true, has: nil, want: "a: 01:02.0"},
			{after: astrayAfter, away: true, has: nil, want: lost},
			{after: 0, want: "a: 01:02.0"},
			{after: 0, away: true, want: "a: 01:02.0"},
			{after: astrayAfter, away: true, unseen: true, want: "a: 01:02.0"}, // it may have been back
			{after: astrayAfter, away: true, want: lost},
			{after: 0, away: true, err: away, want: "a: 01:02.0"}, // of Pods that others attach the kubelet alone knows
			{after: astrayAfter, away: true, err: away, want: "a: 01:02.0"},
			{after: 0, away: true, want: "a: 01:02.0"},
			{after: astrayAfter, away: true, err: podresources.ErrNone, want: lost},
			{after: 0, away: true, has: given{"0000:01:02.0": {{Pod: "container c, which is gone,"}}}, want: "a: 01:02.0(container c, which is gone, has it still)"},
		} {
			time.Sleep(c.after)
			if c.unseen {
				stray.forget()
			}
			stray.asked(c.err)
			vf := &l.SRIOV.VFs[0]
			if vf.Link, vf.Away = "ens1v0", c.away; c.away {
				vf.Link = ""
			}
			got := text(offered(st, plan.Observed{Links: []plan.ObservedLink{l}}, func(plan.ObservedVF) (sriov.Function, error) { return sriov.Function{}, nil }, stray, func() given { return c.has }))
			if stray.forget(); got != c.want {
				t.Errorf("%d: %s", i, got)
			}
		}
	})
}

// TestAstrayInRounds: rounds say it of a function when nobody has had it for long, as far as that is known; while no pool has it, no time passes.
func TestAstrayInRounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		l := card("ens1", 1, 2)
		l.SRIOV.VFs[0].Link, l.SRIOV.VFs[0].Away = "", true
		must(t, n.k.AddLink(l))
		sysfs(t, n.dir, l)
		said, hangs := "", atomic.Bool{}
		n.a.opts.Offer = func(r []devplugin.Resource) { said = text(r) }
		n.a.vfFiles.sys.Root = n.dir
		n.a.holders = newHolders(func(context.Context) (given, error) {
			if hangs.Load() {
				return nil, errors.New("the kubelet hangs")
			}
			return given{}, nil
		})
		ctx, end := context.WithCancel(t.Context())
		defer end()
		go n.a.holders.run(ctx)
		confirm := func(rev string, p ...model.SRIOVPool) {
			t.Helper()
			st := bridgePlan(1400)
			st.Pools = p
			n.write(rev, st, probes("gw"))
			if n.run(5 * time.Second); n.revision() != rev {
				t.Fatal(n.revision())
			}
		}
		after := func(pass time.Duration, astray bool) {
			t.Helper()
			if n.run(pass); strings.Contains(said, "no Pod known here has it") != astray || !strings.HasSuffix(said, "01:02.1") {
				t.Errorf("after %s: %q", pass, said)
			}
		}
		one := pool("a", "a", "ens1", 2)
		confirm("r1", one)
		after(astrayAfter-30*time.Second, false)
		after(time.Minute, true)
		hangs.Store(true)
		after(time.Minute, false)
		after(2*astrayAfter, false)
		hangs.Store(false)
		after(astrayAfter-time.Minute, false)
		after(2*time.Minute, true)
		confirm("r2")
		n.run(2 * astrayAfter)
		confirm("r3", one)
		after(time.Minute, false)
		after(astrayAfter, true)
	})
}
