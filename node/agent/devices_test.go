package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"

	"danm.io/danm/node/devplugin"
	"danm.io/danm/node/plan"
	"danm.io/danm/node/sriov"
	"danm.io/danm/spec/model"
)

// card is a physical function with so many virtual ones, which are as a new one's are: a driver of the kernel has them.
func card(name string, bus, n int) plan.ObservedLink {
	l := plan.ObservedLink{Link: model.Link{Name: name, Kind: model.Physical, MTU: 1500, Up: true}, MAC: fmt.Sprintf("02:00:00:00:00:%02x", bus),
		PCI: fmt.Sprintf("0000:%02x:00.0", bus), Driver: "ice", SRIOV: &plan.ObservedPF{TotalVFs: 8, Vendor: "8086", Device: "1592"}}
	for i := range n {
		l.SRIOV.VFs = append(l.SRIOV.VFs, plan.ObservedVF{PCI: fmt.Sprintf("0000:%02x:02.%d", bus, i), Link: fmt.Sprintf("%sv%d", name, i), VFSettings: plan.VFSettings{Driver: plan.DriverKernel}})
	}
	return l
}

func pool(name, resource, pf string, n int, change ...func(*model.SRIOVPool)) model.SRIOVPool {
	p := model.SRIOVPool{Name: name, ResourceName: "danm.io/" + resource, PFs: model.PFSelector{Names: []string{pf}}, NumVFs: n}
	for _, c := range change {
		c(&p)
	}
	return p
}

func vfs(from, to uint32) func(*model.SRIOVPool) {
	return func(p *model.SRIOVPool) { p.VFs = []model.Range32{{First: from, Last: to}} }
}

// sysfs is a card's functions as the kernel's files tell of them below root, all on NUMA node 1.
func sysfs(t testing.TB, root string, l plan.ObservedLink) {
	t.Helper()
	dir := func(pci string) string { return filepath.Join(root, "sys/bus/pci/devices", pci) }
	must(t, os.MkdirAll(filepath.Join(dir(l.PCI), "net", l.Name), 0o755))
	for i, vf := range l.SRIOV.VFs {
		must(t, os.MkdirAll(dir(vf.PCI), 0o755))
		must(t, os.Symlink("../"+vf.PCI, filepath.Join(dir(l.PCI), fmt.Sprint("virtfn", i))))
		must(t, os.Symlink("../"+l.PCI, filepath.Join(dir(vf.PCI), "physfn")))
		must(t, os.Symlink("../../../drivers/iavf", filepath.Join(dir(vf.PCI), "driver")))
		must(t, os.WriteFile(filepath.Join(dir(vf.PCI), "numa_node"), []byte("1\n"), 0o600))
	}
}

// text is what is offered as "<resource>: <id> <problem>; …".
func text(resources []devplugin.Resource) string {
	var out []string
	for _, r := range resources {
		line := strings.TrimPrefix(r.Name, "danm.io/") + ":"
		for _, d := range r.Devices {
			line += " " + strings.TrimPrefix(d.ID, "0000:")
			if d.Problem != "" {
				line += "(" + d.Problem + ")"
			}
		}
		out = append(out, line)
	}
	return strings.Join(out, "; ")
}

