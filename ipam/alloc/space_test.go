package alloc

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"danm.io/danm/spec/model"
)

// dump is everything that can be seen of a space.
func dump(s *Space, all []netip.Addr) string {
	out := fmt.Sprint(s.Held(), s.Freed(), s.cursor)
	for _, a := range all {
		if h, ok := s.Holder(a); ok {
			out += fmt.Sprint(" ", a, "=", h)
		}
	}
	s.EachFreed(func(a netip.Addr, at int64) { out += fmt.Sprint(" ", a, "@", at) })
	return out
}

func randomSubnet(rng *rand.Rand, cidr netip.Prefix, all []netip.Addr) model.Subnet {
	sub := model.Subnet{CIDR: cidr}
	pick := func() []model.AddrRange {
		var out []model.AddrRange
		for i := 0; i < len(all); {
			i += rng.IntN(len(all)/2 + 1)
			j := min(i+rng.IntN(len(all)/2+1), len(all)-1)
			if i >= len(all) || len(out) == 3 {
				break
			}
			out = append(out, model.AddrRange{First: all[i], Last: all[j]})
			i = j + 1
		}
		return out
	}
	if rng.IntN(3) > 0 {
		sub.Pools = pick()
	}
	if rng.IntN(2) == 0 {
		sub.Exclude = pick()
	}
	if rng.IntN(2) == 0 {
		sub.Gateway = all[rng.IntN(len(all))]
	}
	for range rng.IntN(3) {
		sub.Routes = append(sub.Routes, model.PodRoute{Via: all[rng.IntN(len(all))]})
	}
	return sub
}

// history plays a random life of one space against the oracle.
func history(t *testing.T, rng *rand.Rand, steps int) {
	t.Helper()
	cidr, of := smallPrefix(rng), 1+rng.IntN(3)
	g, err := NewGeometry(cidr, rng.IntN(6), rng.IntN(of), of)
	if err != nil {
		t.Fatal(err)
	}
	o := &oracle{all: addresses(cidr), block: int(g.Block), slot: g.Slot, of: of, held: map[netip.Addr]uint32{}}
	s, tx := NewSpace(g), &Tx{}
	subs := []model.Subnet{randomSubnet(rng, cidr, o.all), randomSubnet(rng, cidr, o.all), {CIDR: cidr}}
	saved, savedDump, mark := o.clone(), "", 0
	open := false
	for n := range steps {
		if !open {
			saved, savedDump, mark, open = o.clone(), dump(s, o.all), tx.Mark(), true
		}
		o.clock += rng.Int64N(3)
		ready := o.clock - 10
		switch what := rng.IntN(10); {
		case what < 4:
			sub := subs[rng.IntN(len(subs))]
			a, err := tx.Dynamic(s, sub, uint32(n), ready)
			if bad := o.judge(sub, ready, a, err); bad != "" {
				t.Fatalf("%+v, step %d, %+v: %s", g, n, sub, bad)
			}
			if err == nil {
				o.take(a, uint32(n))
			}
		case what < 6:
			a := o.all[rng.IntN(len(o.all))]
			if rng.IntN(8) == 0 {
				a = netip.MustParseAddr([]string{"192.0.2.1", "2001:db8::1"}[rng.IntN(2)])
			}
			err := tx.Static(s, a, uint32(n))
			if bad := o.judgeStatic(a, err); bad != "" {
				t.Fatalf("%+v, step %d: %s", g, n, bad)
			}
			if err == nil {
				o.take(a, uint32(n))
			}
		case what < 8:
			for a := range o.held { // any one
				tx.Free(s, a, o.clock)
				o.free(a)
				break
			}
		case what == 8:
			tx.Rollback(mark)
			clock := o.clock
			o = saved
			o.clock, open = clock, false
			if got := dump(s, o.all); got != savedDump {
				t.Fatalf("%+v, step %d: rolled back to\n%s\nwant\n%s", g, n, got, savedDump)
			}
		default:
			tx.Commit()
			s.Settle(ready)
			open = false
		}
		if s.Held() != len(o.held) || s.Freed() != len(o.freed) {
			t.Fatalf("%+v, step %d: %d held %d freed, want %d %d", g, n, s.Held(), s.Freed(), len(o.held), len(o.freed))
		}
	}
}

