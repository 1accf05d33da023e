//go:build linux

// Package plugins runs the reference CNI plugins beneath danm, as networks with a delegate have them.
package plugins

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/containernetworking/cni/libcni"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"danm.io/danm/spec/model"
	"danm.io/danm/test/cnihost"
	"danm.io/danm/test/lab"
)

// noKernel says why there are no namespaces to test in.
var noKernel error

func TestMain(m *testing.M) {
	code, done, err := lab.Isolate()
	if done && err == nil {
		os.Exit(code)
	}
	noKernel = err
	os.Exit(m.Run())
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// network is one of reference plugins, in a file of the node. FILES stands for the directory of host-local's and SOCKET for danm's socket.
type network struct {
	name, file, conf string
	given            bool   // danm gives the addresses
	cidr             string // of the addresses that Pods get
	check            bool   // the list's version has CHECK
}

const hostLocal = `"ipam":{"type":"host-local","dataDir":"FILES","ranges":[[{"subnet":"10.%[1]d.0.0/24"}]],"routes":[{"dst":"10.%[1]d.9.0/24"}]}`

var networks = []network{
	{name: "everything", file: "conflist", cidr: "10.60.0.0/24", check: true, conf: `{"cniVersion":"1.1.0","plugins":[
		{"type":"bridge","bridge":"cni0","isGateway":true,"capabilities":{"ips":true},` + fmt.Sprintf(hostLocal, 60) + `},
		{"type":"tuning","dataDir":"FILES/tuning","capabilities":{"mac":true},"sysctl":{"net.ipv4.conf.IFNAME.arp_filter":"1"}},
		{"type":"bandwidth","capabilities":{"bandwidth":true}},
		{"type":"portmap","backend":"nftables","capabilities":{"portMappings":true}}]}`},
	{name: "mute", file: "conflist", cidr: "10.61.0.0/24", check: true, conf: `{"cniVersion":"1.0.0","plugins":[
		{"type":"bridge","bridge":"cni1","isGateway":true,` + fmt.Sprintf(hostLocal, 61) + `},{"type":"portmap","backend":"nftables"}]}`},
	{name: "loopback", file: "conflist", cidr: "10.65.0.0/24", check: true, conf: `{"cniVersion":"1.0.0","plugins":[{"type":"macvlan",` + fmt.Sprintf(hostLocal, 65) + `},{"type":"loopback"}]}`},
	{name: "single", file: "conf", cidr: "10.62.0.0/24", check: true, conf: `{"cniVersion":"1.0.0","type":"macvlan",` + fmt.Sprintf(hostLocal, 62) + `}`},
	{name: "old", file: "conf", cidr: "10.63.0.0/24", conf: `{"cniVersion":"0.3.1","type":"macvlan",` + fmt.Sprintf(hostLocal, 63) + `}`},
	{name: "gateway", file: "conf", cidr: "10.66.0.0/24", check: true, conf: `{"cniVersion":"1.1.0","type":"bridge","bridge":"cni4","isDefaultGateway":true,` + fmt.Sprintf(hostLocal, 66) + `}`},
	{name: "static", file: "conf", cidr: "10.64.0.0/24", check: true,
		conf: `{"cniVersion":"0.4.0","type":"macvlan","ipam":{"type":"static","addresses":[{"address":"10.64.0.5/24","gateway":"10.64.0.1"}],"routes":[{"dst":"10.64.9.0/24"}]}}`},
	{name: "asks", file: "conf", cidr: "10.70.0.0/24", check: true, conf: `{"cniVersion":"1.1.0","type":"bridge","bridge":"cni2","ipam":{"type":"danm","network":"pool","socket":"SOCKET"}}`},
	{name: "asks-chained", file: "conflist", cidr: "10.70.0.0/24", check: true, conf: `{"cniVersion":"0.4.0","plugins":[
		{"type":"macvlan","ipam":{"type":"danm","network":"pool","socket":"SOCKET"}},{"type":"tuning","dataDir":"FILES/tuning","mtu":1300}]}`},
	{name: "given", file: "conf", given: true, cidr: "10.71.0.0/24", check: true, conf: `{"cniVersion":"1.1.0","type":"bridge","bridge":"cni3","ipam":{"type":"dhcp"}}`},
	{name: "given-chained", file: "conflist", given: true, cidr: "10.72.0.0/24", check: true, conf: `{"cniVersion":"1.0.0","plugins":[{"type":"macvlan"},{"type":"tuning","dataDir":"FILES/tuning","allmulti":true}]}`},
	{name: "broken", file: "conflist", cidr: "10.73.0.0/24", conf: `{"cniVersion":"1.1.0","plugins":[
		{"type":"bridge","bridge":"cni9",` + fmt.Sprintf(hostLocal, 73) + `},{"type":"tuning","dataDir":"FILES/tuning","sysctl":{"net.ipv4.conf.IFNAME.no_such":"1"}}]}`},
}

// host is a cnihost with the reference plugins and their files.
type host struct {
	*cnihost.Host
	t     *testing.T
	files string // of host-local, on the host
}

// subnet has a gateway, and a route of its own.
func subnet(nth int) *model.Subnet {
	of := fmt.Sprintf("10.%d.", nth)
	return &model.Subnet{CIDR: netip.MustParsePrefix(of + "0.0/24"), Gateway: netip.MustParseAddr(of + "0.1"),
		Routes: []model.PodRoute{{To: netip.MustParsePrefix(of + "9.0/24"), Via: netip.MustParseAddr(of + "0.2")}},
		Pools:  []model.AddrRange{{First: netip.MustParseAddr(of + "0.16"), Last: netip.MustParseAddr(of + "0.99")}}}
}

func state() model.NodeState {
	s := model.NodeState{Node: "n", Slots: 1}
	add := func(n model.Network) {
		n.Kind, n.Namespace, n.NetworkID, n.NAD, n.SpaceDomain = model.TenantNetwork, "acme", n.Name, true, n.Name
		s.Networks = append(s.Networks, n)
	}
	for _, n := range networks {
		m := model.Network{Name: n.name, Type: "other", Delegate: &model.Delegate{File: n.name}}
		if strings.Contains(n.conf, `"type":"macvlan"`) {
			m.Device = "eth0"
		}
		if n.given {
			nth, err := strconv.Atoi(strings.Split(n.cidr, ".")[1])
			if err != nil {
				panic(err)
			}
			m.IPv4 = subnet(nth)
		}
		add(m)
	}
	add(model.Network{Name: "pool", Type: model.MACVLAN, Device: "eth0", IPv4: subnet(70)})
	add(model.Network{Name: "default", Type: model.MACVLAN, Device: "eth0", IPv4: subnet(80)})
	add(model.Network{Name: "unplugged", Type: model.MACVLAN, Device: "eth9", IPv4: subnet(81)})
	return s
}

// bed is where the reference plugins are.
func bed(t *testing.T) string {
	t.Helper()
	if noKernel != nil {
		t.Skip("no namespaces: ", noKernel)
	}
	dir := os.Getenv("DANM_TEST_BED")
	if dir == "" {
		t.Skip("DANM_TEST_BED is not set, where the reference plugins are (make test-cluster sets it)")
	}
	return filepath.Join(dir, "cni")
}

func newHost(t *testing.T, o cnihost.Options) *host {
	t.Helper()
	return newHostWith(t, o, t.TempDir())
}

// newHostWith is newHost with a directory for plugins' files.
func newHostWith(t *testing.T, o cnihost.Options, files string) *host {
	t.Helper()
	if o.PluginDirs == nil {
		o.PluginDirs = []string{bed(t)}
	}
	o.State = state()
	h := &host{t: t, Host: cnihost.New(t, o), files: files}
	for _, n := range networks {
		text := strings.NewReplacer("FILES", h.files, "SOCKET", h.Socket()).Replace(n.conf)
		must(t, os.WriteFile(filepath.Join(h.Conf, n.name+"."+n.file), []byte(text), 0o600))
	}
	must(t, h.Fabric.Plug("sw", h.NS, "eth0", ""))
	return h
}

// in makes a subtest the one that fails.
func (h *host) in(t *testing.T) {
	outer := h.t
	h.t, h.T = t, t
	t.Cleanup(func() { h.t, h.T = outer, outer })
}

// pod is a Pod's namespace and what the runtime says of it.
func (h *host) pod(name string) (*lab.NS, *libcni.RuntimeConf) {
	h.t.Helper()
	ns, err := h.World.Add(name)
	must(h.t, err)
	return ns, h.Runtime(ns, name, name)
}

// asking is a configuration by which a Pod gets networks.
func (h *host) asking(names ...string) *libcni.NetworkConfigList {
	h.t.Helper()
	return h.List("1.1.0", asked(names...))
}

func asked(names ...string) string {
	var list []string
	for _, n := range names {
		list = append(list, fmt.Sprintf(`{"tenantNetwork":%q,"ip":"dynamic"}`, n))
	}
	return `,"interfaces":[` + strings.Join(list, ",") + "]"
}

func (h *host) add(conf *libcni.NetworkConfigList, rt *libcni.RuntimeConf) *types100.Result {
	h.t.Helper()
	_, err := h.CNI.AddNetworkList(h.t.Context(), conf, rt)
	must(h.t, err)
	r := &types100.Result{}
	must(h.t, json.Unmarshal(h.Exec.Last(), r))
	return r
}

// leases are host-local's files of a network: who has which address.
func (h *host) leases(network string) []string {
	h.t.Helper()
	out := []string{}
	files, err := filepath.Glob(filepath.Join(h.files, network, "10.*"))
	must(h.t, err)
	for _, f := range files {
		text, err := os.ReadFile(f)
		must(h.t, err)
		out = append(out, filepath.Base(f)+" "+strings.Join(strings.Fields(string(text)), " "))
	}
	return out
}

// results are what is kept of the plugins' answers.
func (h *host) results() []string {
	h.t.Helper()
	files, err := filepath.Glob(filepath.Join(h.Cache, "results", "*"))
	must(h.t, err)
	return files
}

// rules is the packet filter of the host.
func (h *host) rules() string {
	h.t.Helper()
	out, err := h.Run(h.NS, "nft list ruleset")
	must(h.t, err)
	return out
}

// left says what of a Pod that has gone is still there. What plugins make for all, such as a bridge, stays.
func (h *host) left(ns *lab.NS, before string) (out []string) {
	h.t.Helper()
	if now := h.Dump(ns); now != before {
		out = append(out, "the Pod has\n"+now)
	}
	for _, l := range h.See(h.NS).Links {
		if l.Name != "eth0" && (l.Kind == "veth" || l.Kind == "ifb" || l.Kind == "macvlan") {
			out = append(out, "host link "+l.Name)
		}
	}
	for _, n := range networks {
		out = append(out, h.leases(n.name)...)
	}
	return append(append(out, h.results()...), h.Records()...)
}

func (h *host) wantNothing(when string, ns *lab.NS, before string) {
	h.t.Helper()
	if left := h.left(ns, before); len(left) > 0 {
		h.t.Errorf("%s: left %s", when, strings.Join(left, "\n"))
	}
}

// holds says that a result is what the kernel has, for the interface of that name.
func (h *host) holds(r *types100.Result, ns *lab.NS, name, cidr string) {
	h.t.Helper()
	seen := h.See(ns)
	link, place := seen.Link(name), -1
	for i, in := range r.Interfaces {
		if in.Sandbox == ns.Path && in.Name == name {
			place = i
			if in.Mac != link.MAC {
				h.t.Errorf("%s has MAC %s, the result says %s", name, link.MAC, in.Mac)
			}
		}
	}
	if place < 0 || !link.Up {
		h.t.Fatalf("%s is not there or down: %+v, result %+v", name, link, r.Interfaces)
	}
	got := []string{}
	for _, ip := range r.IPs {
		if ip.Interface != nil && *ip.Interface == place {
			got = append(got, ip.Address.String())
		}
	}
	if !slices.Equal(got, link.Addresses) || len(got) == 0 || !netip.MustParsePrefix(cidr).Contains(netip.MustParsePrefix(got[0]).Addr()) {
		h.t.Errorf("%s has %v, the result says %v, want some of %s", name, link.Addresses, got, cidr)
	}
	for _, route := range r.Routes {
		gateways := []string{route.GW.String()}
		if route.GW == nil { // it goes by an address's
			gateways = nil
			for _, ip := range r.IPs {
				gateways = append(gateways, ip.Gateway.String())
			}
		}
		if !slices.ContainsFunc(gateways, func(gw string) bool {
			return slices.ContainsFunc(seen.Routes, func(s string) bool { return strings.HasPrefix(s, route.Dst.String()+" via "+gw+" dev ") })
		}) {
			h.t.Errorf("route to %s by %v is not among %q", route.Dst.String(), gateways, seen.Routes)
		}
	}
}
