package ipam

import (
	"net/netip"
	"os"
	"testing"
	"time"

	"danm.io/danm/spec/api/v1alpha1"
)

// R11: a journal from a backup knows of an older cession; the address went to another since.
func TestWhatALaterLifeCededIsNotTakenBack(t *testing.T) {
	_, _, a, single := cededTo(t)
	renamed(t, a, "older")
	if err := a.k.takeBack(ctx); err != nil {
		t.Fatal(err)
	}
	if got := a.k.Blocks()[0].Ceded; len(got) != 1 || got[0].UID != string(single.UID) || got[0].Node != "b" {
		t.Fatal(got)
	}
}

// R18: a Single that was made again and has not been answered yet still has its address.
func TestASingleMadeAgainIsNotGone(t *testing.T) {
	_, api, a, single := cededTo(t)
	renamed(t, a, "lost")
	single.Spec.Before, single.Status = "lost", v1alpha1.IPBlockStatus{}
	if err := a.k.takeBack(ctx); err != nil {
		t.Fatal(err)
	}
	if got := a.k.Blocks()[0].Ceded; len(got) != 1 || got[0].UID != string(single.UID) {
		t.Fatal(got)
	}
	delete(api.blocks, single.Name) // the positive control
	if err := a.k.takeBack(ctx); err != nil {
		t.Fatal(err)
	}
	if got := a.k.Blocks()[0].Ceded; len(got) != 0 {
		t.Fatal(got)
	}
}

// R18: nothing frozen thaws before the check, nor for a cooldown after it: what others had of it until then is hot.
func TestAfterTheCheckFrozenBlocksCool(t *testing.T) {
	c, api, n, ms := world(t, "10.0.0.0/28", 28, "a")
	a := ms[0]
	a.mustPod(n, dynamic)
	wiped(t, a)
	if err := a.k.suspect("a test says so"); err != nil {
		t.Fatal(err)
	}
	state := func() BlockState { return a.k.Blocks()[0].State }
	for range 3 {
		c.advance(time.Hour)
		a.mustRound()
		if state() != Frozen {
			t.Fatal("thawed before the check")
		}
	}
	l := must(apiOf{api, "a"}.Lease(ctx))
	if l.Annotations[AnnotationSuspectFrom] == "" {
		t.Fatal("nobody can tell which leases are from since")
	}
	a.accepted()
	c.advance(time.Hour)
	a.mustRound()
	if a.k.Meta().Suspect != "" || state() != Frozen {
		t.Fatal(a.k.Meta(), state())
	}
	c.advance(DefaultCooldown)
	a.mustRound()
	if state() != Owned {
		t.Fatal(state())
	}
	if l := must(apiOf{api, "a"}.Lease(ctx)); l.Annotations[AnnotationSuspectFrom] != "" {
		t.Fatal(l.Annotations)
	}
}

// What Pods have in a block that went to another is told, until they are gone.
func TestStraysAreTold(t *testing.T) {
	c, api, n, ms := world(t, "10.0.0.0/28", 28, "a")
	a := ms[0]
	sandbox, addr := a.mustPod(n, dynamic)
	if u := a.k.Usage(); len(u) != 1 || u[0].Stray != 0 {
		t.Fatal(u)
	}
	api.blocks[nameOf(a.k.Blocks()[0])].Spec.Owner = "b"
	c.advance(time.Hour)
	a.mustRound()
	if u := a.k.Usage(); len(u) != 1 || u[0].Stray != 1 || len(u[0].Strays) != 1 || u[0].Strays[0] != addr {
		t.Fatal(u)
	}
	if err := a.k.Release(ctx, sandbox); err != nil {
		t.Fatal(err)
	}
	for _, u := range a.k.Usage() {
		if u.Stray != 0 {
			t.Fatal(u)
		}
	}
}

func TestVersionsThatRunBackwardsAreSeen(t *testing.T) {
	for _, c := range []struct {
		version string
		before  uint64
		back    bool
	}{{"5", 10, true}, {"11", 10, false}, {"", 10, false}, {"5", 0, false}} {
		var v versions
		if v.wrote(c.version, c.before); v.back.Load() != c.back {
			t.Errorf("%+v", c)
		}
	}
}

