// Package vm holds the tests that need more than one boot of a kernel: see vm.sh.
package vm

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"danm.io/danm/node/guard"
	"danm.io/danm/node/link"
	"danm.io/danm/node/plan"
	"danm.io/danm/node/state"
	"danm.io/danm/spec/model"
)

// insideVariable is set in the VM alone (vm.sh); kept is the directory there that outlives a boot.
const (
	insideVariable = "DANM_BIN"
	kept           = "/media"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// boot runs one of this package's tests in a VM with a disk; said is what it prints last.
func boot(t *testing.T, disk, test, said string) {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	script, err := filepath.Abs("vm.sh")
	must(t, err)
	cmd := exec.Command(script, "exec", self, "-test.run", "^"+test+"$", "-test.v")
	cmd.Env = append(os.Environ(), "VM_DISK="+disk)
	out, err := cmd.CombinedOutput()
	if !strings.Contains(string(out), said) || strings.Contains(string(out), "FAIL") {
		t.Fatalf("%s: %v\n%s", test, err, out)
	}
	t.Logf("%s\n%s", test, out)
}

// TestVMReboot: a node is rebooted inside the window of a plan. The next boot brings it to the last confirmed plan from the
// state directory alone, with nobody to ask, and discards what it knew of the boot before. Then it boots with a damaged and
// with a newer state file.
func TestVMReboot(t *testing.T) {
	t.Parallel()
	if os.Getenv(insideVariable) != "" {
		t.Skip("this is the outer half")
	}
	disk := filepath.Join(t.TempDir(), "disk")
	out, err := exec.Command("/sbin/mke2fs", "-q", "-t", "ext4", disk, "64M").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	boot(t, disk, "TestInsideWindow", powerCut)
	boot(t, disk, "TestInsideNextBoot", "--- PASS: TestInsideNextBoot")
	boot(t, disk, "TestInsideDamagedState", "--- PASS: TestInsideDamagedState")
}

// inside is the machine of this boot: two cards, as they come, and what the boot before left in the kept directory.
type inside struct {
	t   *testing.T
	dir string
	k   *link.Kernel
	c   guard.Client
}

func newInside(t *testing.T) *inside {
	t.Helper()
	if os.Getenv(insideVariable) == "" {
		t.Skip("only inside the VM")
	}
	k, err := link.New("/")
	must(t, err)
	for i, name := range []string{"card0", "card1"} {
		a := netlink.NewLinkAttrs()
		a.Name, a.HardwareAddr = name, []byte{2, 0, 0, 0, 0, byte(i + 1)}
		must(t, netlink.LinkAdd(&netlink.Veth{LinkAttrs: a, PeerName: name + "-far", PeerHardwareAddr: []byte{2, 0, 0, 0, 1, byte(i + 1)}}))
		l, err := netlink.LinkByName(name)
		must(t, err)
		must(t, netlink.LinkSetUp(l))
	}
	dir := filepath.Join(kept, "state")
	return &inside{t: t, dir: dir, k: k, c: guard.Client{Dir: dir}}
}

func (m *inside) dump() string {
	m.t.Helper()
	o, err := m.k.Observe(context.Background())
	must(m.t, err)
	return o.Dump()
}

// start runs danm-node and waits, for the guard, until it answers.
func (m *inside) start(args ...string) *exec.Cmd {
	m.t.Helper()
	cmd := exec.Command(filepath.Join(os.Getenv(insideVariable), "danm-node"), append(args, "--state-dir", m.dir, "--log-level", "warn")...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	must(m.t, cmd.Start())
	return cmd
}

func (m *inside) eventually(what string, within time.Duration, ok func() bool) time.Duration {
	m.t.Helper()
	began := time.Now()
	for !ok() {
		if time.Since(began) > within {
			m.t.Fatalf("%s: not within %s\n%s", what, within, m.dump())
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(began)
}

func (m *inside) status() (guard.Status, bool) {
	st, err := m.c.Status(context.Background())
	return st, err == nil
}

func confirmedPlan() model.NodePlan {
	return model.NodePlan{
		Links: []model.Link{
			{Name: "bond7", Kind: model.Bond, MTU: 1500, Up: true, Bond: &model.BondOptions{Mode: "active-backup", MIIMonitor: 100}},
			{Name: "bond7.100", Kind: model.VLAN, Parent: "bond7", VLANID: 100, MTU: 1400, Up: true, Master: "blue", Addresses: []netip.Prefix{netip.MustParsePrefix("10.1.0.1/24")}},
			{Name: "blue", Kind: model.VRF, Table: 100, Up: true},
			{Name: "card1", Kind: model.Physical, Up: true, Master: "bond7"},
		},
		Routes:  []model.Route{{To: netip.MustParsePrefix("10.9.0.0/16"), Via: netip.MustParseAddr("10.1.0.2"), Dev: "bond7.100", Table: 100}},
		Rules:   []model.Rule{{Priority: 500, Family: 4, From: netip.MustParsePrefix("10.9.0.0/16"), Table: 100}},
		Sysctls: []model.Sysctl{{Key: "net.ipv4.conf.card1.rp_filter", Value: "2"}},
	}
}

// nextPlan takes away what carries the node.
func nextPlan() model.NodePlan {
	p := confirmedPlan()
	p.Links = []model.Link{{Name: "card1", Kind: model.Physical, MTU: 1600}, {Name: "dummy7", Kind: model.Dummy, Up: true}}
	p.Routes, p.Rules = nil, nil
	return p
}

func (m *inside) write(p model.NodePlan, revision string) {
	m.t.Helper()
	_, err := state.Open(m.dir).Write(model.NodeState{Home: model.LocalHome, Node: "n", Slots: 1, Bundle: "x", Revision: revision, Plan: p, Digest: p.Digest(), ConfirmTimeout: time.Minute})
	must(m.t, err)
}

func (m *inside) submit(p model.NodePlan, revision string) {
	m.t.Helper()
	out, err := m.c.Submit(context.Background(), guard.Submission{Desired: plan.Desired{Plan: p}, Digest: p.Digest(), Revision: revision, ConfirmTimeout: time.Minute})
	must(m.t, err)
	if len(out.Blocked) > 0 {
		m.t.Fatalf("blocked: %v", out.Blocked)
	}
}

// TestInsideWindow is the first boot: one plan is confirmed, another one is in its window when the power is cut.
func TestInsideWindow(t *testing.T) {
	m := newInside(t)
	m.start("guard")
	m.eventually("the guard answers", 20*time.Second, func() bool { _, ok := m.status(); return ok })
	bare := m.dump()
	m.write(confirmedPlan(), "r1")
	m.submit(confirmedPlan(), "r1")
	must(t, m.c.Confirm(context.Background(), confirmedPlan().Digest()))
	full := m.dump()
	if bare == full || !strings.Contains(full, "blue vrf") {
		t.Fatalf("not applied\n%s", full)
	}
	m.submit(nextPlan(), "r2")
	if m.dump() == full {
		t.Fatal("the second plan changed nothing")
	}
	b, err := json.Marshal(map[string]string{"full": full, "bare": bare})
	must(t, err)
	must(t, state.WriteFile(filepath.Join(kept, "dumps.json"), b, nil))
	fmt.Println(powerCut)
	time.Sleep(time.Second) // the console is slow
	must(t, os.WriteFile("/proc/sysrq-trigger", []byte("b"), 0))
	time.Sleep(time.Minute)
}

// powerCut is the last that the first boot says: what is not on the disk by then is gone (sysrq b syncs nothing).
const powerCut = "the power is cut in the window"

func (m *inside) expected() map[string]string {
	m.t.Helper()
	b, err := os.ReadFile(filepath.Join(kept, "dumps.json"))
	must(m.t, err)
	var dumps map[string]string
	must(m.t, json.Unmarshal(b, &dumps))
	return dumps
}

// TestInsideNextBoot: the guard brings the machine to the confirmed plan as soon as it starts.
func TestInsideNextBoot(t *testing.T) {
	m := newInside(t)
	want := m.expected()
	if got := m.dump(); got != want["bare"] {
		t.Fatalf("the machine does not come up as it did:\n%s\nbefore\n%s", got, want["bare"])
	}
	m.start("guard")
	took := m.eventually("the confirmed plan is in the kernel", 10*time.Second, func() bool { return m.dump() == want["full"] })
	fmt.Printf("boot: state directory to kernel in %s\n", took.Round(time.Millisecond))
	if took > 5*time.Second { // two are promised, of a machine that is not emulated
		t.Errorf("state directory to kernel took %s", took)
	}
	m.eventually("the guard answers", 10*time.Second, func() bool { _, ok := m.status(); return ok })
	st, _ := m.status()
	if st.Phase != guard.Confirmed || st.Confirmed.Revision != "r1" || st.Undone == nil || st.Undone.Verdict != guard.Inconclusive || !strings.Contains(st.Undone.Reason, "rebooted") {
		t.Errorf("%+v", st)
	}
}

// TestInsideDamagedState: neither a damaged state file nor one of a newer program, with an agent and no source, takes
// anything away.
func TestInsideDamagedState(t *testing.T) {
	m := newInside(t)
	want := m.expected()
	m.start("guard")
	m.eventually("the confirmed plan is in the kernel", 10*time.Second, func() bool { return m.dump() == want["full"] })
	for name, content := range map[string]string{"damaged": `{"format":1,"checksum":"sha256:0","state":{}}`, "newer": `{"format":99,"checksum":"","state":{}}`, "empty": ""} {
		for _, file := range []string{"state.json", "state.last-good.json"} {
			must(t, os.WriteFile(filepath.Join(m.dir, file), []byte(content), 0o600))
		}
		a := m.start("agent", "--node-name", "n", "--socket", "/run/danm/cni.sock", "--cni-conf-dir", "", "--metrics-addr", "0")
		m.eventually("the agent says what it thinks of a "+name+" file", 20*time.Second, func() bool {
			r, err := state.Open(m.dir).ReadReport()
			return err == nil && (strings.Contains(r.Problem, "Corrupt") || strings.Contains(r.Problem, "Newer"))
		})
		time.Sleep(time.Second)
		if got := m.dump(); got != want["full"] {
			t.Fatalf("%s state file: the kernel changed\n%s", name, got)
		}
		must(t, a.Process.Kill())
		_ = a.Wait()
		_ = os.Remove(filepath.Join(m.dir, state.ReportFile))
	}
}

// TestVMClockJumps: what a machine's clock says has no part in a window, neither for the agent nor for the guard.
func TestVMClockJumps(t *testing.T) {
	t.Parallel()
	disk := filepath.Join(t.TempDir(), "disk")
	if out, err := exec.Command("/sbin/mke2fs", "-q", "-t", "ext4", disk, "64M").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	boot(t, disk, "TestInsideClockJumps", "--- PASS: TestInsideClockJumps")
}

// jump sets the clock that far from now.
func jump(t *testing.T, by time.Duration) {
	t.Helper()
	ts := unix.NsecToTimespec(time.Now().Add(by).UnixNano())
	must(t, unix.ClockSettime(unix.CLOCK_REALTIME, &ts))
}

func TestInsideClockJumps(t *testing.T) {
	m := newInside(t)
	m.start("guard")
	m.eventually("the guard answers", 20*time.Second, func() bool { _, ok := m.status(); return ok })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	p := confirmedPlan()
	write := func(p model.NodePlan, revision string) {
		_, err := state.Open(m.dir).Write(model.NodeState{Home: model.LocalHome, Node: "n", Slots: 1, Bundle: "x", Revision: revision, Plan: p, Digest: p.Digest(), ConfirmTimeout: 20 * time.Second,
			Probes: []model.Probe{{Name: "p", Kind: model.ProbeTCP, Target: l.Addr().String(), Timeout: time.Second}}})
		must(t, err)
	}
	waiting := func() bool { st, ok := m.status(); return ok && st.Phase == guard.Waiting }
	write(p, "r1")
	agent := m.start("agent", "--node-name", "n", "--socket", "/run/danm/cni.sock", "--cni-conf-dir", "", "--metrics-addr", "0")
	for _, by := range []time.Duration{time.Hour, -2 * time.Hour, 30 * 24 * time.Hour} {
		m.eventually("a window", 20*time.Second, waiting)
		jump(t, by)
		m.eventually("confirmed whatever the clock says", 30*time.Second, func() bool { st, ok := m.status(); return ok && st.Phase == guard.Confirmed })
		if st, _ := m.status(); st.Undone != nil || st.Confirmed.Digest != p.Digest() {
			t.Fatalf("after a jump by %s: %+v", by, st)
		}
		p.Links[0].MTU -= 30 // of the bond; bond7.100 needs 1400
		write(p, "r2")
	}
	m.eventually("a window", 20*time.Second, waiting)
	must(t, agent.Process.Kill())
	began := time.Now() // monotonic
	jump(t, -24*time.Hour)
	m.eventually("reverted", time.Minute, func() bool { st, ok := m.status(); return ok && !st.Phase.Open() })
	if took := time.Since(began); took < 15*time.Second || took > 40*time.Second { // the machine is emulated, and slow
		t.Errorf("a window of 20 s ended %s after the clock was set back", took)
	}
}
