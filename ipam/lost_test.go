package ipam

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"danm.io/danm/spec/api/v1alpha1"
)

func TestAWipedJournalFreezesWhatItDoesNotKnow(t *testing.T) {
	c, api, n, ms := world(t, "10.0.0.0/26", 28, "a")
	a := ms[0]
	live, first := a.mustPod(n, dynamic)
	old := a.k.Blocks()[0]
	a.kill()
	a.dir, a.sandboxes = t.TempDir(), []string{live, "other"}
	a.boot()
	if _, _, err := a.pod(n, dynamic); err == nil {
		t.Fatal("an address before the API was asked")
	}
	a.mustRound()
	for range 30 {
		if _, got, _ := a.pod(n, dynamic); got != "" && old.CIDR.Contains(netip.MustParseAddr(got)) {
			t.Fatalf("%s from the frozen block %s (live: %s)", got, old.CIDR, first)
		}
	}
	if err := a.k.Release(ctx, live); err != nil { // the late DEL of a Pod that the journal does not know
		t.Fatal(err)
	}
	a.sandboxes = []string{live}
	a.mustRound()
	c.advance(time.Hour)
	a.mustRound()
	if b, _ := a.k.blockAt(placed{old.Space, old.CIDR}); b.State != Frozen {
		t.Fatalf("thawed while a sandbox lives: %v", b)
	}
	a.sandboxes = nil
	a.mustRound()
	a.mustRound()
	if b, _ := a.k.blockAt(placed{old.Space, old.CIDR}); b.State != Frozen {
		t.Fatalf("thawed without a cooldown: %v", b)
	}
	c.advance(DefaultCooldown)
	a.mustRound()
	if b, _ := a.k.blockAt(placed{old.Space, old.CIDR}); b.State != Owned {
		t.Fatalf("not thawed: %v", b)
	}
	if got := must(api.Block(ctx, nameOf(old))); got.Spec.Epoch != a.k.Meta().Epoch {
		t.Fatalf("epoch %d", got.Spec.Epoch)
	}
}

func TestARestoredDiskIsALostJournal(t *testing.T) {
	for _, restarts := range []int{0, 1} {
		c, _, n, ms := world(t, "10.0.0.0/26", 28, "a")
		a := ms[0]
		a.mustPod(n, dynamic)
		a.kill()
		snapshot := t.TempDir()
		if err := os.CopyFS(snapshot, os.DirFS(a.dir)); err != nil {
			t.Fatal(err)
		}
		a.boot()
		for range restarts {
			c.advance(time.Minute)
			a.mustRound()
			a.kill()
			a.boot()
		}
		c.advance(time.Hour) // a renewal later
		a.mustRound()
		live, _ := a.mustPod(n, dynamic)
		a.kill()
		a.dir, a.sandboxes = snapshot, []string{live}
		c.advance(time.Minute)
		a.boot()
		a.mustRound()
		if m := a.k.Meta(); m.LostSince == 0 || !slices.Contains(m.Lost, live) {
			t.Fatalf("%d restarts: not lost: %+v", restarts, m)
		}
		for _, b := range a.k.Blocks() {
			if b.State == Owned {
				t.Fatalf("%d restarts: %v is owned", restarts, b)
			}
		}
	}
}

func TestAnHonestRestartLosesNothing(t *testing.T) {
	c, api, n, ms := world(t, "10.0.0.0/26", 28, "a")
	a := ms[0]
	sandbox, addr := a.mustPod(n, dynamic)
	for i := range 6 {
		switch i % 3 {
		case 0:
			a.kill()
		case 1: // between the lease and the journal
			api.after = func(call, _ string) error {
				if call == "put" {
					return errors.New("connection lost")
				}
				return nil
			}
			c.advance(time.Hour)
			if a.round() == nil {
				t.Fatal("the answer was not lost")
			}
			api.after = nil
			a.kill()
		case 2:
			c.advance(time.Hour)
			a.mustRound()
			a.kill()
		}
		c.advance(time.Minute)
		a.boot()
		a.mustRound()
		if m := a.k.Meta(); m.LostSince != 0 || m.Suspect != "" {
			t.Fatalf("restart %d: %+v", i, m)
		}
	}
	if r := must(a.k.Lookup(sandbox)); r.Holds[0].Addr.String() != addr {
		t.Fatal(r)
	}
	if _, err := api.Block(ctx, nameOf(a.k.Blocks()[0])); err != nil {
		t.Fatal(err)
	}
}

func TestAnotherLifeEndsThisOne(t *testing.T) {
	c, api, n, ms := world(t, "10.0.0.0/26", 28, "a")
	a := ms[0]
	a.mustPod(n, dynamic)
	clone := &machine{t: t, clock: c, api: api, name: "a", dir: t.TempDir()}
	clone.boot()
	clone.mustRound()
	c.advance(time.Hour)
	if err := a.round(); !errors.Is(err, ErrLease) {
		t.Fatal(err)
	}
	if _, _, err := a.pod(n, dynamic); !errors.Is(err, ErrLease) {
		t.Fatal(err)
	}
	if clone.k.Meta().LostSince == 0 {
		t.Fatal("the clone believes that nothing was given out before")
	}
}

func TestAJournalOfAnotherMachineIsLost(t *testing.T) {
	_, api, n, ms := world(t, "10.0.0.0/26", 28, "a")
	a := ms[0]
	a.mustPod(n, dynamic)
	a.kill()
	api.ids["a"] = "machine-new/uid-2"
	a.boot()
	a.mustRound()
	if b := a.k.Blocks(); len(b) != 1 || b[0].State != Frozen {
		t.Fatal(b)
	}
	a.clock.advance(time.Hour)
	a.mustRound()
	a.mustRound()
	if b := a.k.Blocks(); len(b) != 1 || b[0].State != Frozen { // what lives on the other machine is not seen from here
		t.Fatal(b)
	}
}

