package ipam

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"danm.io/danm/ipam/alloc"
)

func TestALostJournalWaitsBeforeItClaims(t *testing.T) {
	c, _, n, ms := world(t, "10.0.0.0/26", 28, "a")
	a := ms[0]
	a.mustPod(n, dynamic)
	wiped(t, a, "x")
	if _, _, err := a.pod(n, dynamic); !errors.Is(err, ErrBack) {
		t.Fatal(err)
	}
	c.advance(DefaultBackWait)
	a.mustPod(n, dynamic)
}

// R18: who was away while etcd was set back need not see it. Its next claim waits until those who do see it have made their blocks
// again; what it has it gives out at once.
func TestWhoComesBackWaitsBeforeItClaims(t *testing.T) {
	for name, back := range map[string]func(*machine){
		"a start":         func(a *machine) { a.kill(); a.boot(); a.mustRound() },
		"a long absence":  func(a *machine) { a.k.Doubt(outage); a.mustRound() },
		"a short absence": func(a *machine) { a.k.Doubt(outage - 1); a.mustRound() },
	} {
		t.Run(name, func(t *testing.T) {
			c, _, n, ms := world(t, "10.0.0.0/26", 28, "a")
			a := ms[0]
			a.mustPod(n, dynamic)
			back(a)
			a.mustPod(n, dynamic)
			var err error
			for range 17 { // more than its block has
				if _, _, err = a.pod(n, dynamic); err != nil {
					break
				}
			}
			if waits := name != "a short absence"; errors.Is(err, ErrBack) != waits || !waits && err != nil {
				t.Fatal(err)
			}
			c.advance(DefaultBackWait)
			a.mustPod(n, dynamic)
		})
	}
}

// An ADD in a space that is full costs few writes, and the next one none; what the controller says to be free is claimed at once.
func TestAFullSpaceIsNotSearchedByEveryPod(t *testing.T) {
	c, api, n, ms := world(t, "10.0.0.0/26", 28, "a", "b")
	a, b := ms[0], ms[1]
	var theirs []string
	for range 62 {
		sandbox, _ := b.mustPod(n, dynamic)
		theirs = append(theirs, sandbox)
	}
	creates := func() (made int) {
		api.before = func(call, _ string) error {
			if call == "create" {
				made++
			}
			return nil
		}
		defer func() { api.before = nil }()
		if _, _, err := a.pod(n, dynamic); !errors.Is(err, ErrExhausted) {
			t.Fatal(err)
		}
		return made
	}
	if made := creates(); made != 4 {
		t.Fatalf("%d creations to find 4 blocks taken", made)
	}
	if made := creates(); made != 0 {
		t.Fatalf("%d creations a moment later", made)
	}
	c.advance(takenFor)
	if made := creates(); made != 4 {
		t.Fatalf("%d creations when it may have changed", made)
	}
	for _, s := range theirs {
		if err := b.k.Release(ctx, s); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		c.advance(70 * time.Minute)
		b.mustRound()
	}
	if len(b.k.Blocks()) != 0 {
		t.Fatal(b.k.Blocks())
	}
	for p := range (alloc.Cut{CIDR: spaceOfNetwork(n).CIDR, Bits: 28}).Blocks(*n.IPv4, nil, 0) { // found taken just now
		a.k.taken[placed{spaceOfNetwork(n), p}] = a.k.o.Boottime()
	}
	if _, _, err := a.pod(n, dynamic); !errors.Is(err, ErrExhausted) {
		t.Fatal(err)
	}
	api.blocks[spaceOfNetwork(n).object().RootName()].Status.Free = []string{"10.0.0.16-10.0.0.31"}
	c.advance(hintsFresh)
	if _, got, err := a.pod(n, dynamic); err != nil || !netip.MustParsePrefix("10.0.0.16/28").Contains(netip.MustParseAddr(got)) {
		t.Fatal(got, err)
	}
	c.advance(takenFor)
	if a.mustRound(); len(a.k.taken) != 0 {
		t.Fatal(a.k.taken)
	}
}

// Many blocks that go do not hold up who waits for an answer, and ones that stay do not hold up the others.
func TestManyBlocksGoInTurns(t *testing.T) {
	_, api, n, ms := world(t, "10.0.0.0/20", 28, "a")
	a := ms[0]
	const most = 150
	for i := range most {
		at := placed{spaceOfNetwork(n), netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i / 16), byte(i % 16 * 16)}), 28)}
		if ok, err := a.k.claim(ctx, at.space, at.cidr); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	stuck := map[string]bool{}
	for i, b := range a.k.allBlocks() {
		if went, err := a.k.beginRelease(b); !went || err != nil {
			t.Fatal(went, err)
		}
		if i < finishMost { // somebody else's finalizer
			stuck[nameOf(b)] = true
			api.blocks[nameOf(b)].Finalizers = append(api.blocks[nameOf(b)].Finalizers, "example.com/other")
		}
	}
	poked := func() bool {
		select {
		case <-a.k.poke:
			return true
		default:
			return false
		}
	}
	poked()
	deletes := 0
	api.before = func(call, _ string) error {
		if call == "delete" {
			deletes++
		}
		return nil
	}
	a.mustRound()
	if deletes != finishMost || poked() {
		t.Fatalf("%d deletions in the first round; nothing went, and the next comes at once", deletes)
	}
	a.mustRound()
	if !poked() {
		t.Fatal("much went, and the rest waits")
	}
	for range 4 {
		a.mustRound()
	}
	for _, b := range a.k.Blocks() {
		if !stuck[nameOf(b)] {
			t.Fatalf("%v is left", b)
		}
	}
	if len(a.k.Blocks()) != finishMost {
		t.Fatal(len(a.k.Blocks()))
	}
}

// A Single that a Pod has needs no look every few seconds; one that nobody has does.
func TestABorrowedAddressInUseIsNoWork(t *testing.T) {
	_, _, n, ms := world(t, "10.0.0.0/28", 28, "a", "b")
	ms[0].mustPod(n, dynamic)
	a := ms[1]
	stop := answering(ms)
	sandbox, _ := a.mustPod(n, static("10.0.0.9"))
	stop()
	if a.k.pending() {
		t.Fatal("looks every ten seconds for as long as a Pod lives")
	}
	select {
	case <-a.k.poke:
	default:
	}
	if err := a.k.Release(ctx, sandbox); err != nil {
		t.Fatal(err)
	}
	select {
	case <-a.k.poke:
	default:
		t.Fatal("nobody looks when the Pod has gone")
	}
	if !a.k.pending() {
		t.Fatal("it never goes back")
	}
}
