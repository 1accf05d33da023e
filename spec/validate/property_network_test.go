package validate

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"danm.io/danm/spec/diag"
)

// poolWish is a random SR-IOV pool as the oracle sees it: PFs are those of every node, a, b and c.
type poolWish struct {
	nodes, names, vendors string // a letter each; "" is all of them, or not asked
	count                 int
	vfs                   []int // none: all
	driver, resource      string
}

// The oracle's hardware: nodes x and y, on each of them the functions a and b of vendor 1 and c of vendor 2.
var vendorOf = map[string]string{"a": "1", "b": "1", "c": "2"}

// clash is the oracle: is there a function of a node that both pools find, with other counts or a common VF? It walks over
// all hardware there is. The rule book does not know the hardware; where pools ask about different things it is silent.
func clash(p, q poolWish) bool {
	for _, node := range []string{"x", "y"} {
		for pf, vendor := range vendorOf {
			finds := func(w poolWish) bool {
				return (w.nodes == "" || w.nodes == node) && (w.names == "" || strings.Contains(w.names, pf)) && (w.vendors == "" || w.vendors == vendor)
			}
			if !finds(p) || !finds(q) {
				continue
			}
			if p.count != q.count {
				return true
			}
			for i := range p.count {
				in := func(w poolWish) bool { return len(w.vfs) == 0 || slices.Contains(w.vfs, i) }
				if in(p) && in(q) {
					return true
				}
			}
		}
	}
	return false
}

func (w poolWish) text(name string) string {
	pfs, vfs := []string{}, ""
	if w.names != "" {
		pfs = append(pfs, "names: ["+strings.Join(strings.Split(w.names, ""), ", ")+"]")
	}
	if w.vendors != "" {
		pfs = append(pfs, fmt.Sprintf("vendors: [\"000%s\"]", w.vendors))
	}
	for _, i := range w.vfs {
		vfs += fmt.Sprintf("%q, ", fmt.Sprint(i))
	}
	nodes := ""
	if w.nodes != "" {
		nodes = "nodeSelector: {n: " + w.nodes + "}, "
	}
	return sriovPool(name, fmt.Sprintf("{%spfs: {%s}, numVFs: %d, vfs: [%s], driver: %s, resourceName: danm.io/%s}", nodes, strings.Join(pfs, ", "), w.count, vfs, w.driver, w.resource))
}

func TestPoolsAgainstOracle(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	one := func(words ...string) string { return words[r.IntN(len(words))] }
	verdicts := map[bool]int{}
	for round := range 1500 {
		var pools []poolWish
		var text []string
		byVendor := r.IntN(3) == 0 // all pools of a round ask about the same, so the rule book can compare them
		for i := range 2 + r.IntN(3) {
			w := poolWish{nodes: one("x", "y", ""), count: 4, driver: one("kernel", "kernel", "vfio-pci"), resource: one("k", "l", "m")}
			if w.names = one("a", "b", "c", "ab", "bc"); byVendor {
				w.vendors, w.names = one("1", "2"), ""
			}
			if r.IntN(12) == 0 {
				w.count = 5
			}
			for v := range 4 {
				if r.IntN(4) == 0 {
					w.vfs = append(w.vfs, v)
				}
			}
			pools = append(pools, w)
			text = append(text, w.text(fmt.Sprintf("p%d", i)))
		}
		want := false
		for i, p := range pools {
			for _, q := range pools[:i] {
				want = want || clash(p, q) || p.resource == q.resource && p.driver != q.driver
			}
		}
		_, problems := Files(files(map[string]string{"b.yaml": anyBundle, "p.yaml": strings.Join(text, "---\n"), "t.yaml": topology + "  nodes: [{name: x, labels: {n: x}}, {name: y, labels: {n: y}}]\n"}))
		if problems.HasErrors() != want {
			t.Fatalf("round %d: the oracle says %t, the rule book %v\n%s", round, want, problems, strings.Join(text, "---\n"))
		}
		verdicts[want]++
	}
	if verdicts[true] < 200 || verdicts[false] < 200 {
		t.Errorf("the generator is lopsided: %v", verdicts)
	}
}

