package ipamsim

import (
	"maps"
	"net/netip"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"danm.io/danm/spec/model"
)

// The runs make much garbage, and little stays.
func TestMain(m *testing.M) {
	debug.SetGCPercent(400)
	os.Exit(m.Run())
}

// fewer divides the operations that nobody asked for by number.
var fewer = 1

// operations is DANM_IPAMSIM_OPS, or fewer where nobody asked.
func operations(t *testing.T, few int) int {
	t.Helper()
	if v := os.Getenv("DANM_IPAMSIM_OPS"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil {
			t.Fatalf("DANM_IPAMSIM_OPS=%s: %v", v, err)
		}
		return n
	}
	return few / fewer
}

// seed is DANM_IPAMSIM_SEED, or the test's own.
func seed(t *testing.T, own uint64) uint64 {
	t.Helper()
	if v := os.Getenv("DANM_IPAMSIM_SEED"); v != "" {
		n, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			t.Fatalf("DANM_IPAMSIM_SEED=%s: %v", v, err)
		}
		return n
	}
	return own
}

func subnet(cidr string, pools ...string) *model.Subnet {
	s := &model.Subnet{CIDR: netip.MustParsePrefix(cidr)}
	for _, p := range pools {
		first, last, _ := strings.Cut(p, "-")
		s.Pools = append(s.Pools, model.AddrRange{First: netip.MustParseAddr(first), Last: netip.MustParseAddr(last)})
	}
	return s
}

func network(name string, vlan uint16, blockSize int, v4, v6 *model.Subnet) model.Network {
	return model.Network{Kind: model.ClusterNetwork, Name: name, NetworkID: name, Type: model.MACVLAN, SpaceDomain: "edge", VLAN: vlan,
		BlockSize: blockSize, IPv4: v4, IPv6: v6}
}

// smallSpaces are tight: Pods fight for their addresses.
func smallSpaces() []Space {
	pools := subnet("10.1.0.0/26", "10.1.0.4-10.1.0.20", "10.1.0.30-10.1.0.61")
	pools.Gateway = netip.MustParseAddr("10.1.0.30")
	pools.Routes = []model.PodRoute{{To: netip.MustParsePrefix("10.9.0.0/16"), Via: netip.MustParseAddr("10.1.0.31")}}
	pools.Exclude = subnet("10.1.0.0/26", "10.1.0.8-10.1.0.9").Pools
	return []Space{
		{Net: network("pools", 1, 0, pools, nil), Weight: 6},
		{Net: network("single", 2, 1, subnet("10.2.0.0/27"), nil), Weight: 6},
		{Net: network("tiny", 3, 0, subnet("10.3.0.0/29"), nil), Weight: 2},
		{Net: network("pair", 4, 0, subnet("10.4.0.0/30"), nil), Weight: 1},
		{Net: network("dual", 5, 0, subnet("10.5.0.0/25"), subnet("fd00:5::/64")), Weight: 4},
	}
}

// run plays a test's operations and reports. DANM_IPAMSIM_TRACE is a file that gets a line for everything that happens.
func run(t *testing.T, cfg Config) Result {
	t.Helper()
	traced := cfg
	if name := os.Getenv("DANM_IPAMSIM_TRACE"); name != "" {
		f, err := os.Create(name) //nolint:gosec // by the developer's own wish
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		traced.Trace = func(line string) { _, _ = f.WriteString(line + "\n") }
	}
	ops := Plan(cfg, cfg.Calls)
	r := Run(t, traced, ops)
	report(t, cfg, ops, r)
	return r
}

