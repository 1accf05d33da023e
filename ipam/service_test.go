package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"danm.io/danm/ipam/alloc"
	"danm.io/danm/spec/model"
)

func TestStaticAddresses(t *testing.T) {
	s := service(t, newClock())
	n := network("voice", "10.0.0.0/24", "fd00::/64")
	n.IPv4.Pools = pool("10.0.0.100", "10.0.0.110")
	n.IPv4.Exclude = pool("10.0.0.20", "10.0.0.29")
	n.IPv4.Gateway = netip.MustParseAddr("10.0.0.1")
	flat := network("l2", "", "")
	for i, c := range []struct {
		ip, ip6 model.AddressRequest
		n       model.Network
		want    error
		grants  string
	}{
		{static("10.0.0.5"), noneMode, n, nil, "[{[10.0.0.5/24]}]"}, // outside the pool
		{static("10.0.0.25"), noneMode, n, nil, "[{[10.0.0.25/24]}]"},
		{static("10.0.0.1"), noneMode, n, nil, "[{[10.0.0.1/24]}]"}, // the gateway itself may be a Pod
		{static("::ffff:10.0.0.6"), noneMode, n, nil, "[{[10.0.0.6/24]}]"},
		{static("10.0.0.7"), static("fd00::7"), n, nil, "[{[10.0.0.7/24 fd00::7/64]}]"},
		{noneMode, dynamic, n, nil, "[{[fd00::1/64]}]"},
		{dynamic, dynamic, n, nil, "[{[10.0.0.100/24 fd00::2/64]}]"},
		{noneMode, model.AddressRequest{}, n, nil, "[{[]}]"},
		{noneMode, noneMode, flat, nil, "[{[]}]"},
		{static("10.0.0.5"), noneMode, n, ErrTaken, ""},
		{noneMode, static("fd00::7"), n, ErrTaken, ""},
		{static("10.0.1.5"), noneMode, n, ErrOutside, ""},
		{static("fd00::9"), noneMode, n, ErrOutside, ""},
		{noneMode, static("fd01::9"), n, ErrOutside, ""},
		{noneMode, static("fd00::9%eth0"), n, ErrOutside, ""},
		{static("10.0.0.0"), noneMode, n, ErrReserved, ""},
		{static("10.0.0.255"), noneMode, n, ErrReserved, ""},
		{noneMode, static("fd00::"), n, ErrReserved, ""},
		{static("10.0.0.5"), noneMode, flat, ErrL2, ""},
		{noneMode, dynamic, flat, ErrL2, ""},
		{model.AddressRequest{Mode: model.AddressStatic}, noneMode, n, ErrIntent, ""},
		{model.AddressRequest{Mode: "sticky"}, noneMode, n, ErrIntent, ""},
	} {
		sandbox := fmt.Sprint("S", i)
		g, err := s.Acquire(ctx, intent(sandbox, sandbox, want("eth0", c.n, c.ip, c.ip6)))
		if !errors.Is(err, c.want) || (c.want == nil) != (err == nil) {
			t.Errorf("row %d: %v, want %v", i, err, c.want)
		} else if err == nil && fmt.Sprint(g) != c.grants {
			t.Errorf("row %d: %v, want %v", i, g, c.grants)
		}
		if _, err := s.Lookup(sandbox); (err == nil) != (c.want == nil) {
			t.Errorf("row %d: record: %v", i, err)
		}
	}
	in := intent("Z", "Z", want("eth0", n, static("10.0.0.40"), noneMode))
	in.Slot, in.Slots = 0, 3
	other := network("other", "10.9.0.0/24", "")
	in.Wants[0].Network = other
	in.Wants[0].IP = static("10.9.0.40") // blocks of 16: number 2
	_, err := s.Acquire(ctx, in)
	if e := (*alloc.NotOursError)(nil); !errors.As(err, &e) || !errors.Is(err, ErrNotOurs) || e.Owner != 2 {
		t.Errorf("an address of slot 2 asked at slot 0: %v", err)
	}
}

