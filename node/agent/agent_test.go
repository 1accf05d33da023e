package agent

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"danm.io/danm/ipam"
	"danm.io/danm/node/endpoints"
	"danm.io/danm/node/fake"
	"danm.io/danm/node/guard"
	"danm.io/danm/node/plan"
	"danm.io/danm/node/probe"
	"danm.io/danm/node/state"
	"danm.io/danm/spec/model"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// node is one machine: kernel, state directory, guard and agent, with probes that see the kernel.
type node struct {
	t     *testing.T
	k     *fake.Kernel
	dir   string
	g     *guard.Guard
	front *front
	a     *Agent
	up    func(name string) bool // whether a probe passes now
	pods  map[string][]string
	mends int
}

// front is the guard as the agent reaches it: it can be away, and it can be counted.
type front struct {
	*guard.Guard
	away    bool
	last    guard.Submission
	submits int
	onOK    func() // after a successful Confirm
}

func (f *front) Status(ctx context.Context) (guard.Status, error) {
	if f.away {
		return guard.Status{}, guard.ErrAway
	}
	return f.Guard.Status(ctx)
}

func (f *front) Submit(ctx context.Context, s guard.Submission) (guard.Outcome, error) {
	f.submits++
	f.last = s
	return f.Guard.Submit(ctx, s)
}

func (f *front) Confirm(ctx context.Context, digest string) error {
	err := f.Guard.Confirm(ctx, digest)
	if err == nil && f.onOK != nil {
		f.onOK()
	}
	return err
}

func (n *node) Serve(ctx context.Context, ready chan<- struct{}, _ func() (model.NodeState, bool)) error {
	close(ready)
	<-ctx.Done()
	return nil
}

func (n *node) Pods() map[string][]string { return n.pods }

func (n *node) Mend(context.Context) (int, error) { n.mends++; return 0, nil }

func newNode(t *testing.T) *node {
	t.Helper()
	n := &node{t: t, k: fake.New(), dir: t.TempDir(), up: func(string) bool { return true }}
	must(t, n.k.AddLink(plan.ObservedLink{Link: model.Link{Name: "eth0", Kind: model.Physical, MTU: 1500, Up: true,
		Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.10/24")}}, MAC: "02:00:00:00:00:01"}))
	must(t, n.k.AddRoute(plan.ObservedRoute{Route: model.Route{To: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("192.0.2.1"), Dev: "eth0"}, Protocol: 3}))
	g, err := guard.Open(context.Background(), guard.Options{Dir: n.dir, Kernel: n.k, BootID: "b"})
	must(t, err)
	n.g, n.front = g, &front{Guard: g}
	n.start()
	return n
}

// start makes a new agent process.
func (n *node) start() {
	n.t.Helper()
	a, err := New(Options{Node: "edge-1", StateDir: n.dir, Kernel: n.k, Guard: n.front, Attachments: n,
		CNIConfDir: filepath.Join(n.dir, "net.d"), Socket: "/run/danm/cni.sock", Probe: n.probe})
	must(n.t, err)
	a.serving.Store(true)
	n.a = a
}

func (n *node) probe(ctx context.Context, probes []model.Probe, env probe.Env) []probe.Result {
	var out []probe.Result
	for _, p := range probes {
		r := probe.Result{Name: p.Name}
		if !n.up(p.Name) {
			r.Err = errors.New("no answer")
		}
		if d, ok := ctx.Deadline(); ok && !time.Now().Before(d) { // as a dial does
			r.Err = errors.New("i/o timeout")
		}
		out = append(out, r)
	}
	return out
}

// run makes rounds for so long, as the loop would.
func (n *node) run(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(min(n.a.round(context.Background()), time.Until(end)))
	}
}

func bridgePlan(mtu int) model.NodePlan {
	return model.NodePlan{Links: []model.Link{{Name: "br0", Kind: model.Bridge, MTU: mtu, Up: true}}}
}

func (n *node) write(rev string, p model.NodePlan, change ...func(*model.NodeState)) model.NodeState {
	n.t.Helper()
	st := model.NodeState{Home: model.LocalHome, Node: "edge-1", Slots: 1, Bundle: "edge", Revision: rev, Plan: p,
		Digest: p.Digest(), ConfirmTimeout: 15 * time.Second}
	for _, c := range change {
		c(&st)
	}
	_, err := state.Open(n.dir).Write(st)
	must(n.t, err)
	return st
}

func probes(names ...string) func(*model.NodeState) {
	return func(st *model.NodeState) {
		for _, name := range names {
			st.Probes = append(st.Probes, model.Probe{Name: name, Kind: model.ProbeTCP, Target: "192.0.2.1:443"})
		}
	}
}

func (n *node) revision() string { st, _ := n.a.Confirmed(); return st.Revision }

func (n *node) has(link string) bool { return strings.Contains(n.k.Dump(), link) }

func (n *node) status() guard.Status { st, _ := n.g.Status(context.Background()); return st }

func TestNothingReadChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.run(time.Minute)
		if n.k.Writes() > 0 || n.front.submits > 0 || n.a.notReady() == "" {
			t.Errorf("%d writes, %d submissions, ready: %q", n.k.Writes(), n.front.submits, n.a.notReady())
		}
		if _, ok := n.a.Confirmed(); ok {
			t.Error("something is confirmed")
		}
		if _, err := os.Stat(filepath.Join(n.dir, "net.d")); err == nil {
			t.Error("a CNI conf was written before the node was ready")
		}
	})
}