// TestOffered: which devices a plan's pools offer, and what is wrong with them.
func TestOffered(t *testing.T) {
	vfio := func(p *model.SRIOVPool) { p.Driver = "vfio-pci" }
	boundTo := func(driver string) func(*plan.ObservedLink) {
		return func(l *plan.ObservedLink) { l.SRIOV.VFs[0].Driver, l.SRIOV.VFs[0].Link = driver, "" }
	}
	away := func(l *plan.ObservedLink) { l.SRIOV.VFs[0].Link, l.SRIOV.VFs[0].Away = "", true }
	one := func(change ...func(*model.SRIOVPool)) []model.SRIOVPool {
		return []model.SRIOVPool{pool("a", "a", "ens1", 1, change...)}
	}
	for _, c := range []struct {
		what   string
		pools  []model.SRIOVPool
		change func(*plan.ObservedLink)
		sysfs  sriov.Function
		err    error
		has    given
		want   string
	}{
		{what: "healthy", pools: one(), want: "a: 01:02.0"},
		{what: "no pool", want: ""},
		{what: "a pool without a card", pools: []model.SRIOVPool{pool("a", "a", "ens9", 1)}, want: "a:"},
		{what: "a card with another number", pools: []model.SRIOVPool{pool("a", "a", "ens1", 2)}, want: "a:"},
		{what: "down", pools: one(), change: func(l *plan.ObservedLink) { l.Up = false }, want: "a: 01:02.0(its physical function ens1 is down)"},
		{what: "down, enabled", pools: one(func(p *model.SRIOVPool) { p.LinkState = "enable" }), change: func(l *plan.ObservedLink) { l.Up = false }, want: "a: 01:02.0(its physical function ens1 is down)"},
		{what: "no carrier", pools: one(), change: func(l *plan.ObservedLink) { l.NoCarrier = true }, want: "a: 01:02.0(its physical function ens1 has no carrier)"},
		{what: "no carrier, auto", pools: one(func(p *model.SRIOVPool) { p.LinkState = "auto" }), change: func(l *plan.ObservedLink) { l.NoCarrier = true }, want: "a: 01:02.0(its physical function ens1 has no carrier)"},
		{what: "no carrier, enabled", pools: one(func(p *model.SRIOVPool) { p.LinkState = "enable" }), change: func(l *plan.ObservedLink) { l.NoCarrier = true }, want: "a: 01:02.0"},
		{what: "in a Pod", pools: one(), change: away, want: "a: 01:02.0"},
		{what: "no interface", pools: one(), change: boundTo(plan.DriverKernel), want: "a: 01:02.0(it has no interface)"},
		{what: "no driver", pools: one(), change: boundTo("none"), want: "a: 01:02.0(no driver has it, and pool a says kernel)"},
		{what: "between two drivers", pools: one(vfio), change: boundTo("busy"), want: "a: 01:02.0(a program has it open, and its driver waits for that)"},
		{what: "no driver, vfio", pools: one(vfio), change: boundTo("none"), want: "a: 01:02.0(no driver has it, and pool a says vfio-pci)"},
		{what: "another driver", pools: one(), change: boundTo("vfio-pci"), want: "a: 01:02.0(its driver is vfio-pci, and pool a says kernel)"},
		{what: "a driver that makes no interfaces", pools: one(), change: boundTo("pci-stub"), want: "a: 01:02.0(its driver is pci-stub, and pool a says kernel)"},
		{what: "another one for programs", pools: one(vfio), change: boundTo("uio_pci_generic"), want: "a: 01:02.0(its driver is uio_pci_generic, and pool a says vfio-pci)"},
		{what: "vfio's relative", pools: one(vfio), change: boundTo("mlx5_vfio_pci"), want: "a: 01:02.0(its driver is mlx5_vfio_pci, and pool a says vfio-pci)"},
		{what: "in a Pod, vfio", pools: one(vfio), change: away, want: "a: 01:02.0(its driver is kernel, and pool a says vfio-pci)"},
		{what: "no interface, vfio", pools: one(vfio), change: boundTo(plan.DriverKernel), want: "a: 01:02.0(its driver is kernel, and pool a says vfio-pci)"},
		{what: "the kernel's, vfio", pools: one(vfio), want: "a: 01:02.0(its driver is kernel, and pool a says vfio-pci)"},
		{what: "vfio", pools: one(vfio), change: boundTo("vfio-pci"), sysfs: sriov.Function{Driver: "vfio-pci", IOMMUGroup: "12"}, want: "a: 01:02.0"},
		{what: "vfio without a group", pools: one(vfio), change: boundTo("vfio-pci"), sysfs: sriov.Function{Driver: "vfio-pci"}, want: "a: 01:02.0(it has no IOMMU group, so no program can have it)"},
		{what: "sysfs is silent", pools: one(), err: errors.New("no files"), want: "a: 01:02.0(no files)"},
		{what: "a Pod has it", pools: one(), has: has("0000:01:02.0", "acme/web", "danm.io/a"), want: "a: 01:02.0"},
		{what: "a Pod has it as another resource", pools: one(), has: has("0000:01:02.0", "acme/web", "danm.io/b"), want: "a: 01:02.0(acme/web has it as danm.io/b)"},
		{what: "Pods have it as two resources", pools: one(), has: given{"0000:01:02.0": {{Pod: "acme/one", Resource: "danm.io/a"}, {Pod: "acme/web", Resource: "danm.io/b"}}}, want: "a: 01:02.0(acme/web has it as danm.io/b)"},
		{what: "a Pod has another", pools: one(), has: has("0000:01:02.1", "acme/web", "danm.io/b"), want: "a: 01:02.0"},
		{what: "not made yet", pools: one(), change: func(l *plan.ObservedLink) { l.SRIOV.VFs[0].PCI = "" }, want: "a:"},
	} {
		t.Run(c.what, func(t *testing.T) {
			l := card("ens1", 1, 1)
			if c.change != nil {
				c.change(&l)
			}
			got := offered(model.NodeState{Plan: model.NodePlan{Pools: c.pools}}, plan.Observed{Links: []plan.ObservedLink{l}}, func(plan.ObservedVF) (sriov.Function, error) { return c.sysfs, c.err }, &astray{}, func() given { return c.has })
			if text(got) != c.want {
				t.Errorf("%q, not %q", text(got), c.want)
			}
		})
	}
}

