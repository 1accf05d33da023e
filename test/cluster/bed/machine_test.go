//go:build linux

package bed

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"danm.io/danm/test/lab"
)

func TestMain(m *testing.M) { ClusterMain(m) }

// hangEnv makes TestKernelKilled the run that is killed.
const hangEnv = "DANM_BED_HANG"

// powered is a machine with nothing on it.
func powered(t *testing.T, dir string) (machine, *lab.NS, *Node) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("whole nodes need root")
	}
	w, err := lab.NewWorld(dir)
	if err != nil {
		t.Fatal(err)
	}
	ns, err := w.Add("a")
	if err != nil {
		t.Fatal(err)
	}
	m := machine{Name: "a", Dir: filepath.Join(dir, "a"), Programs: dir, BootID: filepath.Join(dir, "boot_id")}
	init, err := powerOn(m, ns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		init.Stop(syscall.SIGKILL, time.Second)
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return m, ns, &Node{Name: "a", Dir: m.Dir, NS: ns, init: init}
}

// TestKernelMachine: what a node must have of its own, it has; the machine's own stays as it was; all of it ends with the power.
func TestKernelMachine(t *testing.T) {
	dir := t.TempDir()
	m, ns, n := powered(t, dir)
	run := func(args ...string) string {
		t.Helper()
		out, err := n.Exec(args...)
		if err != nil {
			t.Fatalf("%v: %v %s", args, err, out)
		}
		return strings.TrimSpace(out)
	}
	before, err := lab.Mounts()
	if err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(before, func(p string) bool { return strings.HasPrefix(p, m.Dir) }) {
		t.Errorf("the node's mounts are the machine's: %q", before)
	}
	if err := ns.Switch("mark"); err != nil {
		t.Fatal(err)
	}
	bootID, err := os.ReadFile(m.BootID)
	if err != nil {
		t.Fatal(err)
	}
	machineBoot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	if got := run("cat", "/proc/sys/kernel/random/boot_id"); got != strings.TrimSpace(string(bootID)) || got == strings.TrimSpace(string(machineBoot)) || len(got) != 36 {
		t.Errorf("boot_id %q", got)
	}
	if got := run("uname", "-n"); got != "a" {
		t.Errorf("hostname %q", got)
	}
	if got := run("sh", "-c", "ls /sys/class/net | sort | xargs"); got != "lo mark" {
		t.Errorf("links in sysfs: %q", got)
	}
	if got := run("sh", "-c", "echo /proc/[0-9]*"); len(strings.Fields(got)) != 2 || !strings.HasPrefix(got, "/proc/1 ") {
		t.Errorf("processes: %q", got)
	}
	for _, d := range []string{"/etc", "/opt/cni/bin", "/var/lib", "/var/log"} {
		run("touch", d+"/danm-mark")
		if _, err := os.Stat(filepath.Join(d, "danm-mark")); err == nil {
			t.Errorf("%s is the machine's", d)
		}
		if _, err := os.Stat(n.Path(d + "/danm-mark")); err != nil {
			t.Error(err)
		}
	}
	run("touch", "/run/danm-mark") // gone with the power, unlike the others
	if _, err := os.Stat("/run/danm-mark"); err == nil {
		t.Error("/run is the machine's")
	}
	if got := run("sh", "-c", "grep ' / .*shared:' /proc/self/mountinfo | grep -c ' /run '"); got != "1" {
		t.Errorf("/run is not shared: %q", run("cat", "/proc/self/mountinfo"))
	}
	if got, want := run("grep", "-c", " "+cgroupFS+"/memory ", "/proc/self/mountinfo"), "1"; got != want && len(mustHierarchies(t)) > 1 {
		t.Errorf("the memory cgroup is mounted %s times", got)
	}
	if got := run("sh", "-c", "grep -c "+m.Dir+"/cgroup /proc/self/mountinfo || true"); got != "0" {
		t.Errorf("%s mounts of the stash", got)
	}
	// An orphan is the first process's, buried when it ends; a zombie would stay in /proc.
	run("sh", "-c", "sleep 0.1 & echo $! >/run/short; sleep 1000 </dev/null >/dev/null 2>&1 &")
	if got := run("sh", "-c", "for i in $(seq 400); do [ -e /proc/$(cat /run/short) ] || { echo gone; exit; }; sleep 0.05; done; ls -d /proc/$(cat /run/short)"); got != "gone" {
		t.Errorf("not buried: %q", got)
	}
	fresh, err := n.Exec("sh", "-c", "exit 3")
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("exit 3: %v %s", err, fresh)
	}
	orphan := childOf(t, n.PID())
	n.init.Stop(syscall.SIGKILL, time.Second)
	for deadline := time.Now().Add(20 * time.Second); alive(orphan); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a process outlived its node")
		}
	}
	if _, err := os.Stat(filepath.Join(m.Dir, "var-lib", "danm-mark")); err != nil {
		t.Error("the disk is gone: ", err)
	}
	if after, err := lab.Mounts(); err != nil || !slices.Equal(after, before) {
		t.Errorf("mounts before %q, after %q: %v", before, after, err)
	}
}

