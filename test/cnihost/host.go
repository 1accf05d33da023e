//go:build linux

// Package cnihost is a host as a container runtime sees it: libcni calls the built shim, which calls the real server with the real
// attacher, IPAM and plugins, on the real kernel.
//
// The host is this process's own network namespace (lab.Isolate's, so empty at first), because plugins run where the server runs. What
// Pods have is read by code of its own (See). One Host at a time in a process.
package cnihost

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"golang.org/x/sys/unix"

	"danm.io/danm/cni/attach"
	"danm.io/danm/cni/delegate"
	"danm.io/danm/cni/server"
	"danm.io/danm/ipam"
	"danm.io/danm/spec/model"
	"danm.io/danm/test/lab"
)

// Options of a Host.
type Options struct {
	State      model.NodeState
	PluginDirs []string // of delegates, before the directory of the shim
	// Late is called when there are namespaces and no server yet, and says where the host's files are found, proc/1 above all; nil = this
	// process is on the host.
	Late func(*Host) (root string)
	// Sys is where the host's /sys is found, "" = /.
	Sys string
	// Change changes the server's options before it starts, nil = nothing.
	Change func(*server.Options)
}

// Host is a host with a server that answers. See New.
type Host struct {
	T      testing.TB
	NS     *lab.NS // the host's own namespace
	World  *lab.World
	Fabric *lab.NS // with the switch "sw" that the host's devices are plugged into
	Dir    string  // of files: the socket is Dir/cni.sock
	Bin    string  // of the shim, as danm and fakeipam
	Conf   string  // the directory of plugins' configurations
	Cache  string  // of results of plugins that the server has called
	Sys    string  // Options.Sys
	CNI    *libcni.CNIConfig
	Exec   *Recorder
	IPAM   *ipam.Service
	Server *server.Server

	mu    sync.Mutex
	state model.NodeState
	pods  map[string]map[string]string // annotations by Pod name
}

// New starts a host, which ends with the test.
func New(t testing.TB, o Options) *Host {
	t.Helper()
	dir := t.TempDir()
	h := &Host{T: t, Dir: dir, Bin: filepath.Join(dir, "bin"), Conf: filepath.Join(dir, "net.d"), Cache: filepath.Join(dir, "results"), Exec: &Recorder{}, Sys: o.Sys,
		state: o.State, pods: map[string]map[string]string{}}
	for _, d := range []string{h.Bin, h.Conf} {
		must(t, os.MkdirAll(d, 0o755))
	}
	shim(t, h.Bin)
	h.namespaces()
	attacher, err := attach.New(o.Sys)
	must(t, err)
	t.Cleanup(attacher.Close)
	h.IPAM, err = ipam.Open(filepath.Join(dir, "ipam"), ipam.Options{Cooldown: -1})
	must(t, err)
	t.Cleanup(func() { must(t, h.IPAM.Close()) })
	h.CNI = libcni.NewCNIConfigWithCacheDir([]string{h.Bin}, filepath.Join(dir, "cache"), h.Exec)
	root := ""
	if o.Late != nil {
		root = o.Late(h)
	} else {
		root = h.ownRoot()
	}
	so := server.Options{Socket: h.Socket(), IPAM: h.IPAM, Attacher: attacher, Timeout: 30 * time.Second, Pod: h.pod,
		Delegates: delegate.New(delegate.Options{Root: root, PluginDirs: append(slices.Clone(o.PluginDirs), h.Bin), ConfDir: h.Conf, CacheDir: h.Cache})}
	if o.Change != nil {
		o.Change(&so)
	}
	h.Server, err = server.New(so)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- h.Server.Serve(ctx, ready, h.confirmed)
	}()
	t.Cleanup(func() {
		cancel()
		must(t, <-ended)
	})
	select {
	case <-ready:
	case err := <-ended:
		ended <- nil
		t.Fatal(err)
	}
	return h
}

// ownRoot says that the host's first process has the mounts of this one: the machine's own does not see the Pods' namespaces.
func (h *Host) ownRoot() string {
	h.T.Helper()
	root := filepath.Join(h.Dir, "root")
	must(h.T, os.MkdirAll(filepath.Join(root, "proc/1/ns"), 0o755))
	own, err := os.Readlink("/proc/thread-self/ns/mnt")
	must(h.T, err)
	must(h.T, os.Symlink(own, filepath.Join(root, "proc/1/ns/mnt")))
	must(h.T, os.Symlink("/", filepath.Join(root, "proc/1/root")))
	return root
}

// Socket is the server's.
func (h *Host) Socket() string { return filepath.Join(h.Dir, "cni.sock") }

