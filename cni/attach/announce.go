package attach

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"
)

// announce sends one frame an address through a packet socket of the Pod: an ARP announcement (RFC 5227, section 2.3) or an
// unsolicited neighbour advertisement (RFC 4861, section 7.2.6), so that neighbours which knew the address elsewhere
// learn its new place at once.
func announce(packet, index int, mac [6]byte, addresses []netip.Prefix) error {
	var errs []error
	for _, p := range addresses {
		frame := arpAnnouncement(mac, p.Addr())
		if p.Addr().Is6() {
			frame = neighbourAdvertisement(mac, p.Addr())
		}
		to := &unix.SockaddrLinklayer{Ifindex: index, Halen: 6}
		copy(to.Addr[:], frame[:6])
		errs = append(errs, unix.Sendto(packet, frame, unix.MSG_DONTWAIT, to))
	}
	return errors.Join(errs...)
}

var broadcast = [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

func ethernet(to, from [6]byte, kind uint16) []byte {
	return binary.BigEndian.AppendUint16(append(append([]byte{}, to[:]...), from[:]...), kind)
}

// arpAnnouncement is an ARP request for the sender's own address (RFC 826 for the layout).
func arpAnnouncement(mac [6]byte, a netip.Addr) []byte {
	if !a.Is4() {
		return nil
	}
	ip := a.As4()
	f := ethernet(broadcast, mac, unix.ETH_P_ARP)
	f = append(f, 0, 1, 8, 0, 6, 4, 0, 1) // Ethernet, IPv4, lengths 6 and 4, request
	f = append(append(f, mac[:]...), ip[:]...)
	return append(append(f, 0, 0, 0, 0, 0, 0), ip[:]...)
}

// neighbourAdvertisement has the override flag and the target's link-layer address, and goes to all nodes (ff02::1).
func neighbourAdvertisement(mac [6]byte, a netip.Addr) []byte {
	source, allNodes := a.As16(), netip.MustParseAddr("ff02::1").As16()
	icmp := []byte{136, 0, 0, 0, 0x20, 0, 0, 0}
	icmp = append(icmp, source[:]...)
	icmp = append(append(icmp, 2, 1), mac[:]...)
	pseudo := append(append([]byte{}, source[:]...), allNodes[:]...)
	pseudo = append(binary.BigEndian.AppendUint32(pseudo, uint32(len(icmp))), 0, 0, 0, 58)
	binary.BigEndian.PutUint16(icmp[2:], checksum(append(pseudo, icmp...)))

	f := ethernet([6]byte{0x33, 0x33, 0, 0, 0, 1}, mac, unix.ETH_P_IPV6)
	f = append(f, 0x60, 0, 0, 0)
	f = append(binary.BigEndian.AppendUint16(f, uint16(len(icmp))), 58, 255) // hop limit 255, RFC 4861 section 7.1.2
	f = append(append(f, source[:]...), allNodes[:]...)
	return append(f, icmp...)
}

// checksum is the Internet checksum (RFC 1071) over an even number of bytes.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
