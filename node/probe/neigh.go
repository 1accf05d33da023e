package probe

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// neighbour passes when the gateway answers an ARP request (RFC 826) or a neighbour solicitation (RFC 4861). The kernel's
// own neighbour table is not asked: its entries outlive the neighbour by up to a minute.
func neighbour(ctx context.Context, g Gateway) error {
	link, err := net.InterfaceByName(g.Link)
	if err != nil {
		return err
	}
	if len(link.HardwareAddr) != 6 {
		return fmt.Errorf("%w: %s has no neighbours", ErrNotApplicable, g.Link)
	}
	if g.Addr.Is4() {
		return arp(ctx, link, g.Addr)
	}
	return solicit(ctx, link, g.Addr)
}

// packetSocket is a SOCK_DGRAM packet socket for one EtherType on one link: the kernel makes and strips the frame header.
func packetSocket(link *net.Interface, etherType uint16, to net.HardwareAddr) (*os.File, *unix.SockaddrLinklayer, error) {
	proto := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, etherType)) // htons
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(proto))
	if err != nil {
		return nil, nil, fmt.Errorf("packet socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: link.Index}); err != nil {
		_ = unix.Close(fd)
		return nil, nil, fmt.Errorf("bind to %s: %w", link.Name, err)
	}
	sa := &unix.SockaddrLinklayer{Protocol: proto, Ifindex: link.Index, Halen: 6}
	copy(sa.Addr[:], to)
	return os.NewFile(uintptr(fd), "packet"), sa, nil
}

func arp(ctx context.Context, link *net.Interface, to netip.Addr) error {
	f, sa, err := packetSocket(link, unix.ETH_P_ARP, net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	if err != nil {
		return err
	}
	from := sourceOn(link, to)
	return ask(ctx, f, sa, arpRequest(link.HardwareAddr, from, to), func(b []byte) bool { return isARPReply(b, to) })
}

func arpRequest(mac net.HardwareAddr, from, to netip.Addr) []byte {
	b := []byte{0, 1, 8, 0, 6, 4, 0, 1} // Ethernet, IPv4, 6- and 4-byte addresses, request
	b = append(b, mac...)
	b = append(b, from.AsSlice()...)
	b = append(b, 0, 0, 0, 0, 0, 0)
	return append(b, to.AsSlice()...)
}

func isARPReply(b []byte, of netip.Addr) bool {
	return len(b) >= 28 && b[7] == 2 && bytes.Equal(b[14:18], of.AsSlice())
}

// solicit speaks IPv6 itself on a packet socket: a raw ICMPv6 socket would need a source address that is not tentative.
func solicit(ctx context.Context, link *net.Interface, to netip.Addr) error {
	t := to.As16()
	group := netip.AddrFrom16([16]byte{0xff, 2, 11: 1, 12: 0xff, 13: t[13], 14: t[14], 15: t[15]}) // RFC 4291 section 2.7.1
	f, sa, err := packetSocket(link, unix.ETH_P_IPV6, net.HardwareAddr{0x33, 0x33, 0xff, t[13], t[14], t[15]})
	if err != nil {
		return err
	}
	from := sourceOn(link, to)
	if !from.IsValid() || from.IsUnspecified() {
		return errors.Join(fmt.Errorf("%s has no IPv6 address to ask from", link.Name), f.Close())
	}
	msg := solicitation(link.HardwareAddr, from, group, to)
	return ask(ctx, f, sa, msg, func(b []byte) bool { return isAdvertisement(b, to) })
}

func solicitation(mac net.HardwareAddr, from, group, target netip.Addr) []byte {
	body := append([]byte{135, 0, 0, 0, 0, 0, 0, 0}, target.AsSlice()...)
	if mac != nil {
		body = append(append(body, 1, 1), mac...) // source link-layer address
	}
	pseudo := append(append([]byte{}, from.AsSlice()...), group.AsSlice()...)
	pseudo = append(pseudo, 0, 0, 0, byte(len(body)), 0, 0, 0, 58)
	binary.BigEndian.PutUint16(body[2:], checksum(append(pseudo, body...)))
	b := []byte{0x60, 0, 0, 0, 0, byte(len(body)), 58, 255} // hop limit 255: RFC 4861 section 7.1.1
	b = append(append(b, from.AsSlice()...), group.AsSlice()...)
	return append(b, body...)
}

func isAdvertisement(b []byte, of netip.Addr) bool {
	return len(b) >= 64 && b[6] == 58 && b[7] == 255 && b[40] == 136 && bytes.Equal(b[48:64], of.AsSlice())
}

// sourceOn is an address of ours on the link, one in the subnet of `to` if there is one; unspecified if there is none.
func sourceOn(link *net.Interface, to netip.Addr) netip.Addr {
	var any netip.Addr
	addrs, _ := link.Addrs()
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err != nil || p.Addr().Is4() != to.Is4() {
			continue
		}
		if p.Contains(to.WithZone("")) {
			return p.Addr()
		}
		any = p.Addr()
	}
	if !any.IsValid() && to.Is4() {
		return netip.IPv4Unspecified() // an ARP probe, RFC 5227
	}
	return any
}

// ask sends msg every resend until wanted accepts what came, or ctx ends. It closes f.
func ask(ctx context.Context, f *os.File, sa unix.Sockaddr, msg []byte, wanted func([]byte) bool) error {
	defer f.Close()
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var last error
	buf := make([]byte, 2048)
	for ctx.Err() == nil {
		var sent error
		if err := raw.Control(func(fd uintptr) { sent = unix.Sendto(int(fd), msg, 0, sa) }); err != nil {
			return err
		}
		if sent != nil {
			last = sent
		}
		until := time.Now().Add(resend)
		if d, ok := ctx.Deadline(); ok && d.Before(until) {
			until = d
		}
		if err := f.SetReadDeadline(until); err != nil {
			return err
		}
		for {
			n, err := f.Read(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil { // such as ENETDOWN, which a link that comes up again ends
				last = err
				sleep(ctx, time.Until(until))
				break
			}
			if wanted(buf[:n]) {
				return nil
			}
		}
	}
	return fmt.Errorf("no answer: %w", errors.Join(last, ctx.Err()))
}