// R18: what a node claimed last tells its next life how far the API had come, though its lease was written long before.
func TestAClaimRemembersTheVersion(t *testing.T) {
	c, api, n, ms := world(t, "10.0.0.0/26", 28, "a", "b")
	a, b := ms[0], ms[1]
	backup := map[string]*v1alpha1.IPBlock{}
	version := api.version
	for name, o := range api.blocks {
		backup[name] = o.DeepCopy()
	}
	b.mustPod(n, dynamic)
	a.mustPod(n, dynamic) // after the backup, as b's
	a.kill()
	mine := nameOf(a.k.Blocks()[0])
	backup[mine] = api.blocks[mine].DeepCopy() // not missing: the version alone shows it
	api.blocks, api.version = backup, version
	c.advance(time.Second)
	a.boot()
	a.mustRound()
	if a.k.Meta().Suspect == "" {
		t.Fatal("suspects nothing")
	}
}

// A check that was accepted is not forgotten at the next claim.
func TestAfterTheCheckClaimsGoOn(t *testing.T) {
	c, api, n, ms := world(t, "10.0.0.0/26", 28, "a")
	a := ms[0]
	backup, version := api.leases["a"].DeepCopy(), api.version
	for range 20 {
		c.advance(DefaultBlockLease / 72)
		a.mustRound()
	}
	api.leases["a"], api.version = backup, version // an etcd restore, seen at the next renewal
	c.advance(DefaultBlockLease / 72)
	a.mustRound()
	if a.k.Meta().Suspect == "" {
		t.Fatal("suspects nothing")
	}
	a.accepted()
	c.advance(DefaultBlockLease / 72)
	a.mustRound()
	a.mustPod(n, dynamic)
	if a.k.Meta().Suspect != "" {
		t.Fatal("suspects again")
	}
}

// A block given back since a snapshot of the disk is no sign of a restored API.
func TestASnapshotFromBeforeAReleaseRaisesNoAlarm(t *testing.T) {
	c, api, n, ms := world(t, "10.0.0.0/28", 28, "a")
	a := ms[0]
	sandbox, _ := a.mustPod(n, dynamic)
	a.kill()
	snapshot := t.TempDir()
	if err := os.CopyFS(snapshot, os.DirFS(a.dir)); err != nil {
		t.Fatal(err)
	}
	a.boot()
	a.mustRound()
	if err := a.k.Release(ctx, sandbox); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		c.advance(10 * time.Minute)
		a.mustRound()
	}
	if len(a.k.Blocks()) != 0 {
		t.Fatal(a.k.Blocks())
	}
	a.kill()
	a.dir = snapshot
	a.boot()
	a.mustRound()
	if m := a.k.Meta(); m.Suspect != "" || m.LostSince == 0 {
		t.Fatalf("%+v", m)
	}
	if err := a.k.Release(ctx, sandbox); err != nil { // the agent's own cleaning: the sandbox is gone
		t.Fatal(err)
	}
	for range 3 {
		c.advance(time.Hour)
		a.mustRound()
	}
	if len(a.k.Blocks()) != 0 || a.k.Meta().Suspect != "" {
		t.Fatal(a.k.Blocks(), a.k.Meta())
	}
	if len(api.blocks) != 1 { // the root
		t.Fatal(api.blocks)
	}
}

// R18: such a Single whose node then loses its journal is told of too: what Pods have of it nobody lists.
func TestAMadeAgainSingleIsToldOfWhenTheJournalIsLost(t *testing.T) {
	c, api, n, ms := world(t, "10.0.0.0/28", 28, "a", "b")
	a, b := ms[0], ms[1]
	a.mustPod(n, dynamic)
	stop := answering(ms)
	sandbox, _ := b.mustPod(n, static("10.0.0.9"))
	stop()
	s := spaceOfNetwork(n).object()
	delete(api.blocks, s.BlockName(netip.MustParsePrefix("10.0.0.9/32"))) // the backup has neither
	delete(api.blocks, s.BlockName(netip.MustParsePrefix("10.0.0.0/28")))
	c.advance(time.Hour)
	b.mustRound()
	wiped(t, b, sandbox)
	if u := b.k.Usage(); len(u) != 1 || u[0].Stray != 1 || u[0].Strays[0] != "10.0.0.9" {
		t.Fatalf("not told: %+v", u)
	}
	b.sandboxes = nil
	b.mustRound()
	c.advance(DefaultCooldown)
	b.mustRound()
	for _, u := range b.k.Usage() {
		if u.Stray != 0 {
			t.Fatalf("told for ever: %+v", u)
		}
	}
}

