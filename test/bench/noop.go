//go:build linux

package main

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"
)

// noopRows: a node in its wanted state is woken again and again, by foreign links and by the same state written anew;
// neither its kernel nor its state directory must change.
func noopRows(o options, r *report) error {
	n, err := startNode(o)
	if err != nil {
		return err
	}
	defer n.stop()
	time.Sleep(4 * time.Second) // the first plan is confirmed after 3 s
	before, err := contents(n.state())
	if err != nil {
		return err
	}
	events, err := n.kernelEvents(func() error {
		for range 5 {
			if err := n.poke(); err != nil {
				return err
			}
			if err := n.sync(); err != nil {
				return err
			}
			time.Sleep(500 * time.Millisecond)
		}
		return nil
	})
	if err != nil {
		return err
	}
	r.row("noop-kernel-writes", fmt.Sprint(events), "-", math.NaN(), "0", events == 0)
	after, err := contents(n.state())
	if err != nil {
		return err
	}
	writes := 0
	for name := range merged(before, after) {
		if before[name] != after[name] {
			writes++
			fmt.Fprintf(os.Stderr, "bench: %s was written\n", name)
		}
	}
	r.row("noop-journal-writes", fmt.Sprint(writes), "-", math.NaN(), "0", writes == 0)
	return nil
}

const foreign = "poke0" // the link that wakes the agent

func (n *node) poke() error {
	return n.host.Do(func() error {
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: foreign}}); err != nil {
			return fmt.Errorf("add %s: %w", foreign, err)
		}
		l, err := netlink.LinkByName(foreign)
		if err != nil {
			return err
		}
		return netlink.LinkDel(l)
	})
}

// kernelEvents counts what changes in the host while f runs, except on the foreign link.
func (n *node) kernelEvents(f func() error) (count int, err error) {
	links, addrs, done := make(chan netlink.LinkUpdate, 1000), make(chan netlink.AddrUpdate, 1000), make(chan struct{})
	err = n.host.Do(func() error {
		if err := netlink.LinkSubscribe(links, done); err != nil {
			return err
		}
		return netlink.AddrSubscribe(addrs, done)
	})
	if err != nil {
		return 0, err
	}
	defer close(done)
	if err := f(); err != nil {
		return 0, err
	}
	for {
		select {
		case u := <-links:
			if name := u.Link.Attrs().Name; name != foreign {
				fmt.Fprintf(os.Stderr, "bench: link %s changed\n", name)
				count++
			}
		case u := <-addrs:
			if u.LinkAddress.IP.IsLinkLocalUnicast() {
				continue // the foreign link's own
			}
			fmt.Fprintf(os.Stderr, "bench: address %s changed\n", u.LinkAddress.String())
			count++
		case <-time.After(200 * time.Millisecond):
			return count, nil
		}
	}
}

func merged(a, b map[string]string) map[string]string {
	out := maps.Clone(a)
	maps.Copy(out, b)
	return out
}

// contents are the checksums and times of all regular files below dir.
func contents(dir string) (map[string]string, error) {
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		data, err := os.ReadFile(path)
		out[path] = fmt.Sprintf("%x %s", sha256.Sum256(data), info.ModTime())
		return err
	})
	return out, err
}