// TestWhatTheHostUsesIsNotHealthy: no Pod can be attached to a function that the host has a use for.
func TestWhatTheHostUsesIsNotHealthy(t *testing.T) {
	vf := func(change func(*plan.ObservedLink)) []plan.ObservedLink {
		l := plan.ObservedLink{Link: model.Link{Name: "ens1v0", Kind: model.Physical, MTU: 1500}, MAC: "06:00:00:00:00:01", AltNames: []string{"other"}}
		change(&l)
		return []plan.ObservedLink{card("ens1", 1, 2), l, {Link: model.Link{Name: "ens1v1", Kind: model.Physical}}}
	}
	addresses := func(all ...string) func(*plan.ObservedLink) {
		return func(l *plan.ObservedLink) {
			for _, a := range all {
				l.Addresses = append(l.Addresses, netip.MustParsePrefix(a))
			}
		}
	}
	plain := func(*plan.ObservedLink) {}
	for _, c := range []struct {
		what, want string
		links      []plan.ObservedLink
		declared   []model.Link
	}{
		{"nothing", "", vf(plain), nil},
		{"the interface is not seen", "", []plan.ObservedLink{card("ens1", 1, 2)}, nil},
		{"an address", "ens1v0 has the host's address 192.0.2.7/24", vf(addresses("192.0.2.7/24")), nil},
		{"a port", "ens1v0 is a port of br0", vf(func(l *plan.ObservedLink) { l.Master = "br0" }), nil},
		{"a VLAN on it", "another link stands on ens1v0", vf(func(l *plan.ObservedLink) { l.Children = 1 }), nil},
		{"declared", "ens1v0 is declared as an interface of the host", vf(plain), []model.Link{{Name: "ens1v0", Kind: model.Physical}}},
		{"declared by another name", "ens1v0 is declared as an interface of the host", vf(plain), []model.Link{{Name: "other", Kind: model.Physical}}},
		{"declared by a match", "ens1v0 is declared as an interface of the host", vf(plain), []model.Link{{Name: "up", Kind: model.Physical, Match: &model.Match{MAC: "06:00:00:00:00:01"}}}},
		{"others are declared", "", vf(plain), []model.Link{{Name: "ens1", Kind: model.Physical}, {Name: "up", Kind: model.Physical, Match: &model.Match{MAC: "06:00:00:00:00:02"}}}},
	} {
		st := model.NodeState{Plan: model.NodePlan{Pools: []model.SRIOVPool{pool("a", "a", "ens1", 2)}, Links: c.declared}}
		want := "a: 01:02.0 01:02.1"
		if c.want != "" {
			want = "a: 01:02.0(the host uses it: " + c.want + ") 01:02.1"
		}
		got := offered(st, plan.Observed{Links: c.links}, func(plan.ObservedVF) (sriov.Function, error) { return sriov.Function{}, nil }, &astray{}, func() given { return nil })
		if text(got) != want {
			t.Errorf("%s: %q, not %q", c.what, text(got), want)
		}
	}
}