// childOf is the first child of a process that is no zombie.
func childOf(t *testing.T, pid int) int {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		b, _ := os.ReadFile(f)
		_, rest, _ := strings.Cut(string(b), ") ")
		if fields := strings.Fields(rest); len(fields) > 1 && fields[0] != "Z" && fields[1] == strconv.Itoa(pid) {
			n, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
			return n
		}
	}
	t.Fatal("no child of ", pid)
	return 0
}

func mustHierarchies(t *testing.T) []string {
	t.Helper()
	roots, err := hierarchies(cgroupFS)
	if err != nil {
		t.Fatal(err)
	}
	return roots
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

// TestKernelSweep: only what nobody holds and what bears our mark is removed.
func TestKernelSweep(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("whole nodes need root")
	}
	dir := t.TempDir()
	held, owner, err := claim(dir)
	if err != nil {
		t.Fatal(err)
	}
	left, dropped, err := claim(dir)
	if err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(dir, clusterDir+"foreign")
	for _, err := range []error{os.Mkdir(foreign, 0o755), makeCgroup(cgroupFS, filepath.Base(held)+"/n1"), makeCgroup(cgroupFS, filepath.Base(left)+"/n1/kubepods"), dropped.Close()} {
		if err != nil {
			t.Fatal(err)
		}
	}
	roots := mustHierarchies(t)
	has := func(name string) (n int) {
		for _, r := range roots {
			if _, err := os.Stat(filepath.Join(r, name)); err == nil {
				n++
			}
		}
		return n
	}
	if has(filepath.Base(left)) != len(roots) {
		t.Fatal("the cgroups were not made everywhere")
	}
	swept, err := Sweep(dir)
	if err != nil || !slices.Equal(swept, []string{filepath.Base(left)}) {
		t.Errorf("swept %q, %v; left is %s", swept, err, left)
	}
	if has(filepath.Base(left)) != 0 || has(filepath.Base(held)) != len(roots) {
		t.Errorf("cgroups: %d left, %d held", has(filepath.Base(left)), has(filepath.Base(held)))
	}
	for path, want := range map[string]bool{held: true, foreign: true, left: false} {
		if _, err := os.Stat(path); (err == nil) != want {
			t.Errorf("%s: %v", path, err)
		}
	}
	if err := errors.Join(owner.Close(), os.RemoveAll(foreign)); err != nil {
		t.Fatal(err)
	}
	if swept, err := Sweep(dir); err != nil || len(swept) != 1 || has(filepath.Base(held)) != 0 {
		t.Errorf("once dropped: %q, %v", swept, err)
	}
}

// TestKernelKilled: a run that is killed takes its nodes' processes along, orphans in cgroups too; the next sweep does the rest.
func TestKernelKilled(t *testing.T) {
	if dir := os.Getenv(hangEnv); dir != "" {
		hang(t, dir)
	}
	if os.Geteuid() != 0 {
		t.Skip("whole nodes need root")
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestKernelKilled$")
	cmd.Env = append(os.Environ(), hangEnv+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS} // as lab.Isolate gives each run its own
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	var name string
	var orphan int
	if _, scan := fmt.Sscanf(line, "HANG %s %d", &name, &orphan); scan != nil || !alive(orphan) {
		t.Fatalf("%q: %v %v", line, err, scan)
	}
	if swept, err := Sweep(dir); err != nil || len(swept) != 0 {
		t.Errorf("swept while it runs: %q %v", swept, err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if swept, err := Sweep(dir); err != nil || !slices.Equal(swept, []string{name}) {
		t.Errorf("swept %q: %v", swept, err)
	}
	for deadline := time.Now().Add(20 * time.Second); alive(orphan); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a process outlived its run")
		}
	}
}

// hang is the run that is killed: a node with an orphan in a cgroup.
func hang(t *testing.T, dir string) {
	path, owner, err := claim(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close() // a file that nobody needs any more is closed, and holds no lock
	_, _, n := powered(t, path)
	if err := makeCgroup(cgroupFS, filepath.Base(path)+"/n1/pod"); err != nil {
		t.Fatal(err)
	}
	if out, err := n.Exec("sh", "-c", "setsid sleep 1000 </dev/null >/dev/null 2>&1 &"); err != nil {
		t.Fatal(err, out)
	}
	orphan := childOf(t, n.PID())
	for _, r := range mustHierarchies(t) {
		if err := os.WriteFile(filepath.Join(r, filepath.Base(path), "n1/pod/cgroup.procs"), []byte(strconv.Itoa(orphan)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Printf("HANG %s %d\n", filepath.Base(path), orphan)
	select {}
}
