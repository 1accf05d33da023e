package sriov_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"danm.io/danm/node/guard"
	"danm.io/danm/node/ledger"
	"danm.io/danm/node/link"
	"danm.io/danm/node/plan"
	"danm.io/danm/node/sriov"
	"danm.io/danm/spec/model"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// machine is this machine with its cards and a guard.
type machine struct {
	t      *testing.T
	kernel *sriov.Kernel
	guard  *guard.Guard
	dir    string
	card   string // interface of the card under test
	pci    string
}

// theCard is the PCI address of a card whose driver makes virtual functions. The test machine's is Intel's 82576.
func theCard(t *testing.T) string {
	t.Helper()
	found, _ := filepath.Glob("/sys/bus/pci/drivers/igb/0000:*")
	if len(found) == 0 {
		t.Skip("no card with SR-IOV")
	}
	return filepath.Base(found[0])
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	pci := theCard(t)
	k, err := link.New("/")
	must(t, err)
	m := &machine{t: t, kernel: sriov.Over(k, "/"), dir: t.TempDir(), pci: pci}
	m.findCard()
	must(t, write("/sys/bus/pci/devices/"+pci+"/sriov_numvfs", "0"))
	m.guard, err = guard.Open(t.Context(), guard.Options{Dir: m.dir, Kernel: m.kernel, BootID: "b"})
	must(t, err)
	t.Cleanup(func() {
		_ = write("/sys/bus/pci/devices/"+pci+"/sriov_numvfs", "0")
		k.Close()
	})
	return m
}

func (m *machine) findCard() {
	names, err := filepath.Glob("/sys/bus/pci/devices/" + m.pci + "/net/*")
	must(m.t, err)
	m.card = filepath.Base(names[0])
}

func write(path, text string) error { return os.WriteFile(path, []byte(text), 0) }

// to submits and confirms a plan of pools.
func (m *machine) to(pods map[string][]string, pools ...model.SRIOVPool) guard.Outcome {
	m.t.Helper()
	p := model.NodePlan{Pools: pools}
	out, err := m.guard.Submit(m.t.Context(), guard.Submission{Desired: plan.Desired{Plan: p}, Digest: p.Digest(), ConfirmTimeout: time.Minute, Pods: pods})
	must(m.t, err)
	must(m.t, m.guard.Confirm(m.t.Context(), p.Digest()))
	return out
}

func (m *machine) observe() plan.Observed {
	m.t.Helper()
	o, err := m.kernel.Observe(m.t.Context())
	must(m.t, err)
	o.Owned, err = ledger.Load(m.dir)
	must(m.t, err)
	return o
}

func (m *machine) observed() *plan.ObservedPF {
	m.t.Helper()
	o := m.observe()
	i := slices.IndexFunc(o.Links, func(l plan.ObservedLink) bool { return l.Name == m.card })
	return o.Links[i].SRIOV
}

// seen is what iproute2 and sysfs say of the card's functions, a line each: the witness that shares no code with ours.
func (m *machine) seen() string {
	m.t.Helper()
	out, err := exec.Command("ip", "-j", "-d", "link", "show", "dev", m.card).Output()
	must(m.t, err)
	var links []struct {
		List []struct {
			VF       int    `json:"vf"`
			Spoof    bool   `json:"spoofchk"`
			Trust    bool   `json:"trust"`
			State    string `json:"link_state"`
			Vlan     []struct{ Vlan int }
			VlanList []struct{ Vlan int } `json:"vlan_list"`
			Rate     struct {
				Max int `json:"max_tx"`
				Min int `json:"min_tx"`
			} `json:"rate"`
		} `json:"vfinfo_list"`
	}
	must(m.t, json.Unmarshal(out, &links))
	var lines []string
	for _, vf := range links[0].List {
		dir := fmt.Sprintf("/sys/bus/pci/devices/%s/virtfn%d", m.pci, vf.VF)
		driver, _ := os.Readlink(dir + "/driver")
		mtu, _ := filepath.Glob(dir + "/net/*/mtu")
		text := "-"
		if len(mtu) == 1 {
			b, _ := os.ReadFile(mtu[0])
			text = strings.TrimSpace(string(b))
		}
		lines = append(lines, fmt.Sprintf("%d %s trust=%v spoof=%v rate=%d mtu=%s", vf.VF, filepath.Base(driver), vf.Trust, vf.Spoof, vf.Rate.Max, text))
	}
	return strings.Join(lines, "\n")
}

func (m *machine) want(lines ...string) {
	m.t.Helper()
	if got := m.seen(); got != strings.Join(lines, "\n") {
		m.t.Fatalf("want\n%s\ngot\n%s", strings.Join(lines, "\n"), got)
	}
	for _, p := range []*plan.ObservedPF{m.observed()} {
		if len(p.VFs) != len(lines) || p.TotalVFs != 7 || p.Vendor != "8086" || p.Device != "10c9" {
			m.t.Fatalf("%+v", p)
		}
	}
}

