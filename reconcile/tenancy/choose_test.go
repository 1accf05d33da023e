package tenancy

import (
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// bits is a bitmap as DANM's bitarray makes it, written down independently: a text of 5001 binary digits.
func bits(ids ...int) string {
	digits := []byte(strings.Repeat("0", 5008))
	for _, id := range ids {
		digits[id] = '1'
	}
	var raw []byte
	for i := 0; i < len(digits); i += 8 {
		var b byte
		for _, d := range digits[i : i+8] {
			b = b*2 + d - '0'
		}
		raw = append(raw, b)
	}
	return base64.StdEncoding.EncodeToString(raw)
}

// TestLowestFree: in a history without races every new network gets the lowest id that nobody has, by an oracle that goes
// through all ids and shares no code with the choice.
func TestLowestFree(t *testing.T) {
	given := 0
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 2))
		imported := profileOf("ens4", "vlan", "100-130")
		unknown := map[int]bool{}
		for range 5 {
			unknown[100+r.IntN(31)] = true
		}
		var ids []int
		for id := range unknown {
			ids = append(ids, id)
		}
		imported.Alloc = bits(ids...)
		w := newWorld(config("a", "acme", imported), config("b", "globex", profileOf("ens4", "vlan", "90-120")))
		for range 60 {
			key := fmt.Sprintf("%s/n%d", pick(r, "acme", "globex"), r.IntN(15))
			if w.networks[key] != nil {
				delete(w.networks, key)
				w.rest(t)
				if r.IntN(2) == 0 {
					w.relink()
					w.rest(t)
				}
				continue
			}
			for _, c := range w.configs { // one of this name waits for the links of its predecessor, which is tested elsewhere
				for _, reserved := range c.Status.Reserved {
					if reserved.Network == key {
						w.relink()
					}
				}
			}
			w.rest(t)
			if r.IntN(6) == 0 {
				w.fixed("ens4", 90+r.IntN(40), 0)
			}
			taken := map[int]bool{}
			for id := range unknown {
				taken[id] = true
			}
			for _, n := range w.networks {
				taken[n.Spec.Options.Vlan] = true
			}
			for _, c := range w.cluster {
				taken[c.Spec.Options.Vlan] = true
			}
			for n := range w.links {
				taken[int(n.ID)] = true
			}
			first, last := 100, 130
			if strings.HasPrefix(key, "globex") {
				first, last = 90, 120
			}
			want := 0
			for id := last; id >= first; id-- {
				if !taken[id] {
					want = id
				}
			}
			n := w.create(key)
			w.rest(t)
			if got := n.Spec.Options.Vlan; got != want {
				t.Fatalf("seed %d: %s got %d, want %d", seed, key, got, want)
			}
			given++
		}
	}
	t.Logf("%d numbers given", given)
}
