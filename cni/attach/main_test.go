package attach

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"danm.io/danm/node/sriov"
	"danm.io/danm/spec/model"
	"danm.io/danm/test/lab"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// noKernel says why there are no namespaces to test in; then only the pure tests run.
var noKernel error

func TestMain(m *testing.M) {
	code, done, err := lab.Isolate()
	if done && err == nil {
		os.Exit(code)
	}
	noKernel = err
	os.Exit(m.Run())
}

// site is a switch with two hosts, each with eth0 on the switch, a bridge br0, and an Attacher of its own.
type site struct {
	t      *testing.T
	world  *lab.World
	hosts  []*lab.NS
	fabric *lab.NS // its switch has the hosts as ports
	on     []*Attacher
	sys    lab.Functions // of all hosts
	card   *card         // of the first host, nil for none
}

func newSite(t *testing.T) *site {
	t.Helper()
	if noKernel != nil {
		t.Skip("no namespaces: ", noKernel)
	}
	world, err := lab.NewWorld(t.TempDir())
	s := &site{t: t, world: world, sys: lab.Functions{Root: t.TempDir()}}
	must(t, err)
	t.Cleanup(func() { must(t, world.Close()) })
	fabric, err := world.Add("switch")
	must(t, err)
	must(t, fabric.Switch("sw"))
	s.fabric = fabric
	for i := range 2 {
		host, err := world.Add(fmt.Sprintf("h%d", i))
		must(t, err)
		must(t, quietHost(host))
		must(t, fabric.Plug("sw", host, "eth0", ""))
		must(t, host.Switch("br0"))
		must(t, fixMAC(host, "br0"))
		s.hosts = append(s.hosts, host)
		must(t, host.Do(func() error {
			a, err := New(s.sys.Root)
			s.on = append(s.on, a)
			return err
		}))
		t.Cleanup(s.on[i].Close)
	}
	return s
}

// quietHost turns off IPv6 on a host's own links: duplicate address detection would change dumps by itself.
func quietHost(host *lab.NS) error {
	return host.Do(func() error { return os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0) })
}

// fixMAC gives a bridge an address of its own; otherwise it follows its ports.
func fixMAC(host *lab.NS, name string) error {
	return host.Do(func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		mac, err := net.ParseMAC(NewMAC())
		if err != nil {
			return err
		}
		return netlink.LinkSetHardwareAddr(l, mac)
	})
}

// bridgeUplink makes eth0 of every host a port of br0.
func (s *site) bridgeUplink() {
	for _, h := range s.hosts {
		must(s.t, h.Do(func() error {
			br, err := netlink.LinkByName("br0")
			if err != nil {
				return err
			}
			l, err := netlink.LinkByName("eth0")
			if err != nil {
				return err
			}
			return netlink.LinkSetMaster(l, br)
		}))
	}
}

func (s *site) pod(name string) (*lab.NS, Pod) {
	s.t.Helper()
	ns, err := s.world.Add(name)
	must(s.t, err)
	f, err := os.Open(ns.Path)
	must(s.t, err)
	s.t.Cleanup(func() { f.Close() })
	return ns, Pod{Sandbox: name, Netns: f}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// attachment fills in what cni/server would.
func attachment(kind model.NetworkType, sandbox, ifName string, addresses ...string) model.Attachment {
	at := model.Attachment{Network: "ns/" + string(kind), Type: kind, Device: "eth0", IfName: ifName, MAC: NewMAC(), MTU: 1400}
	if kind == model.BRIDGE {
		at.Device, at.HostLink = "br0", HostLinkName(sandbox, ifName)
	}
	if kind == model.IPVLAN {
		at.MAC = ""
	}
	for _, a := range addresses {
		p := netip.MustParsePrefix(a)
		at.Addresses = append(at.Addresses, p)
		at.IPv6 = at.IPv6 || p.Addr().Is6()
	}
	return at
}

func routes(pairs ...string) (out []model.PodRoute) {
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, model.PodRoute{To: netip.MustParsePrefix(pairs[i]), Via: netip.MustParseAddr(pairs[i+1])})
	}
	return out
}

