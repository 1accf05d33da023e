package sriov

import (
	"encoding/binary"
	"errors"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"testing"
	"time"

	"danm.io/danm/node/plan"
	"danm.io/danm/test/lab"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

func TestFunctionDetails(t *testing.T) {
	tree := lab.Functions{Root: t.TempDir()}
	vfs, err := tree.Add("0000:3b:00.0", "ens1", 3)
	if err != nil {
		t.Fatal(err)
	}
	put := func(pci, name, text string) {
		path := filepath.Join(tree.Root, "sys/bus/pci/devices", pci, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	put(vfs[1].PCI, "numa_node", "1\n")
	groups := filepath.Join(tree.Root, "sys/kernel/iommu_groups")
	for group, name := range map[string]string{"7": "", "8": "vfio-noiommu\n"} {
		if err := errors.Join(os.MkdirAll(filepath.Join(groups, group), 0o755), os.WriteFile(filepath.Join(groups, group, "name"), []byte(name), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	for pci, group := range map[string]string{vfs[1].PCI: "7", vfs[2].PCI: "8"} {
		if err := os.Symlink(filepath.Join(groups, group), filepath.Join(tree.Root, "sys/bus/pci/devices", pci, "iommu_group")); err != nil {
			t.Fatal(err)
		}
	}
	if err := tree.RDMA(vfs[1].PCI, "mlx5_2"); err != nil {
		t.Fatal(err)
	}
	sys := Sys{Root: tree.Root}
	f, err := sys.Function(vfs[1].PCI)
	if err != nil || f.NUMA != 1 || f.IOMMUGroup != "7" || !slices.Equal(f.RDMA, []string{"mlx5_2"}) || f.PF != "ens1" || f.PFPCI != "0000:3b:00.0" || f.Number != 1 {
		t.Errorf("%+v %v", f, err)
	}
	if f, err = sys.Function(vfs[2].PCI); err != nil || f.IOMMUGroup != "noiommu-8" || f.NUMA != -1 || f.RDMA != nil {
		t.Errorf("%+v %v", f, err)
	}
	for _, bad := range []string{"", "..", "../0000:3b:00.0", "0000:3b:02.0/../0000:3b:00.0", "0000:3B:02.0", "0000:3b:02.8", "0000:3b:00.0", "0000:99:00.0"} {
		if f, err := sys.Function(bad); !errors.Is(err, ErrNoFunction) {
			t.Errorf("%q: %+v %v", bad, f, err)
		}
	}
}

// TestFunctionAmongMany: a function is found by its own links, also where others' are missing; what is asked each round is one look.
func TestFunctionAmongMany(t *testing.T) {
	tree := lab.Functions{Root: t.TempDir()}
	vfs, err := tree.Add("0000:3b:00.0", "ens1", 64)
	if err != nil {
		t.Fatal(err)
	}
	sys := Sys{Root: tree.Root}
	for _, vf := range vfs {
		if f, err := sys.Function(vf.PCI); err != nil || f.Number != vf.Number || f.Link != vf.Link || sys.Interface(vf.PCI) != vf.Link {
			t.Errorf("%+v %v", f, err)
		}
	}
	if got := sys.Functions("0000:3b:00.0"); len(got) != 64 || got[63] != vfs[63].PCI {
		t.Errorf("%v", got)
	}
	link := filepath.Join(tree.Root, "sys/bus/pci/devices/0000:3b:00.0/virtfn3")
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	if f, err := sys.Function(vfs[63].PCI); err != nil || f.Number != 63 {
		t.Errorf("%+v %v", f, err)
	}
	if f, err := sys.Function(vfs[3].PCI); !errors.Is(err, ErrNoFunction) {
		t.Errorf("%+v %v", f, err)
	}
	if err := tree.Name(vfs[0].PCI, ""); err != nil {
		t.Fatal(err)
	}
	for _, none := range []string{vfs[0].PCI, "0000:99:00.0", "../../../class/net/ens1", ""} {
		if got := sys.Interface(none); got != "" || len(sys.Functions(none)) != 0 {
			t.Errorf("%q has %s, %v", none, got, sys.Functions(none))
		}
	}
	if reads := testing.AllocsPerRun(1, func() { _, _ = sys.Function(vfs[0].PCI) }); reads > 100 {
		t.Errorf("%v allocations for the first function of 64", reads)
	}
}

// TestBound: a function without a driver has none, whatever it was told to take, so that a change that was cut off is seen; and drivers
// that keep devices for programs are none of the kernel's own.
func TestBound(t *testing.T) {
	for want, list := range map[string][]Function{
		plan.DriverKernel: {{Driver: "iavf"}, {Driver: "mlx5_core"}},
		plan.DriverNone:   {{}},
		plan.DriverBusy:   {{Busy: true}},
		plan.DriverVFIO:   {{Driver: "vfio-pci"}},
		"mlx5_vfio_pci":   {{Driver: "mlx5_vfio_pci"}},
		"pci-stub":        {{Driver: "pci-stub"}},
		"igb_uio":         {{Driver: "igb_uio"}},
	} {
		for _, f := range list {
			if got := f.Bound(); got != want {
				t.Errorf("%+v is %s instead of %s", f, got, want)
			}
		}
	}
}

// vfInfo is an answer of the kernel about functions, each with the words of its attributes. Nested ones are marked or not, as kernels do.
func vfInfo(mark int, functions ...map[uint16][]uint32) []byte {
	list := nl.NewRtAttr(unix.IFLA_VFINFO_LIST|mark, nil)
	for _, f := range functions {
		one := list.AddRtAttr(nl.IFLA_VF_INFO|mark, nil)
		for kind, words := range f {
			var b []byte
			for _, w := range words {
				b = binary.NativeEndian.AppendUint32(b, w)
			}
			one.AddRtAttr(int(kind)|mark, b)
		}
	}
	return append(nl.NewIfInfomsg(unix.AF_UNSPEC).Serialize(), list.Serialize()...)
}

// An answer is read whole or not at all: what is cut short anywhere tells of no function that is not in it.
func TestParseVFs(t *testing.T) {
	all := func(n, trust, spoof, state, least, most uint32) map[uint16][]uint32 {
		return map[uint16][]uint32{nl.IFLA_VF_TRUST: {n, trust}, nl.IFLA_VF_SPOOFCHK: {n, spoof}, nl.IFLA_VF_LINK_STATE: {n, state}, nl.IFLA_VF_RATE: {n, least, most}, nl.IFLA_VF_TX_RATE: {n, 77}}
	}
	address := map[uint16][]uint32{nl.IFLA_VF_MAC: {3, 0x01010101, 0x01010101, 0}, nl.IFLA_VF_VLAN: {3, 7, 2}}
	for _, mark := range []int{0, unix.NLA_F_NESTED} {
		message := vfInfo(mark, all(1, 1, 0, 2, 10, 100), all(0, unknownSetting, unknownSetting, 9, 0, 0), all(maxVFs, 1, 1, 1, 1, 1), address)
		want := []VF{{Number: 1, VFSettings: plan.VFSettings{Trust: "on", SpoofCheck: "off", LinkState: "disable", Rate: "10-100"}}, {VFSettings: plan.VFSettings{Rate: "0-0"}},
			{Number: 3, MAC: net.HardwareAddr{1, 1, 1, 1, 1, 1}, VLAN: 7, QoS: 2}}
		if out, err := ParseVFs(message); err != nil || !reflect.DeepEqual(out, want) {
			t.Errorf("mark %#x: %+v, %v", mark, out, err)
		}
		for n := range message {
			if out, err := ParseVFs(message[:n]); err == nil && len(out) > 0 && !reflect.DeepEqual(out, want[:min(len(out), len(want))]) {
				t.Errorf("%d bytes: %+v", n, out)
			}
		}
		if _, err := ParseVFs(message[:8]); !errors.Is(err, ErrShort) {
			t.Error(err)
		}
	}
}

// FuzzParseVFs: whatever the kernel says, no number is out of bounds and nothing panics.
func FuzzParseVFs(f *testing.F) {
	f.Add(vfInfo(0, map[uint16][]uint32{nl.IFLA_VF_TRUST: {0, 1}, nl.IFLA_VF_RATE: {1, 2}, nl.IFLA_VF_MAC: {2, 3}}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, message []byte) {
		out, _ := ParseVFs(message)
		for _, vf := range out {
			if vf.Number < 0 || vf.Number >= maxVFs {
				t.Errorf("%+v", vf)
			}
		}
	})
}

// TestNamesStayInTheirDirectory: what is no interface's name is no part of a path, and what is no driver for programs is never written.
func TestNamesStayInTheirDirectory(t *testing.T) {
	tree := lab.Functions{Root: t.TempDir()}
	if _, err := tree.Add("0000:3b:00.0", "ens1", 1); err != nil {
		t.Fatal(err)
	}
	k := &Kernel{sys: Sys{Root: tree.Root}}
	for _, s := range []plan.Step{
		{Op: plan.SetLink, LinkName: "../net/ens1", Property: "numvfs", To: "0"},
		{Op: plan.SetLink, LinkName: "..", Property: "numvfs", To: "0"},
		{Op: plan.SetLink, LinkName: "ens1", Property: "numvfs", To: "-1"},
		{Op: plan.SetLink, LinkName: "ens1", Property: "numvfs", To: "1000000"},
		{Op: plan.SetLink, LinkName: "ens1", Property: "numvfs", To: "1; reboot"},
		{Op: plan.SetVF, LinkName: "ens1", VF: &plan.VFRef{}, Property: "driver", To: "../../x"},
		{Op: plan.SetVF, LinkName: "ens1", VF: &plan.VFRef{}, Property: "driver", To: "e1000"},
		{Op: plan.SetVF, LinkName: "..", VF: &plan.VFRef{}, Property: "driver", To: plan.DriverVFIO},
		{Op: plan.SetVF, LinkName: "ens1", Property: "driver", To: plan.DriverVFIO},
		{Op: plan.SetVF, LinkName: "ens1", VF: &plan.VFRef{PCI: "0000:99:00.1"}, Property: "driver", To: plan.DriverVFIO},
		{Op: plan.SetVF, LinkName: "ens1", VF: &plan.VFRef{Number: -1}, Property: "driver", To: plan.DriverVFIO},
	} {
		if err := k.Apply(t.Context(), s); !errors.Is(err, ErrStep) {
			t.Errorf("%+v: %v", s, err)
		}
	}
	if n, _, err := number(k.sys.card("ens1", "sriov_numvfs")); n != 1 || err != nil {
		t.Errorf("%d functions: %v", n, err)
	}
}

// TestADeviceThatDoesNotAnswer: a function whose driver waits for a program is busy, and however often it is looked at, one thread waits.
func TestADeviceThatDoesNotAnswer(t *testing.T) {
	tree := lab.Functions{Root: t.TempDir()}
	vfs, err := tree.Add("0000:3b:00.0", "ens1", 1)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(tree.Root, "sys/bus/pci/devices", vfs[0].PCI, "driver_override")
	if err := errors.Join(tree.Bind(vfs[0].PCI, ""), os.Remove(file), unix.Mkfifo(file, 0o644)); err != nil {
		t.Fatal(err)
	}
	sys := Sys{Root: tree.Root}
	before := runtime.NumGoroutine()
	for range 5 {
		if f, err := sys.Function(vfs[0].PCI); err != nil || f.Bound() != plan.DriverBusy {
			t.Errorf("%+v %v", f, err)
		}
	}
	if n := runtime.NumGoroutine() - before; n > 1 {
		t.Errorf("%d goroutines wait", n)
	}
	if err := os.WriteFile(file, []byte("(null)\n"), 0o644); err != nil { // the program ends
		t.Fatal(err)
	}
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if err := errors.Join(os.Remove(file), os.WriteFile(file, []byte("(null)\n"), 0o644)); err != nil {
			t.Fatal(err)
		}
		if f, err := sys.Function(vfs[0].PCI); err == nil && f.Bound() == plan.DriverNone {
			return
		}
		if time.Now().After(end) {
			t.Fatal("it answers, and is busy for ever")
		}
	}
}
