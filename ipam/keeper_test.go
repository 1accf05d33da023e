package ipam

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/spec/model"
)

func TestTheFirstPodClaimsABlockAndTheNextNeedNoAPI(t *testing.T) {
	_, api, n, ms := world(t, "10.0.0.0/24", 28, "a")
	seen := map[string]bool{}
	_, first := ms[0].mustPod(n, dynamic)
	seen[first] = true
	api.away = errors.New("away")
	for range 12 { // at least 13 usable addresses a block, wherever it is
		_, a := ms[0].mustPod(n, dynamic)
		if seen[a] {
			t.Fatalf("%s twice", a)
		}
		seen[a] = true
	}
	if b := ms[0].k.Blocks(); len(b) != 1 || b[0].State != Owned || b[0].CIDR.Bits() != 28 {
		t.Fatalf("blocks %v", b)
	}
}

// Two nodes, no block left over: every address of the space finds its Pod, be it borrowed.
func TestAsManyAddressesAsPods(t *testing.T) {
	for _, bits := range []int32{32, 30, 28, 26} {
		_, api, n, ms := world(t, "10.0.0.0/26", bits, "a", "b", "c")
		root := spaceOfNetwork(n).object().RootName()
		seen := map[string]bool{}
		stop := answering(ms)
		for i := range 62 {
			m := ms[i*7%3]
			_, a, err := m.pod(n, dynamic)
			for deadline := time.Now().Add(time.Minute); err != nil && time.Now().Before(deadline); { // on a busy machine an answer may come too late
				for _, other := range ms { // who no longer waits gives the address back
					_ = other.round()
				}
				offer(api, root, ms)
				_, a, err = m.pod(n, dynamic)
			}
			if err != nil {
				t.Fatalf("/%d: Pod %d of 62: %v", bits, i, err)
			}
			if seen[a] {
				t.Fatalf("/%d: %s twice", bits, a)
			}
			seen[a] = true
		}
		if _, _, err := ms[0].pod(n, dynamic); !errors.Is(err, ErrExhausted) && !errors.Is(err, ErrOwner) {
			t.Fatalf("/%d: the 63rd Pod: %v", bits, err)
		}
		stop()
	}
}

// offer does what the controller does: it gathers what nodes report.
func offer(api *fakeAPI, root string, ms []*machine) {
	var offers []v1alpha1.IPOffer
	for _, m := range ms {
		for _, u := range m.k.Usage() {
			for _, a := range u.Offers {
				offers = append(offers, v1alpha1.IPOffer{Address: a, Owner: m.name})
			}
		}
	}
	o := must(api.Block(ctx, root))
	o.Status.Offers = offers
	must(api.UpdateStatus(ctx, o))
	for _, m := range ms { // so that hints are read again
		m.k.mu.Lock()
		clear(m.k.roots)
		m.k.mu.Unlock()
	}
}

// answering lets every node answer what it is asked for until stop. Until then who asks waits for as long as a busy machine may take.
func answering(ms []*machine) (stop func()) {
	for _, m := range ms {
		m.k.o.AskWait = time.Minute
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			for _, m := range ms {
				_ = m.k.answerAsked(ctx)
			}
			time.Sleep(time.Millisecond)
		}
	}()
	return func() {
		cancel()
		<-done
		for _, m := range ms {
			m.k.o.AskWait = askWait
		}
	}
}

func TestStaticOfAnotherNodeIsCededAndComesBackCool(t *testing.T) {
	c, api, n, ms := world(t, "10.0.0.0/28", 28, "a", "b")
	a, b := ms[0], ms[1]
	_, first := a.mustPod(n, dynamic)
	stop := answering(ms)
	if _, _, err := b.pod(n, static(first)); !errors.Is(err, ErrOwner) || !strings.Contains(err.Error(), "node a") {
		t.Fatalf("an address in use: %v", err)
	}
	sandbox, got := b.mustPod(n, static("10.0.0.9"))
	stop()
	if got != "10.0.0.9" {
		t.Fatal(got)
	}
	for range 20 { // a never gives it out
		if _, addr, _ := a.pod(n, dynamic); addr == "10.0.0.9" {
			t.Fatal("the owner gave a ceded address out")
		}
	}
	if _, _, err := a.pod(n, static("10.0.0.9")); !errors.Is(err, ErrOwner) {
		t.Fatalf("the owner's own static wish: %v", err)
	}
	if err := b.k.Release(ctx, sandbox); err != nil {
		t.Fatal(err)
	}
	b.mustRound()
	if _, err := api.Block(ctx, spaceOfNetwork(n).object().BlockName(netip.MustParsePrefix("10.0.0.9/32"))); err != nil {
		t.Fatalf("given back while it cools: %v", err)
	}
	c.advance(DefaultCooldown + time.Second)
	b.mustRound()
	c.advance(time.Minute)
	b.mustRound()
	a.mustRound()
	blocks := a.k.Blocks()
	if len(blocks[0].Ceded) != 0 {
		t.Fatalf("still ceded: %v", blocks)
	}
	if o := must(api.Block(ctx, nameOf(blocks[0]))); len(o.Spec.Ceded) != 0 {
		t.Fatalf("the object still lists %v", o.Spec.Ceded)
	}
	if !a.k.st.spaces[blocks[0].Space].space.Cooling(netip.MustParseAddr("10.0.0.9"), c.now().UnixNano()-int64(DefaultCooldown)) {
		t.Fatal("it came back hot")
	}
}