// dump prints a namespace: links with all that is set here, addresses, routes and rules of every table.
func dump(t *testing.T, ns *lab.NS) string {
	t.Helper()
	var lines []string
	must(t, ns.Do(func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		for _, l := range links {
			a := l.Attrs()
			lines = append(lines, fmt.Sprintf("link %s %s mtu %d mac %s master %d up %v alias %q", a.Name, l.Type(), a.MTU, a.HardwareAddr, a.MasterIndex, a.Flags&net.FlagUp != 0, a.Alias))
			for _, vf := range a.Vfs {
				lines = append(lines, fmt.Sprintf("function %s %d VLAN %d priority %d mac %s", a.Name, vf.ID, vf.Vlan, vf.Qos, vf.Mac))
			}
			addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
			if err != nil {
				return err
			}
			for _, addr := range addrs {
				lines = append(lines, fmt.Sprintf("address %s %s", a.Name, addr.IPNet))
			}
		}
		for _, f := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			rs, err := netlink.RouteListFiltered(f, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
			if err != nil {
				return err
			}
			for _, r := range rs {
				lines = append(lines, fmt.Sprintf("route %v via %v dev %d table %d", r.Dst, r.Gw, r.LinkIndex, r.Table))
			}
			rules, err := netlink.RuleList(f)
			if err != nil {
				return err
			}
			for _, r := range rules {
				lines = append(lines, fmt.Sprintf("rule %s", r))
			}
		}
		return nil
	}))
	slices.SortFunc(lines, cmp.Compare[string])
	return strings.Join(lines, "\n")
}

// host prints the first host, with what its card says of its functions.
func (s *site) host() string {
	s.t.Helper()
	text := dump(s.t, s.hosts[0])
	if s.card != nil {
		text += "\n" + s.card.String()
	}
	return text
}

// faulty makes call number n, counted over host and Pod, fail or do something else first.
type faulty struct {
	mu       sync.Mutex
	n, count int
	act      func() error
}

func (f *faulty) hit() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.count++
	if f.count == f.n {
		return f.act()
	}
	return nil
}

var errInjected = errors.New("injected")

type faultyHandle struct {
	handle
	f *faulty
}

func wrap(f *faulty, call func() error) error {
	if err := f.hit(); err != nil {
		return err
	}
	return call()
}

func (h faultyHandle) LinkByName(name string) (l netlink.Link, err error) {
	err = wrap(h.f, func() (err error) { l, err = h.handle.LinkByName(name); return err })
	return l, err
}
func (h faultyHandle) LinkAdd(l netlink.Link) error {
	return wrap(h.f, func() error { return h.handle.LinkAdd(l) })
}
func (h faultyHandle) LinkDel(l netlink.Link) error {
	return wrap(h.f, func() error { return h.handle.LinkDel(l) })
}
func (h faultyHandle) LinkSetName(l netlink.Link, n string) error {
	return wrap(h.f, func() error { return h.handle.LinkSetName(l, n) })
}
func (h faultyHandle) LinkSetUp(l netlink.Link) error {
	return wrap(h.f, func() error { return h.handle.LinkSetUp(l) })
}
func (h faultyHandle) LinkSetDown(l netlink.Link) error {
	return wrap(h.f, func() error { return h.handle.LinkSetDown(l) })
}
func (h faultyHandle) LinkSetMTU(l netlink.Link, mtu int) error {
	return wrap(h.f, func() error { return h.handle.LinkSetMTU(l, mtu) })
}
func (h faultyHandle) LinkSetHardwareAddr(l netlink.Link, mac net.HardwareAddr) error {
	return wrap(h.f, func() error { return h.handle.LinkSetHardwareAddr(l, mac) })
}
func (h faultyHandle) LinkSetAlias(l netlink.Link, alias string) error {
	return wrap(h.f, func() error { return h.handle.LinkSetAlias(l, alias) })
}
func (h faultyHandle) LinkSetNsFd(l netlink.Link, fd int) error {
	return wrap(h.f, func() error { return h.handle.LinkSetNsFd(l, fd) })
}
func (h faultyHandle) Links() (out []netlink.Link, err error) {
	err = wrap(h.f, func() (err error) { out, err = h.handle.Links(); return err })
	return out, err
}
func (h faultyHandle) LinkSetMasterByIndex(l netlink.Link, m int) error {
	return wrap(h.f, func() error { return h.handle.LinkSetMasterByIndex(l, m) })
}
func (h faultyHandle) AddrAdd(l netlink.Link, a *netlink.Addr) error {
	return wrap(h.f, func() error { return h.handle.AddrAdd(l, a) })
}
func (h faultyHandle) RouteAdd(r *netlink.Route) error {
	return wrap(h.f, func() error { return h.handle.RouteAdd(r) })
}
func (h faultyHandle) RouteDel(r *netlink.Route) error {
	return wrap(h.f, func() error { return h.handle.RouteDel(r) })
}
func (h faultyHandle) RuleAdd(r *netlink.Rule) error {
	return wrap(h.f, func() error { return h.handle.RuleAdd(r) })
}
func (h faultyHandle) RuleDel(r *netlink.Rule) error {
	return wrap(h.f, func() error { return h.handle.RuleDel(r) })
}
func (h faultyHandle) Addresses(l netlink.Link) (out []netlink.Addr, err error) {
	err = wrap(h.f, func() (err error) { out, err = h.handle.Addresses(l); return err })
	return out, err
}
func (h faultyHandle) Routes(family int) (out []netlink.Route, err error) {
	err = wrap(h.f, func() (err error) { out, err = h.handle.Routes(family); return err })
	return out, err
}
func (h faultyHandle) Rules(family int) (out []netlink.Rule, err error) {
	err = wrap(h.f, func() (err error) { out, err = h.handle.Rules(family); return err })
	return out, err
}

