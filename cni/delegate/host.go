package delegate

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
	"golang.org/x/sys/unix"
)

// host runs programs in the host's mount namespace, a few at a time.
type host struct {
	root  string
	slots chan struct{}
	version.PluginDecoder
}

func newHost(root string, most int) *host { return &host{root: root, slots: make(chan struct{}, most)} }

// FindInPath finds a plugin in the host's directories; the path that it returns is the host's.
func (h *host) FindInPath(plugin string, dirs []string) (string, error) {
	if plugin == "" || strings.ContainsRune(plugin, os.PathSeparator) {
		return "", fmt.Errorf("%q cannot name a plugin", plugin)
	}
	for _, dir := range dirs {
		path := filepath.Join(dir, plugin)
		if info, err := os.Stat(onHost(h.root, path)); err == nil && info.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", fmt.Errorf("no plugin %s in %s", plugin, strings.Join(dirs, ", "))
}

// ExecPlugin runs a plugin to its end, or until ctx ends.
func (h *host) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for other plugins to end: %w", ctx.Err())
	}
	type answer struct {
		out []byte
		err error
	}
	done := make(chan answer, 1)
	go func() { // on a thread of its own, which ends with it: it is in another namespace
		runtime.LockOSThread()
		if err := h.enter(); err != nil {
			done <- answer{nil, err}
			return
		}
		out, err := (&invoke.RawExec{}).ExecPlugin(ctx, path, stdin, environ)
		done <- answer{out, err}
	}()
	a := <-done
	if e := (*types.Error)(nil); errors.As(a.err, &e) && e.Msg == "" && e.Details == "" {
		a.err = fmt.Errorf("%s ended with code %d and said nothing", filepath.Base(path), e.Code)
	}
	return a.out, a.err
}

// enter moves the thread into the mount namespace of the host's first process, if that is another one.
func (h *host) enter() error {
	path := filepath.Join("/", h.root, "proc/1/ns/mnt")
	first, err := os.Readlink(path)
	if err != nil && h.root == "" {
		return nil // we are on the host, and are not told of its first process
	}
	if err != nil {
		return fmt.Errorf("find the host's mount namespace: %w", err)
	}
	if own, err := os.Readlink("/proc/thread-self/ns/mnt"); err == nil && own == first {
		return nil
	}
	if err := h.samePIDs(); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("find the host's mount namespace: %w", err)
	}
	defer f.Close()
	if err := unix.Unshare(unix.CLONE_FS); err != nil { // directory and root are shared between threads, and would be the others' too
		return fmt.Errorf("unshare the thread's directory: %w", err)
	}
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("enter the host's mount namespace: %w", err)
	}
	return nil
}

// samePIDs refuses what plugins could not work with: they look for themselves in the host's /proc by the number that they have here
// (containernetworking/plugins, pkg/ns), and nobody can go back to a PID namespace outside of the own one (setns(2)).
func (h *host) samePIDs() error {
	first, err := os.Readlink(filepath.Join("/", h.root, "proc/1/ns/pid"))
	if err != nil {
		return fmt.Errorf("find the host's PID namespace: %w", err)
	}
	own, err := os.Readlink("/proc/thread-self/ns/pid")
	if err != nil {
		return fmt.Errorf("find the own PID namespace: %w", err)
	}
	if own != first {
		return errors.New("this process is in a PID namespace of its own, where plugins of the host cannot work: give its Pod hostPID: true, its container --pid=host")
	}
	return nil
}
