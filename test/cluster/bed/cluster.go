//go:build linux

package bed

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"danm.io/danm/test/lab"
)

// Options of a cluster.
type Options struct {
	Nodes      int        // how many, at most MaxNodes
	Labels     string     // of every Node: "role=edge,zone=a"
	Fabric     string     // name of the nodes' second port, "" for eth9
	PodNetwork PodNetwork // nil for Bridge
	Images     []Image    // what every node has besides Busybox
}

// Cluster is a Kubernetes on one machine, each part in namespaces of its own. Several processes may have one each at the same time.
//
//	test process 10.99.0.2 ── mgmt ── eth0 of cp 10.99.0.1: etcd, API server, controller-manager, scheduler
//	                           ├───── eth0 of n1 10.99.0.11: containerd, kubelet, kube-proxy; Pods 10.244.1.0/24
//	                           └───── eth0 of n2 10.99.0.12 …
//	                          fabric ─ eth9 of n1, n2, …, without an address
//
// A node sees its own /etc, /opt, /run, /var/lib and /var/log, its own processes and boot_id, and the rest of the machine's files.
// Nothing of it outlives the test process, however that ends, except the directory and cgroups of that name: see Sweep.
type Cluster struct {
	Dir          string
	API          *API
	Nodes        []*Node
	World        *lab.World
	ControlPlane *lab.NS
	Manager      *Service // kube-controller-manager
	Scheduler    *Service

	options settings
	sw      *lab.NS
	seat    *lab.NS
	owner   *os.File
}

// settings are Options with what they default to, images as files.
type settings struct {
	Nodes          int
	Labels, Fabric string
	PodNetwork     PodNetwork
	Images         []string
}

const (
	apiAddress  = "10.99.0.1"
	seatAddress = "10.99.0.2"
	serviceCIDR = "10.96.0.0/16"
)

// ErrCannot says what this machine lacks for whole nodes.
var ErrCannot = errors.New("this machine cannot run whole nodes")

// Able returns nil when whole nodes can run here, else ErrNotBuilt or ErrCannot with what is missing and how to get it.
func Able() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("%w: root is needed, for cgroups", ErrCannot)
	}
	for _, need := range []struct{ program, pkg string }{{"runc", "runc"}, {"busybox", "busybox-static"}, {"nft", "nftables"}, {"ip", "iproute2"}, {"sysctl", "procps"}} {
		if _, err := exec.LookPath(need.program); err != nil {
			return fmt.Errorf("%w: %s is missing: apt-get install %s", ErrCannot, need.program, need.pkg)
		}
	}
	roots, err := hierarchies(cgroupFS)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCannot, err)
	}
	for _, root := range roots { // to be root of a user namespace, as an ordinary user is in lab.Isolate, is not enough
		if err := unix.Access(root, unix.W_OK); err != nil {
			return fmt.Errorf("%w: root is needed, for cgroups: write %s: %w", ErrCannot, root, err)
		}
	}
	bin, err := Programs()
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(bin, "cni", "bridge")); err != nil {
		return ErrNotBuilt
	}
	return nil
}

// StartCluster removes what killed runs left, starts a cluster in a new directory below dir ("" for the system's), and waits
// until its Nodes are Ready. The process must be inside lab.Isolate (ClusterMain); it gets a seat on the management network.
func StartCluster(dir string, o Options) (*Cluster, error) {
	if err := Able(); err != nil {
		return nil, err
	}
	if dir == "" {
		dir = os.TempDir()
	}
	if _, err := Sweep(dir); err != nil {
		return nil, fmt.Errorf("remove what a killed run left: %w", err)
	}
	c := &Cluster{}
	var err error
	if c.Dir, c.owner, err = claim(dir); err != nil {
		return nil, err
	}
	if err := c.up(o); err != nil {
		return nil, errors.Join(fmt.Errorf("start cluster: %w\n%s", err, c.Logs()), c.Close())
	}
	return c, nil
}

func (c *Cluster) up(o Options) error {
	if o.Nodes < 1 || o.Nodes > MaxNodes {
		return fmt.Errorf("%d nodes: 1 to %d are possible", o.Nodes, MaxNodes)
	}
	if err := c.settle(o); err != nil {
		return err
	}
	if err := c.switches(); err != nil {
		return err
	}
	var err error
	if c.API, err = StartAPI(c.Dir, apiAddress, c.Fork()); err != nil {
		return err
	}
	if err := c.controlPlane(); err != nil {
		return err
	}
	for i := range o.Nodes {
		n := c.newNode(i + 1)
		c.Nodes = append(c.Nodes, n)
		if err := n.boot(); err != nil {
			return err
		}
	}
	return c.WaitReady(2 * time.Minute)
}