func TestWithoutProbesTheKernelConfirms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.write("r1", bridgePlan(1400))
		n.run(time.Second)
		if n.revision() != "r1" || !n.has("br0") || n.status().Phase != guard.Confirmed || n.a.notReady() != "" {
			t.Fatalf("revision %s, phase %s, ready %q", n.revision(), n.status().Phase, n.a.notReady())
		}
		conf, err := os.ReadFile(filepath.Join(n.dir, "net.d", "10-danm.conflist"))
		want := `{"cniVersion":"1.0.0","cniVersions":["0.3.1","0.4.0","1.0.0","1.1.0"],"name":"danm","plugins":[{"type":"danm","socket":"/run/danm/cni.sock"}]}` + "\n"
		if err != nil || string(conf) != want {
			t.Errorf("CNI conf %q, %v", conf, err)
		}
		writes, submits := n.k.Writes(), n.front.submits
		n.run(time.Minute)
		if n.k.Writes() != writes || n.front.submits != submits {
			t.Error("no-op rounds wrote")
		}
	})
}

func TestProbesPassForThreeSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.write("r1", bridgePlan(1400), probes("gw", "dead"))
		n.up = func(name string) bool { return name == "gw" } // the dead one was dead before, so it does not count
		start := time.Now()
		offered := time.Duration(-1)
		n.front.onOK = func() { offered = time.Since(start) }
		go func() {
			time.Sleep(2900 * time.Millisecond)
			if _, ok := n.a.Confirmed(); ok || n.status().Phase != guard.Waiting {
				t.Error("offered to ADD before it was confirmed")
			}
		}()
		n.run(5 * time.Second)
		if offered < 3*time.Second || offered > 4*time.Second || n.revision() != "r1" {
			t.Errorf("confirmed after %s", offered)
		}
	})
}

func TestAFlappingProbeStartsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.write("r1", bridgePlan(1400), probes("gw"))
		start := time.Now()
		n.up = func(string) bool { d := time.Since(start); return d < 2*time.Second || d > 4*time.Second }
		at := time.Duration(0)
		n.front.onOK = func() { at = time.Since(start) }
		n.run(10 * time.Second)
		if at < 7*time.Second || at > 8*time.Second {
			t.Errorf("confirmed after %s, want 3 s after the last failure at 4 s", at)
		}
	})
}