func TestSpaceAgainstOracle(t *testing.T) {
	for seed := range uint64(150) {
		rng := rand.New(rand.NewPCG(seed, 7))
		history(t, rng, 300)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func FuzzSpace(f *testing.F) {
	f.Add(uint64(1), uint64(2))
	f.Fuzz(func(t *testing.T, a, b uint64) { history(t, rand.New(rand.NewPCG(a, b)), 200) })
}

// Every address of a CIDR is given out when every slot is exhausted: addresses = Pods succeeds.
func TestEveryAddressIsGivenOut(t *testing.T) {
	for _, c := range []struct {
		cidr  string
		slots int
		want  int
	}{
		{"10.0.0.0/24", 3, 254}, {"10.0.0.0/30", 3, 2}, {"10.0.0.0/31", 2, 2}, {"10.0.0.9/32", 1, 1},
		{"fd00::/120", 7, 255}, {"fd00::/127", 2, 2}, {"fd00::/128", 1, 1}, {"fd00::/126", 5, 3},
	} {
		cidr := netip.MustParsePrefix(c.cidr)
		seen := map[netip.Addr]bool{}
		for slot := range c.slots {
			g, _ := NewGeometry(cidr, 0, slot, c.slots)
			s, tx := NewSpace(g), Tx{}
			for {
				a, err := tx.Dynamic(s, model.Subnet{CIDR: cidr}, 1, 0)
				if errors.Is(err, ErrExhausted) {
					break
				}
				if err != nil || seen[a] || !cidr.Contains(a) {
					t.Fatalf("%s: %s %v, seen %v", c.cidr, a, err, seen[a])
				}
				seen[a] = true
			}
		}
		if len(seen) != c.want {
			t.Errorf("%s: %d addresses given out, want %d", c.cidr, len(seen), c.want)
		}
	}
}

// The cost must not depend on the size of the CIDR, and hardly on what is held.
func TestLargePrefixesAreCheap(t *testing.T) {
	const n = 50_000
	for _, p := range []string{"fd00::/64", "10.0.0.0/8", "fd00::/32", "::/0", "fd00::/108"} {
		cidr := netip.MustParsePrefix(p)
		g, _ := NewGeometry(cidr, 0, 1, 3)
		s, tx := NewSpace(g), Tx{}
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		start := time.Now()
		var last netip.Addr
		for range n {
			a, err := tx.Dynamic(s, model.Subnet{CIDR: cidr}, 1, 0)
			if err != nil {
				t.Fatal(err)
			}
			tx.Commit()
			last = a
		}
		spent := time.Since(start)
		runtime.GC()
		runtime.ReadMemStats(&after)
		perAddress := float64(after.HeapAlloc-before.HeapAlloc) / n
		if len(s.used.chunks) != 1 || len(s.used.chunks[0]) != 1 {
			t.Errorf("%s: a full run is kept as %d chunks", p, len(s.used.chunks))
		}
		if perAddress > 100 || spent > 20*time.Second {
			t.Errorf("%s: %.0f bytes an address, %s for %d (last %s)", p, perAddress, spent, n, last)
		}
		runtime.KeepAlive(s)
	}
}

// A /64 under churn must not remember every address it ever gave out.
func TestChurnIsForgotten(t *testing.T) {
	cidr := netip.MustParsePrefix("fd00::/64")
	g, _ := NewGeometry(cidr, 0, 0, 1)
	s, tx := NewSpace(g), Tx{}
	seen := map[netip.Addr]bool{}
	for i := range int64(3 * keepFreed) {
		a, err := tx.Dynamic(s, model.Subnet{CIDR: cidr}, 1, i-10)
		if err != nil {
			t.Fatal(err)
		}
		if seen[a] {
			t.Fatalf("%s came back although the network is nearly empty", a)
		}
		seen[a] = true
		tx.Free(s, a, i)
		tx.Commit()
		s.Settle(i - 10)
	}
	if s.Freed() > keepFreed+20 || len(s.queue) > keepFreed+20 {
		t.Errorf("%d freed, queue of %d", s.Freed(), len(s.queue))
	}
}

// An address that nobody may choose any more, of a block that was given back or of a network that is idle, does not keep the queue
// behind it from being tidied up.
func TestChurnBehindAnIdleAddress(t *testing.T) {
	cidr := netip.MustParsePrefix("10.0.0.0/24")
	for _, given := range []bool{true, false} {
		g, err := ClaimedGeometry(cidr)
		if err != nil {
			t.Fatal(err)
		}
		s, tx := NewSpace(g), Tx{}
		first, second := netip.MustParsePrefix("10.0.0.16/28"), netip.MustParsePrefix("10.0.0.32/28")
		s.Own(s.Owned().With(first).With(second))
		idle := first.Addr().Next()
		tx.Take(s, idle, 1)
		tx.Free(s, idle, 0)
		tx.Commit()
		if given {
			s.Own(s.Owned().Without(first))
		}
		sub := model.Subnet{CIDR: cidr, Pools: []model.AddrRange{{First: second.Addr(), Last: netip.MustParseAddr("10.0.0.47")}}}
		last := map[netip.Addr]int64{}
		for i := int64(1); i < 5000; i++ {
			a, err := tx.Dynamic(s, sub, 1, i-10)
			if err != nil {
				t.Fatal(err)
			}
			if at, was := last[a]; was && at > i-10 {
				t.Fatalf("%s is chosen at %d, freed at %d", a, i, at)
			}
			tx.Free(s, a, i)
			last[a] = i
			tx.Commit()
			s.Settle(i - 10)
		}
		if len(s.queue) > 2*s.Freed()+spareQueue || s.Freed() > 20 {
			t.Errorf("given back %v: %d freed, queue of %d", given, s.Freed(), len(s.queue))
		}
		_, there := s.freed[s.geo.index(idle)]
		if there == given {
			t.Errorf("given back %v: remembered %v", given, there)
		}
	}
}

func TestRecutKeepsCoolingAddresses(t *testing.T) {
	cidr := netip.MustParsePrefix("10.0.0.0/28")
	whole, _ := NewGeometry(cidr, 1, 0, 1)
	s, tx := NewSpace(whole), Tx{}
	for _, a := range addresses(cidr)[1:15] {
		tx.Take(s, a, 1)
		tx.Free(s, a, 100)
	}
	half, _ := NewGeometry(cidr, 1, 1, 2) // the odd ones
	r := s.Recut(half)
	_, err := tx.Dynamic(r, model.Subnet{CIDR: cidr}, 1, 99)
	if e := (*ExhaustedError)(nil); !errors.As(err, &e) || e.Cooling != 7 || e.Reserved != 1 {
		t.Errorf("before the cooldown: %v", err)
	}
	if a, err := tx.Dynamic(r, model.Subnet{CIDR: cidr}, 1, 100); err != nil || a.String() != "10.0.0.1" {
		t.Errorf("after the cooldown: %s %v", a, err)
	}
}

func TestExhaustedNamesPools(t *testing.T) {
	e := &ExhaustedError{CIDR: netip.MustParsePrefix("10.0.0.0/24")}
	for i, want := range []string{"10.0.0.0/24:", "10.0.0.0/24 (10.0.0.0-10.0.0.0):", "(10.0.0.0-10.0.0.0, 10.0.0.2-10.0.0.2):", "", "10.0.0.6-10.0.0.6):", "10.0.0.6-10.0.0.6, and 1 more):"} {
		if got := e.Error(); !strings.Contains(got, want) {
			t.Errorf("with %d pools: %s", i, got)
		}
		a := netip.AddrFrom4([4]byte{10, 0, 0, byte(2 * i)})
		e.Pools = append(e.Pools, model.AddrRange{First: a, Last: a})
	}
}
