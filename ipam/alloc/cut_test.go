package alloc

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"

	"danm.io/danm/spec/model"
)

func ranges(list ...string) (out []model.AddrRange) {
	for i := 0; i < len(list); i += 2 {
		out = append(out, model.AddrRange{First: netip.MustParseAddr(list[i]), Last: netip.MustParseAddr(list[i+1])})
	}
	return out
}

func TestCutBits(t *testing.T) {
	for _, c := range []struct {
		cidr        string
		pools       []model.AddrRange
		size, nodes int
		want        int
	}{
		{"10.0.0.0/31", nil, 0, 1, 32},
		{"10.0.0.0/32", nil, 0, 1, 32},
		{"10.0.0.0/32", nil, 16, 1, 32},
		{"fd00::/127", nil, 0, 3, 128},
		{"fd00::/128", nil, 0, 3, 128},
		{"10.0.0.0/8", nil, 0, 5000, 26},
		{"fd00::/64", nil, 0, 5000, 122},
		{"::/0", nil, 0, 1, 122},
		{"10.0.0.0/24", nil, 0, 0, 26},
		{"10.0.0.0/24", nil, 0, 1, 26},
		{"10.0.0.0/24", nil, 0, 2, 27},
		{"10.0.0.0/24", nil, 0, 16, 30},
		{"10.0.0.0/24", nil, 0, 17, 31},
		{"10.0.0.0/24", nil, 0, 64, 32},
		{"10.0.0.0/24", nil, 0, 65, 32},
		{"10.0.0.0/24", nil, 0, 1 << 20, 32},
		{"10.0.0.0/22", nil, 0, 4, 26},
		// Pools in a corner of a /8: ten addresses for two nodes are at best blocks of one, and 100 for 3 blocks of 8.
		{"10.0.0.0/8", ranges("10.9.9.1", "10.9.9.10"), 0, 2, 32},
		{"10.0.0.0/8", ranges("10.9.9.1", "10.9.9.10"), 0, 1, 31},
		{"10.0.0.0/8", ranges("10.9.9.0", "10.9.9.99"), 0, 3, 29},
		{"10.0.0.0/8", ranges("10.9.9.7", "10.9.9.7"), 0, 1, 32},
		// Far corners touch a block each, however large.
		{"10.0.0.0/8", ranges("10.1.0.1", "10.1.0.1", "10.2.0.1", "10.2.0.1", "10.3.0.1", "10.3.0.1", "10.4.0.1", "10.4.0.1"), 0, 1, 26},
		// Two corners of one block are one block.
		{"10.0.0.0/8", ranges("10.1.0.0", "10.1.0.1", "10.1.0.4", "10.1.0.5"), 0, 1, 32},
		// Pools that overlap, as those of two networks do, count once.
		{"10.0.0.0/24", ranges("10.0.0.0", "10.0.0.127", "10.0.0.64", "10.0.0.127"), 0, 1, 27},
		{"fd00::/64", ranges("fd00::1", "fd00::1:0"), 0, 1000, 124},
		// Wishes.
		{"10.0.0.0/16", nil, 24, 9, 28},
		{"10.0.0.0/16", nil, 1, 1, 32},
		{"10.0.0.0/16", nil, 64, 9999, 26},
		{"10.0.0.0/16", nil, 1 << 12, 1, 24},
		{"10.0.0.0/28", nil, 256, 1, 28},
		{"fd00::/64", nil, 3, 1, 127},
	} {
		if got := CutBits(netip.MustParsePrefix(c.cidr), c.pools, c.size, c.nodes); got != c.want {
			t.Errorf("CutBits(%s, %v, %d, %d) = %d, want %d", c.cidr, c.pools, c.size, c.nodes, got, c.want)
		}
	}
}

