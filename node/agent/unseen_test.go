package agent

import (
	"testing"
	"testing/synctest"
	"time"

	"danm.io/danm/node/devplugin"
	"danm.io/danm/node/plan"
	"danm.io/danm/spec/model"
)

// TestACardThatDoesNotTell: its devices stay on the list, unhealthy, also through many rounds; those of other cards are as they are, and of one
// that is gone there are none.
func TestACardThatDoesNotTell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.a.vfFiles.sys.Root = n.dir
		said := ""
		n.a.opts.Offer = func(r []devplugin.Resource) { said = text(r) }
		cards := []plan.ObservedLink{card("ens1", 1, 2), card("ens2", 2, 1)}
		for _, l := range cards {
			must(t, n.k.AddLink(l))
			sysfs(t, n.dir, l)
		}
		st := bridgePlan(1400)
		st.Pools = []model.SRIOVPool{pool("a", "a", "ens1", 2), pool("b", "b", "ens2", 1), pool("c", "c", "ens9", 1)}
		n.write("r1", st)
		is := func(l plan.ObservedLink, want string) {
			t.Helper()
			must(t, n.k.DeleteLink(l.Name))
			must(t, n.k.AddLink(l))
			n.run(time.Minute)
			if said != want {
				t.Errorf("%q, not %q", said, want)
			}
		}
		is(cards[0], "a: 01:02.0 01:02.1; b: 02:02.0; c:")
		silent := cards[0]
		silent.SRIOV = &plan.ObservedPF{Unseen: "no answer"}
		const why = "(its physical function ens1 does not tell of it: no answer)"
		is(silent, "a: 01:02.0"+why+" 01:02.1"+why+"; b: 02:02.0; c:")
		is(cards[0], "a: 01:02.0 01:02.1; b: 02:02.0; c:")
		gone := cards[0]
		gone.SRIOV = nil
		is(gone, "a:; b: 02:02.0; c:")
	})
}
