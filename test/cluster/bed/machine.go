//go:build linux

package bed

import (
	"bufio"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"danm.io/danm/test/lab"
)

// The main thread is kept for the main goroutine. A goroutine that enters a namespace takes its thread along when it ends, but the
// main thread cannot end: it would stay there for good, and with it everything that is read in /proc/self.
func init() { runtime.LockOSThread() }

// powerOn starts a node's first process in its network namespace and waits until its mounts stand.
func powerOn(m machine, ns *lab.NS) (*lab.Proc, error) {
	for _, dir := range []string{"cgroup", "opt/bed", "opt/cni/bin", "etc/cni/net.d", "etc/kubernetes/manifests", "etc/containerd", "var-lib", "var-log"} {
		if err := os.MkdirAll(filepath.Join(m.Dir, dir), 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(m.BootID, []byte(uuid()+"\n"), 0o444); err != nil {
		return nil, err
	}
	text, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer read.Close()
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), nodeEnv+"="+string(text))
	cmd.ExtraFiles = []*os.File{write}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC}
	init, err := ns.Start(cmd)
	_ = write.Close()
	if err != nil {
		return nil, fmt.Errorf("start node %s: %w", m.Name, err)
	}
	line, err := bufio.NewReader(read).ReadString('\n')
	if strings.TrimSpace(line) != "ready" {
		init.Stop(syscall.SIGKILL, time.Second)
		return nil, errors.Join(fmt.Errorf("start node %s: %s", m.Name, strings.TrimSpace(line)), err)
	}
	return init, nil
}

// uuid is a random one, as /proc/sys/kernel/random/boot_id shows it.
func uuid() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// enter moves the calling thread, which must be locked and must end afterwards, into the namespaces of a process. Children of
// the thread are born there.
func enter(pid int) error {
	kinds := []string{"net", "uts", "ipc", "pid", "mnt"} // mnt last: the paths of the others are this side's
	var fds []int
	for _, kind := range kinds {
		fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, kind), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open namespace %s: %w", kind, err)
		}
		defer unix.Close(fd)
		fds = append(fds, fd)
	}
	// A thread that shares its root and working directory with others cannot change mount namespaces (setns(2)).
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	for i, fd := range fds {
		if err := unix.Setns(fd, 0); err != nil {
			return fmt.Errorf("enter namespace %s: %w", kinds[i], err)
		}
	}
	return nil
}

// forkInto starts programs as children of this process within a node. They end with the node.
func forkInto(pid int) Fork {
	return func(cmd *exec.Cmd) (func() error, error) {
		if cmd.Env == nil {
			cmd.Env = append(os.Environ(), "PATH="+programDir+":"+os.Getenv("PATH")) // containerd looks for its shim
		}
		if cmd.SysProcAttr != nil {
			// The thread that forks ends at once, and Go's check that the parent lives compares getppid(2), which is 0 across
			// PID namespaces. The node's first process has a parent-death signal, and the kernel kills the rest with it.
			cmd.SysProcAttr.Pdeathsig = 0
		}
		started := make(chan error, 1)
		go func() {
			runtime.LockOSThread() // never unlocked: the thread dies with the goroutine
			err := enter(pid)
			if err == nil {
				err = cmd.Start()
			}
			started <- err
		}()
		return cmd.Wait, <-started
	}
}
