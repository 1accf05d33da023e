//go:build linux

package bed

import (
	"bytes"
	"context"
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

// Node is a machine of a cluster: network, mount, PID, UTS and IPC namespaces with containerd, kubelet and kube-proxy, and a disk
// that outlives a reboot. eth0 is on the management switch, the fabric's port on the fabric.
type Node struct {
	Name string
	Dir  string  // its disk and logs
	NS   *lab.NS // its network; another one after a Reboot

	Containerd, Kubelet, Proxy *Service

	cluster *Cluster
	index   int // from 1
	init    *lab.Proc
	booted  bool // its disk has the images
}

// Service is one program of a node, or of the control plane.
type Service struct {
	dir, name string
	fork      func() Fork
	argv      []string
	p         *process
}

// Start starts it; it must not run.
func (s *Service) Start() (err error) {
	s.p, err = start(s.dir, s.name, s.fork(), s.argv[0], s.argv[1:]...)
	return err
}

// Stop ends it with SIGTERM, and after five seconds with SIGKILL. Containers of a runtime go on.
func (s *Service) Stop() {
	if s.p != nil {
		s.p.stop()
	}
}

// Kill ends it with SIGKILL.
func (s *Service) Kill() {
	if s.p != nil {
		s.p.kill()
	}
}

// Signal is for SIGSTOP and SIGCONT.
func (s *Service) Signal(sig syscall.Signal) error { return s.p.cmd.Process.Signal(sig) }

// Running says whether it was started and has not ended.
func (s *Service) Running() bool { return s.p != nil && !s.p.ended() }

// Log is the end of what it wrote.
func (s *Service) Log() string {
	b, _ := os.ReadFile(filepath.Join(s.dir, s.name+".log"))
	return string(b[max(0, len(b)-6000):])
}

func (c *Cluster) newNode(i int) *Node {
	n := &Node{Name: fmt.Sprintf("n%d", i), cluster: c, index: i}
	n.Dir = filepath.Join(c.Dir, n.Name)
	service := func(argv ...string) *Service {
		return &Service{dir: n.Dir, name: argv[0], fork: n.fork, argv: append([]string{filepath.Join(programDir, argv[0])}, argv[1:]...)}
	}
	n.Containerd = service("containerd", "--config", "/etc/containerd/config.toml")
	n.Kubelet = service("kubelet", "--config", "/etc/kubernetes/kubelet.yaml", "--kubeconfig", "/etc/kubernetes/kubelet.kubeconfig", "--hostname-override", n.Name,
		"--node-ip", n.Address(), "--node-labels="+c.options.Labels)
	n.Proxy = service("kube-proxy", "--config", "/etc/kubernetes/proxy.yaml")
	return n
}

// Address is the node's on the management switch.
func (n *Node) Address() string { return fmt.Sprintf("10.99.0.%d", 10+n.index) }

func (n *Node) cgroup() string { return filepath.Base(n.cluster.Dir) + "/" + n.Name }

// PID is that of the node's first process: its /proc/PID/ns are the node.
// 0 while it is off.
func (n *Node) PID() int {
	if n.init == nil {
		return 0
	}
	return n.init.Cmd.Process.Pid
}

// Path is where this process finds a file of the running node. Absolute links in it lead to this side's files.
func (n *Node) Path(file string) string {
	return fmt.Sprintf("/proc/%d/root%s", n.PID(), file)
}

// fork starts a program in all of the node's namespaces.
func (n *Node) fork() Fork {
	if n.init == nil {
		return func(*exec.Cmd) (func() error, error) { return nil, fmt.Errorf("node %s is off", n.Name) }
	}
	return forkInto(n.PID())
}

// Exec runs a program in the node and returns what it wrote.
func (n *Node) Exec(args ...string) (string, error) { return n.execInput(nil, args...) }

func (n *Node) execInput(in *os.File, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if in != nil {
		cmd.Stdin = in
	}
	wait, err := n.fork()(cmd)
	if err == nil {
		err = wait()
	}
	return out.String(), err
}

// boot gives the node its network, its first process and its programs.
func (n *Node) boot() (err error) {
	if err := makeCgroup(cgroupFS, n.cgroup()); err != nil {
		return err
	}
	if err := n.plug(); err != nil {
		return err
	}
	bin, err := Programs()
	if err != nil {
		return err
	}
	if n.init, err = powerOn(machine{Name: n.Name, Dir: n.Dir, Programs: bin, BootID: filepath.Join(n.Dir, "boot_id")}, n.NS); err != nil {
		return err
	}
	if !n.booted {
		if err := n.install(bin); err != nil {
			return fmt.Errorf("node %s: %w", n.Name, err)
		}
	}
	for _, args := range [][]string{{"sysctl", "-qw", "net.ipv4.ip_forward=1"}, {"ip", "route", "replace", serviceCIDR, "dev", "eth0"}} {
		if out, err := n.Exec(args...); err != nil {
			return fmt.Errorf("node %s: %v: %w: %s", n.Name, args, err, out)
		}
	}
	if err := n.cluster.options.PodNetwork(n.cluster, n); err != nil {
		return fmt.Errorf("node %s: Pod network: %w", n.Name, err)
	}
	if err := n.StartContainerd(); err != nil {
		return err
	}
	if !n.booted {
		for _, image := range n.cluster.options.Images {
			if err := n.Import(image); err != nil {
				return err
			}
		}
		n.booted = true
	}
	return errors.Join(n.Kubelet.Start(), n.Proxy.Start())
}

func (n *Node) plug() (err error) {
	c := n.cluster
	if n.NS, err = c.World.Add(n.Name); err != nil {
		return err
	}
	return errors.Join(c.sw.Plug("mgmt", n.NS, "eth0", n.Address()+"/24"), c.sw.Plug("fabric", n.NS, c.options.Fabric, ""))
}

// install writes the node's disk.
func (n *Node) install(bin string) error {
	proxy, err := n.cluster.API.Kubeconfig("proxy", "system:kube-proxytoken")
	if err != nil {
		return err
	}
	kubelet, err := n.cluster.API.Kubeconfig(n.Name, NodeToken(n.index))
	if err != nil {
		return err
	}
	etc := filepath.Join(n.Dir, "etc")
	text := func(name, content string) error {
		return os.WriteFile(filepath.Join(etc, name), []byte(content), 0o644)
	}
	return errors.Join(
		text("containerd/config.toml", containerdConfig), text("kubernetes/kubelet.yaml", kubeletConfig(n.cgroup())), text("kubernetes/proxy.yaml", proxyConfig(n.Name)),
		text("machine-id", strings.ReplaceAll(uuid(), "-", "")+"\n"), text("hostname", n.Name+"\n"), text("passwd", "root:x:0:0:root:/root:/bin/sh\n"), text("group", "root:x:0:\n"),
		text("hosts", "127.0.0.1 localhost\n"+n.Address()+" "+n.Name+"\n"), text("resolv.conf", ""), text("nsswitch.conf", "hosts: files\n"),
		os.CopyFS(filepath.Join(n.Dir, "opt/cni/bin"), os.DirFS(filepath.Join(bin, "cni"))),
		copyFile(filepath.Join(n.cluster.Dir, "pki", kubeletCA+".crt"), filepath.Join(etc, "kubernetes/ca.crt")),
		copyFile(proxy, filepath.Join(etc, "kubernetes/proxy.kubeconfig")), copyFile(kubelet, filepath.Join(etc, "kubernetes/kubelet.kubeconfig")))
}

func copyFile(from, to string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o600)
}