func TestGuiltyPlanIsQuarantined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.write("r1", bridgePlan(1400), probes("gw"))
		n.run(5 * time.Second)
		good := n.k.Dump()
		n.up = func(string) bool { return !strings.Contains(n.k.Dump(), "1300") }
		n.write("r2", bridgePlan(1300), probes("gw"))
		start := time.Now()
		n.run(18 * time.Second)
		st := n.status()
		if n.k.Dump() != good || n.revision() != "r1" || st.Undone == nil || st.Undone.Verdict != guard.Guilty || st.Undone.Probe != "gw" {
			t.Fatalf("revision %s, undone %+v\n%s", n.revision(), st.Undone, n.k.Dump())
		}
		if took := st.Undone.At.Sub(start); took > 17*time.Second {
			t.Errorf("reverted after %s", took)
		}
		submits := n.front.submits
		n.run(10 * time.Minute)
		if n.front.submits != submits {
			t.Error("a guilty plan was submitted again")
		}
		must(t, n.k.DeleteLink("br0")) // the confirmed plan is still looked after
		n.run(15 * time.Second)
		if n.k.Dump() != good {
			t.Error("drift of the confirmed plan is not repaired beside a quarantined one")
		}
		n.write("r3", bridgePlan(1200), probes("gw"))
		n.run(15 * time.Second)
		if n.revision() != "r3" {
			t.Error("another digest is not tried")
		}
	})
}

func TestInconclusiveIsRetriedWithBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.write("r1", bridgePlan(1400), probes("gw"))
		broken := false
		n.up = func(string) bool { // dies with the first apply and stays dead while it is judged, then recovers
			if n.has("br0") {
				broken = true
			}
			return !broken
		}
		var at []time.Duration
		start, last := time.Now(), 0
		for time.Since(start) < 5*time.Minute {
			n.run(time.Second)
			if n.front.submits != last {
				last = n.front.submits
				at = append(at, time.Since(start))
			}
			if u := n.status().Undone; u != nil && u.Verdict != guard.Undecided {
				if u.Verdict != guard.Inconclusive {
					t.Fatalf("verdict %s", u.Verdict)
				}
				broken = false
			}
		}
		if n.front.submits != guard.MaxAttempts {
			t.Fatalf("%d submissions at %v, want %d", n.front.submits, at, guard.MaxAttempts)
		}
		for i := 2; i < len(at); i++ {
			if at[i]-at[i-1] < at[i-1]-at[i-2] {
				t.Errorf("no backoff: %v", at)
			}
		}
	})
}

func TestAgentLostInTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		base := n.k.Dump()
		st := n.write("r1", bridgePlan(1400), probes("gw"))
		_, err := n.g.Submit(context.Background(), guard.Submission{Desired: plan.Desired{Plan: st.Plan}, Digest: st.Digest, ConfirmTimeout: st.ConfirmTimeout})
		must(t, err)
		n.start() // its predecessor died
		start := time.Now()
		n.run(14 * time.Second)
		if n.status().Phase != guard.Waiting {
			t.Error("an agent that saw no probe before the apply confirmed it")
		}
		n.run(2 * time.Second)
		if n.k.Dump() != base || n.status().Undone.Verdict != guard.Inconclusive {
			t.Errorf("after %s: %+v\n%s", time.Since(start), n.status().Undone, n.k.Dump())
		}
		n.run(30 * time.Second)
		if n.revision() != "r1" {
			t.Error("not tried again")
		}
	})
}

func TestAgentLostBetweenConfirmAndMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.write("r1", bridgePlan(1400))
		n.run(time.Second)
		n.write("r2", bridgePlan(1300))
		old := n.a.memory
		n.run(time.Second)
		// The memory as it was when the guard had confirmed r2 and the agent not yet noted it; r3 is already there.
		st, _ := n.a.Confirmed()
		must(t, memory{Confirmed: old.Confirmed, Candidate: &st}.save(n.dir))
		n.write("r3", bridgePlan(1200))
		n.front.away = true
		n.start()
		n.run(time.Second)
		if n.revision() != "r1" {
			t.Errorf("without the guard: %s", n.revision())
		}
		n.front.away = false
		n.a.round(context.Background()) // recalls r2 first, then applies r3
		n.run(5 * time.Second)
		if n.revision() != "r3" {
			t.Errorf("with the guard: %s", n.revision())
		}
	})
	t.Run("candidate counts by the guard's digest", func(t *testing.T) {
		n := newNode(t)
		a, b := n.write("r1", bridgePlan(1400)), n.write("r2", bridgePlan(1300))
		n.a.memory = memory{Confirmed: &a, Candidate: &b}
		n.a.recall(guard.Status{Confirmed: &guard.Transaction{Digest: b.Digest}}, nil)
		if n.revision() != "r2" {
			t.Errorf("recalled %s", n.revision())
		}
	})
}

func TestNetworksChangeWithoutAPlan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.write("r1", bridgePlan(1400))
		n.run(time.Second)
		submits := n.front.submits
		n.write("r2", bridgePlan(1400), func(st *model.NodeState) {
			st.Networks = []model.Network{{Kind: model.ClusterNetwork, Name: "x", NetworkID: "x", Type: model.BRIDGE, SpaceDomain: "f"}}
		})
		n.run(10 * time.Second)
		if st, _ := n.a.Confirmed(); st.Revision != "r2" || len(st.Networks) != 1 || n.front.submits != submits {
			t.Errorf("revision %s, %d submissions", st.Revision, n.front.submits-submits)
		}
	})
}

func TestGuardAwayKeepsServing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.write("r1", bridgePlan(1400))
		n.run(time.Second)
		n.front.away = true
		n.write("r2", bridgePlan(1300))
		n.start()
		n.run(time.Minute)
		if n.revision() != "r1" || n.a.notReady() != "" {
			t.Errorf("revision %q, ready: %q", n.revision(), n.a.notReady())
		}
		n.front.away = false
		n.run(10 * time.Second)
		if n.revision() != "r2" {
			t.Error("not reconnected")
		}
	})
}

func TestAnotherNodesState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.write("r1", bridgePlan(1400), func(st *model.NodeState) { st.Node = "edge-2" })
		n.run(time.Minute)
		if n.k.Writes() > 0 {
			t.Error("another node's plan was applied")
		}
		if _, err := New(n.a.opts); !errors.Is(err, ErrNode) {
			t.Errorf("start: %v", err)
		}
	})
}

func TestRefusedStateKeepsTheConfirmedOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.write("r1", bridgePlan(1400))
		n.run(time.Second)
		good := n.k.Dump()
		for _, name := range []string{"state.json", "state.last-good.json"} {
			must(t, os.WriteFile(filepath.Join(n.dir, name), []byte("{"), 0o600))
		}
		must(t, n.k.DeleteLink("br0"))
		n.start()
		n.run(15 * time.Second)
		if n.k.Dump() != good || n.revision() != "r1" {
			t.Errorf("revision %s\n%s", n.revision(), n.k.Dump())
		}
	})
}

func TestDriftAndFights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.write("r1", bridgePlan(1400))
		n.run(time.Second)
		repaired := 0
		for range 30 {
			must(t, n.k.DeleteLink("br0"))
			n.a.round(context.Background())
			if n.has("br0") {
				repaired++
			}
			time.Sleep(time.Second)
		}
		if repaired != maxRepairs+1 {
			t.Errorf("repaired %d times within 30 s, want %d", repaired, maxRepairs+1)
		}
		n.run(2 * time.Minute)
		if !n.has("br0") {
			t.Error("given up for ever")
		}
	})
}