// small is a random subnet of a small CIDR, and the addresses of it that may be chosen, one by one.
func small(r *rand.Rand, cidr netip.Prefix) (model.Subnet, map[netip.Addr]bool) {
	all := []netip.Addr{}
	for a := cidr.Addr(); cidr.Contains(a); a = a.Next() {
		all = append(all, a)
	}
	pick := func(n int) (out []model.AddrRange) {
		for range r.IntN(n) {
			i := r.IntN(len(all))
			out = append(out, model.AddrRange{First: all[i], Last: all[min(len(all)-1, i+r.IntN(9))]})
		}
		return out
	}
	sub := model.Subnet{CIDR: cidr, Pools: pick(4), Exclude: pick(4)}
	if r.IntN(2) == 0 {
		sub.Gateway = all[r.IntN(len(all))]
		sub.Routes = []model.PodRoute{{Via: all[r.IntN(len(all))]}, {Via: netip.MustParseAddr("192.0.2.1")}}
	}
	in := func(list []model.AddrRange, a netip.Addr) bool {
		for _, x := range list {
			if x.Contains(a) {
				return true
			}
		}
		return false
	}
	out := map[netip.Addr]bool{}
	for i, a := range all {
		ends := len(all) > 2 && (i == 0 || i == len(all)-1 && a.Is4())
		if (len(sub.Pools) == 0 || in(sub.Pools, a)) && !in(sub.Exclude, a) && !router(sub, a) && !ends {
			out[a] = true
		}
	}
	return sub, out
}

// TestGrid compares a grid with sets of single addresses.
func TestGrid(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 1))
		cidr := netip.MustParsePrefix([]string{"10.0.0.64/26", "255.255.255.192/26", "fd00::/122", "10.0.0.4/31", "10.0.0.9/32", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff80/121", "0.0.0.0/27"}[r.IntN(7)])
		bits := cidr.Bits() + r.IntN(cidr.Addr().BitLen()-cidr.Bits()+1)
		may := map[netip.Addr]bool{}
		var subs []model.Subnet
		for range 1 + r.IntN(3) {
			sub, own := small(r, cidr)
			subs = append(subs, sub)
			for a := range own {
				may[a] = true
			}
		}
		g := NewGrid(cidr, bits, subs)
		blocks := map[netip.Prefix]bool{}
		for a := cidr.Addr(); cidr.Contains(a); a = a.Next() {
			if g.Dynamic(a) != may[a] {
				t.Fatalf("seed %d: %s may be chosen: %v, want %v (%v)", seed, a, !may[a], may[a], subs)
			}
			if may[a] {
				blocks[netip.PrefixFrom(a, bits).Masked()] = true
			}
		}
		if got := g.Capacity(); got != int64(len(may)) {
			t.Fatalf("seed %d: capacity %d, want %d", seed, got, len(may))
		}
		var claimed []netip.Prefix
		for a := cidr.Addr(); cidr.Contains(a); a = a.Next() {
			if r.IntN(7) == 0 {
				p := g.Block(a)
				claimed = append(claimed, p)
				delete(blocks, p)
			}
		}
		n, runs := g.Unclaimed(claimed, 16)
		if n != int64(len(blocks)) {
			t.Fatalf("seed %d: %d blocks unclaimed, want %d (%s/%d %v, claimed %v)", seed, n, len(blocks), cidr, bits, subs, claimed)
		}
		covered := 0
		for i, x := range runs {
			if i > 0 && !runs[i-1].Last.Less(x.First) {
				t.Fatalf("seed %d: runs %v", seed, runs)
			}
			for p := range blocks {
				if x.Contains(p.Addr()) {
					covered++
				}
			}
		}
		if covered != len(blocks) && len(runs) < 16 {
			t.Fatalf("seed %d: runs %v cover %d of %d", seed, runs, covered, len(blocks))
		}
	}
}

func TestGridOfMany(t *testing.T) {
	g := NewGrid(netip.MustParsePrefix("fd00::/64"), 122, []model.Subnet{{}})
	if n, runs := g.Unclaimed(nil, 16); g.Capacity() != 1<<53 || n != 1<<53 || fmt.Sprint(runs) != "[{fd00:: fd00::ffff:ffff:ffff:ffff}]" {
		t.Error(g.Capacity(), n, runs)
	}
	var claimed []netip.Prefix
	for i := range 20000 {
		claimed = append(claimed, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 7), byte(i << 1), 0}), 25))
	}
	v4 := NewGrid(netip.MustParsePrefix("10.0.0.0/8"), 25, []model.Subnet{{}})
	if n, runs := v4.Unclaimed(claimed, 16); n != 1<<17-20000 || len(runs) != 16 {
		t.Error(n, runs)
	}
}