func TestANewNodeObjectOfTheSameMachineKeepsItsBlocks(t *testing.T) {
	c, api, n, ms := world(t, "10.0.0.0/26", 28, "a")
	a := ms[0]
	a.mustPod(n, dynamic)
	api.ids["a"] = "machine-a/uid-2"
	c.advance(time.Hour)
	a.mustRound()
	b := a.k.Blocks()[0]
	if o := must(api.Block(ctx, nameOf(b))); b.State != Owned || o.Spec.Identity != "machine-a/uid-2" {
		t.Fatal(b, o.Spec)
	}
	a.mustPod(n, dynamic)
}

func TestAClaimOfALostJournalThaws(t *testing.T) {
	for _, made := range []bool{false, true} {
		c, api, n, ms := world(t, "10.0.0.0/28", 28, "a")
		a := ms[0]
		fault := func(call, _ string) error {
			if call == "create" {
				return errors.New("connection lost")
			}
			return nil
		}
		if made {
			api.after = fault
		} else {
			api.before = fault
		}
		if _, _, err := a.pod(n, dynamic); err == nil {
			t.Fatal("no error")
		}
		api.before, api.after = nil, nil
		a.kill()
		snapshot := t.TempDir()
		if err := os.CopyFS(snapshot, os.DirFS(a.dir)); err != nil {
			t.Fatal(err)
		}
		a.boot() // a life that the snapshot does not know
		a.mustRound()
		a.kill()
		a.dir, a.sandboxes = snapshot, []string{"x"}
		a.boot()
		a.mustRound()
		if m := a.k.Meta(); m.LostSince == 0 || m.Suspect != "" {
			t.Fatalf("made %v: %+v", made, m)
		}
		if b := a.k.Blocks(); made && (len(b) != 1 || b[0].State != Frozen || b[0].UID == "") || !made && (len(b) != 1 || b[0].State != Frozen || b[0].UID != "") {
			t.Fatalf("made %v: %v", made, b)
		}
		if u := a.k.Usage(); !made && (len(u) != 1 || u[0].Stray != 1 || u[0].Strays[0] != a.k.Blocks()[0].CIDR.String()) {
			t.Fatalf("not told of the block: %+v", u)
		}
		a.sandboxes = nil
		a.mustRound()
		c.advance(DefaultCooldown)
		a.mustRound()
		if b := a.k.Blocks(); made && (len(b) != 1 || b[0].State != Owned) {
			t.Fatalf("made %v: %v", made, b)
		}
	}
}

func TestAForeignBlockThatWasFreedIsForgotten(t *testing.T) {
	c, api, n, ms := world(t, "10.0.0.0/26", 28, "a")
	a := ms[0]
	a.mustPod(n, dynamic)
	a.kill()
	a.dir = t.TempDir()
	api.ids["a"] = "machine-new/uid-2"
	a.boot()
	a.mustRound()
	b := a.k.Blocks()
	if len(b) != 1 || !b[0].Foreign {
		t.Fatal(b)
	}
	delete(api.blocks, nameOf(b[0]))
	c.advance(time.Hour)
	a.mustRound()
	if m := a.k.Meta(); m.Suspect != "" || len(a.k.Blocks()) != 0 {
		t.Fatal(m, a.k.Blocks())
	}
}

func TestAFrozenSingleStaysWhileAPodHasIt(t *testing.T) {
	c, api, n, ms := world(t, "10.0.0.0/28", 28, "a", "b")
	a, b := ms[0], ms[1]
	a.mustPod(n, dynamic)
	stop := answering(ms)
	sandbox, _ := b.mustPod(n, static("10.0.0.9"))
	stop()
	b.kill()
	snapshot := t.TempDir()
	if err := os.CopyFS(snapshot, os.DirFS(b.dir)); err != nil {
		t.Fatal(err)
	}
	b.boot()
	b.mustRound()
	b.kill()
	b.dir = snapshot
	single := spaceOfNetwork(n).object().BlockName(netip.MustParsePrefix("10.0.0.9/32"))
	o := must(api.Block(ctx, single))
	o.Status = v1alpha1.IPBlockStatus{} // whoever answered may have been lost before it said so
	must(api.UpdateStatus(ctx, o))
	b.boot()
	b.mustRound()
	for range 3 {
		c.advance(time.Hour)
		b.mustRound()
	}
	if _, err := api.Block(ctx, single); err != nil {
		t.Fatal("a Pod's address was given back: ", err)
	}
	if err := b.k.Release(ctx, sandbox); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		c.advance(time.Hour)
		b.mustRound()
	}
	if _, err := api.Block(ctx, single); err == nil {
		t.Fatal("it never goes back")
	}
}

func TestABlockFromAheadOfTimeGoesBack(t *testing.T) {
	c, _, n, ms := world(t, "10.0.0.0/26", 30, "a")
	a := ms[0]
	c.advance(100 * 24 * time.Hour)
	a.mustRound()
	sandbox, _ := a.mustPod(n, dynamic)
	a.kill()
	c.advance(-100 * 24 * time.Hour)
	a.boot()
	a.mustRound()
	if err := a.k.Release(ctx, sandbox); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		c.advance(10 * time.Minute)
		a.mustRound()
	}
	if left := a.k.Blocks(); len(left) != 0 {
		t.Fatal(left)
	}
}
