package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"danm.io/danm/node/plan"
	"danm.io/danm/spec/model"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// errMoved says that links came or went between two dumps of one observation.
var errMoved = errors.New("links changed while they were listed")

// Observe lists everything afresh, of kernel parameters those asked for. Owned is left empty: the ledger's records are the caller's to add.
func (k *Kernel) Observe(ctx context.Context, sysctls ...string) (plan.Observed, error) {
	var err error
	for range dumpTries {
		if err = ctx.Err(); err != nil {
			break
		}
		var o plan.Observed
		if o, err = k.observe(); errors.Is(err, errMoved) {
			continue
		}
		if err == nil && len(sysctls) > 0 {
			o.Sysctls, err = k.readSysctls(sysctls)
		}
		return o, err
	}
	return plan.Observed{}, fmt.Errorf("observe: %w", err)
}

func (k *Kernel) observe() (plan.Observed, error) {
	var o plan.Observed
	links, err := completeDump(k.h.LinkList)
	if err != nil {
		return o, fmt.Errorf("list links: %w", err)
	}
	byIndex := make(map[int]int, len(links)) // kernel index → position in o.Links
	names := make(map[int]string, len(links))
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	for _, l := range links {
		byIndex[l.Attrs().Index] = len(o.Links)
		o.Links = append(o.Links, k.observeLink(l, names))
	}
	countChildren(o.Links)
	if err := k.observeLimits(&o, byIndex); err != nil {
		return plan.Observed{}, err
	}
	if err := k.observeVLANs(&o, byIndex); err != nil {
		return plan.Observed{}, err
	}
	if err := k.observeAddresses(&o, byIndex); err != nil {
		return plan.Observed{}, err
	}
	if err := k.observeRoutes(&o, names); err != nil {
		return plan.Observed{}, err
	}
	if err := k.observeRules(&o); err != nil {
		return plan.Observed{}, err
	}
	if err := k.observePeers(&o, byIndex); err != nil {
		return plan.Observed{}, err
	}
	plan.Sort(&o)
	return o, nil
}

func countChildren(links []plan.ObservedLink) {
	n := map[string]int{}
	for _, l := range links {
		if l.Parent != "" {
			n[l.Parent]++
		}
	}
	for i := range links {
		links[i].Children = n[links[i].Name]
	}
}

func (k *Kernel) observeLink(l netlink.Link, names map[int]string) plan.ObservedLink {
	a := l.Attrs()
	o := plan.ObservedLink{
		Link:  model.Link{Name: a.Name, Kind: model.Physical, Alias: a.Alias, MTU: a.MTU, Up: a.Flags&net.FlagUp != 0, Master: names[a.MasterIndex]},
		Group: groupOf(a), MAC: ownMAC(a).String(), AltNames: slices.Clone(a.AltNames),
	}
	slices.Sort(o.AltNames)
	o.NoCarrier = o.Up && (a.OperState == netlink.OperDown || a.OperState == netlink.OperLowerLayerDown)
	if l.Type() != "device" {
		o.KernelKind = l.Type()
	}
	// A veth's IFLA_LINK is its peer, no device below; that of a link whose device is in another namespace counts there.
	if a.ParentIndex != a.Index && a.NetNsID < 0 && o.KernelKind != "veth" {
		o.Parent = names[a.ParentIndex]
	}
	switch l := l.(type) {
	case *netlink.Bridge:
		o.Kind, o.Filtering = model.Bridge, l.VlanFiltering != nil && *l.VlanFiltering
	case *netlink.Bond:
		o.Kind, o.Bond = model.Bond, modelBond(l, names)
	case *netlink.Vrf:
		o.Kind, o.Table = model.VRF, l.Table
	case *netlink.Dummy:
		o.Kind = model.Dummy
	case *netlink.Vlan:
		if l.VlanProtocol == netlink.VLAN_PROTOCOL_8021Q || l.VlanProtocol == netlink.VLAN_PROTOCOL_UNKNOWN {
			o.Kind, o.VLANID = model.VLAN, uint16(l.VlanId)
		}
	case *netlink.Vxlan:
		if o.Parent = names[l.VtepDevIndex]; !l.FlowBased {
			o.Kind = model.VXLAN
			o.VXLAN = &model.VXLANOptions{VNI: uint32(l.VxlanId), Port: l.Port, Group: addrOf(l.Group), Local: addrOf(l.SrcAddr), Learning: l.Learning}
		}
	}
	k.observeHardware(&o, a)
	return o
}

// ownMAC is the address that a card was made with, if the kernel knows it: a bond gives its ports another.
func ownMAC(a *netlink.LinkAttrs) net.HardwareAddr {
	if len(a.PermHWAddr) > 0 && !isZeroMAC(a.PermHWAddr) {
		return a.PermHWAddr
	}
	return a.HardwareAddr
}

func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	if a = a.Unmap(); !a.IsValid() || a.IsUnspecified() {
		return netip.Addr{}
	}
	return a
}

// pciAddress is a device's directory name below /sys/devices (Documentation/PCI/sysfs-pci.rst).
var pciAddress = regexp.MustCompile(`^[0-9a-f]{4,}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$`)