// settled is an empty diff: the kernel is as the plan wants it.
func (m *machine) settled(pools ...model.SRIOVPool) {
	m.t.Helper()
	m.repair(pools...)
	if p := plan.Diff(plan.Desired{Plan: model.NodePlan{Pools: pools}}, m.observe()); !p.Empty() {
		m.t.Fatalf("still to do: %s %v %v", p.Text(), p.Claims, p.Released)
	}
}

// kernelPool and userPool share the card, which they find in different ways.
func (m *machine) kernelPool(n int, vfs ...model.Range32) model.SRIOVPool {
	return model.SRIOVPool{Name: "fast", PFs: model.PFSelector{Names: []string{m.card}, Vendors: []string{"8086"}}, NumVFs: n, VFs: vfs,
		Trust: new(true), SpoofCheck: new(false), MaxTxRate: 100, MTU: 1400, ResourceName: "danm.io/fast"}
}

func (m *machine) userPool(n int, vfs ...model.Range32) model.SRIOVPool {
	return model.SRIOVPool{Name: "user", PFs: model.PFSelector{PCI: []string{m.pci}, Drivers: []string{"igb"}}, NumVFs: n, VFs: vfs, Driver: plan.DriverVFIO, ResourceName: "danm.io/user"}
}

func r(first, last uint32) model.Range32 { return model.Range32{First: first, Last: last} }

// TestKernelSRIOVPools walks a card through two pools that share it, another number, one pool less, and release; each time iproute2 and
// sysfs are asked.
func TestKernelSRIOVPools(t *testing.T) {
	m := newMachine(t)
	fast, user := m.kernelPool(4, r(0, 1)), m.userPool(4, r(3, 3))
	m.to(nil, fast, user)
	m.repair(fast, user)
	m.want("0 igbvf trust=true spoof=false rate=100 mtu=1400", "1 igbvf trust=true spoof=false rate=100 mtu=1400",
		"2 igbvf trust=false spoof=true rate=0 mtu=1500", "3 vfio-pci trust=false spoof=true rate=0 mtu=-")
	m.settled(fast, user)

	fast, user = m.kernelPool(2), m.userPool(2, r(1, 1))
	fast.VFs = []model.Range32{r(0, 0)}
	m.to(nil, fast, user)
	m.repair(fast, user)
	m.want("0 igbvf trust=true spoof=false rate=100 mtu=1400", "1 vfio-pci trust=false spoof=true rate=0 mtu=-")
	m.settled(fast, user)

	m.to(nil, fast) // what was the other's is as a new function is
	m.repair(fast)
	m.want("0 igbvf trust=true spoof=false rate=100 mtu=1400", "1 igbvf trust=false spoof=true rate=0 mtu=1500")
	m.settled(fast)

	m.to(nil)
	m.want()
	m.settled()
	if left, _ := ledger.Load(m.dir); len(left) != 0 {
		t.Errorf("records are left: %v", left)
	}
}

// repair does what is left for drift: the MTU of interfaces that came later.
func (m *machine) repair(pools ...model.SRIOVPool) {
	m.t.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		_, err := m.guard.Repair(m.t.Context(), plan.Desired{Plan: model.NodePlan{Pools: pools}}, nil)
		must(m.t, err)
		if p := plan.Diff(plan.Desired{Plan: model.NodePlan{Pools: pools}}, m.observe()); p.Empty() || time.Now().After(end) {
			return
		}
	}
}

// TestKernelSRIOVAdopted: functions that are there stay what they are but for what is declared, and that is put back.
func TestKernelSRIOVAdopted(t *testing.T) {
	m := newMachine(t)
	must(t, write("/sys/bus/pci/devices/"+m.pci+"/sriov_numvfs", "3"))
	m.ip("link", "set", m.card, "up")
	m.ip("link", "set", m.card, "vf", "1", "trust", "on", "spoofchk", "off")
	must(t, write("/sys/bus/pci/devices/"+m.pci+"/virtfn2/driver_override", "vfio-pci"))
	address, err := os.Readlink("/sys/bus/pci/devices/" + m.pci + "/virtfn2")
	must(t, err)
	must(t, write("/sys/bus/pci/devices/"+m.pci+"/virtfn2/driver/unbind", filepath.Base(address)))
	must(t, write("/sys/bus/pci/drivers_probe", filepath.Base(address)))
	before, indexes := m.seen(), m.indexes()
	pool := model.SRIOVPool{Name: "fast", PFs: model.PFSelector{Names: []string{m.card}}, NumVFs: 3, Trust: new(false), ResourceName: "danm.io/fast"}
	m.to(nil, pool)
	m.want("0 igbvf trust=false spoof=true rate=0 mtu=1500", "1 igbvf trust=false spoof=false rate=0 mtu=1500", "2 igbvf trust=false spoof=true rate=0 mtu=1500")
	if now := m.indexes(); !strings.HasPrefix(now, indexes) {
		t.Errorf("interfaces were made anew: %s, before %s", now, indexes)
	}
	m.to(nil)
	if after := m.seen(); after != before {
		t.Errorf("released as\n%s\nbefore\n%s", after, before)
	}
}

