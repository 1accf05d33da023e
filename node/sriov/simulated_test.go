package sriov_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"danm.io/danm/node/guard"
	"danm.io/danm/node/ledger"
	"danm.io/danm/node/link"
	"danm.io/danm/node/plan"
	"danm.io/danm/node/sriov"
	"danm.io/danm/spec/model"
	"danm.io/danm/test/lab"
	"github.com/vishvananda/netlink"
)

func TestMain(m *testing.M) {
	if found, _ := filepath.Glob("/sys/bus/pci/drivers/igb/0000:*"); len(found) > 0 {
		os.Exit(m.Run()) // the cards are the machine's
	}
	code, done, err := lab.Isolate()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if done {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// simulated is a card of files whose functions' interfaces are veths.
func simulated(t *testing.T) (*lab.Driver, *sriov.Kernel) {
	t.Helper()
	add := func(name string) error {
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, MTU: 1500, TxQLen: -1}, PeerName: name + "x"})
	}
	del := func(name string) error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return nil
		}
		return netlink.LinkDel(l)
	}
	d := &lab.Driver{Functions: lab.Functions{Root: t.TempDir()}, PCI: "0000:3b:00.0", PF: "ens1",
		Make: func(vf lab.VF) error { return add(vf.Link) }, Unmake: func(vf lab.VF) error { return del(vf.Link) }}
	must(t, d.Load())
	must(t, add(d.PF))
	played := make(chan struct{})
	go func() { d.Run(t.Context()); close(played) }()
	t.Cleanup(func() {
		<-played
		left, err := d.List(d.PCI)
		must(t, err)
		for _, vf := range left {
			must(t, d.Unmake(vf))
		}
		must(t, del(d.PF))
	})
	k, err := link.New(d.Root)
	must(t, err)
	t.Cleanup(k.Close)
	return d, sriov.Over(k, d.Root)
}

// TestKernelSimulated: what the guard writes to sysfs makes a card what pools want, in the order in which a kernel takes it, and back.
func TestKernelSimulated(t *testing.T) {
	d, k := simulated(t)
	dir := t.TempDir()
	g, err := guard.Open(t.Context(), guard.Options{Dir: dir, Kernel: k, BootID: "b"})
	must(t, err)
	pool := func(name string, n int, driver string, mtu int, first, last uint32) model.SRIOVPool {
		return model.SRIOVPool{Name: name, PFs: model.PFSelector{Names: []string{"ens1"}, Vendors: []string{"8086"}}, NumVFs: n, Driver: driver, MTU: mtu,
			VFs: []model.Range32{{First: first, Last: last}}, ResourceName: "danm.io/" + name}
	}
	for i, step := range []struct {
		pools []model.SRIOVPool
		want  string
	}{
		{[]model.SRIOVPool{pool("fast", 4, "", 1400, 0, 1), pool("user", 4, plan.DriverVFIO, 0, 3, 3)}, "ens1v0/iavf/1400 ens1v1/iavf/1400 ens1v2/iavf/1500 -/vfio-pci/-"},
		{[]model.SRIOVPool{pool("fast", 4, "", 1400, 0, 1), pool("user", 4, "", 0, 3, 3)}, "ens1v0/iavf/1400 ens1v1/iavf/1400 ens1v2/iavf/1500 ens1v3/iavf/1500"},
		{[]model.SRIOVPool{pool("fast", 2, "", 1300, 0, 0)}, "ens1v0/iavf/1300 ens1v1/iavf/1500"},
		{[]model.SRIOVPool{pool("user", 2, plan.DriverVFIO, 0, 0, 0)}, "-/vfio-pci/- ens1v1/iavf/1500"},
		{nil, ""},
	} {
		desired := plan.Desired{Plan: model.NodePlan{Pools: step.pools}}
		_, err := g.Submit(t.Context(), guard.Submission{Desired: desired, Digest: desired.Plan.Digest(), ConfirmTimeout: time.Minute})
		must(t, err)
		must(t, g.Confirm(t.Context(), desired.Plan.Digest()))
		got := ""
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			_, err = g.Repair(t.Context(), desired, nil)
			must(t, err)
			if got = interfaces(t, d); got == step.want {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("plan %d: %s, want %s", i, got, step.want)
			}
		}
		o, err := k.Observe(t.Context())
		must(t, err)
		o.Owned, err = ledger.Load(dir)
		must(t, err)
		if p := plan.Diff(desired, o); !p.Empty() {
			t.Errorf("plan %d: still to do: %s %v %v", i, p.Text(), p.Claims, p.Released)
		}
		if i == 4 && len(o.Owned) != 0 {
			t.Errorf("records are left: %v", o.Owned)
		}
	}
	if bad := d.Refused(); len(bad) != 0 || d.Err() != nil {
		t.Errorf("a kernel would have refused %v; %v", bad, d.Err())
	}
}

