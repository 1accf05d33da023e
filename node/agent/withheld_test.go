package agent

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"danm.io/danm/node/devplugin"
	"danm.io/danm/node/guard"
	"danm.io/danm/node/plan"
	"danm.io/danm/spec/model"
)

// TestWithheld: what is withheld is told as such at once, and in all offers until it is lifted; what has been changed meanwhile is told then.
func TestWithheld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		l := card("ens1", 1, 3)
		must(t, n.k.AddLink(l))
		sysfs(t, n.dir, l)
		said, asked := "", 0
		n.a.withhold(map[string]string{"0000:01:02.0": "x"}) // to nobody
		n.a.lift()
		n.a.opts.Offer = func(r []devplugin.Resource) { said = text(r) }
		n.a.told = func(ctx context.Context) error { asked++; <-ctx.Done(); return ctx.Err() } // a kubelet that does not read
		n.a.vfFiles.sys.Root = n.dir
		st := bridgePlan(1400)
		st.Pools = []model.SRIOVPool{pool("a", "a", "ens1", 3, vfs(0, 1)), pool("b", "b", "ens1", 3, vfs(2, 2))}
		n.write("r1", st)
		n.a.withhold(map[string]string{"0000:01:02.0": "x"}) // before there is anything
		n.a.lift()
		n.run(30 * time.Second)
		says := func(want string) {
			t.Helper()
			if said != want {
				t.Errorf("%q, not %q", said, want)
			}
		}
		says("a: 01:02.0 01:02.1; b: 01:02.2")
		if asked != 0 {
			t.Errorf("it was waited %d times for nothing", asked)
		}
		began := time.Now()
		n.a.withhold(map[string]string{"0000:01:02.1": "a plan binds it to vfio-pci", "0000:01:02.2": "a plan makes it anew", "0000:09:02.2": "elsewhere"})
		says("a: 01:02.0 01:02.1(a plan binds it to vfio-pci); b: 01:02.2(a plan makes it anew)")
		if took := time.Since(began); took != time.Second || asked != 1 {
			t.Errorf("it took %s, asked %d times", took, asked)
		}
		l.NoCarrier = true
		must(t, n.k.DeleteLink("ens1"))
		must(t, n.k.AddLink(l))
		n.run(30 * time.Second)
		says("a: 01:02.0(its physical function ens1 has no carrier) 01:02.1(a plan binds it to vfio-pci); b: 01:02.2(a plan makes it anew)")
		n.a.lift()
		says("a: 01:02.0(its physical function ens1 has no carrier) 01:02.1(a plan binds it to vfio-pci); b: 01:02.2(a plan makes it anew)")
		l.NoCarrier = false
		must(t, n.k.DeleteLink("ens1"))
		must(t, n.k.AddLink(l))
		n.run(30 * time.Second)
		says("a: 01:02.0 01:02.1; b: 01:02.2")
	})
}

// TestNothingIsOfferedInAnothersWindow: an agent that starts while a plan is in its window offers devices when that is decided.
func TestNothingIsOfferedInAnothersWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		l := card("ens1", 1, 1)
		must(t, n.k.AddLink(l))
		sysfs(t, n.dir, l)
		st := bridgePlan(1400)
		st.Pools = []model.SRIOVPool{pool("a", "a", "ens1", 1)}
		n.write("r1", st)
		n.run(5 * time.Second)
		next := bridgePlan(1300)
		next.Pools = st.Pools
		out, err := n.g.Submit(t.Context(), guard.Submission{Desired: plan.Desired{Plan: next}, Digest: next.Digest(), ConfirmTimeout: 15 * time.Second})
		if err != nil || out.Confirmed {
			t.Fatalf("%+v %v", out, err)
		}
		n.start()
		said := ""
		n.a.opts.Offer = func(r []devplugin.Resource) { said = text(r) }
		n.a.vfFiles.sys.Root = n.dir
		n.run(10 * time.Second)
		if said != "" {
			t.Errorf("in the window: %q", said)
		}
		n.run(20 * time.Second)
		if said != "a: 01:02.0" {
			t.Errorf("after it: %q", said)
		}
	})
}
