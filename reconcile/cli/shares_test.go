package cli

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"danm.io/danm/ipam/alloc"
	"danm.io/danm/spec/decode"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/validate"
)

// TestSharesAsTheAllocatorCutsThem: the rule book warns of just those nodes whose slot owns, as the allocator reckons, none of the addresses
// that a network hands out, each of them looked at.
func TestSharesAsTheAllocatorCutsThem(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	outcomes := map[string]int{}
	for range 3000 {
		slots, v4 := 2+rng.IntN(9), rng.IntN(2) == 0
		host := 3 + rng.IntN(6)
		base, family, end := netip.MustParseAddr("10.9.0.0"), "ipv4", 32-host
		if !v4 {
			base, family, end = netip.MustParseAddr("fd00:9::"), "ipv6", 128-host
		}
		cidr, all := netip.PrefixFrom(base, end), make([]netip.Addr, 1<<host)
		for i, a := 0, base; i < len(all); i, a = i+1, a.Next() {
			all[i] = a
		}
		block := []int{0, 1, 2, 4, 8}[rng.IntN(5)]
		some := func(most int) (text []string, in []bool) {
			in = make([]bool, len(all))
			at := 1
			for range most {
				first := at + rng.IntN(len(all)/2)
				last := first + rng.IntN(len(all)/2)
				if last >= len(all)-1 {
					break
				}
				text = append(text, fmt.Sprintf("%s-%s", all[first], all[last]))
				for i := first; i <= last; i++ {
					in[i] = true
				}
				at = last + 1
			}
			return text, in
		}
		pools, pooled := some(rng.IntN(3))
		exclude, excluded := some(rng.IntN(3))
		y := fmt.Sprintf(`apiVersion: bundle.danm.io/v1
kind: Topology
metadata: {name: t}
spec:
  slots: %d
  nodes: [`, slots)
		for i := range slots {
			y += fmt.Sprintf("{name: n%d, slot: %d}, ", i, i)
		}
		y += fmt.Sprintf(`]
  groups: [{name: g, interfaces: [{name: eth0}]}]
---
apiVersion: bundle.danm.io/v1
kind: Network
metadata: {name: x, namespace: a}
spec: {type: macvlan, hostDevice: eth0, blockSize: %d, %s: {cidr: "%s", pools: [%s], exclude: [%s]}}
`, block, family, cidr, flow(pools), flow(exclude))
		_, problems := validate.Files([]decode.File{{Path: "x.yaml", Data: []byte("apiVersion: bundle.danm.io/v1\nkind: Bundle\nmetadata: {name: b}\nspec: {}\n---\n" + y)}})
		if problems.HasErrors() {
			t.Fatalf("%s\n%v", y, problems)
		}
		g, err := alloc.NewGeometry(cidr, block, 0, slots)
		if err != nil {
			t.Fatal(err)
		}
		owners := map[int]bool{}
		for i, a := range all {
			if ends := i == 0 || v4 && i == len(all)-1; !ends && !excluded[i] && (len(pools) == 0 || pooled[i]) {
				owners[g.Owner(a)] = true
			}
		}
		var want []string
		blocks := len(all) / int(g.Block)
		for i := range min(slots, blocks) {
			if !owners[i] {
				want = append(want, fmt.Sprintf("n%d", i))
			}
		}
		slices.Sort(want)
		said, fewBlocks, nothing := "", false, false
		for _, p := range problems {
			_, without, shares := strings.Cut(p.Summary, " of other slots, so ")
			switch {
			case p.Code == diag.NothingToHandOut:
				nothing = true
			case p.Code == diag.TooFewBlocks && shares:
				said = strings.TrimSuffix(without, " cannot give Pods an address")
				if strings.HasPrefix(p.Hint, "widen the pools") != (len(pools) > 0) || strings.Contains(p.Hint, "blockSize") != (g.Block > 1) {
					t.Fatalf("%s\n%v", y, p)
				}
			case p.Code == diag.TooFewBlocks:
				fewBlocks = true
			}
		}
		expected := ""
		if len(want) > 0 && len(owners) > 0 {
			expected = names(want)
		}
		if nothing != (len(owners) == 0) || fewBlocks != (blocks < slots) || said != expected {
			t.Fatalf("%s\n%v\nslots with addresses: %v, without: %q, blocks: %d", y, problems, owners, expected, blocks)
		}
		for what, is := range map[string]bool{"nothing": nothing, "blocks": fewBlocks, "some": said != "", "all": said == "" && !fewBlocks && !nothing} {
			if is {
				outcomes[what]++
			}
		}
	}
	for _, o := range []string{"nothing", "all", "blocks", "some"} {
		if outcomes[o] < 50 {
			t.Errorf("%s: only %d worlds, of %v", o, outcomes[o], outcomes)
		}
	}
}

// names is as the warning names nodes.
func names(all []string) string {
	switch n := len(all); {
	case n == 1:
		return "node " + all[0]
	case n > 3:
		return fmt.Sprintf("%d nodes, first %s,", n, all[0])
	default:
		return "nodes " + strings.Join(all[:n-1], ", ") + " and " + all[n-1]
	}
}

func flow(all []string) string {
	for i := range all {
		all[i] = fmt.Sprintf("%q", all[i])
	}
	return strings.Join(all, ", ")
}
