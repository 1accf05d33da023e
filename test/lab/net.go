//go:build linux

package lab

import (
	"cmp"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/icmp"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
)

func (n *NS) loopbackUp() error {
	return n.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	})
}

// Switch makes a bridge in the namespace, up, without learning delays.
func (n *NS) Switch(name string) error {
	return n.Do(func() error {
		br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}
		if err := netlink.LinkAdd(br); err != nil {
			return fmt.Errorf("add switch %s: %w", name, err)
		}
		return netlink.LinkSetUp(br)
	})
}

// Plug gives host a link ifname whose other end is a port of the switch in n. addr may be "".
func (n *NS) Plug(sw string, host *NS, ifname, addr string) error {
	port := host.Name + "-" + ifname
	err := n.Do(func() error {
		hostFile, err := os.Open(host.Path)
		if err != nil {
			return err
		}
		defer hostFile.Close()
		master, err := netlink.LinkByName(sw)
		if err != nil {
			return err
		}
		veth := &netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: port, MasterIndex: master.Attrs().Index},
			PeerName:  ifname, PeerNamespace: netlink.NsFd(int(hostFile.Fd())),
		}
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("add cable %s: %w", port, err)
		}
		return netlink.LinkSetUp(veth)
	})
	if err != nil {
		return err
	}
	return host.Do(func() error {
		l, err := netlink.LinkByName(ifname)
		if err != nil {
			return err
		}
		if addr != "" {
			a, err := netlink.ParseAddr(addr)
			if err != nil {
				return err
			}
			if err := netlink.AddrAdd(l, a); err != nil {
				return err
			}
		}
		return netlink.LinkSetUp(l)
	})
}

// DeleteLink removes a link by hand, as a person with a root shell would.
func (n *NS) DeleteLink(name string) error {
	return n.Do(func() error {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return netlink.LinkDel(l)
	})
}

// LinkMTU returns the MTU of a link, 0 if it is not there.
func (n *NS) LinkMTU(name string) (mtu int) {
	_ = n.Do(func() error {
		if l, err := netlink.LinkByName(name); err == nil {
			mtu = l.Attrs().MTU
		}
		return nil
	})
	return mtu
}

// Dump prints what a person would compare: links with kind, MTU, master, state, addresses; routes. No indexes or counters.
func (n *NS) Dump() (string, error) {
	var lines []string
	err := n.Do(func() error {
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		names := map[int]string{}
		for _, l := range links {
			names[l.Attrs().Index] = l.Attrs().Name
		}
		for _, l := range links {
			a := l.Attrs()
			lines = append(lines, fmt.Sprintf("link %s %s mtu %d master %q up %v group %d alias %q",
				a.Name, l.Type(), a.MTU, names[a.MasterIndex], a.Flags&net.FlagUp != 0, a.Group, a.Alias))
			addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
			if err != nil {
				return err
			}
			for _, addr := range addrs {
				lines = append(lines, fmt.Sprintf("address %s %s", a.Name, addr.IPNet))
			}
		}
		routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		for _, r := range routes {
			lines = append(lines, fmt.Sprintf("route %v via %v dev %s proto %d", r.Dst, r.Gw, names[r.LinkIndex], r.Protocol))
		}
		return nil
	})
	slices.SortFunc(lines, cmp.Compare[string])
	return strings.Join(lines, "\n"), err
}

// Ping sends echo requests from inside the namespace until one is answered or the time is over.
func (n *NS) Ping(to string, within time.Duration) error {
	ip := net.ParseIP(to)
	if ip == nil {
		return fmt.Errorf("ping: %q is no address", to)
	}
	return n.Do(func() error {
		network, proto, local := "ip4:icmp", 1, "0.0.0.0"
		var kind icmp.Type = ipv4.ICMPTypeEcho
		if ip.To4() == nil {
			network, proto, local, kind = "ip6:ipv6-icmp", 58, "::", ipv6.ICMPTypeEchoRequest
		}
		conn, err := icmp.ListenPacket(network, local)
		if err != nil {
			return fmt.Errorf("ping: %w", err)
		}
		defer conn.Close()
		return echo(conn, &net.IPAddr{IP: ip}, kind, proto, time.Now().Add(within))
	})
}

// echo asks every 200 ms and takes the first reply that comes from the address asked.
func echo(conn *icmp.PacketConn, to *net.IPAddr, kind icmp.Type, proto int, deadline time.Time) error {
	buf := make([]byte, 1500)
	id := os.Getpid() & 0xffff
	for seq := 1; time.Now().Before(deadline); seq++ {
		msg := icmp.Message{Type: kind, Body: &icmp.Echo{ID: id, Seq: seq, Data: []byte("danm")}}
		raw, err := msg.Marshal(nil)
		if err != nil {
			return err
		}
		if _, err := conn.WriteTo(raw, to); err != nil {
			time.Sleep(50 * time.Millisecond) // no route or neighbour yet
			continue
		}
		for until := time.Now().Add(200 * time.Millisecond); time.Now().Before(until); {
			_ = conn.SetReadDeadline(until)
			size, from, err := conn.ReadFrom(buf)
			if err != nil {
				break
			}
			reply, err := icmp.ParseMessage(proto, buf[:size])
			if err != nil {
				continue
			}
			e, ok := reply.Body.(*icmp.Echo)
			isReply := reply.Type == ipv4.ICMPTypeEchoReply || reply.Type == ipv6.ICMPTypeEchoReply
			if peer, isIP := from.(*net.IPAddr); ok && isReply && isIP && e.ID == id && peer.IP.Equal(to.IP) {
				return nil
			}
		}
	}
	return fmt.Errorf("no answer from %s", to)
}
