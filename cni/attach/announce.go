package attach

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// announcement tells the neighbours of a link where addresses are now.
type announcement struct {
	index     int
	mac       [6]byte
	addresses []netip.Prefix
	fresh     bool      // its link was made now
	said      time.Time // when it was sent first to a link that carried it
}

// send sends one frame an address through a packet socket of the Pod: an ARP announcement (RFC 5227, section 2.3) or an
// unsolicited neighbour advertisement (RFC 4861, section 7.2.6), so that neighbours which knew the address elsewhere
// learn its new place at once.
func (a announcement) send(packet int) error {
	var errs []error
	for _, p := range a.addresses {
		frame := arpAnnouncement(a.mac, p.Addr())
		if p.Addr().Is6() {
			frame = neighbourAdvertisement(a.mac, p.Addr())
		}
		to := &unix.SockaddrLinklayer{Ifindex: a.index, Halen: 6}
		copy(to.Addr[:], frame[:6])
		errs = append(errs, unix.Sendto(packet, frame, unix.MSG_DONTWAIT, to))
	}
	return errors.Join(errs...)
}

// unheard is what links did not carry when it was sent: a virtual function gets its carrier from its card seconds after it was set up, and
// until then the kernel drops what is sent without a word (net/sched, noop_qdisc). It has what it takes to send it again, which keeps the
// Pod's namespace from ending.
type unheard struct {
	links  netlinkHandle
	packet int
	all    []announcement
}

// carrier is how a link stands for an announcement.
type carrier int

const (
	carries carrier = iota
	waiting         // it is up, and has no carrier
	over            // it is gone, down, or its MAC is another by now: there is nothing to tell
)

func (a announcement) state(links netlinkHandle) carrier {
	l, err := links.LinkByIndex(a.index)
	if err != nil {
		return over
	}
	const both = unix.IFF_RUNNING | unix.IFF_LOWER_UP // the former tells that frames are queued, and may be late; the latter is now
	switch attrs := l.Attrs(); {
	case attrs.RawFlags&unix.IFF_UP == 0, string(attrs.HardwareAddr) != string(a.mac[:]):
		return over
	case attrs.RawFlags&both != both:
		return waiting
	}
	return carries
}

// runs says whether a link queues frames (netdevice(7), IFF_RUNNING); also of one that is gone.
func runs(packet, index int) bool {
	ifr, err := unix.NewIfreq("-")
	if err != nil {
		return true
	}
	ifr.SetUint32(uint32(index))
	if unix.IoctlIfreq(packet, unix.SIOCGIFNAME, ifr) != nil || unix.IoctlIfreq(packet, unix.SIOCGIFFLAGS, ifr) != nil {
		return true
	}
	return ifr.Uint16()&unix.IFF_RUNNING != 0
}

// tell sends each announcement when its link carries it, and once more: a card that was just set up, and switches behind it, lose
// frames. It does so for as long as carrierTime, or until end.
func (u *unheard) tell(end <-chan struct{}) {
	late := time.NewTimer(carrierTime)
	defer late.Stop()
	select {
	case <-end:
		return
	case <-time.After(5 * time.Millisecond): // most fresh links run as soon as the kernel has noticed it (linkwatch)
	}
	u.all = slices.DeleteFunc(u.all, func(a announcement) bool {
		ready := a.fresh && runs(u.packet, a.index)
		if ready {
			_ = a.send(u.packet)
		}
		return ready
	})
	for look := time.NewTicker(50 * time.Millisecond); len(u.all) > 0; {
		select {
		case <-end:
			return
		case <-late.C:
			return
		case <-look.C:
		}
		var left []announcement
		for _, a := range u.all {
			state, now := a.state(u.links), time.Now()
			switch {
			case state == over:
				continue
			case state == waiting:
			case a.said.IsZero():
				_, a.said = a.send(u.packet), now
			case now.Sub(a.said) >= announceInterval:
				_ = a.send(u.packet)
				continue
			}
			left = append(left, a)
		}
		u.all = left
	}
}

func (u *unheard) close() {
	u.links.Close()
	_ = unix.Close(u.packet)
}

const (
	carrierTime      = 15 * time.Second
	announceInterval = 2 * time.Second // RFC 5227, section 1.1, ANNOUNCE_INTERVAL
	mostLate         = 256             // Pods at a time that wait for a carrier; neighbours of others learn by themselves
)

// lateTellers are the Pods that wait to announce themselves, by sandbox.
type lateTellers struct {
	mu      sync.Mutex
	waiting map[string]*lateTeller
}

type lateTeller struct{ end, ended chan struct{} }

// tell goes on beside the caller. nil is nothing to tell.
func (t *lateTellers) tell(sandbox string, u *unheard) {
	if u == nil {
		return
	}
	t.end(sandbox)
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.waiting) >= mostLate {
		go u.close()
		return
	}
	one := &lateTeller{end: make(chan struct{}), ended: make(chan struct{})}
	t.waiting[sandbox] = one
	go func() {
		defer close(one.ended)
		u.tell(one.end)
		u.close()
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.waiting[sandbox] == one {
			delete(t.waiting, sandbox)
		}
	}()
}

// end returns when nothing waits for a sandbox any more, so that its namespace can end.
func (t *lateTellers) end(sandbox string) {
	t.mu.Lock()
	one := t.waiting[sandbox]
	delete(t.waiting, sandbox)
	t.mu.Unlock()
	if one != nil {
		close(one.end)
		<-one.ended
	}
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
