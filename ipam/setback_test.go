package ipam

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"danm.io/danm/spec/api/v1alpha1"
)

// Between a look at the own lease and a look at the Singles the API may be set back (R18): what is missing then is not taken back.
func TestNothingIsTakenBackOfARestoredAPI(t *testing.T) {
	c, api, n, ms := world(t, "10.0.0.0/28", 28, "a", "b")
	ms[0].mustPod(n, static("10.0.0.1"))
	backup := must(apiOf{api, "a"}.Lease(ctx)).DeepCopy()
	stop := answering(ms)
	ms[1].mustPod(n, static("10.0.0.2"))
	stop()
	c.advance(DefaultBlockLease / 72)
	ms[0].mustRound() // the lease is written, and was seen a moment ago
	c.advance(time.Second)
	ceded := func() int {
		for _, b := range ms[0].k.Blocks() {
			if !b.Single {
				return len(b.Ceded)
			}
		}
		return -1
	}
	name, lists := single(t, api).Name, 0
	api.before = func(call, _ string) error {
		if lists++; call == "list" && lists > 1 { // the first is of who asks
			delete(api.blocks, name)
			api.leases["a"] = backup
		}
		return nil
	}
	err := ms[0].round()
	api.before = nil
	if !errors.Is(err, ErrSuspect) || ceded() != 1 || ms[0].k.Meta().Suspect == "" {
		t.Fatalf("%v, %d ceded, suspect %q", err, ceded(), ms[0].k.Meta().Suspect)
	}
}

// A block that this life has given back, and that an API from a backup shows again, is not the claim that is under way (R18).
func TestWhatWasGivenBackIsNoClaim(t *testing.T) {
	for _, lost := range []bool{false, true} { // whether the claim's own answer is lost
		c, api, n, ms := world(t, "10.0.0.0/28", 28, "a", "b")
		a := ms[0]
		sandbox, _ := a.mustPod(n, dynamic)
		backup := must(apiOf{api, "a"}.Lease(ctx)).DeepCopy()
		var block *v1alpha1.IPBlock
		for _, o := range api.blocks {
			if o.Spec.Role == v1alpha1.RoleBlock {
				block = o.DeepCopy()
			}
		}
		if err := a.k.Release(ctx, sandbox); err != nil {
			t.Fatal(err)
		}
		c.advance(DefaultIdle*lastIdle + time.Hour)
		a.mustRound()
		c.advance(DefaultIdle * lastIdle)
		a.mustRound()
		if len(a.k.Blocks()) != 0 {
			t.Fatal(a.k.Blocks())
		}
		c.advance(time.Second)
		restored := false
		api.before = func(call, _ string) error {
			if call != "create" || restored {
				return nil
			}
			restored = true
			api.blocks[block.Name], api.leases["a"] = block, backup
			if lost {
				return errLost
			}
			return nil
		}
		_, got, err := a.pod(n, dynamic)
		if err == nil || !lost && !errors.Is(err, ErrSuspect) {
			t.Fatalf("lost %v: %q, %v", lost, got, err)
		}
		_ = a.round()
		for _, b := range a.k.Blocks() {
			if b.State == Owned {
				t.Fatalf("lost %v: %v", lost, b)
			}
		}
		if a.k.Meta().Suspect == "" {
			t.Fatalf("lost %v: it claims on", lost)
		}
	}
}

