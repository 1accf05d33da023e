package validate

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"danm.io/danm/spec/decode"
	"danm.io/danm/spec/diag"
)

// TestOrderDoesNotMatter: shuffled files, and documents of a kind in another order, give the same model.
func TestOrderDoesNotMatter(t *testing.T) {
	in := files(good(t))
	want, problems := Files(in)
	if len(problems) > 0 || want.Name == "" {
		t.Fatal(problems)
	}
	bad := good(t)
	edit(t, bad, "networks.yaml", "vxlan: 5002", "vxlan: 5001")
	edit(t, bad, "topology.yaml", "slot: 2", "slot: 9")
	badIn := files(bad)
	_, wantProblems := Files(badIn)
	r := rand.New(rand.NewPCG(3, 4))
	for range 30 {
		r.Shuffle(len(in), func(i, j int) { in[i], in[j] = in[j], in[i] })
		got, _ := Files(in)
		if !reflect.DeepEqual(got, want) {
			t.Fatal("another model")
		}
		r.Shuffle(len(badIn), func(i, j int) { badIn[i], badIn[j] = badIn[j], badIn[i] })
		if _, got := Files(badIn); !reflect.DeepEqual(got, wantProblems) {
			t.Fatalf("got %v, want %v", got, wantProblems)
		}
		m := good(t)
		for _, name := range []string{"networks.yaml", "tenants.yaml"} {
			docs := strings.Split(m[name], "---\n")
			r.Shuffle(len(docs), func(i, j int) { docs[i], docs[j] = docs[j], docs[i] })
			m[name] = strings.Join(docs, "---\n")
		}
		got, problems := Files(files(m))
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		got.Origins = want.Origins // lines differ
		if !reflect.DeepEqual(got, want) {
			t.Fatal("another model with documents in another order")
		}
	}
}

// wish is a random network as the oracle sees it.
type wish struct {
	name   string
	fabric string
	vxlan  bool
	id     int
	id_    string // networkID
	cidr   netip.Prefix
	shares []string
}

// The oracle's world, written down once more: fabrics a and b are on both nodes over one device, c has another device on
// the first node and the same UDP port as a, d is on a third node and looks like a.
var oracleFabrics = map[string]struct {
	device, nodes string
	port          int
}{
	"a": {"e0", "12", 4789}, "b": {"e0", "12", 4790}, "c": {"e1", "1", 4789}, "d": {"e0", "3", 4789},
}

const oracleTopology = topology + `  nodes: [{name: n1, slot: 0, labels: {g: x, h: y}}, {name: n2, slot: 1, labels: {g: x}}, {name: n3, slot: 2, labels: {g: z}}]
  groups:
  - {name: one, selector: {g: x}, interfaces: [{name: e0}]}
  - {name: two, selector: {h: y}, interfaces: [{name: e1}]}
  - {name: three, selector: {g: z}, interfaces: [{name: e0}]}
  fabrics:
  - {name: a, groups: [one], device: e0, vxlan: {multicast: 239.0.0.1}}
  - {name: b, groups: [one], device: e0, vxlan: {multicast: 239.0.0.2, port: 4790}}
  - {name: c, groups: [two], device: e1, vxlan: {multicast: 239.0.0.3}}
  - {name: d, groups: [three], device: e0, vxlan: {multicast: 239.0.0.4}}
  slots: 3
`

func (w wish) shared(o wish) bool {
	return w.names(o) && o.names(w)
}

func (w wish) names(o wish) bool {
	return strings.Contains(" "+strings.Join(w.shares, " ")+" ", " "+o.name+" ")
}

func (w wish) link() string {
	if w.vxlan {
		return "vx_" + w.id_
	}
	if w.id == 0 {
		return ""
	}
	return fmt.Sprintf("%s.%d", w.id_, w.id)
}

// quarrel is the oracle: may both exist? It goes by the kernel and by addresses, pair by pair.
func quarrel(x, y wish) bool {
	f, g := oracleFabrics[x.fabric], oracleFabrics[y.fabric]
	if x.names(y) != y.names(x) { // shared by one side only, whatever with
		return true
	}
	if !strings.ContainsAny(f.nodes, g.nodes) {
		return false
	}
	sameWire := x.vxlan == y.vxlan && x.id == y.id && (x.vxlan && f.port == g.port || !x.vxlan && f.device == g.device)
	sameLink := sameWire && x.fabric == y.fabric && x.id != 0
	switch {
	case x.link() != "" && x.link() == y.link() && !sameLink: // one name, two links
		return true
	case sameWire && x.id != 0 && x.fabric != y.fabric: // EEXIST
		return true
	case sameLink && (!x.shared(y) || x.id_ != y.id_):
		return true
	}
	return sameWire && x.cidr.Overlaps(y.cidr) && (x.fabric != y.fabric || !x.shared(y) || x.cidr != y.cidr)
}

