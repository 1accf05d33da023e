//go:build linux

package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	bolt "go.etcd.io/bbolt"
)

// floor is the least that an ADD can be: start a program, make one macvlan with an address in the Pod, commit one record.
type floor struct {
	n      *node
	db     *bolt.DB
	bucket []byte
	i      int
}

func newFloor(n *node) (*floor, error) {
	db, err := bolt.Open(filepath.Join(n.dir, "floor.db"), 0o600, nil)
	if err != nil {
		return nil, err
	}
	f := &floor{n: n, db: db, bucket: []byte("records")}
	return f, db.Update(func(tx *bolt.Tx) error {
		_, err := tx.CreateBucket(f.bucket)
		return err
	})
}

func (f *floor) close() { _ = f.db.Close() }

func (f *floor) add() (took time.Duration, err error) {
	p, err := f.n.pod(1)
	if err != nil {
		return 0, err
	}
	f.i++
	hello := filepath.Join(f.n.o.cache, "hello")
	err = f.n.host.Do(func() error {
		took, err = timed(func() error {
			if err := exec.Command(hello).Run(); err != nil {
				return err
			}
			if err := f.commit(); err != nil {
				return err
			}
			return macvlan(p.ns.Path, f.i)
		})
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("floor: %w", err)
	}
	return took, p.remove()
}

func (f *floor) commit() error {
	return f.db.Update(func(tx *bolt.Tx) error {
		return tx.Bucket(f.bucket).Put(fmt.Appendf(nil, "%064d", f.i), make([]byte, 400))
	})
}

// macvlan makes a link in the Pod's namespace with bare netlink calls: create, rename, address, up.
func macvlan(path string, i int) error {
	ns, err := os.Open(path)
	if err != nil {
		return err
	}
	defer ns.Close()
	parent, err := netlink.LinkByName("eth0")
	if err != nil {
		return err
	}
	tmp := fmt.Sprintf("tmp%d", i)
	link := &netlink.Macvlan{LinkAttrs: netlink.LinkAttrs{Name: tmp, ParentIndex: parent.Attrs().Index, Namespace: netlink.NsFd(int(ns.Fd()))}, Mode: netlink.MACVLAN_MODE_BRIDGE}
	if err := netlink.LinkAdd(link); err != nil {
		return fmt.Errorf("add macvlan: %w", err)
	}
	h, err := netlink.NewHandleAt(netns.NsHandle(ns.Fd()))
	if err != nil {
		return err
	}
	defer h.Close()
	l, err := h.LinkByName(tmp)
	if err != nil {
		return err
	}
	if err := h.LinkSetName(l, "eth0"); err != nil {
		return err
	}
	ip := net.IPv4(10, 79, byte(i>>8), byte(i))
	if err := h.AddrAdd(l, &netlink.Addr{IPNet: &net.IPNet{IP: ip, Mask: net.CIDRMask(16, 32)}}); err != nil {
		return err
	}
	return h.LinkSetUp(l)
}
