//go:build linux

// Package matrix holds the whole table of what a container runtime can ask of danm: each verb in each version of the specification, for
// each driver, in each dialect that a Pod can speak. What works is compared with the kernel, and what the specification does not have is
// refused as it says.
package matrix

import (
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/vishvananda/netlink"

	"danm.io/danm/cni/server"
	"danm.io/danm/spec/model"
	"danm.io/danm/test/cnihost"
	"danm.io/danm/test/lab"
)

// cells is how many there are: 6 verbs in 4 versions for 13 drivers in 3 dialects. With -short (the VM emulates every instruction) those
// drivers that every kernel has are called in one version only. The numbers are written out so that a shorter list is noticed.
const (
	cells      = 936
	shortCells = 450
)

// life is one Pod's, and what it is made with.
type life struct {
	*testing.T
	h       *cnihost.Host
	driver  driver
	version string
	dialect string
	conf    *libcni.NetworkConfigList
	ns      *lab.NS
	before  string // the Pod's namespace
	host    string // the host's
}

func TestKernelMatrix(t *testing.T) {
	h, lacks := newHost(t)
	bystander, rt := pod(t, h, "bystander")
	conf := h.Named("another", "1.1.0", interfacesKey(`[{"tenantNetwork":"plain","ip":"dynamic"}]`))
	_, err := h.CNI.AddNetworkList(t.Context(), conf, rt)
	must(t, err)
	there := h.Dump(bystander)
	ran, skipped, want := 0, 0, cells
	for _, d := range drivers {
		of := versions
		if testing.Short() {
			want = shortCells
			if _, rare := lacks[d.kind]; !rare {
				of = versions[len(versions)-1:]
			}
		}
		t.Run(d.name, func(t *testing.T) {
			if lacks[d.kind] {
				skipped += 6 * len(of) * len(dialects)
				t.Skip("kernel lacks " + d.kind)
			}
			h.Networks(networksOf(d))
			for _, version := range of {
				for _, dialect := range dialects {
					l := &life{h: h, driver: d, version: version, dialect: dialect}
					t.Run(version+"/"+dialect, func(t *testing.T) {
						l.T = t
						l.begin()
						for _, verb := range []struct {
							name string
							is   func()
						}{{"VERSION", l.versionVerb}, {"STATUS", l.statusVerb}, {"ADD", l.addVerb}, {"CHECK", l.checkVerb}, {"GC", l.gcVerb}, {"DEL", l.delVerb}} {
							t.Run(verb.name, func(t *testing.T) {
								l.T = t
								verb.is()
								ran++
							})
						}
						l.T = t
						l.end()
					})
				}
			}
		})
	}
	if text := h.Dump(bystander); text != there {
		t.Errorf("another configuration's Pod has changed:\n%s\nwas\n%s", text, there)
	}
	must(t, h.CNI.CheckNetworkList(t.Context(), conf, rt))
	t.Logf("%d cells ran, %d are of kinds that the kernel lacks", ran, skipped)
	if selected := flag.Lookup("test.run").Value.String(); !strings.Contains(selected, "/") && ran+skipped != want {
		t.Errorf("%d cells ran and %d were skipped, want %d", ran, skipped, want)
	}
}

func pod(t *testing.T, h *cnihost.Host, name string) (*lab.NS, *libcni.RuntimeConf) {
	t.Helper()
	ns, err := h.World.Add(name)
	must(t, err)
	return ns, h.Runtime(ns, name, name)
}

func interfacesKey(list string) string { return `,"interfaces":` + list }

// begin makes the Pod's namespace and what the Pod asks for.
func (l *life) begin() {
	l.Helper()
	var err error
	l.ns, err = l.h.World.Add("pod")
	must(l.T, err)
	l.before = l.h.Dump(l.ns)
	l.device()
	l.host = l.h.Dump(l.h.NS)
	list := fmt.Sprintf(`[{"tenantNetwork":%q,"ip":"dynamic","ip6":"dynamic"},{"tenantNetwork":"plain","ip":"dynamic"}]`, l.driver.networkName(l.version))
	more := ""
	switch l.dialect {
	case inConf:
		more = interfacesKey(list)
	case inDANM:
		l.h.Annotate("pod", "danm.io/interfaces", list)
	case inNPWG:
		l.h.Annotate("pod", "k8s.v1.cni.cncf.io/networks", l.driver.networkName(l.version)+",plain@more")
	}
	l.conf = l.h.List(l.version, more)
}

// device makes the devices that are moved into Pods, which end with them.
func (l *life) device() {
	l.Helper()
	var devices []string
	switch l.driver.typ { //nolint:exhaustive // the others move none
	case model.HOSTDEVICE:
		devices = []string{l.driver.device}
	case model.SRIOV:
		devices = functions
	}
	for _, name := range devices {
		if l.h.See(l.h.NS).Link(name).Name == "" {
			must(l.T, l.h.Fabric.Plug("sw", l.h.NS, name, ""))
		}
	}
	l.bound("iavf")
}

