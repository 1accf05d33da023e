//go:build linux

package plugins

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"danm.io/danm/test/cnihost"
	"danm.io/danm/test/lab"
)

// machine is the first process of a host whose mounts are not this process's: as the agent in its container sees it, below root.
type machine struct {
	root string
	pid  int
}

// newMachine starts a process that has mounts of its own and does there what script says.
func newMachine(t *testing.T, ns *lab.NS, script string) machine {
	t.Helper()
	m := machine{root: t.TempDir()}
	ready := filepath.Join(m.root, "ready")
	cmd := exec.Command("sh", "-ec", script+"\n: > "+ready+"\nexec sleep 600")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	cmd.Stderr = os.Stderr
	p, err := ns.Start(cmd)
	must(t, err)
	t.Cleanup(func() { p.Stop(syscall.SIGKILL, time.Second) })
	m.pid = cmd.Process.Pid
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(ready); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the machine is not ready")
		}
	}
	first := filepath.Join(m.root, "proc/1")
	must(t, os.MkdirAll(first, 0o755))
	must(t, unix.Mount(fmt.Sprintf("/proc/%d", m.pid), first, "", unix.MS_BIND, ""))
	t.Cleanup(func() { must(t, unix.Unmount(first, unix.MNT_DETACH)) })
	return m
}

// path is where a path of the machine is found from here.
func (m machine) path(path string) string { return filepath.Join(m.root, "proc/1/root", path) }

// An agent in a container calls the host's plugins with the host's files: programs of the same names that the container has are never run,
// and what plugins write is the host's.
func TestClusterPluginsRunInTheHostsMounts(t *testing.T) {
	real := bed(t)
	for _, differ := range []bool{true, false} { // without the mounts the same programs are called: the control
		t.Run(fmt.Sprintf("mounts differ %v", differ), func(t *testing.T) {
			bin, files := t.TempDir(), t.TempDir() // one path, and on the host something else is mounted there
			for _, name := range []string{"macvlan", "host-local"} {
				decoy := `#!/bin/sh` + "\n" + `echo '{"cniVersion":"1.0.0","code":199,"msg":"the container'"'"'s ` + name + `"}'; exit 1` + "\n"
				must(t, os.WriteFile(filepath.Join(bin, name), []byte(decoy), 0o755))
			}
			o := cnihost.Options{PluginDirs: []string{bin}}
			var m machine
			var ns *lab.NS
			o.Late = func(c *cnihost.Host) string {
				var err error
				ns, err = c.World.Add("pod") // before the machine takes its copy of the mounts: a runtime makes it on the host
				must(t, err)
				script := fmt.Sprintf("mount -t tmpfs none %s\nmount -t tmpfs none %s\ncp %s/macvlan %s/host-local %s", bin, files, real, real, bin)
				if !differ {
					script = ":"
				}
				m = newMachine(t, c.NS, script)
				return m.root
			}
			h := newHostWith(t, o, files)
			rt := h.Runtime(ns, "pod", "pod")
			conf := h.asking("single")
			before := h.Dump(ns)
			if !differ {
				_, err := h.CNI.AddNetworkList(t.Context(), conf, rt)
				if err == nil || !strings.Contains(err.Error(), "the container's macvlan") {
					t.Errorf("with the same mounts: %v", err)
				}
				return
			}
			h.holds(h.add(conf, rt), ns, "eth0", "10.62.0.0/24")
			leases := func() []string {
				out, err := filepath.Glob(m.path(files + "/single/10.*"))
				must(t, err)
				return out
			}
			if here := h.leases("single"); len(leases()) != 1 || len(here) != 0 {
				t.Errorf("leases on the host %v, in the container %v", leases(), here)
			}
			must(t, h.CNI.CheckNetworkList(t.Context(), conf, rt))
			must(t, h.CNI.DelNetworkList(t.Context(), conf, rt))
			if len(leases()) != 0 {
				t.Errorf("DEL leaves %v", leases())
			}
			h.wantNothing("DEL", ns, before)
			must(t, os.Remove(m.path(bin+"/macvlan")))
			_, err := h.CNI.AddNetworkList(t.Context(), conf, rt)
			if e := h.Told(err); e.Details != "PodDelegateMissing" {
				t.Errorf("the container's program counts: %+v", e)
			}
		})
	}
}
