package link

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestKernelManyFunctions: a card with so many virtual functions that the kernel cannot list them with it hides no link. The netlink
// package asks for the functions with every link, and gets "no buffer space available".
func TestKernelManyFunctions(t *testing.T) {
	const bus = "/sys/bus/netdevsim"
	if err := os.WriteFile(bus+"/new_device", []byte("77 1"), 0); err != nil {
		t.Skip("kernel lacks netdevsim")
	}
	t.Cleanup(func() { _ = os.WriteFile(bus+"/del_device", []byte("77"), 0) })
	debug := t.TempDir()
	if err := unix.Mount("debugfs", debug, "debugfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(debug, unix.MNT_DETACH) })
	if err := os.WriteFile(filepath.Join(debug, "netdevsim/netdevsim77/max_vfs"), []byte("256"), 0); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(bus+"/devices/netdevsim77/sriov_numvfs", []byte("256"), 0); err != nil {
		t.Fatal(err)
	}
	k, err := New("/")
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if _, err := k.Observe(t.Context()); err != nil {
		t.Error(err)
	}
	all, err := LinksIn(k.h)
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(all, func(l netlink.Link) bool { return l.Attrs().ParentDev == "netdevsim77" })
	if i < 0 {
		t.Fatal("the card is not there")
	}
	card := all[i].Attrs()
	for _, find := range []func() (netlink.Link, error){func() (netlink.Link, error) { return k.h.LinkByIndex(card.Index) }, func() (netlink.Link, error) { return k.h.LinkByName(card.Name) }} {
		if l, err := find(); err != nil || l.Attrs().Name != card.Name || l.Attrs().Index != card.Index {
			t.Error(l, err)
		}
	}
	if _, err := k.h.Handle.LinkByName(card.Name); err == nil {
		t.Error("control: the kernel lists them after all, and this test shows nothing")
	}
}
