package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"danm.io/danm/node/devplugin"
	"danm.io/danm/node/plan"
	"danm.io/danm/node/sriov"
	"danm.io/danm/spec/model"
)

// TestFunctionsAreRemembered: what sysfs told is read once more after a while, and then only when the function looks another or could not be
// read; in a Pod it is what it was, and what is gone is forgotten.
func TestFunctionsAreRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := t.TempDir()
		l := card("ens1", 1, 1)
		sysfs(t, root, l)
		f := vfFiles{sys: sriov.Sys{Root: root}}
		vf := l.SRIOV.VFs[0]
		node := filepath.Join(root, "sys/bus/pci/devices", vf.PCI, "numa_node")
		numa := func(want int) {
			t.Helper()
			if is, err := f.look(vf); err != nil || is.NUMA != want || is.PFPCI != "0000:01:00.0" {
				t.Errorf("%+v %v, not node %d", is, err, want)
			}
			f.forget()
		}
		becomes := func(n int) { must(t, os.WriteFile(node, fmt.Appendln(nil, n), 0o600)) }
		numa(1)
		becomes(2)
		numa(1)
		time.Sleep(believed + time.Second)
		numa(2)
		becomes(3)
		for range 100 {
			time.Sleep(time.Minute)
			numa(2)
		}
		home := vf
		for _, hide := range []func(){func() { vf.Link, vf.MTU, vf.Away = "", "", true }, func() { vf.Link, vf.Driver = "", plan.DriverBusy }} {
			hide()
			numa(2)
			time.Sleep(time.Minute)
			numa(2)
			vf = home
			numa(2) // it is as it was before
		}
		vf.Link = "other"
		numa(3)
		becomes(4)
		vf.Away, vf.Link = true, "" // before it was read again
		time.Sleep(time.Minute)
		numa(3)
		f.forget()
		numa(4)
		gone := plan.ObservedVF{PCI: "0000:01:02.7"}
		if is, err := f.look(gone); !errors.Is(err, sriov.ErrNoFunction) {
			t.Errorf("%+v %v", is, err)
		}
		l.SRIOV.VFs = []plan.ObservedVF{gone}
		must(t, os.Remove(filepath.Join(root, "sys/bus/pci/devices/0000:01:00.0/virtfn0")))
		sysfs(t, root, l)
		if _, err := f.look(gone); err == nil {
			t.Error("it was read again at once")
		}
		time.Sleep(believed + time.Second)
		if is, err := f.look(gone); err != nil || is.NUMA != 1 {
			t.Errorf("%+v %v", is, err)
		}
	})
}

// TestAQuietRoundReadsNothing: where nothing changes, nothing is read of any of a card's many functions.
func TestAQuietRoundReadsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		l := card("ens1", 1, 8)
		must(t, n.k.AddLink(l))
		sysfs(t, n.dir, l)
		said := ""
		n.a.opts.Offer = func(r []devplugin.Resource) { said = fmt.Sprintf("%+v", r) }
		n.a.vfFiles.sys.Root = n.dir
		st := bridgePlan(1400)
		st.Pools = []model.SRIOVPool{pool("a", "a", "ens1", 8)}
		n.write("r1", st)
		n.run(time.Minute)
		before := said
		must(t, os.RemoveAll(filepath.Join(n.dir, "sys")))
		n.run(10 * time.Minute)
		if strings.Count(said, "NUMA:1") != 8 || said != before {
			t.Errorf("%s", said)
		}
	})
}
