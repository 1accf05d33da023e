//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	bolt "go.etcd.io/bbolt"

	"danm.io/danm/cni/attach"
	"danm.io/danm/cni/server"
	"danm.io/danm/ipam"
	"danm.io/danm/spec/model"
	"danm.io/danm/test/lab"
)

const vfPool = "danm.io/fast"

// vfHost is a namespace with a card of files, whose function's interface is a veth, and a CNI server in this process.
type vfHost struct {
	o     options
	dir   string
	world *lab.World
	host  *lab.NS
	db    *bolt.DB
	pods  int
}

// addFunctionRows: ADD of a Pod with a virtual function beside the least it can be: start a program, commit a record, move the interface.
func addFunctionRows(o options, r *report) (err error) {
	dir, err := os.MkdirTemp(o.cache, "vf-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if o.bin, err = filepath.Abs(o.bin); err != nil {
		return err
	}
	h := &vfHost{o: o, dir: dir}
	if h.world, err = lab.NewWorld(dir); err != nil {
		return err
	}
	defer h.world.Close()
	if h.host, err = h.world.Add("host"); err != nil {
		return err
	}
	end, err := h.serve()
	if err != nil {
		return err
	}
	defer end()
	if h.db, err = bolt.Open(filepath.Join(dir, "floor.db"), 0o600, nil); err != nil {
		return err
	}
	defer h.db.Close()
	ds, err := inTurns(o.n, h.add, h.floor)
	if err != nil {
		return err
	}
	r.atMost("add-vf-vs-floor", ds[0], ds[1], 1.6)
	return nil
}

// serve makes the card and starts a server, whose end is waited for by the function that it returns.
func (h *vfHost) serve() (end func(), err error) {
	card := lab.Functions{Root: filepath.Join(h.dir, "root")}
	vfs, err := card.Add("0000:3b:00.0", "ens1", 1)
	if err != nil {
		return nil, err
	}
	var attacher *attach.Attacher
	err = h.host.Do(func() error {
		for _, name := range []string{"ens1", vfs[0].Link} {
			if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, TxQLen: -1}, PeerName: name + "x"}); err != nil {
				return err
			}
		}
		attacher, err = attach.New(card.Root)
		return err
	})
	if err != nil {
		return nil, err
	}
	addresses, err := ipam.Open(filepath.Join(h.dir, "ipam"), ipam.Options{Cooldown: -1})
	if err != nil {
		return nil, err
	}
	s, err := server.New(server.Options{Socket: h.socket(), IPAM: addresses, Attacher: attacher, Devices: func(context.Context, string, string) (map[string][]string, error) {
		return map[string][]string{vfPool: {vfs[0].PCI}}, nil
	}})
	if err != nil {
		return nil, err
	}
	network := model.Network{Kind: model.ClusterNetwork, Name: "fast", NetworkID: "fast", Type: model.SRIOV, DevicePool: vfPool, SpaceDomain: vfPool,
		IPv4: &model.Subnet{CIDR: netip.MustParsePrefix("10.77.0.0/16")}}
	state := model.NodeState{Home: model.LocalHome, Node: "bench", Slots: 1, Networks: []model.Network{network}}
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- s.Serve(ctx, ready, func() (model.NodeState, bool) { return state, true }) }()
	end = func() {
		cancel()
		<-ended
		attacher.Close()
		_ = addresses.Close()
	}
	select {
	case <-ready:
		return end, nil
	case err := <-ended:
		ended <- nil
		end()
		return nil, err
	}
}

func (h *vfHost) socket() string { return filepath.Join(h.dir, "cni.sock") }

// add attaches and detaches a fresh Pod; the ADD counts.
func (h *vfHost) add() (took time.Duration, err error) {
	ns, err := h.pod()
	if err != nil {
		return 0, err
	}
	if took, err = h.call("ADD", ns); err == nil {
		_, err = h.call("DEL", ns)
	}
	return took, errors.Join(err, h.world.Remove(ns))
}

func (h *vfHost) pod() (*lab.NS, error) {
	h.pods++
	return h.world.Add(fmt.Sprintf("vf-%d", h.pods))
}

func (h *vfHost) call(command string, ns *lab.NS) (time.Duration, error) {
	conf, err := json.Marshal(map[string]any{"cniVersion": "1.0.0", "name": "danm", "type": "danm", "socket": h.socket(),
		"interfaces": []map[string]string{{"clusterNetwork": "fast", "ip": "dynamic"}}})
	if err != nil {
		return 0, err
	}
	cmd := exec.Command(filepath.Join(h.o.bin, "danm"))
	cmd.Env = []string{"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + ns.Name, "CNI_NETNS=" + ns.Path, "CNI_IFNAME=eth0", "CNI_PATH=" + h.o.bin,
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=bench;K8S_POD_NAME=" + ns.Name}
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(conf), &out, &out
	took, err := timed(cmd.Run)
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", command, err, out.String())
	}
	return took, err
}

// floor moves the function's interface by bare netlink, after a program was started and a record committed; the way back does not count.
func (h *vfHost) floor() (took time.Duration, err error) {
	ns, err := h.pod()
	if err != nil {
		return 0, err
	}
	hello := filepath.Join(h.o.cache, "hello")
	err = h.host.Do(func() error {
		took, err = timed(func() error {
			if err := exec.Command(hello).Run(); err != nil {
				return err
			}
			if err := h.commit(); err != nil {
				return err
			}
			return moveBare(ns.Path, "ens1v0", "eth0", &net.IPNet{IP: net.IPv4(10, 79, 0, 1), Mask: net.CIDRMask(16, 32)})
		})
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("floor: %w", err)
	}
	err = ns.Do(func() error { return moveBare(h.host.Path, "eth0", "ens1v0", nil) })
	return took, errors.Join(err, h.world.Remove(ns))
}

func (h *vfHost) commit() error {
	return h.db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte("records"))
		if err != nil {
			return err
		}
		return b.Put(fmt.Appendf(nil, "%064d", h.pods), make([]byte, 400))
	})
}

// moveBare moves a link of this thread's namespace into another one under a new name: down, temporary name, move, name, address, up.
func moveBare(to, name, as string, address *net.IPNet) error {
	ns, err := os.Open(to)
	if err != nil {
		return err
	}
	defer ns.Close()
	l, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	for _, do := range []func() error{
		func() error { return netlink.LinkSetDown(l) },
		func() error { return netlink.LinkSetName(l, "moving") },
		func() error { return netlink.LinkSetNsFd(l, int(ns.Fd())) },
	} {
		if err := do(); err != nil {
			return err
		}
	}
	there, err := netlink.NewHandleAt(netns.NsHandle(ns.Fd()))
	if err != nil {
		return err
	}
	defer there.Close()
	if l, err = there.LinkByName("moving"); err != nil {
		return err
	}
	if err := there.LinkSetName(l, as); err != nil {
		return err
	}
	if address != nil {
		if err := there.AddrAdd(l, &netlink.Addr{IPNet: address}); err != nil {
			return err
		}
	}
	return there.LinkSetUp(l)
}