func TestHeldStepsWaitQuietly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.write("r1", bridgePlan(1400))
		n.run(time.Second)
		n.pods = map[string][]string{"br0": {"acme/sip-0"}}
		n.write("r2", model.NodePlan{})
		n.run(5 * time.Minute)
		if !n.has("br0") || len(n.status().Held) == 0 {
			t.Fatalf("destroyed under a Pod; held %v", n.status().Held)
		}
		if n.front.submits > 4 {
			t.Errorf("%d submissions while nothing changed", n.front.submits)
		}
		n.pods = nil
		n.run(time.Minute)
		if n.has("br0") {
			t.Error("not removed after the Pod left")
		}
	})
}

func TestGatewaysAreTheMainTables(t *testing.T) {
	n := newNode(t)
	must(t, n.k.AddRoute(plan.ObservedRoute{Route: model.Route{To: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("192.0.2.2"), Dev: "eth0", Table: 300}, Protocol: 3}))
	gws, err := n.a.gateways(context.Background())
	want := []probe.Gateway{{Link: "eth0", Addr: netip.MustParseAddr("192.0.2.1")}}
	if err != nil || !slices.Equal(gws, want) {
		t.Errorf("%v %v", gws, err)
	}
}

// The whole thing in real time: the guard behind its socket, the loop woken by the directory and by the kernel.
func TestRunOverTheSocket(t *testing.T) {
	dir, err := os.MkdirTemp("", "agent")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	n := &node{t: t, k: fake.New(), dir: dir, up: func(string) bool { return true }}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- guard.Run(ctx, guard.Options{Dir: dir, Kernel: n.k, BootID: "b"}) }()
	a, err := New(Options{Node: "edge-1", StateDir: dir, Kernel: n.k, Guard: guard.Client{Dir: dir}, Attachments: n})
	must(t, err)
	n.a = a
	go func() { done <- a.Run(ctx) }()
	eventually := func(what string, limit time.Duration, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(limit); !ok(); time.Sleep(5 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal(what)
			}
		}
	}
	n.write("r1", bridgePlan(1400))
	eventually("not applied", 10*time.Second, func() bool { return n.revision() == "r1" && n.has("br0") })
	must(t, n.k.DeleteLink("br0"))
	eventually("drift is not repaired", 5*time.Second, func() bool { return n.has("br0") })
	srv := httptest.NewServer(a.handler())
	defer srv.Close()
	for path, want := range map[string]string{"/healthz": "ok", "/readyz": "ok", "/metrics": "danm_drift_repairs_total 1"} {
		resp, err := srv.Client().Get(srv.URL + path)
		must(t, err)
		b := make([]byte, 1<<20)
		m := 0
		for m < len(b) {
			k, err := resp.Body.Read(b[m:])
			if m += k; err != nil {
				break
			}
		}
		_ = resp.Body.Close()
		if resp.StatusCode != 200 || !strings.Contains(string(b[:m]), want) {
			t.Errorf("%s: %d, without %q", path, resp.StatusCode, want)
		}
	}
	cancel()
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// docs/metrics.md lists every metric of the agent with its help text, and nothing else in its section.
func TestMetricsAreDocumented(t *testing.T) {
	b, err := os.ReadFile("../../docs/metrics.md")
	must(t, err)
	documented := map[string]string{}
	_, section, _ := strings.Cut(string(b), "\n## danm-node agent\n")
	section, _, _ = strings.Cut(section, "\n## ")
	for _, m := range regexp.MustCompile("(?m)^\\| `(danm_[a-z_]+)`[^|]*\\| (.+) \\|$").FindAllStringSubmatch(section, -1) {
		documented[m[1]] = m[2]
	}
	descs := make(chan *prometheus.Desc, 1000)
	m := newMetrics()
	(&addresses{keeper: new(ipam.Keeper)}).measure(m.registry)
	m.publishes(new(endpoints.Publisher))
	m.registry.Describe(descs)
	close(descs)
	exported := map[string]string{}
	form := regexp.MustCompile(`fqName: "(danm_[a-z_]+)", help: "([^"]+)"`)
	for d := range descs {
		if m := form.FindStringSubmatch(d.String()); m != nil {
			exported[m[1]] = m[2]
		}
	}
	if len(exported) < 10 || fmt.Sprint(exported) != fmt.Sprint(documented) {
		t.Errorf("docs/metrics.md says\n%v\nthe agent exports\n%v", documented, exported)
	}
}

