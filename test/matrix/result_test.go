//go:build linux

package matrix

import (
	"bytes"
	"encoding/json"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	types040 "github.com/containernetworking/cni/pkg/types/040"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/google/go-cmp/cmp"

	"github.com/containernetworking/cni/pkg/types"

	"danm.io/danm/spec/model"
	"danm.io/danm/test/cnihost"
)

// compare holds what ADD printed against the kernel and the networks, and against the form of the version that was asked for.
func (l *life) compare(printed []byte) {
	l.Helper()
	inPod, inHost := l.h.See(l.ns), l.h.See(l.h.NS)
	want := &types100.Result{CNIVersion: "1.1.0"}
	routes := []string{}
	for _, i := range l.interfaces() {
		n, link := l.network(i.network), inPod.Link(i.name)
		if n.Delegate != nil {
			want.Interfaces = append(want.Interfaces, l.hostEnd(inHost))
		}
		want.Interfaces = append(want.Interfaces, &types100.Interface{Name: i.name, Mac: link.MAC, Mtu: link.MTU, Sandbox: l.ns.Path, PciID: l.function(i)})
		l.holds(i, n, link, inHost)
		for _, text := range link.Addresses {
			want.IPs = append(want.IPs, l.address(text, n, len(want.Interfaces)-1))
		}
		for _, s := range subnetsOf(n) {
			for _, r := range s.Routes {
				routes = append(routes, r.To.String()+" via "+r.Via.String()+" dev "+i.name)
			}
		}
		if i.name == "eth0" {
			for _, s := range subnetsOf(n) {
				anywhere := "0.0.0.0/0"
				if s.Gateway.Is6() {
					anywhere = "::/0"
				}
				routes = append(routes, anywhere+" via "+s.Gateway.String()+" dev eth0")
			}
		}
	}
	for _, text := range routes {
		to, rest, _ := strings.Cut(text, " via ")
		via, _, _ := strings.Cut(rest, " dev ")
		want.Routes = append(want.Routes, &types.Route{Dst: ipNet(netip.MustParsePrefix(to)), GW: net.ParseIP(via)})
	}
	if l.driver.file == "list" {
		want.DNS = types.DNS{Nameservers: []string{"10.96.0.10"}, Search: []string{"acme.svc"}}
	}
	slices.Sort(routes)
	if d := cmp.Diff(routes, inPod.Routes); d != "" {
		l.Errorf("routes (- wanted + in the kernel):\n%s", d)
	}
	if d := cmp.Diff(l.inVersion(want), l.strictly(printed)); d != "" {
		l.Errorf("result (- wanted by the kernel + printed):\n%s", d)
	}
}

// function is the virtual function of an interface, "" for none.
func (l *life) function(i iface) string {
	if i.name == l.tested() && l.driver.pool != "" {
		return "0000:3b:02.0"
	}
	return ""
}

// inVersion is a result as the asked version has it.
func (l *life) inVersion(r *types100.Result) any {
	l.Helper()
	if !atLeast(l.version, "1.1.0") {
		for _, i := range r.Interfaces {
			i.Mtu, i.PciID = 0, ""
		}
	}
	out, err := r.GetAsVersion(l.version)
	must(l.T, err)
	text, err := json.Marshal(out)
	must(l.T, err)
	return l.strictly(text)
}

// strictly decodes a result by the types of its version, which must know all of it, and writes it down as JSON has it.
func (l *life) strictly(text []byte) (out any) {
	l.Helper()
	var r types.Result = &types100.Result{}
	if !atLeast(l.version, "1.0.0") {
		r = &types040.Result{}
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(r); err != nil {
		l.Fatalf("no result of version %s: %v\n%s", l.version, err, text)
	}
	if r.Version() != l.version {
		l.Errorf("result of version %s instead of %s", r.Version(), l.version)
	}
	must(l.T, json.Unmarshal(text, &out))
	if m, is := out.(map[string]any); is {
		if dns, is := m["dns"].(map[string]any); is && len(dns) == 0 {
			delete(m, "dns") // nothing, said in two ways
		}
		if routes, is := m["routes"].([]any); is {
			slices.SortFunc(routes, func(a, b any) int { return strings.Compare(string(marshal(a)), string(marshal(b))) })
		}
	}
	return out
}

func marshal(v any) []byte {
	out, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return out
}

// holds says that an interface is what its network wants.
func (l *life) holds(i iface, n model.Network, link cnihost.Link, inHost cnihost.Seen) {
	l.Helper()
	kind, mode, vlan, mtu := "macvlan", "bridge", 0, n.MTU
	if i.name == l.tested() {
		kind, mode, vlan = l.driver.kind, l.driver.shown, l.driver.vlan
	}
	if mtu == 0 {
		mtu = 1500
		if n.Device != "" && l.driver.name != "host-device" {
			mtu = inHost.Link(n.Device).MTU
		}
	}
	if link.Kind != kind || link.Mode != mode || link.VLAN != vlan || link.MTU != mtu || !link.Up {
		l.Errorf("%s is %+v, want %s %q VLAN %d MTU %d", i.name, link, kind, mode, vlan, mtu)
	}
	wanted := subnetsOf(n)
	if len(link.Addresses) != len(wanted) {
		l.Fatalf("%s has %v, want one of each of %v", i.name, link.Addresses, wanted)
	}
	for j, text := range link.Addresses {
		p := netip.MustParsePrefix(text)
		if pool := wanted[j].Pools[0]; p.Masked() != wanted[j].CIDR || p.Addr().Less(pool.First) || pool.Last.Less(p.Addr()) {
			l.Errorf("%s has %s, want one of %v", i.name, p, pool)
		}
	}
}

// address is an entry of a result. A plugin that was given addresses by fakeipam is told no gateway.
func (l *life) address(text string, n model.Network, place int) *types100.IPConfig {
	p := netip.MustParsePrefix(text)
	out := &types100.IPConfig{Interface: types100.Int(place), Address: ipNet(p)}
	for _, s := range subnetsOf(n) {
		if s.CIDR == p.Masked() && s.Gateway.IsValid() && n.Delegate == nil {
			out.Gateway = s.Gateway.AsSlice()
		}
	}
	return out
}

// hostEnd is the host's end of the pair that a plugin made.
func (l *life) hostEnd(inHost cnihost.Seen) *types100.Interface {
	l.Helper()
	var found []*types100.Interface
	for _, link := range inHost.Links {
		if strings.HasPrefix(link.Name, "pair") {
			found = append(found, &types100.Interface{Name: link.Name, Mac: link.MAC})
		}
	}
	if len(found) != 1 {
		l.Fatalf("%d pairs in the host", len(found))
	}
	return found[0]
}

func (l *life) network(name string) model.Network {
	l.Helper()
	for _, n := range networks() {
		if n.Name == name {
			return n
		}
	}
	l.Fatalf("no network %s", name)
	return model.Network{}
}

func subnetsOf(n model.Network) (out []*model.Subnet) {
	for _, s := range []*model.Subnet{n.IPv4, n.IPv6} {
		if s != nil {
			out = append(out, s)
		}
	}
	return out
}

func ipNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// noFiles says that no result of a plugin is kept for a Pod that has gone.
func (l *life) noFiles(after string) {
	l.Helper()
	files, err := filepath.Glob(filepath.Join(l.h.Cache, "results", "*"))
	must(l.T, err)
	if len(files) > 0 {
		l.Errorf("%s: left %v", after, files)
	}
	if _, err := os.Stat(l.h.Cache); err != nil && l.driver.file != "" && after == "DEL" {
		l.Errorf("plugins' results are not where they are looked for: %v", err)
	}
}
