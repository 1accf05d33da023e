package kernel

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"danm.io/danm/node/agent"
	"danm.io/danm/node/guard"
	"danm.io/danm/node/link"
	"danm.io/danm/node/plan"
	"danm.io/danm/node/probe"
	"danm.io/danm/node/state"
	"danm.io/danm/spec/model"
	"danm.io/danm/test/lab"
)

// What a process of this test is: role is guard or agent, victim is whom the guard kills at its n-th point (0: nobody).
const (
	roleVariable   = "DANM_FAULT_ROLE"
	dirVariable    = "DANM_FAULT_DIR"
	pointVariable  = "DANM_FAULT_POINT"
	victimVariable = "DANM_FAULT_VICTIM"
)

const faultWindow = time.Second // confirmTimeout of the plans in this sweep

// playRole is a daemon of the sweep.
func playRole(role string) error {
	k, err := link.New("/")
	if err != nil {
		return err
	}
	defer k.Close()
	dir := os.Getenv(dirVariable)
	ctx := context.Background()
	if role == "agent" {
		if err := os.WriteFile(filepath.Join(dir, "agent.pid"), []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
			return err
		}
		a, err := agent.New(agent.Options{Node: "n", StateDir: dir, Kernel: k, Guard: guard.Client{Dir: dir}, Settle: 50 * time.Millisecond, RetryBase: time.Hour,
			Probe: func(_ context.Context, ps []model.Probe, _ probe.Env) []probe.Result {
				return make([]probe.Result, len(ps))
			}})
		if err != nil {
			return err
		}
		return a.Run(ctx)
	}
	n, err := strconv.Atoi(os.Getenv(pointVariable))
	if err != nil {
		return err
	}
	p := &points{at: n, victim: os.Getenv(victimVariable), dir: dir}
	return guard.Run(ctx, guard.Options{Dir: dir, Kernel: pointed{k, p}, BootID: "b", Fault: p.act})
}

// points counts the moments at which a process may end: before and after each kernel write, before each act of a write to
// the disk.
type points struct {
	mu       sync.Mutex
	seen, at int
	victim   string
	dir      string
}

func (p *points) pass() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seen++; p.seen != p.at {
		return
	}
	if p.victim != "guard" {
		if b, err := os.ReadFile(filepath.Join(p.dir, "agent.pid")); err == nil {
			if pid, err := strconv.Atoi(string(b)); err == nil {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	}
	if p.victim != "agent" {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	}
}

func (p *points) act(string, string) error { p.pass(); return nil }

type pointed struct {
	plan.Kernel
	p *points
}

func (k pointed) Apply(ctx context.Context, s plan.Step) error {
	k.p.pass()
	defer k.p.pass()
	return k.Kernel.Apply(ctx, s)
}

func (k pointed) DeleteLinks(ctx context.Context, steps []plan.Step) error {
	k.p.pass()
	defer k.p.pass()
	return k.Kernel.DeleteLinks(ctx, steps)
}

// faultPlans are two plans for a machine with eth0 and eth1 that differ in everything this kernel has.
func faultPlans(vlans bool) (a, b model.NodePlan) {
	addr := netip.MustParsePrefix
	vx := func(name string, vni uint32, mtu int) model.Link {
		return model.Link{Name: name, Kind: model.VXLAN, Parent: "eth0", MTU: mtu, Up: true, Master: "br0", Alias: "net " + name,
			VXLAN: &model.VXLANOptions{VNI: vni, Port: 4789, Local: netip.MustParseAddr("192.0.2.10")}}
	}
	a.Links = []model.Link{
		{Name: "br0", Kind: model.Bridge, MTU: 1400, Up: true, Addresses: []netip.Prefix{addr("10.1.0.1/24")}},
		{Name: "eth1", Kind: model.Physical, MTU: 1500, Up: true},
		vx("vx0", 100, 1400),
	}
	b.Links = []model.Link{
		{Name: "br0", Kind: model.Bridge, MTU: 1300, Up: true, Addresses: []netip.Prefix{addr("10.2.0.1/24")}},
		{Name: "br1", Kind: model.Bridge, MTU: 1500, Up: true, Addresses: []netip.Prefix{addr("10.3.0.1/24"), addr("fd00:3::1/64")}},
		{Name: "eth1", Kind: model.Physical, MTU: 1600, Up: true, Master: "br1"},
		vx("vx0", 101, 1300),
	}
	if vlans {
		a.Links = append(a.Links, model.Link{Name: "eth1.10", Kind: model.VLAN, Parent: "eth1", VLANID: 10, MTU: 1500, Up: true, Addresses: []netip.Prefix{addr("10.4.0.1/24")}})
		b.Links = append(b.Links, model.Link{Name: "eth1.20", Kind: model.VLAN, Parent: "br1", VLANID: 20, MTU: 1400, Up: true})
	}
	a.Routes = []model.Route{{To: addr("10.9.0.0/16"), Via: netip.MustParseAddr("10.1.0.2"), Dev: "br0"}}
	b.Routes = []model.Route{{To: addr("10.9.0.0/16"), Via: netip.MustParseAddr("10.2.0.2"), Dev: "br0"}}
	return a, b
}

// faultMachine is one case of the sweep: a namespace with two devices, a state directory, two daemons.
type faultMachine struct {
	t            *testing.T
	r            real
	dir          string
	guard, agent *lab.Proc
}

func newFaultMachine(t *testing.T, a model.NodePlan) *faultMachine {
	t.Helper()
	m := &faultMachine{t: t, r: newReal(t)}
	var err error
	m.dir, err = os.MkdirTemp("", "danm")
	must(t, err)
	t.Cleanup(func() {
		for _, p := range []*lab.Proc{m.agent, m.guard} {
			if p != nil {
				p.Stop(syscall.SIGKILL, time.Second)
			}
		}
		_ = os.RemoveAll(m.dir)
	})
	for _, name := range []string{"eth0", "eth1"} {
		must(t, m.r.AddLink(plan.ObservedLink{Link: model.Link{Name: name, Kind: model.Physical, MTU: 1500, Up: true}, KernelKind: "veth"}))
	}
	must(t, m.r.AddAddress("eth0", netip.MustParsePrefix("192.0.2.10/24")))
	must(t, m.r.AddAddress("eth1", netip.MustParsePrefix("198.51.100.10/24")))
	must(t, m.r.AddRoute(plan.ObservedRoute{Route: model.Route{To: netip.MustParsePrefix("0.0.0.0/0"), Via: netip.MustParseAddr("192.0.2.1"), Dev: "eth0"}, Protocol: 3}))
	g, err := guard.Open(t.Context(), guard.Options{Dir: m.dir, Kernel: m.r.Kernel, BootID: "b"})
	must(t, err)
	_, err = g.Submit(t.Context(), guard.Submission{Desired: plan.Desired{Plan: a}, Digest: a.Digest(), Revision: "a"})
	must(t, err)
	must(t, g.Confirm(t.Context(), a.Digest()))
	must(t, g.Close(t.Context()))
	return m
}

func (m *faultMachine) start(role string, point int, victim string) *lab.Proc {
	m.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleVariable+"="+role, dirVariable+"="+m.dir, pointVariable+"="+strconv.Itoa(point), victimVariable+"="+victim)
	cmd.Stderr = os.Stderr
	p, err := m.r.ns.Start(cmd)
	must(m.t, err)
	return p
}

