//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"danm.io/danm/test/cluster/bed"
	"danm.io/danm/test/lab"
)

const (
	fastCard     = "sr0"
	fastResource = "danm.io/fast"
	fastVFs      = 8
)

// fast is the network of virtual functions. Stand-ins of macvlans carry no tag of their own.
var fast = network{name: "fast", namespace: "acme", spec: "type: sriov, devicePool: " + fastResource, v4: prefix("10.72.0.0/24")}

// fastPool offers the functions of the nodes' card.
func fastPool() string {
	return fmt.Sprintf("apiVersion: bundle.danm.io/v1\nkind: SRIOVPool\nmetadata: {name: fast}\nspec: {nodeSelector: {role: edge}, pfs: {names: [%s]}, numVFs: %d, mtu: 1450, resourceName: %s}\n",
		fastCard, fastVFs, fastResource)
}

// cards are the nodes' simulated ones: files in the place of sysfs, and macvlans of the fabric in the place of interfaces of functions.
type cards struct {
	mu   sync.Mutex
	each map[string]*lab.Driver
	stop map[string]context.CancelFunc
}

var theCards = cards{each: map[string]*lab.Driver{}, stop: map[string]context.CancelFunc{}}

// of is a node's card.
func (c *cards) of(n *bed.Node) *lab.Driver {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.each[n.Name]
}

// plug gives a node that boots its card, without functions as the kernel has it then.
func (c *cards) plug(n *bed.Node) error {
	root := filepath.Join(n.Dir, "cards")
	c.mu.Lock()
	defer c.mu.Unlock()
	if stop := c.stop[n.Name]; stop != nil {
		stop()
	}
	d := &lab.Driver{Functions: lab.Functions{Root: root}, PCI: "0000:3b:00.0", PF: fastCard,
		Make: func(vf lab.VF) error {
			return ip(n, "link add "+fastName(vf)+" link fab0 address "+fastMAC(n, vf)+" type macvlan mode bridge")
		},
		Unmake: func(vf lab.VF) error {
			_, _ = n.Exec("ip", "link", "del", fastName(vf)) // it may be in a Pod, and goes with that
			return nil
		},
		Find: func(vf lab.VF) (string, bool, error) { return whereIs(n, fastMAC(n, vf)) },
		// A card's interface comes back under the name and with the alias that it had in the Pod.
		Return: func(vf lab.VF) error {
			name := fmt.Sprintf("back%d", vf.Number)
			return errors.Join(ip(n, "link add "+name+" link fab0 address "+fastMAC(n, vf)+" type macvlan mode bridge"), ip(n, "link set "+name+" alias danm-pod:"+fastName(vf)))
		}}
	err := errors.Join(os.RemoveAll(root), d.Load(), ip(n, "link add "+fastCard+" type veth peer name "+fastCard+"-far"), ip(n, "link set "+fastCard+"-far up"))
	for _, dir := range []string{"sys/bus/pci", "sys/class/net"} {
		if out, e := n.Exec("mount", "--bind", filepath.Join(root, dir), "/"+dir); e != nil {
			err = errors.Join(err, fmt.Errorf("mount %s: %w: %s", dir, e, out))
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	c.each[n.Name], c.stop[n.Name] = d, cancel
	go d.Run(ctx)
	return err
}

// fastName and fastMAC are a function's interface on the host, and what it is known by wherever it is.
func fastName(vf lab.VF) string { return fmt.Sprintf("%sv%d", fastCard, vf.Number) }
func fastMAC(n *bed.Node, vf lab.VF) string {
	return fmt.Sprintf("02:5b:00:00:%s:%02x", strings.TrimPrefix(n.Name, "n")+"0", vf.Number)
}

// whereIs looks for an interface on a node and in the namespaces of its Pods.
func whereIs(n *bed.Node, mac string) (name string, elsewhere bool, err error) {
	namespaces, err := filepath.Glob(n.Path("/run/netns/*"))
	for i, path := range append([]string{fmt.Sprintf("/proc/%d/ns/net", n.PID())}, namespaces...) {
		found, e := linkWith(path, mac)
		switch {
		case e != nil && i > 0 && !errors.Is(e, netlink.ErrDumpInterrupted):
			continue // it ended meanwhile, or is not mounted yet
		case e != nil:
			return "", false, e
		case found != "" && i == 0:
			return found, false, err
		case found != "":
			return "", true, err
		}
	}
	return "", false, err
}

// linkWith is the link with a MAC in a network namespace, "" if there is none.
func linkWith(path, mac string) (string, error) {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return "", err
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return "", err
	}
	defer h.Close()
	links, err := h.LinkList()
	for _, l := range links {
		if l.Attrs().HardwareAddr.String() == mac {
			return l.Attrs().Name, err
		}
	}
	return "", err
}

func ip(n *bed.Node, args string) error {
	if out, err := n.Exec(append([]string{"ip"}, strings.Fields(args)...)...); err != nil {
		return fmt.Errorf("ip %s: %w: %s", args, err, out)
	}
	return nil
}
