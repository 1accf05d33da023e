package main

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// TestKernelPlanLocal looks at a fresh network namespace: nothing of the host is read or touched.
func TestKernelPlanLocal(t *testing.T) {
	const inside = "DANM_TEST_INSIDE"
	if os.Getenv(inside) == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestKernelPlanLocal$", "-test.v")
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		if os.Getuid() != 0 {
			cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
			cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
		}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS: TestKernelPlanLocal") {
			t.Fatalf("in a namespace: %v\n%s", err, out)
		}
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
