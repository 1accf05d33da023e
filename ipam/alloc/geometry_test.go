package alloc

import (
	"errors"
	"math/big"
	"math/rand/v2"
	"net/netip"
	"testing"
)

func big128(v U128) *big.Int {
	b := new(big.Int).SetUint64(v.Hi)
	return b.Lsh(b, 64).Or(b, new(big.Int).SetUint64(v.Lo))
}

func TestU128AgainstBig(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	mod := new(big.Int).Lsh(big.NewInt(1), 128)
	for range 20000 {
		a, b := U128{rng.Uint64() >> rng.IntN(65), rng.Uint64() >> rng.IntN(65)}, U128{rng.Uint64() >> rng.IntN(65), rng.Uint64()}
		d := rng.Uint64()>>rng.IntN(64) | 1
		check := func(what string, got U128, want *big.Int) {
			t.Helper()
			if want.Mod(want, mod); big128(got).Cmp(want) != 0 {
				t.Fatalf("%s of %v, %v, %d: got %v want %v", what, a, b, d, big128(got), want)
			}
		}
		check("add", a.add(b), new(big.Int).Add(big128(a), big128(b)))
		check("sub", a.sub(b), new(big.Int).Sub(big128(a), big128(b)))
		check("mul", a.mul(d), new(big.Int).Mul(big128(a), new(big.Int).SetUint64(d)))
		q, r := a.divmod(d)
		wq, wr := new(big.Int).DivMod(big128(a), new(big.Int).SetUint64(d), new(big.Int))
		check("div", q, wq)
		check("mod", u64(r), wr)
		if a.cmp(b) != big128(a).Cmp(big128(b)) {
			t.Fatalf("cmp %v %v", a, b)
		}
	}
}

func TestDefaultBlock(t *testing.T) {
	for _, c := range []struct {
		cidr  string
		slots int
		want  uint64
	}{
		{"10.0.0.0/24", 1, 16}, // 64 would leave four blocks; the cap is lower
		{"10.0.0.0/26", 1, 16},
		{"10.0.0.0/27", 1, 8},
		{"10.0.0.0/24", 3, 16},
		{"10.0.0.0/26", 3, 4},
		{"10.0.0.0/26", 4, 4},
		{"10.0.0.0/26", 5, 2},
		{"10.0.0.0/30", 3, 1},
		{"10.0.0.0/32", 8, 1},
		{"fd00::/64", 3, 16},
		{"::/0", 5000, 16},
		{"fd00::/127", 2, 1},
	} {
		g, err := NewGeometry(netip.MustParsePrefix(c.cidr), 0, 0, c.slots)
		if err != nil || g.Block != c.want {
			t.Errorf("%s, %d slots: block %d, want %d (%v)", c.cidr, c.slots, g.Block, c.want, err)
		}
	}
}