// status asks the guard until it answers.
func (m *faultMachine) status(within time.Duration) (guard.Status, error) {
	c := guard.Client{Dir: m.dir}
	for end := time.Now().Add(within); ; time.Sleep(10 * time.Millisecond) {
		st, err := c.Status(context.Background())
		if err == nil || time.Now().After(end) {
			return st, err
		}
	}
}

var macs = regexp.MustCompile(` mac \S+`)

func (m *faultMachine) dump() string {
	m.t.Helper()
	o, err := m.r.Observe(context.Background())
	must(m.t, err)
	return macs.ReplaceAllString(o.Dump(), "")
}

// exited waits for the end of a process.
func exited(p *lab.Proc, within time.Duration) bool {
	select {
	case <-p.Exited:
		return true
	case <-time.After(within):
		return false
	}
}

// lateness says how much later than asked sleepers have woken in sum since it was called: what a busy machine, and not the guard, takes. On
// one that has nothing else to do it is next to nothing.
func lateness(ctx context.Context) func() time.Duration {
	var late atomic.Int64
	go func() {
		const nap = 5 * time.Millisecond
		for ctx.Err() == nil {
			began := time.Now()
			time.Sleep(nap)
			late.Add(int64(max(0, time.Since(began)-nap-time.Millisecond)))
		}
	}()
	return func() time.Duration { return time.Duration(late.Load()) }
}

