package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	eventually("not applied", 30*time.Second, func() bool { return n.revision() == "r1" && n.has("br0") })
	must(t, n.k.DeleteLink("br0"))
	eventually("drift is not repaired", 5*time.Second, func() bool { return n.has("br0") })
	srv := httptest.NewServer(a.handler())
	defer srv.Close()
	for path, want := range map[string]string{"/healthz": "ok", "/readyz": "ok", "/metrics": "danm_drift_repairs_total 1\n"} {
		eventually(path+" without "+want, 30*time.Second, func() bool { // the kernel is repaired before the guard's answer is counted
			resp, err := srv.Client().Get(srv.URL + path)
			must(t, err)
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			must(t, err)
			return resp.StatusCode == 200 && strings.Contains(string(b), want)
		})
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
	m.registry.MustRegister(devices{})
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