func TestWithoutAnAnswerTheErrorNamesTheOwner(t *testing.T) {
	_, api, n, ms := world(t, "10.0.0.0/28", 28, "a", "b")
	ms[0].mustPod(n, dynamic)
	_, _, err := ms[1].pod(n, static("10.0.0.9"))
	if !errors.Is(err, ErrOwner) || !strings.Contains(err.Error(), "node a") || !strings.Contains(err.Error(), "did not answer") {
		t.Fatal(err)
	}
	ms[1].mustRound()
	if _, err := api.Block(ctx, spaceOfNetwork(n).object().BlockName(netip.MustParsePrefix("10.0.0.9/32"))); err == nil {
		t.Fatal("the question stays")
	}
	stop := answering(ms)
	defer stop()
	if _, got := ms[1].mustPod(n, static("10.0.0.9")); got != "10.0.0.9" { // positive control
		t.Fatal(got)
	}
}

// Trace 3: the journal is wiped while Pods live.
// Trace 2: a disk restored from a snapshot.
// Rule R13: without the API a node goes on for half a block lease, by a clock that it can trust.
func TestWithoutTheAPIANodeStopsInTime(t *testing.T) {
	c, api, n, ms := world(t, "10.0.0.0/24", 26, "a")
	a := ms[0]
	a.mustPod(n, dynamic)
	api.away = errors.New("away")
	c.advance(DefaultBlockLease/2 - time.Minute)
	a.mustPod(n, dynamic)
	a.kill()
	a.boot()
	_ = a.round()
	a.mustPod(n, dynamic) // a reboot does not change it
	c.advance(2 * time.Minute)
	if _, _, err := a.pod(n, dynamic); !errors.Is(err, ErrLease) {
		t.Fatalf("after half a lease: %v", err)
	}
	a.kill()
	a.boot()
	_ = a.round()
	if _, _, err := a.pod(n, dynamic); !errors.Is(err, ErrLease) {
		t.Fatalf("after half a lease and a reboot: %v", err)
	}
	a.kill()
	c.advance(-time.Hour * 24)
	a.boot()
	_ = a.round()
	if _, _, err := a.pod(n, dynamic); !errors.Is(err, ErrLease) {
		t.Fatalf("with a clock behind the journal: %v", err)
	}
	c.advance(time.Hour * 24)
	api.away = nil
	a.mustRound()
	a.mustPod(n, dynamic)
}

// The same Pod's new sandbox keeps its address even then: it is live already.
func TestASandboxRestartNeedsNoLease(t *testing.T) {
	c, api, n, ms := world(t, "10.0.0.0/24", 26, "a")
	a := ms[0]
	in := intent("s1", "u1", want("eth0", n, dynamic, noneMode))
	in.Claimed = true
	first := only(t, must(a.k.Acquire(ctx, in)), nil)
	api.away = errors.New("away")
	c.advance(DefaultBlockLease)
	in.Sandbox = "s2"
	if got := only(t, must(a.k.Acquire(ctx, in)), nil); got != first {
		t.Fatalf("%s, then %s", first, got)
	}
	if err := a.k.Release(ctx, "s1"); err != nil { // trace 1
		t.Fatal(err)
	}
	if _, err := a.k.Lookup("s2"); err != nil {
		t.Fatal("a late DEL of the old sandbox freed the new one's address")
	}
}

