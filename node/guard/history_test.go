package guard

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"danm.io/danm/node/fake"
	"danm.io/danm/node/ledger"
	"danm.io/danm/spec/model"
)

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