// TestOfferedTogether: pools of one resource are one, each function is offered once, and what sysfs tells stands in the device.
func TestOfferedTogether(t *testing.T) {
	o := plan.Observed{Links: []plan.ObservedLink{card("ens1", 2, 4), card("ens2", 1, 2)}}
	st := model.NodeState{Plan: model.NodePlan{Pools: []model.SRIOVPool{
		pool("a", "fast", "ens1", 4, vfs(0, 0)), pool("b", "fast", "ens2", 2), pool("c", "other", "ens1", 4, vfs(0, 1))}}}
	look := func(vf plan.ObservedVF) (sriov.Function, error) {
		if vf.PCI == "0000:01:02.1" {
			return sriov.Function{NUMA: 5}, errors.New("no files")
		}
		return sriov.Function{PFPCI: "0000:02:00.0", NUMA: 1, IOMMUGroup: "7", RDMA: []string{"mlx5_3"}}, nil
	}
	got := offered(st, o, look, &astray{}, func() given { return nil })
	if text(got) != "fast: 01:02.0 01:02.1(no files) 02:02.0; other: 02:02.1" {
		t.Errorf("%s", text(got))
	}
	if d := fmt.Sprintf("%+v", got[0].Devices[2]); d != "{ID:0000:02:02.0 Problem: NUMA:1 PF:0000:02:00.0 Driver:kernel IOMMUGroup:7 RDMA:[mlx5_3]}" {
		t.Error(d)
	}
	if d := got[0].Devices[1]; d.NUMA != -1 || d.PF != "ens2" {
		t.Errorf("of one that sysfs does not tell of, %+v is said", d)
	}
}

// TestTheConfirmedPlanIsOffered: what is offered follows the plan that is confirmed and the kernel, with the guard away too; a kernel that
// cannot be seen changes nothing.
func TestTheConfirmedPlanIsOffered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		l := card("ens1", 1, 2)
		must(t, n.k.AddLink(l))
		sysfs(t, n.dir, l)
		said := "nothing"
		prepare := func() {
			n.a.opts.Offer = func(r []devplugin.Resource) { said = "offers " + text(r) }
			n.a.vfFiles.sys.Root = n.dir
		}
		prepare()
		pools := func(p ...model.SRIOVPool) model.NodePlan {
			plan := bridgePlan(1400)
			plan.Pools = p
			return plan
		}
		n.run(30 * time.Second)
		if said != "nothing" {
			t.Fatalf("before any plan: %q", said)
		}
		n.write("r1", pools(pool("a", "fast", "ens1", 2, vfs(0, 0))), probes("gw"))
		n.front.onOK = func() {
			if said != "nothing" {
				t.Errorf("before it is confirmed: %q", said)
			}
		}
		n.run(5 * time.Second)
		n.front.onOK = nil
		if n.revision() != "r1" || said != "offers fast: 01:02.0" {
			t.Fatalf("%s %q", n.revision(), said)
		}
		n.write("r2", pools(pool("a", "slow", "ens1", 2)), probes("gw"))
		n.up = func(string) bool { return !strings.Contains(n.k.Dump(), "1300") }
		n.run(time.Second)
		if n.revision() != "r2" || said != "offers slow: 01:02.0 01:02.1" {
			t.Fatalf("a plan without a step: %s %q", n.revision(), said)
		}
		guilty := pools(pool("a", "never", "ens1", 2))
		guilty.Links[0].MTU = 1300
		n.write("r3", guilty, probes("gw"))
		for range 40 { // through the window, the revert and the verdict
			n.run(time.Second)
			if strings.Contains(said, "never") {
				t.Fatalf("a plan that was never confirmed: %q", said)
			}
		}
		if n.revision() != "r2" || said != "offers slow: 01:02.0 01:02.1" {
			t.Fatalf("%s %q", n.revision(), said)
		}
		n.front.away = true
		n.start()
		said = "nothing"
		prepare()
		n.run(10 * time.Second)
		if said != "offers slow: 01:02.0 01:02.1" {
			t.Errorf("after a restart without a guard: %q", said)
		}
		l.NoCarrier = true
		must(t, n.k.DeleteLink("ens1"))
		must(t, n.k.AddLink(l))
		n.run(10 * time.Second)
		if said != "offers slow: 01:02.0(its physical function ens1 has no carrier) 01:02.1(its physical function ens1 has no carrier)" {
			t.Errorf("without a carrier: %q", said)
		}
		said = "nothing"
		n.a.opts.Kernel = blind{n.k}
		n.run(10 * time.Second)
		if said != "nothing" || n.a.offerProblem == "" {
			t.Errorf("of a kernel that is not seen: %q %q", said, n.a.offerProblem)
		}
	})
}

