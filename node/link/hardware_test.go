package link

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"danm.io/danm/node/plan"
	"danm.io/danm/spec/model"
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
	write("sys/bus/pci/devices/0000:01:00.0/sriov_totalvfs", "64\n")
	write("sys/bus/pci/devices/0000:01:00.0/sriov_numvfs", "8\n")
	write("sys/bus/pci/devices/0000:01:10.0/vendor", "0x8086\n")
	if err := os.Symlink("../0000:01:00.0", filepath.Join(root, "sys/bus/pci/devices/0000:01:10.0/physfn")); err != nil {
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
		{Name: "ens1", AltNames: []string{"enp1s0"}, MAC: "02:00:00:00:00:01", PCI: "0000:01:00.0", Driver: "ice", Speed: 25000, MinMTU: 68, MaxMTU: 9702, TotalVFs: 64, VFs: 8},
		{Name: "ens1v0", PCI: "0000:01:10.0", PF: "0000:01:00.0"},
	}
	if len(got) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i := range want {
		g, w := got[i], want[i]
		g.AltNames, w.AltNames = nil, nil
		if g.Name != w.Name || g.PCI != w.PCI || g.PF != w.PF || g.Speed != w.Speed || g.TotalVFs != w.TotalVFs || g.VFs != w.VFs || g.MaxMTU != w.MaxMTU || g.Driver != w.Driver {
			t.Errorf("%+v, want %+v", got[i], want[i])
		}
	}
}

// TestLimitsOfRealDevices: the limits that the kernel tells of a device, and of one that appears later.
func TestLimitsOfRealDevices(t *testing.T) {
	k, err := New("/")
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	o, err := k.Observe(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, l := range o.Links {
		if l.Kind == model.Physical && l.Name != "lo" {
			seen++
			if l.MaxMTU < l.MTU || l.MinMTU > l.MTU || l.MaxMTU == 0 {
				t.Errorf("%s with MTU %d may have %d to %d", l.Name, l.MTU, l.MinMTU, l.MaxMTU)
			}
		}
	}
	if seen == 0 {
		t.Skip("no device but lo in this namespace")
	}
}