// bound says in sysfs which driver has the functions, "" for none.
func (l *life) bound(driver string) {
	l.Helper()
	card := lab.Functions{Root: l.h.Sys}
	vfs, err := card.List("0000:3b:00.0")
	must(l.T, err)
	for i, vf := range vfs {
		must(l.T, card.Bind(vf.PCI, driver))
		if driver != "" {
			must(l.T, card.Name(vf.PCI, functions[i]))
		}
	}
}

func (l *life) runtime(container string) *libcni.RuntimeConf {
	return l.h.Runtime(l.ns, container, "pod")
}

// interfaces are what the Pod asks for, by the names that it gets: the network under test is first, or second to the default network.
func (l *life) interfaces() []iface {
	switch l.dialect {
	case inNPWG:
		return []iface{{"eth0", "default"}, {"net1", l.driver.networkName(l.version)}, {"more", "plain"}}
	default:
		return []iface{{"eth0", l.driver.networkName(l.version)}, {"more1", "plain"}}
	}
}

type iface struct{ name, network string }

// tested is the interface of the driver.
func (l *life) tested() string {
	if l.dialect == inNPWG {
		return "net1"
	}
	return "eth0"
}

// refused says that the shim refuses a verb that a version does not have, with the specification's code, and that nothing came of it.
func (l *life) refused(command, more string, rt *libcni.RuntimeConf) {
	l.Helper()
	records, seen := l.h.Records(), l.h.Dump(l.ns)
	_, e := l.h.Direct(l.Context(), command, l.version, more, rt)
	if e == nil || e.Code != types.ErrIncompatibleCNIVersion || !strings.Contains(e.Msg, command) {
		l.Errorf("%s in version %s: %+v", command, l.version, e)
	}
	if now, text := l.h.Records(), l.h.Dump(l.ns); !slices.Equal(now, records) || text != seen {
		l.Errorf("a refused %s changed something: records %v, were %v; the Pod has\n%s\nhad\n%s", command, now, records, text, seen)
	}
}

func (l *life) versionVerb() {
	out, e := l.h.Direct(l.Context(), "VERSION", l.version, "", nil)
	if e != nil {
		l.Fatal(e)
	}
	info, err := l.h.Exec.Decode(out)
	must(l.T, err)
	if got := info.SupportedVersions(); !slices.Equal(got, versions) || !strings.Contains(string(out), `"cniVersion":"`+l.version+`"`) {
		l.Errorf("%v, %s", got, out)
	}
}

func (l *life) statusVerb() {
	must(l.T, l.h.CNI.GetStatusNetworkList(l.Context(), l.conf))
	if !atLeast(l.version, "1.1.0") {
		l.refused("STATUS", "", nil)
		return
	}
	if out := l.h.Exec.Last(); len(out) != 0 {
		l.Errorf("STATUS printed %s", out)
	}
}

// addVerb: DEL before ADD is nothing, and ADD makes what it says.
func (l *life) addVerb() {
	rt := l.runtime("one")
	must(l.T, l.h.CNI.DelNetworkList(l.Context(), l.conf, rt))
	l.clean("DEL before ADD")
	_, err := l.h.CNI.AddNetworkList(l.Context(), l.conf, rt)
	must(l.T, err)
	l.compare(l.h.Exec.Last())
}

// checkVerb: CHECK succeeds, fails when the Pod has lost something, and says what: a route, an address or its link's state, one in each
// version.
func (l *life) checkVerb() {
	rt := l.runtime("one")
	check := func() error { return l.h.CNI.CheckNetworkList(l.Context(), l.conf, rt) }
	if !atLeast(l.version, "0.4.0") {
		if err := check(); !errors.Is(err, libcni.ErrorCheckNotSupp) {
			l.Errorf("libcni: %v", err)
		}
		l.refused("CHECK", l.confMore(), rt)
		return
	}
	must(l.T, check())
	says := ""
	must(l.T, l.ns.Do(func() (err error) { says, err = l.damage(); return err }))
	err := check()
	if err == nil {
		l.Fatalf("CHECK succeeds, want: %s", says)
	}
	if e := l.h.Told(err); e.Code != server.CodeCheckFailed || e.Details != "PodCheckFailed" || !strings.Contains(e.Msg, says) || !strings.Contains(e.Msg, l.tested()) {
		l.Errorf("%d %s %s, want %q", e.Code, e.Details, e.Msg, says)
	}
}

