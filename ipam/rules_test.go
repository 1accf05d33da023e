package ipam

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"danm.io/danm/spec/api/v1alpha1"
)

// Each of these tests dies with one rule of docs/ipam.md, which the wider ones of keeper_test.go may do without.

func TestJudgeStart(t *testing.T) {
	const id = "machine/uid"
	lease := func(epoch int32, renewed int64) *coordinationv1.Lease {
		holder, at := id, metav1.NewMicroTime(time.Unix(0, renewed))
		return &coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseTransitions: &epoch, RenewTime: &at}}
	}
	m := Meta{Node: "a", Identity: id, Epoch: 5, Raising: 5, Renewed: 9000, Renewing: 9000}
	for _, c := range []struct {
		name          string
		m             Meta
		identity      string
		lease         *coordinationv1.Lease
		lost, suspect bool
		raise         int64
	}{
		{"as it was", m, id, lease(5, 9000), false, false, 6},
		{"an older life in the API", m, id, lease(3, 9000), false, true, 6},
		{"no lease, and there was one", m, id, nil, false, true, 6},
		{"a later life in the API", m, id, lease(7, 9000), true, false, 8},
		{"renewed later than the journal knows", m, id, lease(5, 99_000), true, false, 6},
		{"another machine's journal", m, "other/uid", lease(5, 9000), true, false, 6},
		{"the Node made anew", m, "machine/uid-2", lease(5, 9000), false, false, 6},
		{"nothing known, and a lease", Meta{}, id, lease(5, 9000), true, false, 6},
		{"nothing known, and none", Meta{}, id, nil, false, false, 1},
	} {
		v := judgeStart(c.m, "a", c.identity, c.lease)
		if v.lost != c.lost || v.suspect != c.suspect || v.raise != c.raise {
			t.Errorf("%s: %+v", c.name, v)
		}
	}
}

func TestAdopted(t *testing.T) {
	at := placed{Space{Domain: "edge", ID: 1, CIDR: netip.MustParsePrefix("10.0.0.0/24")}, netip.MustParsePrefix("10.0.0.0/28")}
	object := func(uid, identity string, ceded ...v1alpha1.IPCession) v1alpha1.IPBlock {
		return v1alpha1.IPBlock{ObjectMeta: metav1.ObjectMeta{UID: types.UID(uid)}, Spec: v1alpha1.IPBlockSpec{Role: v1alpha1.RoleBlock, Identity: identity, Ceded: ceded}}
	}
	mine := Meta{Identity: "m/u", LostSince: 1}
	frozen := Block{Space: at.space, CIDR: at.cidr, State: Frozen, UID: "1"}
	owned := Block{Space: at.space, CIDR: at.cidr, State: Owned, UID: "1"}
	for _, c := range []struct {
		name   string
		have   Block
		known  bool
		o      v1alpha1.IPBlock
		m      Meta
		want   Block
		freeze bool
	}{
		{"not known", Block{}, false, object("2", "m/u"), mine, Block{Space: at.space, CIDR: at.cidr, State: Frozen, UID: "2"}, true},
		{"not known, another machine's", Block{}, false, object("2", "x/u"), mine, Block{Space: at.space, CIDR: at.cidr, State: Frozen, UID: "2", Foreign: true}, true},
		{"made again by somebody", owned, true, object("2", "m/u"), mine, Block{Space: at.space, CIDR: at.cidr, State: Frozen, UID: "2"}, true},
		{"frozen, and another machine's in a backup", frozen, true, object("2", "x/u"), mine, Block{Space: at.space, CIDR: at.cidr, State: Frozen}, false},
		{"the same again", Block{Space: at.space, CIDR: at.cidr, State: Frozen}, true, object("2", "x/u"), mine, Block{Space: at.space, CIDR: at.cidr, State: Frozen}, false},
		{"made again, and its answer lost", owned, true, func() v1alpha1.IPBlock { o := object("2", "m/u"); o.Spec.Before = "1"; return o }(), mine, Block{Space: at.space, CIDR: at.cidr, State: Owned, UID: "2"}, false},
		{"when the loss is over", frozen, true, object("1", "x/u"), Meta{Identity: "m/u"}, Block{Space: at.space, CIDR: at.cidr, State: Frozen, UID: "1", Foreign: true}, false},
		{"a claim that came through", Block{Space: at.space, CIDR: at.cidr, State: Claiming}, true, object("2", "m/u"), mine, Block{Space: at.space, CIDR: at.cidr, State: Owned, UID: "2"}, false},
		{"not while suspect", Block{Space: at.space, CIDR: at.cidr, State: Claiming}, true, object("2", "m/u"), Meta{Identity: "m/u", Suspect: "x"}, Block{Space: at.space, CIDR: at.cidr, State: Claiming}, false},
	} {
		got, freeze := adopted(c.have, c.known, at, c.o, c.m)
		if !sameBlock(got, c.want) || freeze != c.freeze {
			t.Errorf("%s: %+v %v", c.name, got, freeze)
		}
	}
	got, _ := adopted(owned, true, at, object("1", "m/u", v1alpha1.IPCession{Address: "10.0.0.3", UID: "s", Node: "b"}), mine)
	if len(got.Ceded) != 1 || got.Ceded[0].UID != "s" {
		t.Errorf("what the API says to be ceded: %+v", got.Ceded)
	}
}