func TestGeometryRefuses(t *testing.T) {
	ok := netip.MustParsePrefix("10.0.0.0/24")
	for name, f := range map[string]func() (Geometry, error){
		"host bits":     func() (Geometry, error) { return NewGeometry(netip.MustParsePrefix("10.0.0.1/24"), 0, 0, 1) },
		"no prefix":     func() (Geometry, error) { return NewGeometry(netip.Prefix{}, 0, 0, 1) },
		"mapped":        func() (Geometry, error) { return NewGeometry(netip.MustParsePrefix("::ffff:10.0.0.0/120"), 0, 0, 1) },
		"slot = slots":  func() (Geometry, error) { return NewGeometry(ok, 0, 3, 3) },
		"slot below 0":  func() (Geometry, error) { return NewGeometry(ok, 0, -1, 3) },
		"slot, 0 slots": func() (Geometry, error) { return NewGeometry(ok, 0, 1, 0) },
		"block below 0": func() (Geometry, error) { return NewGeometry(ok, -1, 0, 1) },
	} {
		if _, err := f(); !errors.Is(err, ErrGeometry) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// addresses enumerates a small CIDR without any of the arithmetic under test.
func addresses(cidr netip.Prefix) []netip.Addr {
	var out []netip.Addr
	for a := cidr.Addr(); cidr.Contains(a); a = a.Next() {
		out = append(out, a)
	}
	return out
}

func smallPrefix(rng *rand.Rand) netip.Prefix {
	bases := []string{"10.1.2.0", "255.255.255.255", "0.0.0.0", "fd00::ff:ffff:ffff:ff00", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "fd00::1:0:0:0"}
	a := netip.MustParseAddr(bases[rng.IntN(len(bases))])
	p, _ := a.Prefix(a.BitLen() - rng.IntN(9))
	return p
}

func TestSlotsOwnEveryAddressOnce(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		cidr, slots, block := smallPrefix(rng), 1+rng.IntN(6), rng.IntN(20)
		all := addresses(cidr)
		for slot := range slots {
			g, err := NewGeometry(cidr, block, slot, slots)
			if err != nil {
				t.Fatal(err)
			}
			var own []int // offsets, by counting
			for i, a := range all {
				k := i / int(g.Block) % slots
				if g.Owner(a) != k {
					t.Fatalf("%v: owner of %s is %d, want %d", g, a, g.Owner(a), k)
				}
				if k == slot {
					if n := u64(uint64(len(own))); g.index(a) != n || g.addr(n) != a {
						t.Fatalf("%v: %s has index %v, index %v is %s", g, a, g.index(a), n, g.addr(n))
					}
					own = append(own, i)
				}
			}
			first := rng.IntN(len(all))
			last := first + rng.IntN(len(all)-first)
			var want []int
			for n, off := range own {
				if first <= off && off <= last {
					want = append(want, n)
				}
			}
			got, ok := g.own(u64(uint64(first)), u64(uint64(last)))
			if ok != (len(want) > 0) || ok && (got.lo != u64(uint64(want[0])) || got.hi != u64(uint64(want[len(want)-1]))) {
				t.Fatalf("%v: own %d..%d = %v %v, want %v", g, first, last, got, ok, want)
			}
		}
	}
}

func TestSpanSetAgainstMap(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for _, width := range []int{8, 200, 5000} {
		var s spanSet
		in := map[int]bool{}
		for step := range 12000 {
			n := rng.IntN(width)
			// drift between filling and emptying
			if fill := step/2000%2 == 0; in[n] && (!fill || rng.IntN(4) == 0) {
				s.remove(u64(uint64(n)))
				delete(in, n)
			} else if !in[n] && (fill || rng.IntN(4) == 0) {
				s.insert(u64(uint64(n)))
				in[n] = true
			}
			if s.contains(u64(uint64(n))) != in[n] {
				t.Fatalf("contains %d", n)
			}
			lo := rng.IntN(width)
			hi := lo + rng.IntN(min(40, width-lo))
			want, found := lo, false
			for ; want <= hi && !found; want++ {
				found = !in[want]
			}
			got, ok := s.gap(u64(uint64(lo)), u64(uint64(hi)))
			if ok != found || ok && got != u64(uint64(want-1)) {
				t.Fatalf("gap %d..%d = %v %v, want %d %v", lo, hi, got, ok, want-1, found)
			}
		}
		var prev *span
		for _, c := range s.chunks {
			if len(c) == 0 || len(c) > chunkLen {
				t.Fatalf("chunk of %d", len(c))
			}
			for i := range c {
				if prev != nil && !prev.hi.inc().less(c[i].lo) {
					t.Fatalf("spans %v %v touch", *prev, c[i])
				}
				prev = &c[i]
			}
		}
	}
}

func TestSpanSetAtTheEdgesOfTheNumbers(t *testing.T) {
	var s spanSet
	top := lastOffset(128)
	for _, v := range []U128{top, {}, top.dec(), u64(1)} {
		s.insert(v)
	}
	if g, ok := s.gap(U128{}, top); !ok || g != u64(2) {
		t.Errorf("gap %v %v", g, ok)
	}
	if _, ok := s.gap(top.dec(), top); ok {
		t.Error("a gap at the top")
	}
	s.remove(top)
	if s.contains(top) || !s.contains(top.dec()) || !s.contains(U128{}) {
		t.Error("removing the top changed its neighbours")
	}
}