// A node whose journal was lost does not use what the API says was its own while others wait for a check (R18); what it has had before
// and made again does not wait.
func TestALostJournalWaitsWithTheOthers(t *testing.T) {
	c, api, n, ms := world(t, "10.0.0.0/26", 28, "a", "b")
	a := ms[0]
	a.mustPod(n, dynamic)
	old := a.k.Blocks()[0]
	a.kill()
	a.dir = t.TempDir()
	a.boot()
	root := api.blocks[spaceOfNetwork(n).object().RootName()]
	root.Annotations = map[string]string{v1alpha1.AnnotationWaiting: "2000-01-01T00:00:00Z"}
	state := func() BlockState {
		b, _ := a.k.blockAt(placed{old.Space, old.CIDR})
		return b.State
	}
	for range 4 {
		_ = a.round()
		c.advance(DefaultCooldown)
	}
	if state() != Frozen {
		t.Fatalf("thawed while others wait: %v", state())
	}
	root.Annotations = nil
	for range 3 {
		c.advance(DefaultCooldown)
		a.mustRound()
	}
	if state() != Owned {
		t.Fatalf("not thawed: %v", state())
	}
	// What a node with a memory makes again is not held up by what the root says.
	stop := answering(ms)
	ms[1].mustPod(n, static(old.CIDR.Addr().Next().Next().String()))
	stop()
	root.Annotations = map[string]string{v1alpha1.AnnotationWaiting: "2000-01-01T00:00:00Z"}
	delete(api.blocks, single(t, api).Name)
	c.advance(DefaultBlockLease / 72)
	_ = ms[1].round()
	if o := single(t, api); o.Spec.Before == "" || o.Spec.Owner != "b" {
		t.Fatalf("%+v", o.Spec)
	}
}

func TestAfterAnEtcdRestoreClaimsWait(t *testing.T) {
	c, api, n, ms := world(t, "10.0.0.0/26", 28, "a", "b")
	a, b := ms[0], ms[1]
	backup := map[string]*v1alpha1.IPBlock{}
	for k, v := range api.blocks {
		backup[k] = v.DeepCopy()
	}
	version := api.version
	a.mustPod(n, dynamic)
	b.mustPod(n, dynamic)
	c.advance(time.Hour)
	a.mustRound()
	b.mustRound()
	api.blocks, api.version = backup, version // leases are as they were: the backup was made just after a renewal
	c.advance(time.Hour)
	for _, m := range ms {
		m.mustRound()
		m.mustRound()
		if m.k.Meta().Suspect == "" {
			t.Fatalf("%s suspects nothing", m.name)
		}
		if _, err := api.Block(ctx, nameOf(m.k.Blocks()[0])); err != nil {
			t.Fatalf("%s did not make its block again: %v", m.name, err)
		}
		m.mustPod(n, dynamic) // from its own block
	}
	var err error
	for range 20 {
		_, _, err = a.pod(n, dynamic)
	}
	if !errors.Is(err, ErrSuspect) {
		t.Fatalf("a claim: %v", err)
	}
	a.accepted()
	c.advance(time.Hour)
	a.mustRound()
	a.mustPod(n, dynamic)
}

func TestASingleThatWasMadeAgainStaysCeded(t *testing.T) {
	c, api, n, ms := world(t, "10.0.0.0/28", 28, "a", "b")
	a, b := ms[0], ms[1]
	a.mustPod(n, dynamic)
	stop := answering(ms)
	b.mustPod(n, static("10.0.0.9"))
	stop()
	single := spaceOfNetwork(n).object().BlockName(netip.MustParsePrefix("10.0.0.9/32"))
	old := api.blocks[single].UID
	delete(api.blocks, single) // the backup was made before
	c.advance(time.Hour)
	b.mustRound()
	again := must(api.Block(ctx, single))
	if again.UID == old {
		t.Fatal("not made again")
	}
	for range 5 {
		c.advance(time.Minute)
		a.mustRound()
	}
	blocks := a.k.Blocks()
	if len(blocks[0].Ceded) != 1 || blocks[0].Ceded[0].UID != string(again.UID) {
		t.Fatalf("ceded %v, the Single is %s", blocks[0].Ceded, again.UID)
	}
	for range 20 {
		if _, got, _ := a.pod(n, dynamic); got == "10.0.0.9" {
			t.Fatal("the owner gave it out")
		}
	}
}

func TestAClaimAsksTheOwnLeaseFirst(t *testing.T) {
	c, api, n, ms := world(t, "10.0.0.0/26", 30, "a")
	a := ms[0]
	backup := api.leases["a"].DeepCopy()
	c.advance(DefaultBlockLease / 72)
	a.mustRound() // renewed after the backup
	api.leases["a"] = backup
	api.version += 1_000_000
	c.advance(time.Minute)
	if _, _, err := a.pod(n, dynamic); !errors.Is(err, ErrSuspect) {
		t.Fatal(err)
	}
	if len(a.k.Blocks()) != 0 {
		t.Fatal(a.k.Blocks())
	}
}
