package link

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"danm.io/danm/node/plan"
	"danm.io/danm/spec/model"
	"danm.io/danm/test/lab"
	"github.com/vishvananda/netlink"
)

// TestHardwareFromSysfs reads a made sysfs: a physical function, and one of its virtual ones.
func TestHardwareFromSysfs(t *testing.T) {
	root := t.TempDir()
	write := func(path, text string) {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("sys/class/net/ens1/speed", "25000\n")
	write("sys/class/net/ens1v0/speed", "-1\n")
	write("sys/class/net/ens1/device/sriov_totalvfs", "64\n")
	if err := syscall.Mkfifo(filepath.Join(root, "sys/class/net/ens1/device/sriov_numvfs"), 0o644); err != nil { // one that is being written answers nobody
		t.Fatal(err)
	}
	for n := range 8 {
		if err := os.Symlink("../0000:01:10.0", filepath.Join(root, "sys/class/net/ens1/device", fmt.Sprintf("virtfn%d", n))); err != nil {
			t.Fatal(err)
		}
	}
	write("sys/class/net/ens1/device/vendor", "0x15B3\n")
	write("sys/class/net/ens1/device/device", "0x101d\n")
	write("sys/class/net/ens1v0/device/vendor", "0x8086\n")
	write("sys/class/net/ens1v0/device/device", "0x00000001\n")
	if err := os.Symlink("../0000:01:00.0", filepath.Join(root, "sys/class/net/ens1v0/device/physfn")); err != nil {
		t.Fatal(err)
	}
	k := &Kernel{sysRoot: root}
	o := plan.Observed{Links: []plan.ObservedLink{
		{Link: model.Link{Name: "br0"}, KernelKind: "bridge"},
		{Link: model.Link{Name: "ens1"}, PCI: "0000:01:00.0", Driver: "ice", MAC: "02:00:00:00:00:01", MinMTU: 68, MaxMTU: 9702, AltNames: []string{"enp1s0"}},
		{Link: model.Link{Name: "ens1v0"}, PCI: "0000:01:10.0"},
		{Link: model.Link{Name: "lo"}},
	}}
	got := k.cards(o)
	want := []model.NIC{
		{Name: "ens1", AltNames: []string{"enp1s0"}, MAC: "02:00:00:00:00:01", PCI: "0000:01:00.0", Driver: "ice", Vendor: "15b3", Device: "101d", Speed: 25000, MinMTU: 68, MaxMTU: 9702, TotalVFs: 64, VFs: 8},
		{Name: "ens1v0", PCI: "0000:01:10.0", Vendor: "8086", PF: "0000:01:00.0"},
	}
	if len(got) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i := range want {
		g, w := got[i], want[i]
		g.AltNames, w.AltNames = nil, nil
		if g.Name != w.Name || g.PCI != w.PCI || g.PF != w.PF || g.Speed != w.Speed || g.TotalVFs != w.TotalVFs || g.VFs != w.VFs || g.MaxMTU != w.MaxMTU || g.Driver != w.Driver || g.Vendor != w.Vendor || g.Device != w.Device {
			t.Errorf("%+v, want %+v", got[i], want[i])
		}
	}
}

// TestKernelLimits: the MTU limits that the kernel tells of devices, also of one that appears later.
func TestKernelLimits(t *testing.T) {
	k, err := New("/")
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	for _, name := range []string{"a", "b"} {
		if err := k.h.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name + "0"}, PeerName: name + "1"}); err != nil {
			t.Skip("no namespaces: ", err)
		}
		o, err := k.Observe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		seen := 0
		for _, l := range o.Links {
			if l.KernelKind == "veth" {
				seen++
				if l.MinMTU != 68 || l.MaxMTU != 65535 {
					t.Errorf("%s may have %d to %d", l.Name, l.MinMTU, l.MaxMTU)
				}
			}
		}
		if seen < 2 {
			t.Errorf("%d devices seen", seen)
		}
	}
}

// TestKernelHardware: the VM's virtio card with its driver and PCI address, and the kernel's simulated card with virtual
// functions.
func TestKernelHardware(t *testing.T) {
	if os.Getenv("DANM_BIN") == "" {
		t.Skip("hardware is the VM's")
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	const first = "/proc/1/ns/net" // where hardware is; /sys shows it, too
	k, err := At(first, "/")
	must(err)
	defer k.Close()
	there := &lab.NS{Name: "first", Path: first}
	write := func(file, text string) {
		t.Helper()
		must(there.Do(func() error { return os.WriteFile(file, []byte(text), 0) }))
	}
	card := func(driver string) model.NIC {
		t.Helper()
		cards, err := k.Hardware(t.Context())
		must(err)
		for _, n := range cards {
			if n.Driver == driver {
				return n
			}
		}
		t.Fatalf("no card of driver %s: %+v", driver, cards)
		return model.NIC{}
	}
	if n := card("virtio_net"); n.MAC != "52:54:00:da:03:01" || n.PCI != "0000:00:09.0" || n.MinMTU != 68 || n.MaxMTU != 65535 || n.TotalVFs != 0 {
		t.Errorf("%+v", n)
	}
	write("/sys/bus/netdevsim/new_device", "7 1")
	defer func() { write("/sys/bus/netdevsim/del_device", "7") }()
	if n := card("netdevsim"); n.VFs != 0 || n.MaxMTU == 0 || n.PCI != "" {
		t.Errorf("%+v", n)
	}
	write("/sys/bus/netdevsim/devices/netdevsim7/sriov_numvfs", "4")
	if n := card("netdevsim"); n.VFs != 4 {
		t.Errorf("%+v", n)
	}
}