// report fails the test with a result's violations, and with fewer operations that show one.
func report(t *testing.T, cfg Config, ops []Op, r Result) {
	t.Helper()
	t.Logf("seed %d: %d operations in %s of virtual time, %d addresses set", cfg.Seed, r.Calls, r.Virtual.Round(time.Second), r.Sets)
	for _, what := range slices.Sorted(maps.Keys(r.Stats)) {
		t.Logf("%9d %s", r.Stats[what], what)
	}
	for _, what := range slices.Sorted(maps.Keys(r.StartErrors)) {
		t.Logf("%9d agents did not start: %s", r.StartErrors[what], what)
	}
	if len(r.Violations) == 0 {
		return
	}
	v := r.Violations[0]
	t.Errorf("DANM_IPAMSIM_SEED=%d DANM_IPAMSIM_OPS=%d: %d violations, the first:\n%s", cfg.Seed, cfg.Calls, len(r.Violations), v)
	last := r
	end := time.Now().Add(5 * time.Minute) // of a long run the seed says enough
	fewer := Shrink(ops, func(ops []Op) bool {
		if time.Now().After(end) {
			return false
		}
		again := Run(t, cfg, ops)
		bad := len(again.Violations) > 0 && again.Violations[0].Kind == v.Kind
		if bad {
			last = again
		}
		return bad
	}, 120)
	text := make([]string, 0, 40)
	for _, o := range fewer[:min(40, len(fewer))] {
		text = append(text, o.String())
	}
	t.Errorf("%d operations show it too:\n  %s\n%s", len(fewer), strings.Join(text, "\n  "), last.Violations[0])
}

func local(nodes int, seed uint64) Config {
	const cooldown = 30 * time.Second
	return Config{Home: Local{Slots: nodes, Cooldown: cooldown}, Nodes: nodes, Seed: seed, Spaces: smallSpaces(), Cooldown: cooldown}
}

// TestLocalHome: three nodes with slots, tight spaces.
func TestLocalHome(t *testing.T) {
	cfg := local(3, seed(t, 1))
	cfg.Calls = operations(t, 15_000)
	run(t, cfg)
}

// manySpaces are for many nodes.
func manySpaces() []Space {
	return []Space{
		{Net: network("large", 1, 0, subnet("10.1.0.0/16"), nil), Weight: 4, Most: 800},
		{Net: network("middle", 2, 0, subnet("10.2.0.0/22"), nil), Weight: 6},
		{Net: network("single", 3, 1, subnet("10.3.0.0/24"), nil), Weight: 3},
		{Net: network("dual", 4, 4, subnet("10.4.0.0/22"), subnet("fd00:4::/64")), Weight: 3, Most: 400},
	}
}

// TestLocalHomeManyNodes: two hundred nodes with slots, and spaces of which each has a little.
func TestLocalHomeManyNodes(t *testing.T) {
	cfg := local(200, seed(t, 2))
	cfg.Busy = true
	cfg.Spaces = manySpaces()
	cfg.Calls = operations(t, 15_000)
	run(t, cfg)
}

// TestOneSeedOneRun: a seed that shows something shows it again.
func TestOneSeedOneRun(t *testing.T) {
	for i := range uint64(max(2, 5/fewer)) { // one of each home at least
		cfg := local(3, seed(t, 50)+i)
		if i%2 == 1 {
			cfg = cluster(4, cfg.Seed, clusterSpaces())
		}
		ops := Plan(cfg, 2000/fewer)
		traces := [2][]string{}
		for k := range traces {
			cfg.Trace = func(line string) {
				if !strings.Contains(line, " log ") { // what one agent writes while another does has no order
					traces[k] = append(traces[k], line)
				}
			}
			Run(t, cfg, ops)
		}
		a, b := traces[0], traces[1]
		for n := range max(len(a), len(b)) {
			if n >= min(len(a), len(b)) || a[n] != b[n] {
				t.Errorf("seed %d: %d and %d events, and from event %d on they differ:\n%s\n\n%s", cfg.Seed, len(a), len(b), n,
					strings.Join(a[max(0, n-4):min(n+3, len(a))], "\n"), strings.Join(b[max(0, n-4):min(n+3, len(b))], "\n"))
				break
			}
		}
	}
}