// interfaces are those of the card's functions with driver and MTU, as the files and the kernel have them.
func interfaces(t *testing.T, d *lab.Driver) string {
	t.Helper()
	vfs, err := d.List(d.PCI)
	must(t, err)
	var out []string
	for _, vf := range vfs {
		driver, _ := os.Readlink(filepath.Join(d.Root, "sys/bus/pci/devices", vf.PCI, "driver"))
		name, mtu := "-", "-"
		if l, err := netlink.LinkByName(vf.Link); vf.Link != "" && err == nil {
			name, mtu = vf.Link, fmt.Sprint(l.Attrs().MTU)
		}
		out = append(out, strings.Join([]string{name, filepath.Base(driver), mtu}, "/"))
	}
	return strings.Join(out, " ")
}

// TestKernelSimulatedRefusals: settings that a card does not tell of are blocked with the remedy, never set in the dark, and a driver that
// takes no function is an error that says what to look for.
func TestKernelSimulatedRefusals(t *testing.T) {
	d, k := simulated(t)
	must(t, k.Apply(t.Context(), plan.Step{Op: plan.SetLink, LinkName: "ens1", Property: "numvfs", To: "1"}))
	o, err := k.Observe(t.Context())
	must(t, err)
	p := plan.Diff(plan.Desired{Plan: model.NodePlan{Pools: []model.SRIOVPool{{Name: "p", PFs: model.PFSelector{PCI: []string{""}, Names: []string{"ens1"}}, NumVFs: 1}}}}, o)
	if len(p.Steps) != 0 {
		t.Errorf("a selector with an empty word means a card: %s", p.Text())
	}
	p = plan.Diff(plan.Desired{Plan: model.NodePlan{Pools: []model.SRIOVPool{{Name: "p", PFs: model.PFSelector{Names: []string{"ens1"}}, NumVFs: 1, Trust: new(true)}}}}, o)
	if text := p.Text(); !strings.Contains(text, "blocked: vf/ens1/0/trust") || !strings.Contains(text, "remove it from pool p") || strings.Contains(text, "trust ->") {
		t.Errorf("%s", text)
	}
	vfs, err := d.List(d.PCI)
	must(t, err)
	must(t, os.RemoveAll(filepath.Join(d.Root, "sys/bus/pci/drivers/iavf/unbind"))) // nobody takes it away
	err = k.Apply(t.Context(), plan.Step{Op: plan.SetVF, LinkName: "ens1", VF: &plan.VFRef{}, Property: "driver", To: plan.DriverVFIO})
	if err == nil || !strings.Contains(err.Error(), "is its module loaded") {
		t.Errorf("%v of %v", err, vfs)
	}
}

// TestKernelSimulatedAway: an interface that has a name and is not here is in another namespace; a function whose driver makes none is not.
func TestKernelSimulatedAway(t *testing.T) {
	d, k := simulated(t)
	must(t, k.Apply(t.Context(), plan.Step{Op: plan.SetLink, LinkName: "ens1", Property: "numvfs", To: "3"}))
	vfs, err := d.List(d.PCI)
	must(t, err)
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) { // the last one's interface comes after its function
		if _, err := netlink.LinkByName(vfs[2].Link); err == nil {
			break
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	must(t, d.Unmake(vfs[1]))
	must(t, os.RemoveAll(filepath.Join(d.Root, "sys/bus/pci/devices", vfs[2].PCI, "net")))
	must(t, d.Unmake(vfs[2]))
	o, err := k.Observe(t.Context())
	must(t, err)
	for _, l := range o.Links {
		if l.SRIOV == nil {
			continue
		}
		for n, want := range []plan.ObservedVF{{Link: "ens1v0"}, {Away: true}, {}} {
			if got := l.SRIOV.VFs[n]; got.Link != want.Link || got.Away != want.Away || got.Driver != plan.DriverKernel {
				t.Errorf("function %d: %+v", n, got)
			}
		}
		return
	}
	t.Error("no card")
}