func (c *Cluster) settle(o Options) error {
	c.options = settings{Nodes: o.Nodes, Labels: o.Labels, Fabric: o.Fabric, PodNetwork: o.PodNetwork}
	if c.options.Fabric == "" {
		c.options.Fabric = "eth9"
	}
	if c.options.PodNetwork == nil {
		c.options.PodNetwork = Bridge
	}
	busybox, err := Busybox()
	if err != nil {
		return err
	}
	for _, image := range append([]Image{busybox}, o.Images...) {
		file, err := image.WriteFile(c.Dir)
		if err != nil {
			return err
		}
		c.options.Images = append(c.options.Images, file)
	}
	return nil
}

func (c *Cluster) switches() (err error) {
	if c.World, err = lab.NewWorld(c.Dir); err != nil {
		return err
	}
	if c.sw, err = c.World.Add("sw"); err != nil {
		return err
	}
	if c.ControlPlane, err = c.World.Add("cp"); err != nil {
		return err
	}
	c.seat = &lab.NS{Name: "seat", Path: "/proc/self/ns/net"}
	return errors.Join(c.sw.Switch("mgmt"), c.sw.Switch("fabric"), c.sw.Plug("mgmt", c.ControlPlane, "eth0", apiAddress+"/24"),
		c.sw.Plug("mgmt", c.seat, "eth0", seatAddress+"/24"))
}

// Fork starts programs at the control plane, for API.Restart.
func (c *Cluster) Fork() Fork {
	return func(cmd *exec.Cmd) (func() error, error) {
		p, err := c.ControlPlane.Start(cmd)
		return func() error { <-p.Exited; return p.Err }, err
	}
}

func (c *Cluster) controlPlane() error {
	bin, err := Programs()
	if err != nil {
		return err
	}
	service := func(name string, args ...string) (*Service, error) {
		kubeconfig, err := c.API.Kubeconfig(name, "system:"+name+"token")
		s := &Service{dir: c.Dir, name: name, fork: c.Fork, argv: append([]string{filepath.Join(bin, name), "--kubeconfig", kubeconfig, "--leader-elect=false", "--bind-address", "127.0.0.1"}, args...)}
		return s, errors.Join(err, s.Start())
	}
	pki := filepath.Join(c.Dir, "pki")
	c.Manager, err = service("kube-controller-manager", "--service-account-private-key-file", filepath.Join(pki, "sa.key"),
		"--root-ca-file", filepath.Join(pki, "apiserver.crt"), "--use-service-account-credentials", "--node-monitor-grace-period", "20s")
	if err != nil {
		return err
	}
	c.Scheduler, err = service("kube-scheduler")
	return err
}

// Node returns the one with that name; nil if there is none.
func (c *Cluster) Node(name string) *Node {
	for _, n := range c.Nodes {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// WaitReady waits until every Node is Ready.
func (c *Cluster) WaitReady(within time.Duration) error {
	var out []byte
	for deadline := time.Now().Add(within); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		var err error
		out, err = c.API.Kubectl(nil, "get", "nodes", "-o", `jsonpath={range .items[*]}{.metadata.name}={.status.conditions[?(@.type=="Ready")].status} {end}`)
		if err == nil && strings.Count(string(out), "=True") == len(c.Nodes) {
			return nil
		}
	}
	return fmt.Errorf("nodes are not Ready: %s", out)
}

// Logs are the ends of the logs of everything that runs, for a test that failed.
func (c *Cluster) Logs() string {
	var b strings.Builder
	add := func(where string, services ...*Service) {
		for _, s := range services {
			if s != nil {
				fmt.Fprintf(&b, "--- %s %s (running: %v)\n%s\n", where, s.name, s.Running(), s.Log())
			}
		}
	}
	add("control plane", c.Manager, c.Scheduler)
	for _, n := range c.Nodes {
		add(n.Name, n.Containerd, n.Kubelet, n.Proxy)
	}
	return b.String()
}

// Close ends everything and removes the directory and the cgroups.
func (c *Cluster) Close() error {
	var errs []error
	for _, n := range c.Nodes {
		errs = append(errs, n.PowerOff())
	}
	for _, s := range []*Service{c.Manager, c.Scheduler} {
		if s != nil {
			s.Stop()
		}
	}
	if c.API != nil {
		errs = append(errs, c.API.Stop())
	}
	if c.seat != nil {
		errs = append(errs, c.seat.DeleteLink("eth0"))
	}
	if c.World != nil {
		errs = append(errs, c.World.Close())
	}
	errs = append(errs, removeCgroup(cgroupFS, filepath.Base(c.Dir)), os.RemoveAll(c.Dir), c.owner.Close())
	return errors.Join(errs...)
}
