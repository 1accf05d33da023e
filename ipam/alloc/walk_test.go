package alloc

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"danm.io/danm/spec/model"
)

func TestGridYieldsEachBlockOfThePoolsOnce(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 3))
		cidr := netip.MustParsePrefix("10.0.0.0/25")
		at := func(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}) }
		if seed%2 == 1 {
			cidr = netip.MustParsePrefix("fd00::/121")
			at = func(n int) netip.Addr { a := cidr.Addr().As16(); a[15] = byte(n); return netip.AddrFrom16(a) }
		}
		g := Cut{CIDR: cidr, Bits: cidr.Addr().BitLen() - rng.IntN(8)}
		if !g.Valid() {
			t.Fatal(g)
		}
		ranges := func(n int) (out []model.AddrRange) {
			for last := 0; n > 0 && last < 120; n-- {
				first := last + rng.IntN(20)
				last = first + rng.IntN(20)
				out = append(out, model.AddrRange{First: at(min(first, 127)), Last: at(min(last, 127))})
				last++
			}
			return out
		}
		sub := model.Subnet{CIDR: cidr, Pools: ranges(rng.IntN(4)), Exclude: ranges(rng.IntN(3)), Gateway: at(rng.IntN(128))}
		within := ranges(rng.IntN(3))
		want := map[netip.Prefix]bool{}
		for n := range 128 {
			in := len(within) == 0
			for _, r := range within {
				in = in || r.Contains(at(n))
			}
			if in && Eligible(sub, at(n)) {
				want[g.Block(at(n))] = true
			}
		}
		n := 0
		for p := range g.Blocks(sub, within, rng.Uint64()) {
			if n++; !want[p] {
				t.Fatalf("seed %d: %v yields %s twice or in vain", seed, g, p)
			}
			delete(want, p)
		}
		if len(want) > 0 {
			t.Fatalf("seed %d: %v never yields %v (%d did)", seed, g, want, n)
		}
	}
}

func TestGridOfEverything(t *testing.T) {
	for _, c := range []struct {
		cidr string
		bits int
	}{{"10.0.0.0/8", 32}, {"fd00::/64", 128}, {"::/0", 128}, {"::/0", 0}, {"10.0.0.0/31", 32}, {"10.0.0.1/32", 32}, {"fd00::/127", 128}, {"fd00::1/128", 128}, {"fd00::/64", 122}} {
		g := Cut{CIDR: netip.MustParsePrefix(c.cidr), Bits: c.bits}
		seen := map[netip.Prefix]bool{}
		for p := range g.Blocks(model.Subnet{CIDR: g.CIDR}, nil, 1<<63+12345) {
			if seen[p] || !g.CIDR.Overlaps(p) || p.Bits() != c.bits || p.Masked() != p {
				t.Fatalf("%v yields %s", g, p)
			}
			seen[p] = true
			if len(seen) == 1000 {
				break
			}
		}
		if len(seen) == 0 {
			t.Fatalf("%v yields nothing", g)
		}
	}
}

func TestEligibleIsWhatDynamicMayChoose(t *testing.T) {
	sub := model.Subnet{CIDR: netip.MustParsePrefix("10.0.0.0/29"), Gateway: netip.MustParseAddr("10.0.0.1"), Exclude: []model.AddrRange{{First: netip.MustParseAddr("10.0.0.5"), Last: netip.MustParseAddr("10.0.0.5")}}}
	got := ""
	for a := sub.CIDR.Addr(); sub.CIDR.Contains(a); a = a.Next() {
		if Eligible(sub, a) {
			got += a.String() + " "
		}
	}
	if got != "10.0.0.2 10.0.0.3 10.0.0.4 10.0.0.6 " || Eligible(sub, netip.MustParseAddr("10.0.1.2")) {
		t.Fatal(got)
	}
}