// TestHandingOutAgainstOracle: what a network hands out by itself, found address by address.
func TestHandingOutAgainstOracle(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	seen := map[string]int{}
	for round := range 1500 {
		base := netip.MustParseAddr([]string{"10.0.0.0", "223.255.255.240", "fd00::"}[r.IntN(3)])
		all := []netip.Addr{base} // sixteen, a /28 or /124
		for len(all) < 16 {
			all = append(all, all[len(all)-1].Next())
		}
		family, ip, first, last := "ipv4", "ip", 1, 14
		if base.Is6() {
			family, ip, last = "ipv6", "ip6", 15
		}
		given, ranges := map[int]bool{}, func(n int, mark func(int)) string {
			var out []string
			for range n {
				a := first + r.IntN(last-first+1)
				b := min(last, a+r.IntN(7))
				out = append(out, fmt.Sprintf("'%s-%s'", all[a], all[b]))
				for i := a; i <= b; i++ {
					mark(i)
				}
			}
			return strings.Join(out, ", ")
		}
		pool := ranges(r.IntN(2), func(i int) { given[i] = true }) // two would overlap
		if pool == "" {
			for i := first; i <= last; i++ {
				given[i] = true
			}
		}
		exclude := ranges(r.IntN(6), func(i int) { delete(given, i) })
		gateway, reserved := first+r.IntN(last-first+1), first+r.IntN(last-first+1)
		delete(given, gateway)
		keep := "[]"
		if reserved != gateway {
			delete(given, reserved)
			keep = fmt.Sprintf("[{name: a, %s: '%s'}]", ip, all[reserved])
		}
		node := first + r.IntN(last-first+1)
		bits := map[string]int{"ipv4": 28, "ipv6": 124}[family]
		text := net("n", fmt.Sprintf("{hostDevice: e, %s: {cidr: '%s/%d', pools: [%s], exclude: [%s], gateway: '%s'}, reserved: %s}", family, base, bits, pool, exclude, all[gateway], keep))
		_, problems := Files(files(map[string]string{"b.yaml": anyBundle, "n.yaml": text, "t.yaml": topology + fmt.Sprintf("  groups: [{name: g, interfaces: [{name: e, addresses: ['%s/%d']}]}]\n", all[node], bits)}))
		has := func(code diag.Code) bool {
			return slices.ContainsFunc(problems, func(d diag.Diagnostic) bool { return d.Code == code })
		}
		if has(diag.NothingToHandOut) != (len(given) == 0) || has(diag.NodeAddressInPool) != given[node] {
			t.Fatalf("round %d: %v are handed out, the node has %d; got %v\n%s", round, given, node, problems, text)
		}
		if problems = slices.DeleteFunc(problems, func(d diag.Diagnostic) bool {
			return d.Code == diag.NothingToHandOut || d.Code == diag.NodeAddressInPool || d.Code == diag.GatewayInPool
		}); len(problems) > 0 {
			t.Fatalf("round %d: %v\n%s", round, problems, text)
		}
		seen[fmt.Sprintf("nothing %t, node's %t", len(given) == 0, given[node])]++
	}
	if len(seen) != 3 || slices.Min([]int{seen["nothing true, node's false"], seen["nothing false, node's true"], seen["nothing false, node's false"]}) < 80 {
		t.Errorf("the generator is lopsided: %v", seen)
	}
}

// TestOpenNumbersComeTrue: a bundle that passes with open numbers passes with the numbers written, as they are given out.
func TestOpenNumbersComeTrue(t *testing.T) {
	type wish struct {
		fabric, id, cidr, typ string
		vxlan, open           bool
		number                int
		shares                []int
	}
	r := rand.New(rand.NewPCG(11, 12))
	passed := map[bool]int{}
	for round := range 2000 {
		all := make([]wish, 2+r.IntN(3))
		for i := range all {
			w := wish{fabric: "av"[r.IntN(2):][:1], id: "xxxy"[r.IntN(4):][:1], cidr: []string{"10.0.0.0/24", "10.0.0.0/24", "10.0.0.0/16"}[r.IntN(3)], typ: []string{"ipvlan", "macvlan"}[r.IntN(8)/7], open: r.IntN(2) == 0}
			w.id += w.fabric // two fabrics may give out one number: the names of their links must differ
			if w.vxlan = w.fabric == "a" && r.IntN(2) == 0; !w.open {
				w.number = 5 + r.IntN(3)
			}
			all[i] = w
		}
		for i := range all {
			for j := range i {
				if r.IntN(2) == 0 {
					all[i].shares, all[j].shares = append(all[i].shares, j), append(all[j].shares, i)
				}
			}
		}
		text := func() string {
			var out []string
			for i, w := range all {
				var shares []string
				for _, j := range w.shares {
					shares = append(shares, fmt.Sprintf("n%d", j))
				}
				number := "auto"
				if w.number != 0 {
					number = fmt.Sprint(w.number)
				}
				out = append(out, net(fmt.Sprintf("n%d", i), fmt.Sprintf("{fabric: %s, type: %s, networkID: %s, %s: %s, ipv4: {cidr: %s}, sharedWith: [%s]}", w.fabric, w.typ, w.id, map[bool]string{true: "vxlan", false: "vlan"}[w.vxlan], number, w.cidr, strings.Join(shares, ", "))))
			}
			return strings.Join(out, "---\n")
		}
		open := text()
		if _, problems := Files(files(one(open))); problems.HasErrors() {
			passed[false]++
			continue
		}
		for i := range all { // as render does: a partner's number, else the lowest free one
			if all[i].number != 0 {
				continue
			}
			taken := map[int]bool{}
			for _, o := range all {
				if o.vxlan == all[i].vxlan && o.fabric == all[i].fabric {
					taken[o.number] = true
				}
			}
			for _, j := range all[i].shares {
				if o := all[j]; all[i].number == 0 && o.vxlan == all[i].vxlan && o.fabric == all[i].fabric {
					all[i].number = o.number
				}
			}
			for n := 5; all[i].number == 0; n++ {
				if !taken[n] {
					all[i].number = n
				}
			}
		}
		if _, problems := Files(files(one(text()))); problems.HasErrors() && text() != open {
			t.Fatalf("round %d: passes with open numbers, but not with the numbers given out: %v\n%s---\n%s", round, problems, open, text())
		}
		passed[text() != open]++
	}
	if passed[true] < 150 {
		t.Errorf("the generator is lopsided: %v", passed)
	}
}
