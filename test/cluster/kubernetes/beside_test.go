//go:build linux

package kubernetes

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"danm.io/danm/test/cluster/bed"
)

// hangEnv makes TestClusterBeside the run that is killed.
const hangEnv = "DANM_BED_HANG"

// TestClusterBeside: two clusters at the same time, and one of them is killed without a chance to clean up: nothing of it goes on,
// the other does not notice, and the next run removes the rest.
func TestClusterBeside(t *testing.T) {
	dir := os.Getenv(hangEnv)
	if dir != "" {
		c, err := bed.StartCluster(dir, bed.Options{Nodes: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer runtime.KeepAlive(c) // with the lock on its directory
		fmt.Printf("HANG %s %d\n", filepath.Base(c.Dir), c.Nodes[0].PID())
		select {}
	}
	c := bed.NewCluster(t, bed.Options{Nodes: 1})
	dir = t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestClusterBeside$")
	cmd.Env = append(os.Environ(), hangEnv+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	var name, said string
	var first int
	for name == "" && lines.Scan() {
		said += lines.Text() + "\n"
		_, _ = fmt.Sscanf(lines.Text(), "HANG %s %d", &name, &first)
	}
	if name == "" {
		t.Fatalf("no second cluster: %s", said)
	}
	space, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", first))
	if err != nil {
		t.Fatal(err)
	}
	for _, program := range []string{"containerd", "kubelet", "kube-proxy"} {
		if !slices.Contains(living(t, space), program) {
			t.Errorf("the second cluster has no %s: %v", program, living(t, space))
		}
	}
	if swept, err := bed.Sweep(dir); err != nil || len(swept) != 0 {
		t.Errorf("swept while it runs: %v %v", swept, err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	for deadline := time.Now().Add(30 * time.Second); len(living(t, space)) > 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("these outlived the run: %v", living(t, space))
		}
	}
	if swept, err := bed.Sweep(dir); err != nil || !slices.Equal(swept, []string{name}) {
		t.Errorf("swept %v: %v", swept, err)
	}
	if left, _ := filepath.Glob("/sys/fs/cgroup/*/" + name); len(left) > 0 { // of version 1, and what runc makes beside it
		t.Errorf("cgroups are left: %v", left)
	}
	if err := c.WaitReady(time.Second); err != nil {
		t.Error("the first cluster: ", err)
	}
}

// living are the programs that run in a PID namespace.
func living(t *testing.T, space string) (out []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/ns/pid")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range all {
		if got, _ := os.Readlink(link); got == space {
			comm, _ := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(link)), "comm"))
			out = append(out, strings.TrimSpace(string(comm)))
		}
	}
	return out
}
