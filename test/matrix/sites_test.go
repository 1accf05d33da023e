//go:build linux

package matrix

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"danm.io/danm/cni/server"
	"danm.io/danm/spec/model"
	"danm.io/danm/test/cnihost"
	"danm.io/danm/test/lab"
)

// noKernel says why there are no namespaces to test in.
var noKernel error

func TestMain(m *testing.M) {
	cnihost.Plugins()
	code, done, err := lab.Isolate()
	if done && err == nil {
		os.Exit(code)
	}
	noKernel = err
	os.Exit(m.Run())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// driver is one way to attach, and what the kernel must show for it.
type driver struct {
	name   string
	device string // of the host
	kind   string // the kernel's, in the Pod
	typ    model.NetworkType
	mode   string // as a network says it
	shown  string // as the kernel says it
	vlan   int
	file   string // of a delegate, without the version that its name ends with
	mtu    int    // 0 = the device's
	sole   bool   // the device serves one Pod at a time
	pool   string // of devices, of which each interface takes one
}

var drivers = []driver{
	{name: "ipvlan-l2", device: "i2", kind: "ipvlan", typ: model.IPVLAN, shown: "l2", mtu: 1400},
	{name: "ipvlan-l3", device: "i3", kind: "ipvlan", typ: model.IPVLAN, mode: model.L3, shown: "l3"},
	{name: "ipvlan-l3s", device: "i3s", kind: "ipvlan", typ: model.IPVLAN, mode: model.L3S, shown: "l3s", mtu: 1400},
	{name: "macvlan-bridge", device: "mb", kind: "macvlan", typ: model.MACVLAN, shown: "bridge", mtu: 1400},
	{name: "macvlan-private", device: "mp", kind: "macvlan", typ: model.MACVLAN, mode: model.PRIVATE, shown: "private"},
	{name: "macvlan-vepa", device: "mv", kind: "macvlan", typ: model.MACVLAN, mode: model.VEPA, shown: "vepa", mtu: 1400},
	{name: "macvlan-passthru", device: "mt", kind: "macvlan", typ: model.MACVLAN, mode: model.PASSTHRU, shown: "passthru", sole: true},
	{name: "bridge", device: "br0", kind: "veth", typ: model.BRIDGE, mtu: 1400},
	{name: "vlan", device: "v0", kind: "vlan", typ: model.TAGGED, vlan: 7, sole: true},
	{name: "host-device", device: "card", kind: "veth", typ: model.HOSTDEVICE, mtu: 1400, sole: true},
	{name: "sriov", kind: "veth", typ: model.SRIOV, pool: pool, mtu: 1400},
	{name: "delegate-conf", kind: "veth", typ: "pair", file: "conf", mtu: 1400},
	{name: "delegate-conflist", kind: "veth", typ: "pair", file: "list"},
}

var versions = []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"}

const (
	inConf = "conf"
	inDANM = "danm"
	inNPWG = "npwg"
)

var dialects = []string{inConf, inDANM, inNPWG}

// atLeast says whether a version has what came with another; they sort as text.
func atLeast(version, with string) bool { return version >= with }

// networkName is how Pods name a driver's network: one, or for delegates one of each version, for plugins are called in their
// configuration's.
func (d driver) networkName(version string) string {
	if d.file != "" {
		return d.name + "-" + strings.ReplaceAll(version, ".", "")
	}
	return d.name
}

// nth is the number in the driver's subnets.
func (d driver) nth() int {
	return 20 + slices.IndexFunc(drivers, func(o driver) bool { return o.name == d.name })
}

// subnets are dual, with a gateway and a route each; nth makes them different.
func subnets(nth int) (v4, v6 *model.Subnet) {
	addr := func(format string, args ...any) netip.Addr { return netip.MustParseAddr(fmt.Sprintf(format, args...)) }
	prefix := func(format string, args ...any) netip.Prefix {
		return netip.MustParsePrefix(fmt.Sprintf(format, args...))
	}
	v4 = &model.Subnet{CIDR: prefix("10.%d.0.0/24", nth), Gateway: addr("10.%d.0.1", nth), Routes: []model.PodRoute{{To: prefix("10.%d.9.0/24", nth), Via: addr("10.%d.0.2", nth)}},
		Pools: []model.AddrRange{{First: addr("10.%d.0.16", nth), Last: addr("10.%d.0.200", nth)}}}
	v6 = &model.Subnet{CIDR: prefix("fd00:%d::/64", nth), Gateway: addr("fd00:%d::1", nth), Routes: []model.PodRoute{{To: prefix("fd00:%d:9::/64", nth), Via: addr("fd00:%d::2", nth)}},
		Pools: []model.AddrRange{{First: addr("fd00:%d::16", nth), Last: addr("fd00:%d::200", nth)}}}
	return v4, v6
}

// plain is the network of a Pod's other interfaces: macvlans of a device of their own, with no gateway. The default network is on it
// too, and has one.
const plainDevice = "p0"

// pool is the resource whose devices the kubelet says every Pod has: the functions of a card, by the names of their interfaces.
const pool = "danm.io/fast"

var functions = []string{"ens1v0", "ens1v1"}

func networks() []model.Network { return networksOf(drivers...) }

// networksOf are those of some drivers, and the two that every Pod has more of. A GC calls the plugins of all networks, so it is fewer of
// them where each program's start takes its time.
func networksOf(some ...driver) []model.Network {
	var out []model.Network
	add := func(n model.Network) {
		n.Kind, n.Namespace, n.NetworkID, n.NAD = model.TenantNetwork, "acme", n.Name, true
		n.SpaceDomain = n.Name
		out = append(out, n)
	}
	for _, d := range some {
		n := model.Network{Name: d.name, Type: d.typ, Mode: d.mode, Device: d.device, DevicePool: d.pool, VLAN: uint16(d.vlan), MTU: d.mtu}
		n.IPv4, n.IPv6 = subnets(d.nth())
		if d.file == "" {
			add(n)
			continue
		}
		for _, v := range versions {
			n.Name, n.Delegate = d.networkName(v), &model.Delegate{File: d.file + "-" + v}
			add(n)
		}
	}
	plain := model.Network{Name: "plain", Type: model.MACVLAN, Device: plainDevice, MTU: 1450, InterfacePrefix: "more"}
	plain.IPv4, _ = subnets(50)
	plain.IPv4.Gateway, plain.IPv4.Routes = netip.Addr{}, nil
	add(plain)
	first := model.Network{Name: "default", Type: model.MACVLAN, Device: plainDevice}
	first.IPv4, _ = subnets(51)
	add(first)
	return out
}

// newHost is a host with the devices of all drivers, and says which of the kinds the kernel lacks.
func newHost(t *testing.T) (*cnihost.Host, map[string]bool) {
	t.Helper()
	if noKernel != nil {
		t.Skip("no namespaces: ", noKernel)
	}
	card := lab.Functions{Root: t.TempDir()}
	vfs, err := card.Add("0000:3b:00.0", "ens1", len(functions))
	must(t, err)
	devices := map[string][]string{pool: {vfs[0].PCI, vfs[1].PCI}}
	h := cnihost.New(t, cnihost.Options{State: model.NodeState{Node: "n", Slots: 1, Networks: networks()}, Sys: card.Root, Change: func(o *server.Options) {
		o.Devices = func(context.Context, string, string) (map[string][]string, error) { return devices, nil }
	}})
	must(t, h.Fabric.Plug("sw", h.NS, "ens1", ""))
	h.Install()
	for _, v := range versions {
		for name, text := range map[string]string{
			"conf-" + v + ".conf":     `{"cniVersion":%q,"name":"other","type":"pair","ipam":{"type":"nowhere"}}`,
			"list-" + v + ".conflist": `{"cniVersion":%q,"name":"other","plugins":[{"type":"pair"},{"type":"note","dns":{"nameservers":["10.96.0.10"],"search":["acme.svc"]}}]}`,
		} {
			must(t, os.WriteFile(filepath.Join(h.Conf, name), []byte(fmt.Sprintf(text, v)), 0o600))
		}
	}
	must(t, h.NS.Switch("br0"))
	_, err = h.Run(h.NS, "ip link set br0 address 02:00:00:00:00:77") // else it follows its ports
	must(t, err)
	for _, d := range append(drivers, driver{device: plainDevice, kind: "macvlan"}) {
		if d.device != "" && d.device != "br0" && d.kind != "veth" {
			must(t, h.Fabric.Plug("sw", h.NS, d.device, ""))
		}
	}
	lacks := map[string]bool{}
	for _, kind := range []string{"ipvlan", "vlan"} {
		lacks[kind] = h.Lacks(kind)
	}
	return h, lacks
}
