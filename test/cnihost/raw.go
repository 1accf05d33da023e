//go:build linux

package cnihost

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// look reads the thread's namespace by the standard library's netlink, which shares no code with what makes links. It is not ip(8) because
// a program's start takes a third of a second in the VM.
func look() (s Seen, err error) {
	names := map[uint32]int{} // places in s.Links by index
	err = dump(syscall.RTM_GETLINK, func(m syscall.NetlinkMessage) error {
		l, err := parseLink(m)
		names[binary.NativeEndian.Uint32(m.Data[4:])] = len(s.Links)
		s.Links = append(s.Links, l)
		return err
	})
	if err != nil {
		return s, fmt.Errorf("list links: %w", err)
	}
	err = dump(syscall.RTM_GETADDR, func(m syscall.NetlinkMessage) error {
		attributes, err := syscall.ParseNetlinkRouteAttr(&m)
		if err != nil || m.Data[3] != syscall.RT_SCOPE_UNIVERSE {
			return err
		}
		i, is := names[binary.NativeEndian.Uint32(m.Data[4:])]
		if !is {
			return fmt.Errorf("an address of no link")
		}
		a := attribute(attributes, syscall.IFA_LOCAL) // the own one where there is a peer; IPv6 has none
		if a == nil {
			a = attribute(attributes, syscall.IFA_ADDRESS)
		}
		ip, _ := netip.AddrFromSlice(a)
		s.Links[i].Addresses = append(s.Links[i].Addresses, fmt.Sprintf("%s/%d", ip, m.Data[1]))
		return nil
	})
	if err != nil {
		return s, fmt.Errorf("list addresses: %w", err)
	}
	for i := range s.Links { // the kernel lists a family at a time, but does not promise to
		slices.SortStableFunc(s.Links[i].Addresses, func(a, b string) int { return strings.Count(a, ":") - strings.Count(b, ":") })
	}
	err = dump(syscall.RTM_GETROUTE, func(m syscall.NetlinkMessage) error {
		text, err := parseRoute(m, func(index uint32) string {
			if i, is := names[index]; is {
				return s.Links[i].Name
			}
			return "?"
		})
		if text != "" {
			s.Routes = append(s.Routes, text)
		}
		return err
	})
	slices.Sort(s.Routes)
	return s, err
}

func dump(kind int, each func(syscall.NetlinkMessage) error) error {
	raw, err := syscall.NetlinkRIB(kind, syscall.AF_UNSPEC)
	if err != nil {
		return err
	}
	messages, err := syscall.ParseNetlinkMessage(raw)
	if err != nil {
		return err
	}
	for _, m := range messages {
		if int(m.Header.Type) != kind-2 { // RTM_NEW… comes two before RTM_GET…
			continue
		}
		if err := each(m); err != nil {
			return err
		}
	}
	return nil
}

func attribute(list []syscall.NetlinkRouteAttr, kind uint16) []byte {
	for _, a := range list {
		if a.Attr.Type&^unix.NLA_F_NESTED == kind {
			return a.Value
		}
	}
	return nil
}

// nested finds an attribute among those in another one.
func nested(in []byte, kind uint16) []byte {
	for len(in) >= 4 {
		size, is := int(binary.NativeEndian.Uint16(in)), binary.NativeEndian.Uint16(in[2:])
		if size < 4 || size > len(in) {
			return nil
		}
		if is&^unix.NLA_F_NESTED == kind {
			return in[4:size]
		}
		in = in[min((size+3)&^3, len(in)):]
	}
	return nil
}

// The modes of macvlan and ipvlan (Linux, if_link.h).
var (
	macvlanModes = map[uint32]string{1: "private", 2: "vepa", 4: "bridge", 8: "passthru"}
	ipvlanModes  = map[uint16]string{0: "l2", 1: "l3", 2: "l3s"}
)

func parseLink(m syscall.NetlinkMessage) (l Link, err error) {
	attributes, err := syscall.ParseNetlinkRouteAttr(&m)
	if err != nil {
		return l, err
	}
	text := func(b []byte) string { return strings.TrimRight(string(b), "\x00") }
	l.Name, l.MAC = text(attribute(attributes, syscall.IFLA_IFNAME)), net.HardwareAddr(attribute(attributes, syscall.IFLA_ADDRESS)).String()
	l.MTU = int(binary.NativeEndian.Uint32(attribute(attributes, syscall.IFLA_MTU)))
	l.Up = binary.NativeEndian.Uint32(m.Data[8:])&syscall.IFF_UP != 0
	info := attribute(attributes, syscall.IFLA_LINKINFO)
	l.Kind = text(nested(info, unix.IFLA_INFO_KIND))
	data := nested(info, unix.IFLA_INFO_DATA)
	switch l.Kind {
	case "macvlan":
		l.Mode = macvlanModes[binary.NativeEndian.Uint32(nested(data, unix.IFLA_MACVLAN_MODE))]
	case "ipvlan":
		l.Mode = ipvlanModes[binary.NativeEndian.Uint16(nested(data, unix.IFLA_IPVLAN_MODE))]
	case "vlan":
		l.VLAN = int(binary.NativeEndian.Uint16(nested(data, unix.IFLA_VLAN_ID)))
	}
	return l, nil
}

// parseRoute is a unicast route of the main table that the kernel did not make of an address itself, "" for others.
func parseRoute(m syscall.NetlinkMessage, name func(index uint32) string) (string, error) {
	family, length, table, protocol, kind := m.Data[0], m.Data[1], m.Data[4], m.Data[5], m.Data[7]
	if table != syscall.RT_TABLE_MAIN || protocol == syscall.RTPROT_KERNEL || kind != syscall.RTN_UNICAST {
		return "", nil
	}
	attributes, err := syscall.ParseNetlinkRouteAttr(&m)
	if err != nil {
		return "", err
	}
	to := netip.IPv4Unspecified()
	if family == syscall.AF_INET6 {
		to = netip.IPv6Unspecified()
	}
	if b := attribute(attributes, syscall.RTA_DST); b != nil {
		to, _ = netip.AddrFromSlice(b)
	}
	via := ""
	if b := attribute(attributes, syscall.RTA_GATEWAY); b != nil {
		a, _ := netip.AddrFromSlice(b)
		via = a.String()
	}
	device := ""
	if b := attribute(attributes, syscall.RTA_OIF); b != nil {
		device = name(binary.NativeEndian.Uint32(b))
	}
	return fmt.Sprintf("%s/%d via %s dev %s", to, length, via, device), nil
}