// indexes are those of the first two functions' interfaces.
func (m *machine) indexes() string {
	var out []string
	for _, vf := range m.observed().VFs[:2] {
		b, _ := os.ReadFile("/sys/class/net/" + vf.Link + "/ifindex")
		out = append(out, strings.TrimSpace(string(b)))
	}
	return strings.Join(out, " ")
}

func (m *machine) ip(args ...string) {
	m.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		m.t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// TestKernelSRIOVUndone: a step that the card refuses undoes the whole plan, and so does a window that nobody confirms.
func TestKernelSRIOVUndone(t *testing.T) {
	m := newMachine(t)
	refused := m.kernelPool(4)
	refused.LinkState = "enable" // not on this card
	p := model.NodePlan{Pools: []model.SRIOVPool{refused}}
	_, err := m.guard.Submit(t.Context(), guard.Submission{Desired: plan.Desired{Plan: p}, Digest: p.Digest(), ConfirmTimeout: time.Minute})
	if !errors.Is(err, guard.ErrStepFailed) || !strings.Contains(err.Error(), "linkstate") || !strings.Contains(err.Error(), "not supported") {
		t.Fatal(err)
	}
	m.want()
	p = model.NodePlan{Pools: []model.SRIOVPool{m.userPool(4)}}
	_, err = m.guard.Submit(t.Context(), guard.Submission{Desired: plan.Desired{Plan: p}, Digest: p.Digest(), ConfirmTimeout: 5 * time.Second})
	must(t, err)
	if len(m.observed().VFs) != 4 {
		t.Fatal("nothing was made")
	}
	for end := time.Now().Add(20 * time.Second); len(m.observed().VFs) != 0; time.Sleep(200 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not undone: %+v", m.observed())
		}
	}
}

// TestKernelSRIOVReload: a card whose driver was loaded anew has no functions; the next submission brings them back as they were.
func TestKernelSRIOVReload(t *testing.T) {
	m := newMachine(t)
	fast := m.kernelPool(3, r(0, 1))
	m.to(nil, fast)
	m.repair(fast)
	before := m.seen()
	must(t, write("/sys/bus/pci/drivers/igb/unbind", m.pci))
	must(t, write("/sys/bus/pci/drivers/igb/bind", m.pci))
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		if names, _ := filepath.Glob("/sys/bus/pci/devices/" + m.pci + "/net/*"); len(names) == 1 && filepath.Base(names[0]) == m.card {
			break
		}
		if time.Now().After(end) {
			t.Fatal("the card does not come back")
		}
	}
	out, err := m.guard.Repair(t.Context(), plan.Desired{Plan: model.NodePlan{Pools: []model.SRIOVPool{fast}}}, nil)
	must(t, err)
	if !slices.ContainsFunc(out.Rest, func(s plan.Step) bool { return s.Property == "numvfs" && s.From == "0" && s.To == "3" }) {
		t.Fatalf("%v", out.Rest)
	}
	m.to(nil, fast)
	m.repair(fast)
	if after := m.seen(); after != before {
		t.Errorf("brought back as\n%s\nbefore\n%s", after, before)
	}
}

// TestKernelSRIOVElsewhere: a function whose interface is in another namespace is seen to be away, and is not taken from there.
func TestKernelSRIOVElsewhere(t *testing.T) {
	m := newMachine(t)
	fast := m.kernelPool(2)
	m.to(nil, fast)
	m.repair(fast)
	m.ip("netns", "add", "pod1")
	defer m.ip("netns", "del", "pod1")
	name := m.observed().VFs[1].Link
	m.ip("link", "set", name, "netns", "pod1")
	vfs := m.observed().VFs
	if vfs[0].Away || !vfs[1].Away || vfs[1].Link != "" || vfs[1].Driver != plan.DriverKernel {
		t.Fatalf("%+v", vfs)
	}
	m.settled(fast)
	if out := m.to(nil, m.kernelPool(4)); len(out.Held) == 0 || len(m.observed().VFs) != 2 {
		t.Fatalf("held %v, functions %d", out.Held, len(m.observed().VFs))
	}
	m.ip("netns", "exec", "pod1", "ip", "link", "set", name, "netns", "1") // control: back here it is free to be taken
	if m.to(nil, m.kernelPool(3)); len(m.observed().VFs) != 3 {
		t.Fatalf("functions %d", len(m.observed().VFs))
	}
}

// TestKernelSRIOVOpen: a program that has a device open keeps the kernel from ending it; the step gives up, and does not hang.
func TestKernelSRIOVOpen(t *testing.T) {
	m := newMachine(t)
	m.to(nil, m.userPool(2))
	program := openDevice(t, m.observed().VFs[0].PCI)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	began := time.Now()
	err := m.kernel.Apply(ctx, plan.Step{Op: plan.SetLink, LinkName: m.card, Property: "numvfs", To: "0"})
	if !errors.Is(err, sriov.ErrBusy) || time.Since(began) > 3*time.Second {
		t.Errorf("after %s: %v", time.Since(began), err)
	}
	program()
	for end := time.Now().Add(20 * time.Second); len(m.observed().VFs) != 0; time.Sleep(100 * time.Millisecond) { // the write goes on by itself
		if time.Now().After(end) {
			t.Fatal("the write never ended")
		}
	}
}
