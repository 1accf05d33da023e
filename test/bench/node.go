//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"danm.io/danm/test/lab"
)

const bundle = `apiVersion: bundle.danm.io/v1
kind: Bundle
metadata: {name: bench}
spec:
  version: 1.0.0
---
apiVersion: bundle.danm.io/v1
kind: Topology
metadata: {name: bench}
spec:
  slots: 1
  nodes:
  - name: bench
    slot: 0
  groups:
  - name: all
    interfaces:
    - name: eth0
---
apiVersion: bundle.danm.io/v1
kind: Network
metadata: {name: bench}
spec:
  type: macvlan
  hostDevice: eth0
  ipv4: {cidr: 10.77.0.0/16}
`

// node is a namespace with a device eth0 and, in it, guard and agent as they run in production.
type node struct {
	o            options
	dir, bundle  string
	world        *lab.World
	host         *lab.NS
	guard, agent *lab.Proc
	pods         int
}

func startNode(o options) (n *node, err error) {
	dir, err := os.MkdirTemp(o.cache, "run-")
	if err != nil {
		return nil, err
	}
	if o.bin, err = filepath.Abs(o.bin); err != nil {
		return nil, err
	}
	n = &node{o: o, dir: dir, bundle: filepath.Join(dir, "bundle")}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%w\n%s", err, n.logs())
			n.stop()
		}
	}()
	if n.world, err = lab.NewWorld(dir); err != nil {
		return n, err
	}
	if n.host, err = n.world.Add("host"); err != nil {
		return n, err
	}
	if err := n.cable(); err != nil {
		return n, err
	}
	if err := os.MkdirAll(n.bundle, 0o755); err != nil {
		return n, err
	}
	if err := os.WriteFile(filepath.Join(n.bundle, "bundle.yaml"), []byte(bundle), 0o644); err != nil {
		return n, err
	}
	if err := n.sync(); err != nil {
		return n, err
	}
	if n.guard, err = n.start("guard", "guard", "--state-dir", n.state(), "--sys-root", "/"); err != nil {
		return n, err
	}
	if err := n.startAgent(); err != nil {
		return n, err
	}
	return n, n.ready()
}

func (n *node) startAgent() (err error) {
	n.agent, err = n.start("agent", "agent", "--node-name", "bench", "--state-dir", n.state(), "--socket", n.socket(),
		"--cni-conf-dir", filepath.Join(n.dir, "net.d"), "--cni-bin-dir", n.o.bin, "--sys-root", "/", "--metrics-addr", "")
	return err
}

// cable gives the host a device eth0, plugged into a switch in a namespace of its own.
func (n *node) cable() error {
	outside, err := n.world.Add("outside")
	if err != nil {
		return err
	}
	if err := outside.Switch("sw0"); err != nil {
		return err
	}
	return outside.Plug("sw0", n.host, "eth0", "")
}

func (n *node) state() string  { return filepath.Join(n.dir, "state") }
func (n *node) socket() string { return filepath.Join(n.dir, "cni.sock") }

func (n *node) start(log string, args ...string) (*lab.Proc, error) {
	out, err := os.Create(filepath.Join(n.dir, log+".log"))
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(filepath.Join(n.o.bin, "danm-node"), args...)
	cmd.Stdout, cmd.Stderr = out, out
	return n.host.Start(cmd)
}

// sync writes the bundle into the state directory, once.
func (n *node) sync() error {
	out, err := exec.Command(filepath.Join(n.o.bin, "danmctl"), "sync", n.bundle, "--state-dir", n.state(), "--node", "bench", "--once").CombinedOutput()
	if err != nil {
		return fmt.Errorf("danmctl sync: %w: %s", err, out)
	}
	return nil
}

// ready waits until a Pod can be attached.
func (n *node) ready() error {
	var err error
	for range 600 {
		var p *pod
		if p, err = n.pod(1); err != nil {
			return err
		}
		_, err = p.call("ADD", "danm")
		if err == nil {
			_, err = p.call("DEL", "danm")
			return errors.Join(err, p.remove())
		}
		if rerr := p.remove(); rerr != nil {
			return rerr
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("no Pod can be attached: %w", err)
}

func (n *node) stop() {
	for _, p := range []*lab.Proc{n.agent, n.guard} {
		if p != nil {
			p.Stop(syscall.SIGTERM, 3*time.Second)
		}
	}
	if n.world != nil {
		_ = n.world.Close()
	}
	_ = os.RemoveAll(n.dir)
}

func (n *node) logs() string {
	var b strings.Builder
	for _, l := range []string{"guard", "agent"} {
		data, _ := os.ReadFile(filepath.Join(n.dir, l+".log"))
		fmt.Fprintf(&b, "%s: %s\n", l, data[max(0, len(data)-2000):])
	}
	return b.String()
}

// pod is a namespace that asks for some interfaces in the network of the bundle.
type pod struct {
	n       *node
	ns      *lab.NS
	id      string
	stdin   map[string][]byte // by plugin
	plugins map[string]string // directory by plugin
}

func (n *node) pod(interfaces int) (*pod, error) {
	n.pods++
	id := fmt.Sprintf("bench-%d", n.pods)
	ns, err := n.world.Add(id)
	if err != nil {
		return nil, err
	}
	wants := make([]map[string]string, interfaces)
	for i := range wants {
		wants[i] = map[string]string{"clusterNetwork": "bench", "ip": "dynamic"}
	}
	ours, err := json.Marshal(map[string]any{"cniVersion": "1.0.0", "name": "danm", "type": "danm", "socket": n.socket(), "interfaces": wants})
	if err != nil {
		return nil, err
	}
	ref, err := json.Marshal(map[string]any{"cniVersion": "1.0.0", "name": "ref", "type": "macvlan", "master": "eth0", "mode": "bridge",
		"ipam": map[string]any{"type": "host-local", "dataDir": filepath.Join(n.dir, "host-local"),
			"ranges": [][]map[string]string{{{"subnet": "10.78.0.0/16"}}}}})
	if err != nil {
		return nil, err
	}
	return &pod{n: n, ns: ns, id: id, stdin: map[string][]byte{"danm": ours, "macvlan": ref},
		plugins: map[string]string{"danm": n.o.bin, "macvlan": n.o.cache}}, nil
}

func (p *pod) remove() error { return p.n.world.Remove(p.ns) }

// call runs a plugin as a runtime does, in the node's namespace, and returns how long it took.
func (p *pod) call(command, plugin string) (took time.Duration, err error) {
	nsErr := p.n.host.Do(func() error {
		took, err = p.callHere(command, plugin)
		return nil
	})
	return took, errors.Join(nsErr, err)
}

// callHere is call in the namespace of this thread, which is enough for IPAM: a thread of its own for each call would be measured too.
func (p *pod) callHere(command, plugin string) (took time.Duration, err error) {
	dir := p.plugins[plugin]
	cmd := exec.Command(filepath.Join(dir, plugin))
	cmd.Env = []string{"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + p.id, "CNI_NETNS=" + p.ns.Path, "CNI_IFNAME=eth0",
		"CNI_PATH=" + dir, "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=bench;K8S_POD_NAME=" + p.id}
	var out, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(p.stdin[plugin]), &out, &stderr
	took, err = timed(cmd.Run)
	if err != nil {
		err = fmt.Errorf("%s %s: %w: %s%s", plugin, command, err, out.String(), stderr.String())
	}
	return took, err
}