// Trace 4: the DELETE times out, a read still shows the block.
func TestReleasingIsOneWay(t *testing.T) {
	c, api, n, ms := world(t, "10.0.0.0/28", 28, "a")
	a := ms[0]
	sandbox, _ := a.mustPod(n, dynamic)
	if err := a.k.Release(ctx, sandbox); err != nil {
		t.Fatal(err)
	}
	api.before = func(call, _ string) error {
		if call == "delete" {
			return errors.New("timeout")
		}
		return nil
	}
	a.mustRound() // sees it in use or cooling
	c.advance(DefaultIdle * lastIdle * 2)
	if err := a.round(); err == nil {
		t.Fatal("no error although the DELETE timed out")
	}
	if _, _, err := a.pod(n, dynamic); err == nil {
		t.Fatal("an address of a block that is being released")
	}
	api.before = nil
	a.mustRound()
	if len(a.k.Blocks()) != 0 {
		t.Fatal(a.k.Blocks())
	}
	a.mustPod(n, dynamic) // claimed anew
}

// Trace 5: nothing goes back hot.
func TestNothingGoesBackWhileItCools(t *testing.T) {
	c, _, n, ms := world(t, "10.0.0.0/28", 28, "a")
	a := ms[0]
	c.advance(24 * time.Hour)
	a.mustRound()
	sandbox, _ := a.mustPod(n, dynamic)
	c.advance(24 * time.Hour)
	a.mustRound()
	if err := a.k.Release(ctx, sandbox); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		a.mustRound()
		if b := a.k.Blocks(); len(b) != 1 || b[0].State != Owned {
			t.Fatal(b)
		}
		c.advance(DefaultCooldown / 11)
	}
	c.advance(DefaultIdle*lastIdle + time.Minute)
	a.mustRound()
	if b := a.k.Blocks(); len(b) != 0 {
		t.Fatal(b)
	}
}

// Rule R5: whatever became of the creation, the block is neither lost nor taken for granted.
func TestAClaimWithoutAnAnswerIsSettled(t *testing.T) {
	for _, made := range []bool{false, true} {
		for _, killed := range []bool{false, true} {
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
			if b := a.k.Blocks(); len(b) != 1 || b[0].State != Claiming {
				t.Fatal(b)
			}
			if killed {
				a.kill()
				a.boot()
			}
			a.mustRound()
			b := a.k.Blocks()
			if made && (len(b) != 1 || b[0].State != Owned) || !made && (len(b) != 1 || b[0].State != Claiming) {
				t.Fatalf("made %v, killed %v: %v", made, killed, b)
			}
			c.advance(unsureFor + time.Second)
			a.mustRound()
			a.mustPod(n, dynamic)
		}
	}
}

// Spaces (trace 7): two networks with disjoint pools on one space share what is taken.
func TestNetworksOnOneSpaceShareIt(t *testing.T) {
	_, _, n, ms := world(t, "10.0.0.0/26", 32, "a")
	low, high := n, n
	low.IPv4, high.IPv4 = &model.Subnet{CIDR: n.IPv4.CIDR, Pools: pool("10.0.0.2", "10.0.0.20")}, &model.Subnet{CIDR: n.IPv4.CIDR, Pools: pool("10.0.0.55", "10.0.0.55")}
	high.Name = "high"
	ms[0].mustPod(low, static("10.0.0.55"))
	if _, got, err := ms[0].pod(high, dynamic); err == nil {
		t.Fatalf("%s twice", got)
	}
}

func TestWithoutARootNobodyClaims(t *testing.T) {
	c := newClock()
	api := newFakeAPI(c)
	m := newMachine(t, api, c, "a")
	m.mustRound()
	if _, _, err := m.pod(network("net", "10.0.0.0/26", ""), dynamic); !errors.Is(err, ErrNoRoot) {
		t.Fatal(err)
	}
	if len(m.k.Blocks()) != 0 {
		t.Fatal(m.k.Blocks())
	}
}

// A claim whose fate a lost journal does not tell is frozen when it turns up, thaws like any other, and is forgotten if it
// never does.
// What the controller freed of another machine's is no sign of a restored API.
// A Single from before a lost journal is not given up while a Pod has it.
// After a restore of the API a Single is made again with another UID: its owner must not take the address for returned.
// With versions that jump ahead only the own lease tells of a restore, and it is asked before each claim.
// A clock that was ahead when the blocks were claimed, and is right since the last boot, keeps none of them for ever.
