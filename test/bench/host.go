//go:build linux

package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"

	"danm.io/danm/node/guard"
	"danm.io/danm/node/plan"
	"danm.io/danm/spec/model"
	"danm.io/danm/test/lab"
)

const manyLinks = 1000

// applyRows have the guard apply a plan of 1,000 links beside the bare netlink calls that make the same links, and undo it.
// Each side has a fresh machine each time: a namespace with a device eth0.
func applyRows(o options, r *report) error {
	bin, err := filepath.Abs(o.bin)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(o.cache, "run-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	world, err := lab.NewWorld(dir)
	if err != nil {
		return err
	}
	defer func() { _ = world.Close() }()
	m := machines{world: world, bin: bin, dir: dir}
	reverts := []time.Duration{}
	medians, err := inTurns(5,
		func() (time.Duration, error) {
			apply, revert, err := m.guarded()
			reverts = append(reverts, revert)
			return apply, err
		},
		m.bare)
	if err != nil {
		return err
	}
	r.atMost("apply-1000-links", medians[0], medians[1], 1.5)
	r.below("revert-1000-links", quantile(reverts, 1), 2*time.Second)
	return nil
}

type machines struct {
	world    *lab.World
	bin, dir string
	made     int
}

// fresh is a namespace with eth0, whose other end stays beside it.
func (m *machines) fresh() (*lab.NS, error) {
	m.made++
	ns, err := m.world.Add(fmt.Sprintf("m%d", m.made))
	if err != nil {
		return nil, err
	}
	return ns, ns.Do(func() error {
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "other"}); err != nil {
			return err
		}
		l, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(l)
	})
}

func manyVXLANs() model.NodePlan {
	p := model.NodePlan{Links: []model.Link{{Name: "eth0", Kind: model.Physical, Up: true}}}
	for i := range manyLinks {
		p.Links = append(p.Links, model.Link{Name: fmt.Sprintf("vx_%04d", i), Kind: model.VXLAN, Parent: "eth0", MTU: 1450, Up: true,
			Alias: fmt.Sprintf("danm: bench/net-%d", i), VXLAN: &model.VXLANOptions{VNI: uint32(i + 1), Port: 4789, Local: netip.MustParseAddr("192.0.2.1")}})
	}
	return p
}

