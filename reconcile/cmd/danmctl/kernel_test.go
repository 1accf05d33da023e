package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	nodeplan "danm.io/danm/node/plan"
	"danm.io/danm/node/state"
	"github.com/vishvananda/netlink"
)

// isolated runs the test again in a network namespace of its own, marked by an environment variable.
func isolated(t *testing.T, mark string) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), mark+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("in a namespace: %v\n%s", err, out)
	}
}

// TestKernelPlanLocal looks at a fresh network namespace: nothing of the host is read or touched.
func TestKernelPlanLocal(t *testing.T) {
	const inside = "DANM_TEST_INSIDE"
	if os.Getenv(inside) == "" {
		isolated(t, inside)
		return
	}
	code, out, errs := ctl(t, "plan", minimal, "--node", "laptop", "--local", "--state-dir", t.TempDir())
	if code != 1 || errs != "" || !strings.Contains(out, "+ link br-lan bridge") || !strings.Contains(out, "2 to add") {
		t.Errorf("bridge not planned: exit %d\n%s%s", code, out, errs)
	}
	code, out, errs = ctl(t, "plan", edge, "--node", "edge-1", "--local", "--state-dir", t.TempDir())
	if code != 1 || errs != "" || !strings.Contains(out, "fab0") || !strings.Contains(out, "! blocked") {
		t.Errorf("a missing interface is not told: exit %d\n%s%s", code, out, errs)
	}
}

// TestKernelPlanNamesPods: the Pods that an agent reports stand beside the steps that would hurt them.
func TestKernelPlanNamesPods(t *testing.T) {
	const inside = "DANM_TEST_INSIDE"
	if os.Getenv(inside) == "" {
		isolated(t, inside)
		return
	}
	dir := t.TempDir()
	must(netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "old", Group: nodeplan.Group}}))
	must(os.WriteFile(filepath.Join(dir, "ledger.json"), frame(t, []nodeplan.Record{{ID: "link/old"}}), 0o600))
	must(state.Open(dir).WriteReport(state.Report{Pods: map[string][]string{"old": {"acme/sip-0"}}}))
	code, out, errs := ctl(t, "plan", minimal, "--node", "laptop", "--local", "--state-dir", dir)
	if code != 1 || errs != "" || !strings.Contains(out, "- link old bridge") || !strings.Contains(out, "1 (acme/sip-0)") {
		t.Errorf("exit %d\n%s%s", code, out, errs)
	}
}

func frame(t *testing.T, v any) []byte {
	t.Helper()
	b, err := state.Encode(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestKernelInit writes a bundle of a namespace with one interface; nothing of the host is read or touched.
func TestKernelInit(t *testing.T) {
	const inside = "DANM_TEST_INSIDE"
	if os.Getenv(inside) == "" {
		isolated(t, inside)
		return
	}
	a, _ := netlink.ParseAddr("192.0.2.7/24")
	must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "up0", MTU: 1400}, PeerName: "up1"}))
	l, err := netlink.LinkByName("up0")
	must(err)
	must(netlink.AddrAdd(l, a))
	must(netlink.LinkSetUp(l))
	dir := filepath.Join(t.TempDir(), "site")
	if code, out, errs := ctl(t, "init", dir); code != 2 || !strings.Contains(errs, "--interface") {
		t.Errorf("no hardware: exit %d\n%s%s", code, out, errs)
	}
	code, out, errs := ctl(t, "init", dir, "--interface", "up0", "--node", "box")
	if code != 0 || errs != "" || !strings.Contains(out, "its plan on this host is empty") {
		t.Fatalf("exit %d\n%s%s", code, out, errs)
	}
	topology, err := os.ReadFile(filepath.Join(dir, "topology.yaml"))
	if err != nil || !strings.Contains(string(topology), "- {name: up0, mtu: 1400, up: true}") || !strings.Contains(string(topology), "192.0.2.7/24") {
		t.Errorf("%v\n%s", err, topology)
	}
	if code, out, errs = ctl(t, "plan", dir, "--node", "box", "--local", "--state-dir", t.TempDir()); code != 0 {
		t.Errorf("the plan is not empty: exit %d\n%s%s", code, out, errs)
	}
	if code, _, errs = ctl(t, "init", dir, "--interface", "up0"); code != 2 || !strings.Contains(errs, "not empty") {
		t.Errorf("again: exit %d %s", code, errs)
	}
}
