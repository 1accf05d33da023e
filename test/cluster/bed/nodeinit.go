//go:build linux

package bed

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"danm.io/danm/test/lab"
)

// nodeEnv carries a node's machine to its first process.
const nodeEnv = "DANM_BED_NODE"

// ClusterMain runs a package's tests where clusters can be made: in namespaces of its own. TestMain calls it and nothing else:
// each node's first process is this program, too.
func ClusterMain(m *testing.M) {
	if text := os.Getenv(nodeEnv); text != "" {
		runMachine(text)
	}
	code, done, err := lab.Isolate()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if done {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// machine is what a node has of its own: mounts, processes, a name.
type machine struct {
	Name     string
	Dir      string // holds its disk: etc, opt, var-lib, var-log
	Programs string // the bed's, which it sees in programDir
	BootID   string // file with it
}

// programDir is where nodes see the bed's programs, wherever the machine has them.
const programDir = "/opt/bed"

// own are directories of the machine that each node has for itself, in its directory. So manifests run unchanged, and two
// kubelets have two device-plugin directories, whose path is a constant.
var own = map[string]string{"/etc": "etc", "/opt": "opt", "/var/lib": "var-lib", "/var/log": "var-log"}

// runMachine is the life of a node's first process: it makes the mounts, says so on descriptor 3, and then only buries the dead.
// When it dies, the kernel kills every process of its PID namespace: runtime, shims, containers, all.
func runMachine(text string) {
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	dead := make(chan os.Signal, 1)
	signal.Notify(dead, syscall.SIGCHLD)
	var m machine
	err := json.Unmarshal([]byte(text), &m)
	if err == nil {
		err = m.mounts()
	}
	ready := os.NewFile(3, "ready")
	if err != nil {
		fmt.Fprintln(ready, err)
		os.Exit(1)
	}
	fmt.Fprintln(ready, "ready")
	_ = ready.Close()
	for range dead {
		for {
			pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
			if err != nil && !errors.Is(err, syscall.EINTR) || pid <= 0 && err == nil {
				break
			}
		}
	}
}

func (m machine) mounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	stash := filepath.Join(m.Dir, "cgroup")
	// sysfs shows the network namespace of its mounter, proc the PID namespace: both are mounted anew. cgroups are the machine's.
	steps := []struct {
		source, target, kind string
		flags                uintptr
	}{
		{cgroupFS, stash, "", unix.MS_BIND | unix.MS_REC},
		{"sysfs", "/sys", "sysfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{stash, cgroupFS, "", unix.MS_BIND | unix.MS_REC},
		{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC},
		{m.BootID, "/proc/sys/kernel/random/boot_id", "", unix.MS_BIND},
		{m.Programs, m.Dir + "/opt/bed", "", unix.MS_BIND},
		{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV},
	}
	for i, s := range steps {
		if err := unix.Mount(s.source, s.target, s.kind, s.flags, ""); err != nil {
			return fmt.Errorf("mount %s on %s: %w", s.source, s.target, err)
		}
		// Taken away, not only covered: who looks for cgroups in mountinfo finds each once.
		if old := map[int]string{0: "/sys", 2: stash}[i]; old != "" {
			if err := unix.Unmount(old, unix.MNT_DETACH); err != nil {
				return fmt.Errorf("unmount %s: %w", old, err)
			}
		}
	}
	for target, dir := range own {
		if err := unix.Mount(filepath.Join(m.Dir, dir), target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("mount %s on %s: %w", dir, target, err)
		}
	}
	// Shared among the node's own: a Pod's HostToContainer mounts see what the runtime mounts later.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("share mounts within the node: %w", err)
	}
	return unix.Sethostname([]byte(m.Name))
}