func TestBadIntents(t *testing.T) {
	s := service(t, newClock())
	n := network("voice", "10.0.0.0/24", "")
	unmasked := network("bad", "10.0.0.7/24", "")
	for name, in := range map[string]Intent{
		"no sandbox": intent("", "U", want("eth0", n, dynamic, noneMode)),
		"no UID":     intent("S", "", want("eth0", n, dynamic, noneMode)),
		"no ifname":  intent("S", "U", want("", n, dynamic, noneMode)),
		"same name":  intent("S", "U", want("eth0", n, dynamic, noneMode), want("eth0", n, dynamic, noneMode)),
		"huge record": {Sandbox: "S", PodUID: "U", Record: func([]Grant) ([]byte, error) {
			return make([]byte, maxData+1), nil
		}},
	} {
		if _, err := s.Acquire(ctx, in); !errors.Is(err, ErrIntent) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.Acquire(ctx, intent("S", "U", want("eth0", unmasked, dynamic, noneMode))); !errors.Is(err, ErrBlockGeometry) {
		t.Errorf("CIDR with host bits: %v", err)
	}
	gone, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := s.Acquire(gone, intent("S", "U", want("eth0", n, dynamic, noneMode))); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if list := must(s.List()); len(list) != 0 {
		t.Errorf("failed requests left %v", list)
	}
}

// All interfaces or none: what an earlier interface took is free again, at once and without a cooldown, when a later one
// gets nothing or the record cannot be made.
func TestAllOrNothing(t *testing.T) {
	s := service(t, newClock())
	n, tiny := network("voice", "10.0.0.0/24", ""), network("tiny", "10.1.0.0/30", "")
	must(s.Acquire(ctx, intent("S0", "U0", want("eth0", tiny, static("10.1.0.1"), noneMode))))
	bad := intent("S1", "U1", want("eth0", n, dynamic, noneMode), want("eth1", tiny, static("10.1.0.1"), noneMode))
	if _, err := s.Acquire(ctx, bad); !errors.Is(err, ErrTaken) {
		t.Fatal(err)
	}
	bad = intent("S2", "U2", want("eth0", n, dynamic, noneMode), want("eth1", tiny, dynamic, noneMode))
	bad.Record = func([]Grant) ([]byte, error) { return nil, errInjected }
	if _, err := s.Acquire(ctx, bad); !errors.Is(err, errInjected) {
		t.Fatal(err)
	}
	g := must(s.Acquire(ctx, intent("S3", "U3", want("eth0", n, dynamic, noneMode), want("eth1", tiny, dynamic, noneMode))))
	if fmt.Sprint(g) != "[{[10.0.0.1/24]} {[10.1.0.2/30]}]" {
		t.Errorf("got %v: the failed requests left something", g)
	}
}

func TestWishesOfOneIntentDoNotCollide(t *testing.T) {
	s := service(t, newClock())
	n := network("voice", "10.0.0.0/29", "")
	g := must(s.Acquire(ctx, intent("S1", "U",
		want("eth0", n, dynamic, noneMode), want("eth1", n, static("10.0.0.1"), noneMode), want("eth2", n, dynamic, noneMode))))
	if fmt.Sprint(g) != "[{[10.0.0.2/29]} {[10.0.0.1/29]} {[10.0.0.3/29]}]" {
		t.Errorf("got %v", g)
	}
	// The interfaces swap places; what is asked for by number goes there, eth2 keeps its own.
	g = must(s.Acquire(ctx, intent("S2", "U",
		want("eth0", n, static("10.0.0.1"), noneMode), want("eth1", n, static("10.0.0.2"), noneMode), want("eth2", n, dynamic, noneMode))))
	if fmt.Sprint(g) != "[{[10.0.0.1/29]} {[10.0.0.2/29]} {[10.0.0.3/29]}]" {
		t.Errorf("got %v", g)
	}
	g = must(s.Acquire(ctx, intent("S3", "U", want("eth2", n, dynamic, noneMode))))
	if r := must(s.LookupPod("U")); fmt.Sprint(g) != "[{[10.0.0.3/29]}]" || len(r.Holds) != 1 {
		t.Errorf("got %v, holds %v", g, r.Holds)
	}
}

func TestEvictFailureFailsTheAdd(t *testing.T) {
	s := service(t, newClock())
	n := network("voice", "10.0.0.0/24", "")
	must(s.Acquire(ctx, intent("S1", "U", want("eth0", n, dynamic, noneMode))))
	in := intent("S2", "U", want("eth0", n, dynamic, noneMode))
	in.Evict = func(context.Context, Record) error { return errInjected }
	if _, err := s.Acquire(ctx, in); !errors.Is(err, errInjected) {
		t.Errorf("got %v", err)
	}
	if r := must(s.LookupPod("U")); r.Sandbox != "S1" || len(r.Holds) != 1 {
		t.Errorf("the record moved: %+v", r)
	}
}

// Between eviction and commit the older record may be replaced: the newer one must be evicted too.
func TestEvictedAgainIfTheRecordChanged(t *testing.T) {
	s := service(t, newClock())
	n := network("voice", "10.0.0.0/24", "")
	must(s.Acquire(ctx, intent("S1", "U", want("eth0", n, dynamic, noneMode))))
	in := intent("S3", "U", want("eth0", n, dynamic, noneMode))
	var evicted []string
	in.Evict = func(_ context.Context, old Record) error {
		if evicted = append(evicted, old.Sandbox); len(evicted) <= 2 {
			must(s.Acquire(ctx, intent("S2", "U", want("eth0", n, dynamic, noneMode)))) // the second time S2 itself anew
		}
		return nil
	}
	must(s.Acquire(ctx, in))
	if !slices.Equal(evicted, []string{"S1", "S2", "S2"}) {
		t.Errorf("evicted %v", evicted)
	}
}

func TestCooldownIsStrict(t *testing.T) {
	c := newClock()
	s := service(t, c)
	n := network("tiny", "10.0.0.0/30", "")
	add := func(sandbox string) ([]Grant, error) {
		return s.Acquire(ctx, intent(sandbox, sandbox, want("eth0", n, dynamic, noneMode)))
	}
	must(add("S1"))
	must(add("S2"))
	for _, sandbox := range []string{"S2", "S1"} { // .2 is freed first
		if err := s.Release(ctx, sandbox); err != nil {
			t.Fatal(err)
		}
		c.advance(time.Second)
	}
	c.advance(DefaultCooldown - 2*time.Second - 1)
	_, err := add("S3")
	if e := (*alloc.ExhaustedError)(nil); !errors.As(err, &e) || e.Cooling != 2 || e.Held != 0 || e.Reserved != 2 {
		t.Errorf("a nanosecond before the cooldown ends: %v", err)
	}
	c.advance(1)
	if got := only(t, must(add("S3")), nil); got != "10.0.0.2" {
		t.Errorf("got %s, freed longest ago is 10.0.0.2", got)
	}
	if _, err := add("S4"); !errors.Is(err, ErrExhausted) {
		t.Errorf("10.0.0.1 cools for another second: %v", err)
	}
	// A Pod that asks for the address by number does not wait.
	if got := only(t, must(s.Acquire(ctx, intent("S5", "S5", want("eth0", n, static("10.0.0.1"), noneMode)))), nil); got != "10.0.0.1" {
		t.Error(got)
	}
}

// addresses = Pods: three nodes, each with its own journal, give out a /28 to the last address, all at once.
func TestExhaustionToTheLastAddress(t *testing.T) {
	n := network("voice", "10.0.0.0/28", "fd00::/124")
	seen := map[netip.Addr]int{}
	var mu sync.Mutex
	for slot := range 3 {
		s := service(t, newClock())
		var wg sync.WaitGroup
		for p := range 20 {
			for _, w := range []Want{want("eth0", n, dynamic, noneMode), want("eth0", n, noneMode, dynamic)} {
				wg.Go(func() {
					sandbox := fmt.Sprint("S", p, w.IP.Mode)
					in := intent(sandbox, sandbox, w)
					in.Slot, in.Slots = slot, 3
					g, err := s.Acquire(ctx, in)
					if err != nil && !errors.Is(err, ErrExhausted) {
						t.Error(err)
					}
					if err == nil {
						mu.Lock()
						seen[g[0].Addresses[0].Addr()]++
						mu.Unlock()
					}
				})
			}
		}
		wg.Wait()
	}
	if len(seen) != 14+15 {
		t.Errorf("%d addresses given out, want 14 of IPv4 and 15 of IPv6", len(seen))
	}
	for a, times := range seen {
		if times != 1 {
			t.Errorf("%s given out %d times", a, times)
		}
	}
}

// Many at once: nobody shares an address, nothing is left over.
func TestConcurrentAddAndDelete(t *testing.T) {
	s, err := Open(t.TempDir(), Options{Cooldown: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	n := network("voice", "10.0.0.0/26", "")
	var mu sync.Mutex
	live := map[netip.Addr]int{} // address → worker
	var wg sync.WaitGroup
	for worker := range 32 {
		wg.Go(func() {
			for i := range 40 {
				sandbox := fmt.Sprintf("S%d-%d", worker, i)
				g, err := s.Acquire(ctx, intent(sandbox, fmt.Sprint("U", worker), want("eth0", n, dynamic, noneMode)))
				if err != nil {
					t.Error(err)
					return
				}
				a := g[0].Addresses[0].Addr()
				mu.Lock()
				if other, taken := live[a]; taken && other != worker {
					t.Errorf("%s is worker %d's and worker %d's", a, other, worker)
				}
				live[a] = worker
				mu.Unlock()
				if r, err := s.Lookup(sandbox); err != nil || r.Holds[0].Addr != a {
					t.Errorf("record %+v %v", r, err)
				}
				if i%3 > 0 || i == 39 { // otherwise the next sandbox takes over
					mu.Lock()
					delete(live, a)
					mu.Unlock()
					if err := s.Release(ctx, sandbox); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	if list := must(s.List()); len(list) != 0 {
		t.Errorf("left over: %v", list)
	}
}
