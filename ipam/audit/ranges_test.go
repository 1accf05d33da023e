package audit

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
)

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

// TestOverAgainstPainting paints every address by itself, and compares.
func TestOverAgainstPainting(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range 3000 {
		base := addr("10.0.0.0")
		if round%3 == 0 {
			base = addr("255.255.255.192") // up to the last address there is
		}
		if round%3 == 1 {
			base = addr("fd00::")
		}
		at := func(n int) netip.Addr {
			a := base
			for range n {
				a = a.Next()
			}
			return a
		}
		var marks []mark
		begun := map[int][layers]bool{} // two marks of one layer do not begin together here: which is seen is not said
		for range rng.IntN(8) {
			first := rng.IntN(64)
			last := first + rng.IntN(64-first)
			layer := rng.IntN(layers)
			if l := begun[first]; l[layer] {
				continue
			} else {
				l[layer] = true
				begun[first] = l
			}
			marks = append(marks, mark{Range{First: at(first), Last: at(last), State: fmt.Sprint("s", len(marks)%5)}, layer})
		}
		want := ""
		for n := range 64 {
			var top *mark
			for i := range marks {
				m := &marks[i]
				if m.First.Compare(at(n)) > 0 || m.Last.Compare(at(n)) < 0 {
					continue
				}
				if top == nil || m.layer > top.layer || m.layer == top.layer && m.First.Less(top.First) {
					top = m
				}
			}
			if top != nil {
				want += fmt.Sprint(at(n), top.State, ";")
			}
		}
		have := ""
		ranges := over(append([]mark(nil), marks...))
		for i, r := range ranges {
			for a := r.First; ; a = a.Next() {
				have += fmt.Sprint(a, r.State, ";")
				if a == r.Last {
					break
				}
			}
			if i > 0 && ranges[i-1].State == r.State && ranges[i-1].Last.Next() == r.First {
				t.Fatalf("round %d: %v and %v are one", round, ranges[i-1], r)
			}
		}
		if have != want {
			t.Fatalf("round %d: %v\nhave %s\nwant %s", round, marks, have, want)
		}
	}
}

func TestSizes(t *testing.T) {
	for _, c := range []struct {
		first, last string
		want        uint64
	}{
		{"10.0.0.5", "10.0.0.5", 1}, {"0.0.0.0", "255.255.255.255", 1 << 32}, {"fd00::", "fd00::ffff:ffff:ffff:ffff", 1<<64 - 1},
		{"fd00::ffff:ffff:ffff:fffe", "fd00:0:0:1::1", 4}, {"::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 1<<64 - 1}, {"fd00::1", "fd00::ffff:ffff:ffff:ffff", 1<<64 - 1},
		{"fd00::2", "fd00::ffff:ffff:ffff:ffff", 1<<64 - 2},
	} {
		if n := size(Range{First: addr(c.first), Last: addr(c.last)}); n != c.want {
			t.Errorf("%s-%s: %d, want %d", c.first, c.last, n, c.want)
		}
	}
	for p, want := range map[string]string{"10.0.0.0/8": "10.255.255.255", "10.0.0.4/32": "10.0.0.4", "fd00::/63": "fd00:0:0:1:ffff:ffff:ffff:ffff", "0.0.0.0/0": "255.255.255.255"} {
		if have := lastOf(prefix(p)); have != addr(want) {
			t.Errorf("%s ends with %s", p, have)
		}
	}
}