type faultyHost struct {
	faultyHandle
	host hostKernel
}

func (h faultyHost) Functions(pf netlink.Link) (out []sriov.VF, err error) {
	err = wrap(h.f, func() (err error) { out, err = h.host.Functions(pf); return err })
	return out, err
}
func (h faultyHost) LinkSetVfVlanQos(l netlink.Link, vf, vlan, qos int) error {
	return wrap(h.f, func() error { return h.host.LinkSetVfVlanQos(l, vf, vlan, qos) })
}
func (h faultyHost) LinkSetVfHardwareAddr(l netlink.Link, vf int, mac net.HardwareAddr) error {
	return wrap(h.f, func() error { return h.host.LinkSetVfHardwareAddr(l, vf, mac) })
}

type faultyPod struct {
	faultyHandle
	podKernel
}

// Of two embedded implementations the shallower would be ambiguous, so each is named.
func (p faultyPod) LinkByName(n string) (netlink.Link, error) { return p.faultyHandle.LinkByName(n) }
func (p faultyPod) LinkAdd(l netlink.Link) error              { return p.faultyHandle.LinkAdd(l) }
func (p faultyPod) LinkDel(l netlink.Link) error              { return p.faultyHandle.LinkDel(l) }
func (p faultyPod) LinkSetName(l netlink.Link, n string) error {
	return p.faultyHandle.LinkSetName(l, n)
}
func (p faultyPod) LinkSetUp(l netlink.Link) error         { return p.faultyHandle.LinkSetUp(l) }
func (p faultyPod) LinkSetDown(l netlink.Link) error       { return p.faultyHandle.LinkSetDown(l) }
func (p faultyPod) LinkSetMTU(l netlink.Link, m int) error { return p.faultyHandle.LinkSetMTU(l, m) }
func (p faultyPod) LinkSetHardwareAddr(l netlink.Link, mac net.HardwareAddr) error {
	return p.faultyHandle.LinkSetHardwareAddr(l, mac)
}
func (p faultyPod) LinkSetAlias(l netlink.Link, alias string) error {
	return p.faultyHandle.LinkSetAlias(l, alias)
}
func (p faultyPod) LinkSetNsFd(l netlink.Link, fd int) error {
	return p.faultyHandle.LinkSetNsFd(l, fd)
}
func (p faultyPod) Links() ([]netlink.Link, error) { return p.faultyHandle.Links() }
func (p faultyPod) LinkSetMasterByIndex(l netlink.Link, m int) error {
	return p.faultyHandle.LinkSetMasterByIndex(l, m)
}
func (p faultyPod) AddrAdd(l netlink.Link, a *netlink.Addr) error {
	return p.faultyHandle.AddrAdd(l, a)
}
func (p faultyPod) RouteAdd(r *netlink.Route) error { return p.faultyHandle.RouteAdd(r) }
func (p faultyPod) RouteDel(r *netlink.Route) error { return p.faultyHandle.RouteDel(r) }
func (p faultyPod) RuleAdd(r *netlink.Rule) error   { return p.faultyHandle.RuleAdd(r) }
func (p faultyPod) RuleDel(r *netlink.Rule) error   { return p.faultyHandle.RuleDel(r) }
func (p faultyPod) Addresses(l netlink.Link) ([]netlink.Addr, error) {
	return p.faultyHandle.Addresses(l)
}
func (p faultyPod) Routes(f int) ([]netlink.Route, error) { return p.faultyHandle.Routes(f) }
func (p faultyPod) Rules(f int) ([]netlink.Rule, error)   { return p.faultyHandle.Rules(f) }
func (p faultyPod) Close()                                { p.podKernel.Close() }
func (p faultyPod) Sysctl(name, value string) error {
	return wrap(p.f, func() error { return p.podKernel.Sysctl(name, value) })
}

// withFault is a with its n-th call replaced by act.
func withFault(a *Attacher, f *faulty) *Attacher {
	return &Attacher{host: faultyHost{faultyHandle{a.host, f}, a.host}, home: a.home, self: a.self, sys: a.sys, turns: a.turns, late: a.late, open: func(file *os.File) (podKernel, error) {
		p, err := a.open(file)
		if err != nil {
			return nil, err
		}
		return faultyPod{faultyHandle{p, f}, p}, nil
	}}
}