// damage takes something from the interface under test, in the thread's namespace, and tells what CHECK must say.
func (l *life) damage() (says string, err error) {
	link, err := netlink.LinkByName(l.tested())
	if err != nil {
		return "", err
	}
	v4 := l.network(l.driver.networkName(l.version)).IPv4
	switch l.version {
	case "0.4.0":
		r, to := v4.Routes[0], ipNet(v4.Routes[0].To)
		return "route to " + r.To.String() + " via " + r.Via.String() + " is missing", netlink.RouteDel(&netlink.Route{Dst: &to, Gw: r.Via.AsSlice(), LinkIndex: link.Attrs().Index})
	case "1.0.0":
		have, err := netlink.AddrList(link, netlink.FAMILY_V4)
		if err != nil {
			return "", err
		}
		return "address " + have[0].IPNet.String() + " is missing", netlink.AddrDel(link, &have[0])
	default:
		return "down", netlink.LinkSetDown(link)
	}
}

// confMore is what the configuration has beside what all have.
func (l *life) confMore() string {
	if l.dialect != inConf {
		return ""
	}
	return interfacesKey(fmt.Sprintf(`[{"tenantNetwork":%q,"ip":"dynamic"}]`, l.driver.networkName(l.version)))
}

// gcVerb: GC frees what is not listed, and leaves alone what is.
func (l *life) gcVerb() {
	ns, rt := pod(l.T, l.h, "stale")
	empty := l.h.Dump(ns)
	_, err := l.h.CNI.AddNetworkList(l.Context(), l.h.List(l.version, interfacesKey(`[{"tenantNetwork":"plain","ip":"dynamic"}]`)), rt)
	must(l.T, err)
	kept := l.h.Dump(l.ns)
	valid := func(containers ...string) *libcni.GCArgs {
		args := &libcni.GCArgs{ValidAttachments: []types.GCAttachment{}}
		for _, c := range containers {
			args.ValidAttachments = append(args.ValidAttachments, types.GCAttachment{ContainerID: c, IfName: "eth0"})
		}
		return args
	}
	forgetful := libcni.NewCNIConfigWithCacheDir(l.h.CNI.Path, l.TempDir(), l.h.Exec) // what it knows it would delete itself
	if !atLeast(l.version, "1.1.0") {
		must(l.T, forgetful.GCNetworkList(l.Context(), l.conf, valid("one")))
		l.refused("GC", `,"cni.dev/valid-attachments":[{"containerID":"one","ifname":"eth0"}]`, nil)
		must(l.T, l.h.CNI.GCNetworkList(l.Context(), l.conf, valid("one"))) // by DEL, as far as its cache goes
	} else {
		must(l.T, forgetful.GCNetworkList(l.Context(), l.conf, valid("one")))
	}
	if got := l.h.Records(); !slices.Equal(got, []string{"bystander", "one"}) {
		l.Errorf("GC leaves %v", got)
	}
	if text := l.h.Dump(ns); text != empty {
		l.Errorf("GC leaves in the stale Pod:\n%s", text)
	}
	if text := l.h.Dump(l.ns); text != kept {
		l.Errorf("GC changed the valid Pod:\n%s\nwas\n%s", text, kept)
	}
	must(l.T, l.h.World.Remove(ns))
	if atLeast(l.version, "1.1.0") { // and the driver's own
		must(l.T, forgetful.GCNetworkList(l.Context(), l.conf, valid()))
		l.clean("GC")
	}
}

// delVerb: DEL leaves nothing, also twice, and also when the Pod's namespace has gone before. Where there is GC, that has taken the first
// Pod's already.
func (l *life) delVerb() {
	for range 2 {
		must(l.T, l.h.CNI.DelNetworkList(l.Context(), l.conf, l.runtime("one")))
		l.clean("DEL")
	}
	rt := l.runtime("two")
	_, err := l.h.CNI.AddNetworkList(l.Context(), l.conf, rt)
	must(l.T, err)
	l.h.End(l.ns)
	l.ns = nil
	l.bound("") // its stand-in has ended with the Pod, so that nobody waits for it to come back
	must(l.T, l.h.CNI.DelNetworkList(l.Context(), l.conf, rt))
	l.clean("DEL when the namespace is gone")
}

// clean says that host, Pod and records are as they were before.
func (l *life) clean(after string) {
	l.Helper()
	if got := l.h.Records(); !slices.Equal(got, []string{"bystander"}) {
		l.Errorf("%s: records %v", after, got)
	}
	if l.ns != nil {
		if text := l.h.Dump(l.ns); text != l.before {
			l.Errorf("%s: the Pod has\n%s\nhad\n%s", after, text, l.before)
		}
	}
	l.device()
	if text := l.h.Dump(l.h.NS); text != l.host {
		l.Errorf("%s: the host has\n%s\nhad\n%s", after, text, l.host)
	}
	l.noFiles(after)
}

// end tidies up after a failure, so that the next life does not fail for it.
func (l *life) end() {
	if l.ns == nil {
		return
	}
	for _, container := range []string{"one", "two", "stale"} {
		_ = l.h.CNI.DelNetworkList(l.Context(), l.conf, l.runtime(container))
	}
	must(l.T, l.h.World.Remove(l.ns))
}