// A Single that was made again while nobody had the block around it is told of, and asked for as soon as somebody has.
func TestAMadeAgainSingleIsAskedForUntilItIsListed(t *testing.T) {
	c, api, n, ms := world(t, "10.0.0.0/28", 28, "a", "b")
	a, b := ms[0], ms[1]
	a.mustPod(n, dynamic)
	stop := answering(ms)
	b.mustPod(n, static("10.0.0.9"))
	stop()
	s := spaceOfNetwork(n).object()
	single, block := s.BlockName(netip.MustParsePrefix("10.0.0.9/32")), s.BlockName(netip.MustParsePrefix("10.0.0.0/28"))
	delete(api.blocks, single) // the backup has neither
	delete(api.blocks, block)
	c.advance(time.Hour)
	b.mustRound()
	if o := api.blocks[single]; o == nil || o.Spec.Asked != "" {
		t.Fatalf("%+v", o)
	}
	api.blocks[single].Status.Answer = v1alpha1.AnswerRefused // by the controller, who has no such block
	c.advance(time.Hour)
	b.mustRound()
	if u := b.k.Usage(); len(u) != 1 || u[0].Stray != 1 || u[0].Strays[0] != "10.0.0.9" {
		t.Fatalf("not told: %+v", u)
	}
	a.mustRound() // it makes its block again
	c.advance(time.Hour)
	b.mustRound()
	if o := api.blocks[single]; o.Spec.Asked != "a" || o.Status.Answer != "" {
		t.Fatalf("not asked for again: %+v", o)
	}
	a.mustRound()
	if o := api.blocks[block]; len(o.Spec.Ceded) != 1 || o.Spec.Ceded[0].UID != string(api.blocks[single].UID) {
		t.Fatalf("not listed: %+v", o.Spec.Ceded)
	}
	c.advance(time.Hour)
	b.mustRound()
	if u := b.k.Usage(); len(u) != 1 || u[0].Stray != 0 {
		t.Fatalf("%+v", u)
	}
}

// R18: etcd is restored once more while nodes wait. What was checked in between says nothing of the second time.
func TestASecondRestoreIsAnotherCheck(t *testing.T) {
	t.Run("of the same backup", func(t *testing.T) { secondRestore(t, false) })
	t.Run("of one from the wait, with versions that jump", func(t *testing.T) { secondRestore(t, true) })
}

func secondRestore(t *testing.T, ofTheWait bool) {
	c, api, _, ms := world(t, "10.0.0.0/26", 28, "a")
	a := ms[0]
	backup, version := api.leases["a"].DeepCopy(), api.version
	on := func(rounds int) {
		for range rounds {
			c.advance(DefaultBlockLease / 72)
			a.mustRound()
		}
	}
	told := func() (nonce, from string) {
		l := must(apiOf{api, "a"}.Lease(ctx))
		return l.Annotations[AnnotationSuspect], l.Annotations[AnnotationSuspectFrom]
	}
	on(20)
	api.leases["a"], api.version = backup.DeepCopy(), version
	on(3)
	first, from := told()
	if first == "" || from == "" {
		t.Fatal("suspects nothing")
	}
	if ofTheWait {
		backup = api.leases["a"].DeepCopy()
	}
	on(3)
	if again, since := told(); again != first || since != from {
		t.Fatalf("without a second restore: %s since %s, then %s since %s", first, from, again, since)
	}
	api.leases["a"] = backup.DeepCopy()
	if !ofTheWait {
		api.version = version
	}
	on(2)
	second, since := told()
	if second == "" || second == first || ofTheWait && since == from {
		t.Fatalf("%q since %q and then %q since %q", first, from, second, since)
	}
	if own := must(apiOf{api, "a"}.Lease(ctx)).ResourceVersion; versionOf(since) >= versionOf(own) {
		t.Fatalf("since %s, and its own lease of later is %s", since, own)
	}
	l := must(apiOf{api, "a"}.Lease(ctx))
	l.Annotations[AnnotationChecked] = first // the administrator looked before
	must(apiOf{api, "a"}.PutLease(ctx, l))
	on(2)
	if a.k.Meta().Suspect != second {
		t.Fatal("a check from before the second restore is taken for one from after")
	}
	a.accepted()
	on(2)
	if a.k.Meta().Suspect != "" {
		t.Fatal("waits for ever")
	}
}