// namespaces makes the fabric and takes the host's own namespace, which is empty again afterwards.
func (h *Host) namespaces() {
	h.T.Helper()
	var err error
	h.World, err = lab.NewWorld(h.Dir)
	must(h.T, err)
	h.T.Cleanup(func() { must(h.T, h.World.Close()) })
	h.Fabric, err = h.World.Add("fabric")
	must(h.T, err)
	must(h.T, h.Fabric.Switch("sw"))
	h.NS = &lab.NS{Name: "h", Path: filepath.Join(h.Dir, "host")}
	must(h.T, os.WriteFile(h.NS.Path, nil, 0o600))
	must(h.T, unix.Mount("/proc/thread-self/ns/net", h.NS.Path, "", unix.MS_BIND, ""))
	h.T.Cleanup(func() { must(h.T, unix.Unmount(h.NS.Path, unix.MNT_DETACH)) })
	for _, l := range h.See(h.NS).Links {
		if l.Name != "lo" {
			h.T.Fatalf("the host has a link %s already", l.Name)
		}
	}
	h.T.Cleanup(func() {
		for _, l := range h.See(h.NS).Links {
			if l.Name != "lo" {
				_ = h.NS.DeleteLink(l.Name) // the other end of a pair may have taken it along
			}
		}
	})
	// Duplicate address detection would change what is compared by itself.
	must(h.T, h.NS.Do(func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0) }))
}

// shim puts a fresh CNI binary into a directory, or that of DANM_BIN where there is no compiler (test/vm).
func shim(t testing.TB, dir string) {
	t.Helper()
	path := filepath.Join(dir, "danm")
	if bin := os.Getenv("DANM_BIN"); bin != "" {
		must(t, os.Symlink(filepath.Join(bin, "danm"), path))
	} else {
		build := exec.Command("go", "build", "-o", path, "danm.io/danm/cni/cmd/danm")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build the shim: %v\n%s", err, out)
		}
	}
	must(t, os.Symlink("danm", filepath.Join(dir, "fakeipam")))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Networks are those that Pods can have from now on.
func (h *Host) Networks(list []model.Network) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.state.Networks = list
}

func (h *Host) confirmed() (model.NodeState, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.state, true
}

// Annotate says what the API says of a Pod: keys and their values, and nothing else.
func (h *Host) Annotate(pod string, pairs ...string) {
	of := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		of[pairs[i]] = pairs[i+1]
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pods[pod] = of
}

func (h *Host) pod(_ context.Context, _, name, _ string) (server.Pod, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return server.Pod{UID: "api-" + name, Annotations: h.pods[name]}, nil
}

// List is a runtime's configuration list; more is further keys of the plugin, as ,"key":value.
func (h *Host) List(version, more string) *libcni.NetworkConfigList {
	h.T.Helper()
	return h.Named("danm", version, more)
}

// Named is List under another name.
func (h *Host) Named(name, version, more string) *libcni.NetworkConfigList {
	h.T.Helper()
	list, err := libcni.NetworkConfFromBytes([]byte(fmt.Sprintf(`{"cniVersion":%q,"name":%q,"plugins":[{"type":"danm","socket":%q%s}]}`, version, name, h.Socket(), more)))
	must(h.T, err)
	return list
}

// Runtime is what a runtime says of a sandbox of a Pod of namespace acme.
func (h *Host) Runtime(ns *lab.NS, container, pod string) *libcni.RuntimeConf {
	return &libcni.RuntimeConf{ContainerID: container, NetNS: ns.Path, IfName: "eth0",
		Args: [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", "acme"}, {"K8S_POD_NAME", pod}, {"K8S_POD_UID", "uid-" + pod}}}
}

// Records are the sandboxes that have something, in order.
func (h *Host) Records() []string {
	h.T.Helper()
	list, err := h.IPAM.List()
	must(h.T, err)
	out := []string{}
	for _, r := range list {
		out = append(out, r.Sandbox)
	}
	slices.Sort(out)
	return out
}

// End removes a Pod's namespace as a runtime does, and waits until the kernel has ended it: nothing tells but that a link to the host
// goes with it.
func (h *Host) End(ns *lab.NS) {
	h.T.Helper()
	const witness = "witness"
	must(h.T, h.NS.Do(func() error {
		f, err := os.Open(ns.Path)
		if err != nil {
			return err
		}
		defer f.Close()
		return addPair(witness, "peer", int(f.Fd()))
	}))
	must(h.T, h.World.Remove(ns))
	for deadline := time.Now().Add(20 * time.Second); h.has(witness); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			h.T.Fatalf("namespace %s does not end", ns.Name)
		}
	}
}
