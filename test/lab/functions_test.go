//go:build linux

package lab

import (
	"slices"
	"testing"

	"danm.io/danm/node/sriov"
)

// The tree is read as sysfs is.
func TestFunctions(t *testing.T) {
	f := Functions{Root: t.TempDir()}
	const pf = "0000:3b:00.0"
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	vfs, err := f.Add(pf, "ens1", 10)
	must(err)
	if listed, err := f.List(pf); err != nil || !slices.Equal(listed, vfs) || vfs[9] != (VF{"0000:3b:03.1", 9, "ens1v9"}) {
		t.Errorf("%v %v of %v", listed, err, vfs)
	}
	sys := sriov.Sys{Root: f.Root}
	is := func(n int, want sriov.Function) {
		t.Helper()
		got, err := sys.Function(vfs[n].PCI)
		want.PCI, want.Number, want.PF, want.PFPCI, want.NUMA = vfs[n].PCI, n, "ens1", pf, -1
		if err != nil || got.PCI != want.PCI || got.Number != n || got.PF != want.PF || got.PFPCI != pf || got.Driver != want.Driver || got.Link != want.Link || !slices.Equal(got.RDMA, want.RDMA) {
			t.Errorf("%+v, %v instead of %+v", got, err, want)
		}
	}
	is(3, sriov.Function{Driver: "iavf", Link: "ens1v3"})
	must(f.RDMA(vfs[3].PCI, "mlx5_3"))
	must(f.Name(vfs[3].PCI, "other"))
	is(3, sriov.Function{Driver: "iavf", Link: "other", RDMA: []string{"mlx5_3"}})
	must(f.Bind(vfs[4].PCI, "vfio-pci"))
	is(4, sriov.Function{Driver: "vfio-pci"})
	must(f.Bind(vfs[4].PCI, ""))
	is(4, sriov.Function{})
	must(f.Remove(pf))
	if left, err := f.List(pf); err != nil || len(left) != 0 {
		t.Errorf("%v %v", left, err)
	}
	if _, err := sys.Function(vfs[0].PCI); err == nil {
		t.Error("a function that was taken away is found")
	}
}