// ceding asks a Keeper for an address inside a transaction.
func ceding(t *testing.T, k *Keeper, s Space, addr, uid, node, before string) (refusal string) {
	t.Helper()
	a := netip.MustParseAddr(addr)
	err := k.change(func(e *edit) error {
		var b Block
		if b, refusal = e.cede(s, a, Cession{Addr: a, UID: uid, Node: node}, before); refusal == "" {
			return e.set(b)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return refusal
}

func TestCede(t *testing.T) {
	_, _, n, ms := world(t, "10.0.0.0/28", 28, "a")
	k, s := ms[0].k, spaceOfNetwork(n)
	ms[0].mustPod(n, static("10.0.0.1"))
	gone, _ := ms[0].mustPod(n, static("10.0.0.2"))
	if err := k.Release(ctx, gone); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, addr, uid, node, before string
		ok                            bool
	}{
		{"free", "10.0.0.5", "x", "b", "", true},
		{"asked for again", "10.0.0.5", "x", "b", "", true},
		{"by another Single of the same node", "10.0.0.5", "y", "b", "", false},
		{"by one that takes another's place", "10.0.0.5", "y", "c", "w", false},
		{"by the one that takes its place, from wherever it went", "10.0.0.5", "y", "c", "x", true},
		{"held", "10.0.0.1", "x", "b", "", false},
		{"held, and asked for by one made again", "10.0.0.1", "x", "b", "w", false},
		{"cooling", "10.0.0.2", "x", "b", "", false},
		{"cooling, of one that says it was made again", "10.0.0.2", "x", "b", "w", false},
		{"the network's", "10.0.0.0", "x", "b", "", false},
		{"out of every block", "10.1.0.0", "x", "b", "", false},
	} {
		if refusal := ceding(t, k, s, c.addr, c.uid, c.node, c.before); (refusal == "") != c.ok {
			t.Errorf("%s: %q", c.name, refusal)
		}
	}
}

// R13: a journal that says "go on" is not enough before the API was asked, or asked in vain.
func TestBeforeTheAPIWasAskedNothingIsGiven(t *testing.T) {
	_, api, n, ms := world(t, "10.0.0.0/28", 28, "a")
	a := ms[0]
	a.mustPod(n, dynamic)
	a.kill()
	api.away = errors.New("away")
	a.boot()
	if _, _, err := a.pod(n, dynamic); !errors.Is(err, ErrLease) {
		t.Fatal(err)
	}
	_ = a.round()
	a.mustPod(n, dynamic)
}

func wiped(t *testing.T, a *machine, sandboxes ...string) {
	t.Helper()
	a.kill()
	a.dir, a.sandboxes = t.TempDir(), sandboxes
	a.boot()
	a.mustRound()
}

// R6: an object of this node that no list showed yet is not taken for a claim that was just made.
func TestAClaimOfAnEarlierLifeIsFrozen(t *testing.T) {
	_, api, n, ms := world(t, "10.0.0.0/28", 28, "a")
	a := ms[0]
	a.mustPod(n, dynamic)
	o := a.k.object(Block{Space: spaceOfNetwork(n), CIDR: netip.MustParsePrefix("10.0.0.0/28")})
	if len(a.k.Blocks()) != 1 || o.Spec.Epoch != 1 {
		t.Fatal(a.k.Blocks(), o.Spec.Epoch)
	}
	for _, wrong := range []func(*v1alpha1.IPBlock){func(o *v1alpha1.IPBlock) { o.Spec.Epoch = 0 }, func(o *v1alpha1.IPBlock) { o.Spec.Identity = "machine-a/uid-0" }} {
		_, api, n, ms = world(t, "10.0.0.0/28", 28, "a")
		a, late := ms[0], o.DeepCopy()
		wrong(late)
		must(api.Create(ctx, late))
		if _, _, err := a.pod(n, dynamic); err == nil {
			t.Fatal("an address of it was given out")
		}
		if b := a.k.Blocks(); len(b) != 1 || b[0].State != Frozen {
			t.Fatal(b)
		}
	}
}

// cededTo has one address of a's only block ceded to b.
func cededTo(t *testing.T) (c *clock, api *fakeAPI, a *machine, single *v1alpha1.IPBlock) {
	t.Helper()
	c, api, n, ms := world(t, "10.0.0.0/28", 28, "a", "b")
	a = ms[0]
	a.mustPod(n, dynamic)
	stop := answering(ms)
	ms[1].mustPod(n, static("10.0.0.9"))
	stop()
	return c, api, a, api.blocks[spaceOfNetwork(n).object().BlockName(netip.MustParsePrefix("10.0.0.9/32"))]
}

func renamed(t *testing.T, a *machine, uid string) {
	t.Helper()
	err := a.k.change(func(e *edit) error {
		b := e.s.st.allBlocks()[0]
		b.Ceded = []Cession{{Addr: b.Ceded[0].Addr, UID: uid, Node: "c"}}
		return e.set(b)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// R7: what turns out to be another machine's while it thaws stays frozen.
func TestThawLooksWhoseItIs(t *testing.T) {
	c, api, n, ms := world(t, "10.0.0.0/28", 28, "a")
	a := ms[0]
	a.mustPod(n, dynamic)
	wiped(t, a)
	name := nameOf(a.k.Blocks()[0])
	api.blocks[name].Spec.Identity = "other/uid-1"
	c.advance(DefaultCooldown)
	a.mustRound()
	if b := a.k.Blocks(); len(b) != 1 || b[0].State != Frozen || api.blocks[name].Spec.Identity != "other/uid-1" {
		t.Fatal(b, api.blocks[name].Spec.Identity)
	}
}

// R8, R9: between the look and the transaction somebody may take an address, or be ceded one.
func TestABlockInUseByNowStays(t *testing.T) {
	_, _, n, ms := world(t, "10.0.0.0/28", 28, "a")
	k, s := ms[0].k, spaceOfNetwork(n)
	sandbox, _ := ms[0].mustPod(n, dynamic)
	b := k.Blocks()[0]
	stays := func(why string) {
		t.Helper()
		if went, err := k.beginRelease(b); went || err != nil {
			t.Fatalf("%s: %v %v", why, went, err)
		}
	}
	stays("a Pod has an address")
	if err := k.Release(ctx, sandbox); err != nil {
		t.Fatal(err)
	}
	stays("it cools")
	ms[0].clock.advance(DefaultCooldown)
	if refusal := ceding(t, k, s, "10.0.0.9", "x", "b", ""); refusal != "" {
		t.Fatal(refusal)
	}
	stays("one is ceded")
	if err := k.uncede(ctx, k.Blocks()[0], []string{"x"}, nil); err != nil {
		t.Fatal(err)
	}
	stays("what came back cools")
	ms[0].clock.advance(DefaultCooldown)
	if went, err := k.beginRelease(b); !went || err != nil { // the positive control
		t.Fatal(went, err)
	}
}

// Two static Pods of one unclaimed block at once: the slower reads a block of its own node, which the faster has just claimed.
func TestAnOwnClaimOfAMomentAgoIsNotFrozen(t *testing.T) {
	_, api, n, ms := world(t, "10.0.0.0/28", 28, "a")
	a := ms[0]
	first := true
	api.before = func(call, name string) error {
		if call == "get" && first && name != spaceOfNetwork(n).object().RootName() {
			first = false
			api.mu.Unlock()
			defer api.mu.Lock()
			if _, _, err := a.pod(n, static("10.0.0.3")); err != nil {
				t.Error(err)
			}
		}
		return nil
	}
	a.mustPod(n, static("10.0.0.4"))
	if b := a.k.Blocks(); len(b) != 1 || b[0].State != Owned {
		t.Fatal(b)
	}
}

// A burst of many on blocks of one address: everybody gets one.
func TestABurstOnSmallBlocks(t *testing.T) {
	_, _, n, ms := world(t, "10.0.0.0/25", 32, "a")
	atOnce(ms[0], n, 120)
}

// What is no block of its space is not taken into the journal, whoever wrote it.
func TestAnObjectOutOfItsSpaceIsLeftAlone(t *testing.T) {
	c, api, n, ms := world(t, "10.0.0.0/28", 28, "a")
	a := ms[0]
	o := a.k.object(Block{Space: spaceOfNetwork(n), CIDR: netip.MustParsePrefix("192.168.0.0/28")})
	must(api.Create(ctx, o))
	c.advance(time.Hour)
	a.mustRound()
	if b := a.k.Blocks(); len(b) != 0 {
		t.Fatal(b)
	}
	a.kill()
	a.boot()
	a.mustRound()
}
