package alloc

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"danm.io/danm/spec/model"
)

// A Set and a claimed Space are compared with plain maps over a /27 and the end of the IPv6 numbers.
func TestSetIsTheAddressesOfItsPrefixes(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 1))
		base := netip.MustParsePrefix("10.0.0.0/27")
		if seed%3 == 1 {
			base = netip.MustParsePrefix("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffe0/123")
		}
		if seed%3 == 2 {
			base = netip.MustParsePrefix("::/123")
		}
		var set Set
		want := map[netip.Addr]bool{}
		for range 30 {
			bits := base.Bits() + rng.IntN(6)
			a := base.Addr()
			for range rng.IntN(32) {
				a = a.Next()
			}
			p, _ := a.Prefix(bits)
			add := rng.IntN(2) == 0
			if add {
				set = set.With(p)
			} else {
				set = set.Without(p)
			}
			for a := p.Addr(); p.Contains(a); a = a.Next() {
				if want[a] = add; !add {
					delete(want, a)
				}
			}
			n := uint64(0)
			for a := base.Addr(); base.Contains(a); a = a.Next() {
				if set.Contains(a) != want[a] {
					t.Fatalf("seed %d: %s in the set: %v, want %v (%v)", seed, a, set.Contains(a), want[a], set.spans)
				}
				if want[a] {
					n++
				}
			}
			if set.Size() != n {
				t.Fatalf("seed %d: size %d, want %d", seed, set.Size(), n)
			}
			for i, x := range set.spans {
				if x.hi.less(x.lo) || i > 0 && touches(set.spans[i-1], x) {
					t.Fatalf("seed %d: spans %v are not disjoint and apart", seed, set.spans)
				}
			}
		}
	}
}

// Random claims, cessions, acquisitions and releases: only owned, free, cool addresses are chosen, and all of them before
// the space is exhausted.
func TestClaimedSpaceGivesExactlyWhatIsOwned(t *testing.T) {
	cidr := netip.MustParsePrefix("10.0.0.0/26")
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 2))
		g, err := ClaimedGeometry(cidr)
		if err != nil {
			t.Fatal(err)
		}
		s, own := NewSpace(g), map[netip.Addr]bool{}
		held, freed := map[netip.Addr]bool{}, map[netip.Addr]int64{}
		sub := model.Subnet{CIDR: cidr, Gateway: netip.MustParseAddr("10.0.0.1"), Exclude: []model.AddrRange{{First: netip.MustParseAddr("10.0.0.9"), Last: netip.MustParseAddr("10.0.0.12")}}}
		var tx Tx
		usable := func(a netip.Addr, ready int64) bool {
			at, was := freed[a]
			return own[a] && !held[a] && (!was || at <= ready) && a != sub.Gateway && !sub.Exclude[0].Contains(a) && a != cidr.Addr() && a.String() != "10.0.0.63"
		}
		for now := int64(0); now < 300; now++ {
			ready := now - 20
			switch rng.IntN(5) {
			case 0:
				p, _ := netip.AddrFrom4([4]byte{10, 0, 0, byte(rng.IntN(64))}).Prefix(28 + rng.IntN(5))
				set := s.Owned().With(p)
				if add := rng.IntN(3) > 0; !add {
					set = s.Owned().Without(p)
				}
				for a := p.Addr(); p.Contains(a); a = a.Next() {
					own[a] = set.Contains(a)
				}
				s.Own(set)
			case 1, 2, 3:
				n, some := s.Free(sub, ready, 3)
				want := uint64(0)
				for a := cidr.Addr(); cidr.Contains(a); a = a.Next() {
					if usable(a, ready) {
						want++
					}
				}
				if n != want || len(some) != int(min(3, want)) {
					t.Fatalf("seed %d: free %d %v, want %d", seed, n, some, want)
				}
				for _, a := range some {
					if !usable(a, ready) {
						t.Fatalf("seed %d: %s is offered", seed, a)
					}
				}
				a, err := tx.Dynamic(s, sub, 1, ready)
				tx.Commit()
				if (err == nil) != (want > 0) {
					t.Fatalf("seed %d: %v with %d free", seed, err, want)
				}
				if err == nil {
					if !usable(a, ready) {
						t.Fatalf("seed %d: %s chosen: owned %v held %v freed %v", seed, a, own[a], held[a], freed[a])
					}
					held[a] = true
					delete(freed, a)
				}
			default:
				for a := range held {
					tx.Free(s, a, now)
					tx.Commit()
					delete(held, a)
					freed[a] = now
					break
				}
			}
			p, _ := netip.AddrFrom4([4]byte{10, 0, 0, byte(rng.IntN(64))}).Prefix(28)
			h, c := s.Busy(p, ready)
			for a := p.Addr(); p.Contains(a); a = a.Next() {
				if held[a] {
					h--
				}
				if at, was := freed[a]; was && at > ready {
					c--
				}
			}
			if h != 0 || c != 0 {
				t.Fatalf("seed %d: Busy(%s) is off by %d held, %d cooling", seed, p, h, c)
			}
		}
	}
}

func TestIntersectIsBoth(t *testing.T) {
	got := intersect([]span{{u64(1), u64(5)}, {u64(8), u64(9)}, {u64(20), u64(30)}}, []span{{u64(0), u64(1)}, {u64(4), u64(8)}, {u64(25), u64(26)}, {u64(30), u64(40)}})
	want := []span{{u64(1), u64(1)}, {u64(4), u64(5)}, {u64(8), u64(8)}, {u64(25), u64(26)}, {u64(30), u64(30)}}
	if !slices.Equal(got, want) {
		t.Fatalf("%v", got)
	}
}
