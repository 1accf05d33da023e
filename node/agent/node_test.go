package agent

import (
	"context"
	"errors"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