// observeHardware: the device behind a link comes with it since Linux 5.14 (IFLA_PARENT_DEV_NAME); sysfs by bus and device
// knows no namespaces, so what is found there is right for links of any of them. The card of a virtual machine is a device
// on a bus of its own, which a PCI device carries.
func (k *Kernel) observeHardware(o *plan.ObservedLink, a *netlink.LinkAttrs) {
	if o.KernelKind != "" || a.ParentDevBus == "" || a.ParentDev == "" {
		return
	}
	device := filepath.Join(k.sysRoot, "sys/bus", a.ParentDevBus, "devices", a.ParentDev)
	if driver, err := os.Readlink(filepath.Join(device, "driver")); err == nil {
		o.Driver = filepath.Base(driver)
	}
	if a.ParentDevBus == "pci" {
		o.PCI = a.ParentDev
		return
	}
	path, err := os.Readlink(device)
	if err != nil {
		return
	}
	if carrier := filepath.Base(filepath.Dir(path)); pciAddress.MatchString(carrier) {
		o.PCI = carrier
	}
}

func (k *Kernel) observeAddresses(o *plan.Observed, byIndex map[int]int) error {
	addrs, err := completeDump(func() ([]netlink.Addr, error) { return k.h.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addrs {
		i, known := byIndex[a.LinkIndex]
		if !known {
			return errMoved
		}
		if p := prefixOf(a.IPNet); p.IsValid() && !isKernelMade(p, a.Flags) {
			o.Links[i].Addresses = append(o.Links[i].Addresses, p)
		}
	}
	return nil
}

func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	a, ok := netip.AddrFromSlice(n.IP)
	ones, bits := n.Mask.Size()
	if a = a.Unmap(); !ok || a.BitLen() != bits {
		return netip.Prefix{}
	}
	return netip.PrefixFrom(a, ones)
}

// isKernelMade recognises the link-local address that the kernel gives a link coming up: from the MAC (RFC 4291, appendix A,
// ff:fe in the middle) or stable-privacy (RFC 7217). They come and go with the link and follow its MAC.
func isKernelMade(p netip.Prefix, flags int) bool {
	if !p.Addr().Is6() || !p.Addr().IsLinkLocalUnicast() || p.Bits() != 64 {
		return false
	}
	b := p.Addr().As16()
	return bytes.Equal(b[11:13], []byte{0xff, 0xfe}) || flags&unix.IFA_F_STABLE_PRIVACY != 0
}

func (k *Kernel) observeRoutes(o *plan.Observed, names map[int]string) error {
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := RoutesIn(k.h, family)
		if err != nil {
			return fmt.Errorf("list routes: %w", err)
		}
		for _, r := range routes {
			if isKernelRoute(r) {
				continue
			}
			route := modelRoute(r, family)
			if i := outIndex(r); i != 0 {
				name, known := names[i]
				if !known {
					return errMoved
				}
				route.Dev = name
			}
			o.Routes = append(o.Routes, plan.ObservedRoute{Route: route, Protocol: int(r.Protocol)})
		}
	}
	return nil
}

// isKernelRoute: connected, local and multicast routes follow addresses and links.
func isKernelRoute(r netlink.Route) bool {
	return r.Protocol == unix.RTPROT_KERNEL || r.Table == unix.RT_TABLE_LOCAL
}

func outIndex(r netlink.Route) int {
	if r.LinkIndex == 0 && len(r.MultiPath) > 0 {
		return r.MultiPath[0].LinkIndex
	}
	return r.LinkIndex
}

// modelRoute is a kernel route without its device, of several next hops the first.
func modelRoute(r netlink.Route, family int) model.Route {
	out := model.Route{Table: uint32(r.Table), Metric: uint32(r.Priority), Via: addrOf(r.Gw)}
	if len(r.MultiPath) > 0 {
		out.Via = addrOf(r.MultiPath[0].Gw)
	}
	if via, ok := r.Via.(*netlink.Via); ok && via != nil {
		out.Via = addrOf(via.Addr)
	}
	if out.To = prefixOf(r.Dst); !out.To.IsValid() {
		out.To = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if family == netlink.FAMILY_V6 {
			out.To = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
	}
	return out
}

// observePeers lists the all-zero FDB entries of VXLAN links: where frames to unknown destinations are sent.
func (k *Kernel) observePeers(o *plan.Observed, byIndex map[int]int) error {
	if !slices.ContainsFunc(o.Links, func(l plan.ObservedLink) bool { return l.Kind == model.VXLAN }) {
		return nil
	}
	entries, err := completeDump(func() ([]netlink.Neigh, error) {
		return k.h.NeighListExecute(netlink.Ndmsg{Family: unix.AF_BRIDGE})
	})
	if err != nil {
		return fmt.Errorf("list flood entries: %w", err)
	}
	for _, e := range entries {
		i, known := byIndex[e.LinkIndex]
		if !known {
			return errMoved
		}
		l := o.Links[i]
		addr := addrOf(e.IP)
		// The multicast group is an entry too, made with the link.
		if l.Kind == model.VXLAN && isZeroMAC(e.HardwareAddr) && addr.IsValid() && addr != l.VXLAN.Group {
			o.Peers = append(o.Peers, model.Peer{Link: l.Name, Addr: addr})
		}
	}
	return nil
}

func isZeroMAC(m net.HardwareAddr) bool { return bytes.Equal(m, make([]byte, 6)) }
