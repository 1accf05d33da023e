package probe

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// asks is how often an address is asked for before its silence counts. RFC 5227 (section 2.1.1) takes three probes a second apart and
// RFC 4862 one second; a Pod's start cannot wait that long, and one lost packet must not hide a holder.
const asks = 3

// InUse says whether a host on the link has an address already, and its MAC if it is known: an ARP probe (RFC 5227), which comes from
// 0.0.0.0 so that no neighbour learns anything wrong, or duplicate address detection (RFC 4862, section 5.4), which comes from ::. It
// listens until ctx ends or somebody claims the address; silence means that it is free. An error means that nobody could be asked.
func InUse(ctx context.Context, linkName string, a netip.Addr) (inUse bool, mac string, err error) {
	link, err := net.InterfaceByName(linkName)
	if err != nil {
		return false, "", fmt.Errorf("link %s: %w", linkName, err)
	}
	if len(link.HardwareAddr) != 6 {
		return false, "", fmt.Errorf("%w: %s has no neighbours", ErrNotApplicable, linkName)
	}
	if ownsAddress(link, a) { // nobody answers his own question
		return true, link.HardwareAddr.String(), nil
	}
	if a.Is4() {
		inUse, mac, err = probeARP(ctx, link, a)
	} else {
		inUse, mac, err = probeND(ctx, link, a)
	}
	if err != nil {
		return false, "", fmt.Errorf("ask for %s on %s: %w", a, linkName, err)
	}
	return inUse, mac, nil
}

func ownsAddress(link *net.Interface, a netip.Addr) bool {
	addrs, _ := link.Addrs()
	return slices.ContainsFunc(addrs, func(own net.Addr) bool {
		p, err := netip.ParsePrefix(own.String())
		return err == nil && p.Addr() == a
	})
}

func probeARP(ctx context.Context, link *net.Interface, a netip.Addr) (bool, string, error) {
	f, to, err := packetSocket(link, unix.ETH_P_ARP, net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	if err != nil {
		return false, "", err
	}
	defer f.Close()
	return listen(ctx, f, to, arpRequest(link.HardwareAddr, netip.IPv4Unspecified(), a), func(b []byte) (net.HardwareAddr, bool) {
		return claimsARP(b, a, link.HardwareAddr)
	})
}

// claimsARP finds who has the address, or wants it: any ARP packet from it, and a probe for it by another host (RFC 5227, section 2.1.1).
func claimsARP(b []byte, a netip.Addr, self net.HardwareAddr) (net.HardwareAddr, bool) {
	if len(b) < 28 || b[4] != 6 || b[5] != 4 {
		return nil, false
	}
	mac := net.HardwareAddr(b[8:14])
	sender, target := netip.AddrFrom4([4]byte(b[14:18])), netip.AddrFrom4([4]byte(b[24:28]))
	claims := sender == a || sender.IsUnspecified() && target == a && b[7] == 1
	return append(net.HardwareAddr{}, mac...), claims && mac.String() != self.String()
}

var allNodes = net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}

func probeND(ctx context.Context, link *net.Interface, a netip.Addr) (bool, string, error) {
	t := a.As16()
	group := netip.AddrFrom16([16]byte{0xff, 2, 11: 1, 12: 0xff, 13: t[13], 14: t[14], 15: t[15]}) // RFC 4291 section 2.7.1
	groupMAC := net.HardwareAddr{0x33, 0x33, 0xff, t[13], t[14], t[15]}
	f, to, err := packetSocket(link, unix.ETH_P_IPV6, groupMAC)
	if err != nil {
		return false, "", err
	}
	defer f.Close()
	for _, g := range []net.HardwareAddr{allNodes, groupMAC} { // the answer goes to all nodes, and IPv6 may be off on this link
		if err := join(f, link.Index, g); err != nil {
			return false, "", err
		}
	}
	return listen(ctx, f, to, dadSolicitation(group, a), func(b []byte) (net.HardwareAddr, bool) { return claimsND(b, a) })
}

// dadSolicitation has no source link-layer address, since it has no source (RFC 4861, section 4.3).
func dadSolicitation(group, target netip.Addr) []byte {
	return solicitation(nil, netip.IPv6Unspecified(), group, target)
}

// claimsND finds who advertises the address. Nobody answers our own solicitation, and we do not hear it.
func claimsND(b []byte, a netip.Addr) (net.HardwareAddr, bool) {
	if !isAdvertisement(b, a) {
		return nil, false
	}
	for o := b[64:]; len(o) >= 8 && o[1] != 0 && len(o) >= int(o[1])*8; o = o[int(o[1])*8:] {
		if o[0] == 2 { // target link-layer address
			return append(net.HardwareAddr{}, o[2:8]...), true
		}
	}
	return nil, true
}

func join(f *os.File, link int, group net.HardwareAddr) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	m := unix.PacketMreq{Ifindex: int32(link), Type: unix.PACKET_MR_MULTICAST, Alen: 6}
	copy(m.Address[:], group)
	var set error
	if err := raw.Control(func(fd uintptr) {
		set = unix.SetsockoptPacketMreq(int(fd), unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &m)
	}); err != nil {
		return err
	}
	if set != nil {
		return fmt.Errorf("listen to %s: %w", group, set)
	}
	return nil
}

// listen sends msg a few times, evenly until ctx ends, and reads what comes until somebody claims. It is an error if not one could be sent.
func listen(ctx context.Context, f *os.File, to unix.Sockaddr, msg []byte, claims func([]byte) (net.HardwareAddr, bool)) (bool, string, error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return false, "", err
	}
	end, ok := ctx.Deadline()
	if !ok {
		return false, "", errors.New("no deadline")
	}
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Now()) })
	defer stop()
	step, buf, sent, last := time.Until(end)/asks, make([]byte, 2048), 0, error(nil)
	for i := range asks {
		var serr error
		if err := raw.Control(func(fd uintptr) { serr = unix.Sendto(int(fd), msg, 0, to) }); err != nil {
			return false, "", err
		}
		if serr == nil {
			sent++
		} else {
			last = serr
		}
		until := end.Add(-time.Duration(asks-1-i) * step)
		if ctx.Err() != nil {
			break
		}
		if err := f.SetReadDeadline(until); err != nil {
			return false, "", err
		}
		for {
			n, err := f.Read(buf)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil { // such as ENETDOWN
				last = err
				sleep(ctx, time.Until(until))
				break
			}
			if mac, yes := claims(buf[:n]); yes {
				return true, mac.String(), nil
			}
		}
	}
	switch {
	case last != nil:
		return false, "", last
	case sent == 0 || errors.Is(ctx.Err(), context.Canceled):
		return false, "", fmt.Errorf("not asked: %w", ctx.Err())
	}
	return false, "", nil
}
