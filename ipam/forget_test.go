package ipam

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"
)

// A start that finds the journal to be another's, and cannot write its lease, finds the same at its next try: in one process, and
// in the next. The API of the clone may be another cluster's, with lower versions.
func TestALossIsNotForgottenBeforeTheLeaseIsWritten(t *testing.T) {
	for _, restart := range []bool{false, true} {
		c, _, n, ms := world(t, "10.0.0.0/26", 28, "a")
		a := ms[0]
		live, _ := a.mustPod(n, dynamic)
		for range 5 {
			c.advance(DefaultBlockLease / 72)
			a.mustRound()
		}
		a.kill()
		other := newFakeAPI(c)
		other.version = 5
		openSpace(other, n, 28)
		b := &machine{t: t, clock: c, api: other, name: "b", dir: a.dir, sandboxes: []string{live}}
		other.ids["b"] = "machine-b/uid-1"
		b.boot()
		other.before = func(call, _ string) error {
			if call == "put" {
				return errors.New("connection refused")
			}
			return nil
		}
		if b.round() == nil {
			t.Fatal("the lease was written")
		}
		if restart {
			b.kill()
			b.boot()
		}
		other.before = nil
		b.mustRound()
		if m := b.k.Meta(); m.Suspect != "" || m.LostSince == 0 || !slices.Contains(m.Lost, live) {
			t.Fatalf("restart %v: %+v", restart, m)
		}
		if _, _, err := b.pod(n, dynamic); !errors.Is(err, ErrBack) {
			t.Fatalf("restart %v: claims at once: %v", restart, err)
		}
		c.advance(DefaultBackWait)
		b.mustPod(n, dynamic)
	}
}

// A node that waits for a check, and loses its journal, waits on: its lease tells. So does a clone of one that waits.
func TestALostJournalDoesNotEndTheWait(t *testing.T) {
	for _, clone := range []bool{false, true} {
		c, api, n, ms := world(t, "10.0.0.0/26", 28, "a")
		a := ms[0]
		if err := a.k.suspect("a test says so"); err != nil {
			t.Fatal(err)
		}
		a.mustRound()
		nonce := a.k.Meta().Suspect
		a.kill()
		b := &machine{t: t, clock: c, api: api, name: "a", dir: t.TempDir()}
		if clone {
			b.name, b.dir = "b", a.dir
			api.ids["b"] = "machine-b/uid-1"
		}
		b.boot()
		b.mustRound()
		c.advance(time.Hour)
		if _, _, err := b.pod(n, dynamic); !errors.Is(err, ErrSuspect) || b.k.Meta().Suspect != nonce {
			t.Fatalf("clone %v: claims: %v", clone, err)
		}
		b.mustRound()
		b.accepted()
		c.advance(DefaultBlockLease / 72)
		b.mustRound()
		b.mustPod(n, dynamic)
	}
}

// What an agent asked for when it was killed goes back with the next one's first rounds: whether it had heard of its object or not.
func TestWhatADeadCallAskedForGoesBack(t *testing.T) {
	for _, heard := range []bool{true, false} {
		c, api, n, ms := world(t, "10.0.0.0/28", 28, "a", "b")
		a, b := ms[0], ms[1]
		_, addr := a.mustPod(n, dynamic)
		theirs := netip.MustParseAddr(addr).Next()
		api.after = func(call, name string) error {
			if call == "create" && !heard {
				return errors.New("connection lost")
			}
			return nil
		}
		if _, _, err := b.pod(n, static(theirs.String())); err == nil { // a does not answer in time
			t.Fatal("nobody was asked")
		}
		api.after = nil
		if heard { // as if it had been killed before it gave up
			err := b.k.change(func(e *edit) error {
				now, ok := e.block(spaceOfNetwork(n), singlePrefix(theirs))
				if !ok {
					t.Error("the journal does not know what was asked for")
				}
				now.State = Asked
				return e.set(now)
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		b.kill()
		c.advance(time.Second)
		b.boot()
		b.mustRound()
		if len(b.k.Blocks()) != 0 || len(api.blocks) != 2 {
			t.Fatalf("heard %v: left %v, and %d objects", heard, b.k.Blocks(), len(api.blocks))
		}
	}
}