// settle brings a machine to rest after its victims are dead: the guard alone has to lead it to the old or the new plan.
func (m *faultMachine) settle(victim string) (guard.Status, time.Duration, error) {
	began := time.Now()
	late := lateness(m.t.Context())
	if victim != "agent" {
		m.guard = m.start("guard", 0, "")
	}
	for {
		st, err := m.status(10 * time.Second)
		if err != nil {
			return st, 0, err
		}
		if !st.Phase.Open() {
			return st, time.Since(began), nil
		}
		if took, allowed := time.Since(began), faultWindow+2*time.Second+2*late(); took > allowed {
			return st, 0, fmt.Errorf("phase %s after %s of %s: %s", st.Phase, took, allowed, st.Trouble)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestKernelKilledAnywhere: while a plan is brought to this kernel, the guard, the agent or both are killed with -9 at every
// kernel write and every act of a write to the disk. The guard, started again where it died, leads the machine to the old
// plan or to the new one by itself, within confirmTimeout and two seconds, and journal and kernel agree.
func TestKernelKilledAnywhere(t *testing.T) {
	probe := newReal(t)
	a, b := faultPlans(probe.knows("vlan"))
	dumps := map[string]string{}
	for _, p := range []model.NodePlan{a, b} {
		m := newFaultMachine(t, p)
		dumps[p.Digest()] = m.dump()
	}
	if dumps[a.Digest()] == dumps[b.Digest()] {
		t.Fatal("the plans lead to the same")
	}
	st := model.NodeState{Home: model.LocalHome, Node: "n", Slots: 1, Bundle: "x", Revision: "b", Plan: b, Digest: b.Digest(),
		ConfirmTimeout: faultWindow, Probes: []model.Probe{{Name: "p", Kind: model.ProbeTCP}}}
	for _, victim := range []string{"guard", "both", "agent"} {
		t.Run(victim, func(t *testing.T) { sweep(t, victim, a, st, dumps) })
	}
}

// atOnce is how many machines are there at a time: most of their time is waiting.
const atOnce = 8

// sweep kills the victim at point after point until nothing dies any more. Where only each tenth is tried, all of the last ones are:
// few of them come after the confirmation.
func sweep(t *testing.T, victim string, a model.NodePlan, st model.NodeState, dumps map[string]string) {
	var mu sync.Mutex
	points, last, ends, done, step := 0, 0, map[string]int{}, false, 1
	if os.Getenv("DANM_BIN") != "" {
		step = 10 // the VM emulates its processors: the same takes ten times as long there
	}
	try := func(t *testing.T, i int) {
		t.Parallel()
		end := killAt(t, i, victim, a, st, dumps)
		mu.Lock()
		defer mu.Unlock()
		if end == "" {
			done = true
			return
		}
		points++
		ends[end]++
		last = max(last, i)
	}
	group := func(first, behind, step int) {
		t.Run("from "+strconv.Itoa(first), func(t *testing.T) {
			for i := first; i < behind; i += step {
				t.Run(strconv.Itoa(i), func(t *testing.T) { try(t, i) })
			}
		})
	}
	for n := 1; !done && !t.Failed(); n += atOnce * step {
		group(n, n+atOnce*step, step)
	}
	group(last+1, last+step, 1)
	t.Logf("%d points up to %d, ends %v", points, last, ends)
	if !t.Failed() && (last < 30 || ends["a"] == 0 || victim != "agent" && ends["b"] == 0) {
		t.Errorf("%d points up to %d, ends %v: this proves nothing", points, last, ends)
	}
}

// killAt returns the revision that the machine comes to rest at, "" if nobody died at the point. Where nobody died because a busy machine
// let the window pass, it tries again.
func killAt(t *testing.T, n int, victim string, a model.NodePlan, st model.NodeState, dumps map[string]string) string {
	for range 10 {
		if end, late := tryAt(t, n, victim, a, st, dumps); !late {
			return end
		}
	}
	t.Fatal("nobody ever confirms in time")
	return ""
}

func tryAt(t *testing.T, n int, victim string, a model.NodePlan, st model.NodeState, dumps map[string]string) (end string, late bool) {
	m := newFaultMachine(t, a)
	_, err := state.Open(m.dir).Write(st)
	must(t, err)
	m.guard, m.agent = m.start("guard", n, victim), m.start("agent", 0, "")
	died := m.guard
	if victim == "agent" {
		died = m.agent
	}
	if alive, late := m.atRest(died, st.Digest); alive || late {
		return "", late
	}
	if !exited(died, time.Second) {
		t.Fatal("nobody died and nothing is confirmed")
	}
	got, took, err := m.settle(victim)
	if err != nil {
		t.Fatal(err)
	}
	if got.Confirmed == nil || m.dump() != dumps[got.Confirmed.Digest] {
		t.Fatalf("between: confirmed is %+v after %s\n%s", got.Confirmed, took, m.dump())
	}
	return got.Confirmed.Revision, false
}

// atRest waits until the plan is confirmed (alive) or was undone because nobody confirmed it in time (late) and the process lives on, or
// the process has ended (neither).
func (m *faultMachine) atRest(p *lab.Proc, digest string) (alive, late bool) {
	c := guard.Client{Dir: m.dir}
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		if exited(p, 5*time.Millisecond) {
			return false, false
		}
		st, err := c.Status(context.Background())
		if err != nil || st.Phase != guard.Confirmed || st.Undone == nil && st.Confirmed.Digest != digest {
			continue
		}
		// a point behind the confirmation is one too: the release of records
		if exited(p, 100*time.Millisecond) {
			return false, false
		}
		return st.Undone == nil, st.Undone != nil
	}
	return false, false
}