func TestNetworksAgainstOracle(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	verdicts := map[bool]int{}
	for round := range 1500 {
		wishes := make([]wish, 2+r.IntN(4))
		var text []string
		for i := range wishes {
			w := wish{name: fmt.Sprintf("n%d", i), fabric: string("abcd"[r.IntN(4)]), id: r.IntN(4), id_: string("vwxyz"[r.IntN(5)])}
			w.vxlan = w.id != 0 && r.IntN(2) == 0
			w.cidr = netip.MustParsePrefix([]string{"10.0.0.0/8", "10.1.0.0/16", "10.2.0.0/16", "10.1.1.0/24", "10.1.1.0/24", "11.0.0.0/8"}[r.IntN(6)])
			wishes[i] = w
		}
		for i := range wishes {
			for j := range i {
				if kind := r.IntN(40); kind > 12 { // both; a few times one of them
					if kind != 13 {
						wishes[i].shares = append(wishes[i].shares, wishes[j].name)
					}
					if kind != 14 {
						wishes[j].shares = append(wishes[j].shares, wishes[i].name)
					}
				}
			}
		}
		for _, w := range wishes {
			id := ""
			if w.vxlan {
				id = fmt.Sprintf("vxlan: %d, ", w.id)
			} else if w.id != 0 {
				id = fmt.Sprintf("vlan: %d, ", w.id)
			}
			text = append(text, net(w.name, fmt.Sprintf("{fabric: %s, networkID: %s, %sipv4: {cidr: %s}, sharedWith: [%s]}", w.fabric, w.id_, id, w.cidr, strings.Join(w.shares, ", "))))
		}
		want := false
		for i, x := range wishes {
			for _, y := range wishes[:i] {
				want = want || quarrel(x, y)
			}
		}
		_, problems := Files(files(map[string]string{"b.yaml": anyBundle, "t.yaml": oracleTopology, "n.yaml": strings.Join(text, "---\n")}))
		if problems.HasErrors() != want {
			t.Fatalf("round %d: the oracle says %t, the rule book %v\n%s", round, want, problems, strings.Join(text, "---\n"))
		}
		verdicts[want]++
	}
	if verdicts[true] < 150 || verdicts[false] < 150 {
		t.Errorf("the generator is lopsided: %v", verdicts)
	}
}

// networks is a bundle of n networks, each complete.
func networks(n int) []decode.File {
	out := []decode.File{{Path: "b.yaml", Data: []byte(anyBundle)}, {Path: "t.yaml", Data: []byte(topology +
		"  slots: 2\n  nodes: [{name: n1, slot: 0, interfaces: [{name: e0, addresses: [192.0.2.1/24]}]}, {name: n2, slot: 1, interfaces: [{name: e0, addresses: [192.0.2.2/24]}]}]\n" +
		"  groups: [{name: g, interfaces: [{name: e0, mtu: 9000}]}]\n  fabrics: [{name: f, groups: [g], device: e0, vniRanges: [\"1-100000\"], vxlan: {}}]\n")}}
	for i := range n {
		spec := fmt.Sprintf(`
  networkID: n%d
  type: macvlan
  fabric: f
  vxlan: %d
  ipv4:
    cidr: 10.0.0.0/22
    pools: [10.0.0.10-10.0.1.250, 10.0.2.10-10.0.2.20]
    exclude: [10.0.0.50]
    gateway: 10.0.0.1
    routes:
    - {to: 172.16.0.0/12, via: 10.0.0.2}
  ipv6:
    cidr: fd00:40::/64
  mtu: 1400
  interfacePrefix: net
  blockSize: 16`, i, i+1)
		out = append(out, decode.File{Path: fmt.Sprintf("networks/%04d.yaml", i), Data: []byte(net(fmt.Sprintf("ns%d/net", i), spec))})
	}
	return out
}

// TestNetworksCostTheSame: eight times as many networks take about eight times as long. What compares each with each takes 64 times.
func TestNetworksCostTheSame(t *testing.T) {
	took := func(in []decode.File) time.Duration {
		runtime.GC()
		start := cpuTime(t)
		b, problems := Files(in)
		if len(problems) > 0 || len(b.Networks) != len(in)-2 {
			t.Fatal(problems, len(b.Networks))
		}
		return cpuTime(t) - start
	}
	fewFiles, manyFiles := networks(250), networks(2000)
	few, many := time.Hour, time.Hour
	for range 2 { // in turns, and the best of each: the machine may be busy
		few, many = min(few, took(fewFiles)), min(many, took(manyFiles))
	}
	if t.Logf("250 networks in %s, 2,000 in %s", few, many); many > 20*few {
		t.Errorf("2,000 networks took %s, and 250 took %s", many, few)
	}
}

// cpuTime is what this process has had of the machine: how busy others keep it does not count.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkFiles(b *testing.B) {
	in := networks(1000)
	b.ReportAllocs()
	for b.Loop() {
		if _, problems := Files(in); len(problems) > 0 {
			b.Fatal(problems)
		}
	}
}

// FuzzFiles: no input makes the rule book panic, and what it accepts it accepts again.
func FuzzFiles(f *testing.F) {
	for _, text := range good(f) {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m := good(t)
		for _, replace := range []string{"", "networks.yaml", "topology.yaml", "tenants.yaml", "hardware.yaml"} {
			in := files(m)
			for i := range in {
				if in[i].Path == replace {
					in[i].Data = data
				}
			}
			if replace == "" {
				in = append(in, decode.File{Path: "x.yaml", Data: data})
			}
			_, problems := Files(in)
			for _, p := range problems {
				if _, ok := diag.Explain(p.Code); !ok {
					t.Errorf("%s is not explained", p.Code)
				}
			}
		}
	})
}