// guarded is the time from the submission to the open window, and from the window's end to the restored kernel.
func (m *machines) guarded() (apply, revert time.Duration, err error) {
	ns, err := m.fresh()
	if err != nil {
		return 0, 0, err
	}
	state := filepath.Join(m.dir, ns.Name)
	p := &node{o: options{bin: m.bin}, dir: m.dir, host: ns}
	proc, err := p.start(ns.Name, "guard", "--state-dir", state, "--sys-root", "/", "--log-level", "error")
	if err != nil {
		return 0, 0, err
	}
	defer func() {
		proc.Stop(syscall.SIGTERM, 3*time.Second)
		if rerr := m.world.Remove(ns); err == nil {
			err = rerr
		}
	}()
	c, ctx := guard.Client{Dir: state}, context.Background()
	for i := 0; ; i++ {
		if _, err = c.Status(ctx); err == nil {
			break
		} else if i == 500 {
			return 0, 0, err
		}
		time.Sleep(10 * time.Millisecond)
	}
	want := manyVXLANs()
	var out guard.Outcome
	apply, err = timed(func() (err error) {
		out, err = c.Submit(ctx, guard.Submission{Desired: plan.Desired{Plan: want}, Digest: want.Digest(), Revision: "bench", ConfirmTimeout: 3 * time.Second})
		return err
	})
	if err != nil {
		return 0, 0, err
	}
	if len(out.Steps) < manyLinks {
		return 0, 0, fmt.Errorf("a plan of %d links had %d steps", manyLinks, len(out.Steps))
	}
	time.Sleep(time.Until(out.Deadline))
	for {
		st, err := c.Status(ctx)
		if err != nil {
			return 0, 0, err
		}
		if !st.Phase.Open() {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	revert = time.Since(out.Deadline)
	left := 0
	err = ns.Do(func() error {
		links, err := netlink.LinkList()
		left = len(links)
		return err
	})
	if err == nil && left > 10 {
		err = fmt.Errorf("%d links are left after the revert", left)
	}
	return apply, revert, err
}

// bare makes the same links with nothing but netlink.
func (m *machines) bare() (took time.Duration, err error) {
	ns, err := m.fresh()
	if err != nil {
		return 0, err
	}
	p := manyVXLANs()
	err = ns.Do(func() error {
		h, err := netlink.NewHandle()
		if err != nil {
			return err
		}
		defer h.Close()
		took, err = timed(func() error {
			parent, err := h.LinkByName("eth0")
			if err != nil {
				return err
			}
			for _, l := range p.Links[1:] {
				a := netlink.NewLinkAttrs()
				a.Name, a.MTU, a.Group, a.Flags = l.Name, l.MTU, plan.Group, net.FlagUp
				vx := &netlink.Vxlan{LinkAttrs: a, VtepDevIndex: parent.Attrs().Index, VxlanId: int(l.VXLAN.VNI), Port: l.VXLAN.Port, SrcAddr: l.VXLAN.Local.AsSlice()}
				if err := h.LinkAdd(vx); err != nil {
					return err
				}
				if err := h.LinkSetAlias(vx, l.Alias); err != nil {
					return err
				}
			}
			return nil
		})
		return err
	})
	if err != nil {
		return 0, err
	}
	return took, m.world.Remove(ns)
}

// driftRows delete links of a confirmed plan by hand, one after another, and wait until each is back.
func driftRows(o options, r *report) error {
	n, err := startNode(o)
	if err != nil {
		return err
	}
	defer n.stop()
	const links, rounds = 20, 6 // fewer repairs of one link than make a fight
	if err := n.withFabric(links); err != nil {
		return err
	}
	var times []time.Duration
	for range rounds {
		for i := range links {
			took, err := n.disturb(fmt.Sprintf("vx_net%d", i))
			if err != nil {
				return err
			}
			times = append(times, took)
		}
	}
	r.below("drift-repair-median", quantile(times, 0.5), 100*time.Millisecond)
	r.below("drift-repair-p99", quantile(times, 0.99), time.Second)
	return nil
}

// withFabric adds VXLAN networks to the bundle and waits until they are confirmed.
func (n *node) withFabric(networks int) error {
	text := bundle + "---\napiVersion: bundle.danm.io/v1\nkind: Topology\nmetadata: {name: fabric}\nspec:\n  fabrics:\n" +
		"  - {name: f, groups: [all], device: eth0, vniRanges: [\"1000-1999\"], vxlan: {port: 4789, multicast: 239.1.1.1}}\n"
	for i := range networks {
		text += fmt.Sprintf("---\napiVersion: bundle.danm.io/v1\nkind: Network\nmetadata: {name: net%d}\nspec: {type: macvlan, fabric: f, vxlan: %d, ipv4: {cidr: 10.%d.%d.0/24}}\n", i, 1000+i, 79+i/256, i%256)
	}
	if err := os.WriteFile(filepath.Join(n.bundle, "bundle.yaml"), []byte(text), 0o644); err != nil {
		return err
	}
	if err := n.sync(); err != nil {
		return err
	}
	for range 400 {
		st, err := guard.Client{Dir: n.state()}.Status(context.Background())
		if err == nil && st.Phase == guard.Confirmed && len(st.Confirmed.Desired.Plan.Links) > networks {
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("the networks are not confirmed\n%s", n.logs())
}

// disturb deletes a link by hand and returns how long it was away.
func (n *node) disturb(name string) (took time.Duration, err error) {
	err = n.host.Do(func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find %s: %w", name, err)
		}
		if err := netlink.LinkDel(l); err != nil {
			return err
		}
		start := time.Now()
		for time.Since(start) < 5*time.Second {
			if _, err := netlink.LinkByName(name); err == nil {
				took = time.Since(start)
				return nil
			}
			time.Sleep(time.Millisecond)
		}
		return fmt.Errorf("%s is not back after 5 s", name)
	})
	return took, err
}