// StartContainerd starts the runtime, which must not run, and waits until it answers.
func (n *Node) StartContainerd() error {
	_ = os.Remove(n.Path(containerdSocket)) // a killed one leaves it
	if err := n.Containerd.Start(); err != nil {
		return err
	}
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if _, err := os.Stat(n.Path(containerdSocket)); err == nil {
			if _, err := n.Ctr("version"); err == nil {
				return nil
			}
		}
		if !n.Containerd.Running() || time.Now().After(deadline) {
			return fmt.Errorf("node %s: containerd does not answer: %s", n.Name, n.Containerd.Log())
		}
	}
}

// Ctr runs containerd's client in the namespace of Kubernetes.
func (n *Node) Ctr(args ...string) (string, error) {
	return n.Exec(append([]string{programDir + "/ctr", "-a", containerdSocket, "-n", "k8s.io"}, args...)...)
}

// Import gives the node an image that a tar file of this machine holds.
func (n *Node) Import(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	if out, err := n.execInput(f, programDir+"/ctr", "-a", containerdSocket, "-n", "k8s.io", "images", "import", "-"); err != nil {
		return fmt.Errorf("node %s: import %s: %w: %s", n.Name, file, err, out)
	}
	return nil
}

// PowerOff ends every process of the node at once, as a cut of the power does, and takes its network away. Its disk stays.
func (n *Node) PowerOff() error {
	if n.init == nil {
		return nil
	}
	n.init.Stop(syscall.SIGKILL, time.Second)
	for _, s := range []*Service{n.Containerd, n.Kubelet, n.Proxy} {
		if s.p != nil {
			<-s.p.done
		}
	}
	n.init = nil
	// The cables go at once; the kernel would take them only with the namespace, some time later.
	err := errors.Join(n.NS.DeleteLink("eth0"), n.NS.DeleteLink(n.cluster.options.Fabric), n.cluster.World.Remove(n.NS))
	return errors.Join(err, removeCgroup(cgroupFS, n.cgroup()))
}

// Reboot is PowerOff and a boot from the same disk: another boot_id, empty /run, no link but the cables, no Pod's namespace.
func (n *Node) Reboot() error { return errors.Join(n.PowerOff(), n.boot()) }