// TestReport: what the guard and people find in the state directory is how the agent stands.
func TestReport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.a.opts.Hardware = func(context.Context) ([]model.NIC, error) { return []model.NIC{{Name: "eth0", MaxMTU: 9000}}, nil }
		n.write("r1", bridgePlan(1400))
		n.pods = map[string][]string{"br0": {"acme/a"}}
		n.run(2 * time.Second)
		r, err := state.Open(n.dir).ReadReport()
		must(t, err)
		n.write("r2", bridgePlan(1300), func(st *model.NodeState) { st.Disruptive = true })
		n.run(2 * time.Second)
		if s := n.front.last; !s.Disruptive || len(s.Pods["br0"]) != 1 || s.Revision != "r2" {
			t.Errorf("submitted %+v", s)
		}
		if n.mends == 0 {
			t.Error("nobody looks after the interfaces of Pods")
		}
		if r.BootID != "b" || r.Problem != "" || len(r.Pods["br0"]) != 1 {
			t.Errorf("%+v", r)
		}
		inv, err := state.Open(n.dir).ReadInventory()
		if err != nil || len(inv.Hardware["edge-1"]) != 1 {
			t.Errorf("%+v %v", inv, err)
		}
		n.front.away = true
		n.pods = nil
		n.run(time.Second)
		if r, err = state.Open(n.dir).ReadReport(); err != nil || !strings.HasPrefix(r.Problem, "GuardAway") || r.BootID != "b" || r.Pods != nil {
			t.Errorf("%+v %v", r, err)
		}
	})
}

// TestProbesOfASleeperBlameNobody: an agent that was stopped in the middle of its probes finds them out of time when it
// wakes; a plan is not guilty by that.
func TestProbesOfASleeperBlameNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.write("r1", bridgePlan(1400), probes("gw"))
		n.run(5 * time.Second)
		slept := false
		n.up = func(string) bool {
			if slept || !strings.Contains(n.k.Dump(), "1300") {
				return true
			}
			slept = true
			time.Sleep(20 * time.Second) // past the window; the probe's own time is over, too
			return false
		}
		n.write("r2", bridgePlan(1300), probes("gw"))
		n.run(21 * time.Second)
		if st := n.status(); !slept || st.Undone == nil || st.Undone.Verdict != guard.Inconclusive || st.Refusals[st.Undone.Digest].Guilty {
			t.Fatalf("%+v, %+v", st.Undone, st.Refusals)
		}
		n.run(30 * time.Second)
		if n.revision() != "r2" {
			t.Error("not tried again")
		}
	})
}

// TestTheWindowsEndIsNoAnswer: probes that pass all the time are cut off by the end of a window that is too short to
// confirm in; nobody is blamed.
func TestTheWindowsEndIsNoAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.write("r1", bridgePlan(1400), probes("gw"))
		n.run(5 * time.Second)
		n.up = func(string) bool { time.Sleep(500 * time.Millisecond); return true }
		n.write("r2", bridgePlan(1300), probes("gw"), func(st *model.NodeState) { st.ConfirmTimeout = 2200 * time.Millisecond })
		n.run(6 * time.Second)
		if st := n.status(); st.Undone == nil || st.Undone.Verdict != guard.Inconclusive || st.Undone.Probe != "" {
			t.Fatalf("%+v", st.Undone)
		}
	})
}