// TestWhatIsRepairedIsOffered: a round that repairs a card offers what is there after it.
func TestWhatIsRepairedIsOffered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		l := card("ens1", 1, 1)
		must(t, n.k.AddLink(l))
		sysfs(t, n.dir, l)
		said := ""
		n.a.opts.Offer = func(r []devplugin.Resource) { said = text(r) }
		n.a.vfFiles.sys.Root = n.dir
		n.write("r1", model.NodePlan{Links: []model.Link{{Name: "ens1", Kind: model.Physical, Up: true}}, Pools: []model.SRIOVPool{pool("a", "a", "ens1", 1)}})
		n.run(5 * time.Second)
		l.Up = false
		must(t, n.k.DeleteLink("ens1"))
		must(t, n.k.AddLink(l))
		repairs := n.a.repaired.Load()
		n.a.round(context.Background())
		if said != "a: 01:02.0" || n.a.repaired.Load() != repairs+1 {
			t.Errorf("%q after %d repairs", said, n.a.repaired.Load()-repairs)
		}
	})
}

// blind is a kernel that cannot be seen.
type blind struct{ plan.Kernel }

func (blind) Observe(context.Context, ...string) (plan.Observed, error) {
	return plan.Observed{}, errors.New("no sockets left")
}

// TestNoPoolsCostNothing: a plan without pools makes nobody look at the kernel once more.
func TestNoPoolsCostNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode(t)
		n.write("r1", bridgePlan(1400))
		n.run(5 * time.Second)
		n.front.away = true // so that rounds look at nothing
		calls, offers := n.k.Calls(), 0
		n.a.opts.Offer = func(r []devplugin.Resource) {
			if offers++; len(r) > 0 {
				t.Errorf("offers %s", text(r))
			}
		}
		n.run(time.Minute)
		if offers == 0 || n.k.Calls() != calls {
			t.Errorf("%d offers, %d looks", offers, n.k.Calls()-calls)
		}
	})
}

func TestDevicePluginDirectory(t *testing.T) {
	api := &rest.Config{}
	for _, c := range []struct {
		s    Settings
		want string
	}{
		{Settings{}, ""},
		{Settings{DevicePlugins: "/x"}, "/x"},
		{Settings{API: api}, "/var/lib/kubelet/device-plugins"},
		{Settings{API: api, SysRoot: "/"}, "/var/lib/kubelet/device-plugins"},
		{Settings{API: api, SysRoot: "/host"}, "/host/proc/1/root/var/lib/kubelet/device-plugins"},
		{Settings{API: api, SysRoot: "/host", DevicePlugins: "/x"}, "/x"},
		{Settings{API: api, DevicePlugins: "none"}, ""},
	} {
		if got := c.s.devicePlugins(); got != c.want {
			t.Errorf("%+v: %q, not %q", c.s, got, c.want)
		}
		a := &Agent{m: newMetrics()}
		if p := a.devicePlugin(c.s); (p == nil) != (c.want == "") || (a.opts.Offer == nil) != (c.want == "") || (a.told == nil) != (c.want == "") {
			t.Errorf("%+v: %v", c.s, p)
		}
	}
}

func TestDeviceMetrics(t *testing.T) {
	r := prometheus.NewRegistry()
	r.MustRegister(devices{func() []devplugin.Offered {
		return []devplugin.Offered{{Resource: "danm.io/a", Healthy: 3, Unhealthy: 1, Connected: true}, {Resource: "danm.io/b"}}
	}})
	all, err := r.Gather()
	must(t, err)
	var got []string
	for _, f := range all {
		for _, m := range f.GetMetric() {
			line := strings.TrimPrefix(f.GetName(), "danm_")
			for _, l := range m.GetLabel() {
				line += " " + l.GetValue()
			}
			got = append(got, fmt.Sprint(line, " ", m.GetGauge().GetValue()))
		}
	}
	if want := "[device_plugin_connected danm.io/a 1 device_plugin_connected danm.io/b 0 devices healthy danm.io/a 3 devices healthy danm.io/b 0 devices unhealthy danm.io/a 1 devices unhealthy danm.io/b 0]"; fmt.Sprint(got) != want {
		t.Errorf("%v", got)
	}
}
