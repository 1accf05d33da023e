//go:build linux

// Package lab makes machines out of network namespaces: hosts, switches and Pods that live inside namespaces of the
// process's own and vanish with it. It never touches the network of the machine it runs on.
package lab

import (
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
)

// inside marks a process that runs in the lab's own namespaces already.
const inside = "DANM_LAB"

// Isolate runs this program again with fresh mount and network namespaces (and, without root, a user namespace in which
// it is root) and returns its exit code; done is false in that second run, which goes on to work.
func Isolate() (code int, done bool, err error) {
	if os.Getenv(inside) != "" {
		return 0, false, privateMounts()
	}
	self, err := os.Executable()
	if err != nil {
		return 1, true, err
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	runtime.LockOSThread() // Pdeathsig is sent when the forking thread ends
	defer runtime.UnlockOSThread()
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exit.ExitCode(), true, nil
	}
	if err != nil {
		return 1, true, fmt.Errorf("make namespaces (as an ordinary user this needs unprivileged user namespaces; otherwise run as root): %w", err)
	}
	return 0, true, nil
}

func privateMounts() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	return nil
}

// NS is a network namespace held by a bind mount, as container runtimes hold them.
type NS struct {
	Name string
	Path string
}

// World owns a directory of namespaces and removes all of them on Close.
type World struct {
	Dir    string
	spaces []*NS
}

// NewWorld prepares dir to hold namespaces. The caller must be inside Isolate.
func NewWorld(dir string) (*World, error) {
	w := &World{Dir: filepath.Join(dir, "netns")}
	if err := os.MkdirAll(w.Dir, 0o755); err != nil {
		return nil, err
	}
	return w, nil
}

// Add makes a namespace with its loopback up.
func (w *World) Add(name string) (*NS, error) {
	ns := &NS{Name: name, Path: filepath.Join(w.Dir, name)}
	if err := os.WriteFile(ns.Path, nil, 0o600); err != nil {
		return nil, err
	}
	err := onOwnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		return unix.Mount(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), ns.Path, "", unix.MS_BIND, "")
	})
	if err != nil {
		return nil, fmt.Errorf("make namespace %s: %w", name, err)
	}
	w.spaces = append(w.spaces, ns)
	return ns, ns.loopbackUp()
}

// Remove unmounts and forgets one namespace; the kernel ends it with its last process.
func (w *World) Remove(ns *NS) error {
	for i, s := range w.spaces {
		if s == ns {
			w.spaces = append(w.spaces[:i], w.spaces[i+1:]...)
			break
		}
	}
	if err := unix.Unmount(ns.Path, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount namespace %s: %w", ns.Name, err)
	}
	return os.Remove(ns.Path)
}

// Close removes every namespace.
func (w *World) Close() error {
	var errs []error
	for len(w.spaces) > 0 {
		errs = append(errs, w.Remove(w.spaces[len(w.spaces)-1]))
	}
	return errors.Join(errs...)
}

// Do runs f on a thread inside the namespace: sockets that it opens and processes that it starts belong there.
func (n *NS) Do(f func() error) error {
	return onOwnThread(func() error {
		fd, err := unix.Open(n.Path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open namespace %s: %w", n.Name, err)
		}
		defer unix.Close(fd)
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter namespace %s: %w", n.Name, err)
		}
		return f()
	})
}

// onOwnThread runs f on a thread that ends with it, so that no other goroutine ever sees its namespace.
func onOwnThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread dies with the goroutine
		done <- f()
	}()
	return <-done
}

// Proc is a process inside a namespace.
type Proc struct {
	Cmd    *exec.Cmd
	Exited chan struct{} // closed when it has ended; Err is valid then
	Err    error
}

// Start starts cmd inside the namespace. It is killed when this program ends, however that happens: the thread that
// forked it lives as long as it does, so the parent-death signal of prctl(2) means this program's end.
func (n *NS) Start(cmd *exec.Cmd) (*Proc, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	p := &Proc{Cmd: cmd, Exited: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		err := n.Do(func() error {
			err := cmd.Start()
			started <- err
			if err == nil {
				p.Err = cmd.Wait()
				close(p.Exited)
			}
			return err
		})
		if err != nil {
			select {
			case started <- err:
			default:
			}
		}
	}()
	return p, <-started
}

// Stop sends sig and waits until the process has ended; after grace it is killed.
func (p *Proc) Stop(sig syscall.Signal, grace time.Duration) {
	_ = p.Cmd.Process.Signal(sig)
	select {
	case <-p.Exited:
	case <-time.After(grace):
		_ = p.Cmd.Process.Kill()
		<-p.Exited
	}
}

// Mounts lists the mount points of this process, for a before and after.
func Mounts() ([]string, error) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	var out []string
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 4 {
			out = append(out, f[4])
		}
	}
	return out, nil
}
