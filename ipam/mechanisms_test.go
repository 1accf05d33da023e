package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// The tests below are named after how others lost or doubled addresses: R1 and R2 are the users' complaints about stale and
// duplicate addresses of other IPAMs, DANM's are the bugs that its users know.

// R1: 32 of a node's 32 addresses leaked because a Pod that crashes in a loop got a new one each time.
func TestR1ACrashLoopHoldsOneAddress(t *testing.T) {
	c := newClock()
	s := service(t, c)
	n := network("net", "10.0.0.0/29", "")
	first := ""
	for i := range 100 {
		g, err := s.Acquire(ctx, intent(fmt.Sprintf("s%d", i), "u", want("eth0", n, dynamic, noneMode)))
		got := only(t, g, err)
		if first == "" {
			first = got
		}
		if got != first {
			t.Fatalf("restart %d: %s after %s", i, got, first)
		}
		if i%3 == 1 { // the runtime's DELs of earlier sandboxes are late, or never come
			if err := s.Release(ctx, fmt.Sprintf("s%d", i-1)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if held := s.st.spaces[spaceOfNetwork(n)].space.Held(); held != 1 {
		t.Fatalf("%d addresses held by one Pod", held)
	}
}

// R1: a reservation existed while the pool did not know it, and the other way round. Here one transaction has both.
func TestR1NoReservationWithoutAnAddressNorTheOtherWayRound(t *testing.T) {
	for crash := 1; crash < 40; crash++ {
		d := newMemDisk(uint64(crash))
		c := newClock()
		s, err := open(d, c.options())
		if err != nil {
			t.Fatal(err)
		}
		n := network("net", "10.0.0.0/28", "")
		d.crashAt = d.calls + crash
		for i := range 10 {
			if _, err := s.Acquire(ctx, intent(fmt.Sprintf("s%d", i), fmt.Sprintf("u%d", i), want("eth0", n, dynamic, noneMode))); err != nil {
				break
			}
		}
		_ = s.Close()
		s, err = open(d.reboot(), c.options())
		if err != nil {
			t.Fatalf("crash at %d: %v", crash, err)
		}
		records := must(s.List())
		held := 0
		if ss := s.st.spaces[spaceOfNetwork(n)]; ss != nil {
			held = ss.space.Held()
		}
		if held != len(records) {
			t.Fatalf("crash at %d: %d addresses, %d records", crash, held, len(records))
		}
		for _, r := range records {
			if h, err := s.Holder(r.Holds[0].Space, r.Holds[0].Addr); err != nil || h.Sandbox != r.Sandbox {
				t.Fatalf("crash at %d: %v %v", crash, h, err)
			}
		}
		_ = s.Close()
	}
}

// R2, DANM: identity was the Pod's name, so the next instance of a StatefulSet's Pod lost its address to the clean-up of the last.
func TestR2TheNameOfAPodIsNoIdentity(t *testing.T) {
	s := service(t, newClock())
	n := network("net", "10.0.0.0/28", "")
	in := intent("s1", "uid-1", want("eth0", n, dynamic, noneMode))
	in.Pod = "web-0"
	first := only(t, must(s.Acquire(ctx, in)), nil)
	in.Sandbox, in.PodUID = "s2", "uid-2"
	second := only(t, must(s.Acquire(ctx, in)), nil)
	if first == second {
		t.Fatal("two Pods of one name have one address")
	}
	for range 3 {
		if err := s.Release(ctx, "s1"); err != nil {
			t.Fatal(err)
		}
	}
	if r := must(s.Lookup("s2")); r.Holds[0].Addr.String() != second {
		t.Fatal(r)
	}
}

// R2: a collector frees what an ADD is giving out. Releases of old sandboxes run beside the ADDs of new ones.
func TestR2ACollectorBesideADDsFreesNothingLive(t *testing.T) {
	s := service(t, newClock())
	n := network("net", "10.0.0.0/24", "")
	var wg sync.WaitGroup
	for p := range 8 {
		wg.Go(func() {
			for i := range 50 {
				in := intent(fmt.Sprintf("p%d-s%d", p, i), fmt.Sprintf("p%d", p), want("eth0", n, dynamic, noneMode))
				if _, err := s.Acquire(ctx, in); err != nil {
					t.Error(err)
					return
				}
				var late sync.WaitGroup
				late.Go(func() { _ = s.Release(ctx, fmt.Sprintf("p%d-s%d", p, i-1)) })
				if _, err := s.Lookup(in.Sandbox); err != nil {
					t.Error(err)
				}
				late.Wait()
			}
		})
	}
	wg.Wait()
	seen := map[netip.Addr]bool{}
	for _, r := range must(s.List()) {
		if seen[r.Holds[0].Addr] {
			t.Fatalf("%s twice", r.Holds[0].Addr)
		}
		seen[r.Holds[0].Addr] = true
	}
	if len(seen) != 8 {
		t.Fatalf("%d records of 8 Pods", len(seen))
	}
}

// DANM 6.1 (1): an endpoint with one family was freed again and again, under the next Pod.
func TestDANMFreeingTwiceFreesNobodyElse(t *testing.T) {
	c := newClock()
	s := service(t, c)
	n := network("net", "10.0.0.0/30", "") // two addresses
	one := only(t, must(s.Acquire(ctx, intent("s1", "u1", want("eth0", n, dynamic, noneMode)))), nil)
	if err := s.Release(ctx, "s1"); err != nil {
		t.Fatal(err)
	}
	c.advance(time.Hour)
	two := must(s.Acquire(ctx, intent("s2", "u2", want("eth0", n, static(one), noneMode))))
	if err := s.Release(ctx, "s1"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Acquire(ctx, intent("s3", "u3", want("eth0", n, static(one), noneMode))); !errors.Is(err, ErrTaken) {
		t.Fatalf("%v was given twice: %v", two, err)
	}
}

// DANM 6.1 (3): the address leaked when what came after its reservation failed.
func TestDANMNothingStaysWhenTheRecordCannotBeMade(t *testing.T) {
	s := service(t, newClock())
	n := network("net", "10.0.0.0/30", "fd00::/126")
	for range 10 {
		in := intent("s", "u", want("eth0", n, dynamic, dynamic))
		in.Record = func([]Grant) ([]byte, error) { return nil, errors.New("no record") }
		if _, err := s.Acquire(ctx, in); err == nil {
			t.Fatal("no error")
		}
	}
	for i := range 2 {
		if _, err := s.Acquire(ctx, intent(fmt.Sprint(i), fmt.Sprint(i), want("eth0", n, dynamic, dynamic))); err != nil {
			t.Fatal(err)
		}
	}
}

// DANM 6.1 (4): freed addresses were given out again at once, and the first of the pool not at all.
func TestDANMTheOldestFreedAddressComesLastAndAllCome(t *testing.T) {
	c := newClock()
	s := service(t, c)
	n := network("net", "10.0.0.0/29", "")
	n.IPv4.Pools = pool("10.0.0.1", "10.0.0.6")
	seen := map[string]bool{}
	last := ""
	for i := range 6 {
		sandbox := fmt.Sprint(i)
		got := only(t, must(s.Acquire(ctx, intent(sandbox, sandbox, want("eth0", n, dynamic, noneMode)))), nil)
		if got == last || seen[got] {
			t.Fatalf("%s again although %d addresses were never used", got, 6-len(seen))
		}
		seen[got], last = true, got
		if err := s.Release(ctx, sandbox); err != nil {
			t.Fatal(err)
		}
	}
	if len(seen) != 6 {
		t.Fatal(seen)
	}
}

// DANM 6.1 (5): a static IPv6 address outside the pool was given to two Pods.
func TestDANMStaticIPv6OutsideThePoolIsGivenOnce(t *testing.T) {
	s := service(t, newClock())
	n := network("net", "", "fd00::/64")
	n.IPv6.Pools = pool("fd00::100", "fd00::1ff")
	if _, err := s.Acquire(ctx, intent("s1", "u1", want("eth0", n, noneMode, static("fd00::5")))); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Acquire(ctx, intent("s2", "u2", want("eth0", n, noneMode, static("fd00::5")))); !errors.Is(err, ErrTaken) {
		t.Fatal(err)
	}
}

// DANM 6.1 (12): a gateway at the end of the pool, or outside it, panicked or took a wrong address.
func TestDANMGatewaysAnywhere(t *testing.T) {
	for _, gw := range []string{"fd00::1ff", "fd00::100", "fd00::ffff:ffff:ffff:ffff", "fd00::"} {
		s := service(t, newClock())
		n := network("net", "", "fd00::/64")
		n.IPv6.Pools, n.IPv6.Gateway = pool("fd00::100", "fd00::1ff"), netip.MustParseAddr(gw)
		got := 0
		for i := range 257 {
			g, err := s.Acquire(ctx, intent(fmt.Sprint(i), fmt.Sprint(i), want("eth0", n, noneMode, dynamic)))
			if err != nil {
				break
			}
			got++
			if only(t, g, nil) == gw {
				t.Fatalf("gateway %s was given out", gw)
			}
		}
		usable := 256
		if n.IPv6.Pools[0].Contains(n.IPv6.Gateway) {
			usable--
		}
		if got != usable {
			t.Fatalf("gateway %s: %d of %d addresses", gw, got, usable)
		}
	}
}

// DANM 6.3: N allocations at once on one network took about N²/2 writes. Here they take one a block.
func TestDANMManyAtOnceWriteLittle(t *testing.T) {
	_, api, n, ms := world(t, "10.0.0.0/22", 26, "a")
	before := api.writes
	atOnce(ms[0], n, 200)
	if writes := api.writes - before; writes > 8 {
		t.Fatalf("%d writes for 200 addresses in blocks of 64", writes)
	}
}
