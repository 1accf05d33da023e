package link

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"danm.io/danm/node/plan"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Refusals of our own; all others are errno values (unix.EEXIST, …), wrapped.
var (
	ErrNotOurs = errors.New("not ours")
	ErrStep    = errors.New("step makes no sense")
)

// Kernel is one network namespace. Close it after use.
type Kernel struct {
	sysRoot string
	ns      netns.NsHandle
	h       *Handle

	mu     sync.Mutex
	limits map[int]mtuLimits // by index, of devices seen so far
}

var _ plan.Kernel = (*Kernel)(nil)

// New opens the network namespace of the calling thread. sysRoot is where sysfs and /proc/sys stand under their usual names ("/" or a copy in
// tests); what is missing there is left out of observations.
// Looking needs no privileges.
func New(sysRoot string) (*Kernel, error) {
	return open("/proc/thread-self/ns/net", sysRoot, func(netns.NsHandle) (*Handle, error) { return NewHandle() })
}

// At opens the network namespace behind a file such as /run/netns/x.
func At(path, sysRoot string) (*Kernel, error) {
	return open(path, sysRoot, NewHandleAt)
}

func open(path, sysRoot string, handle func(netns.NsHandle) (*Handle, error)) (*Kernel, error) {
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return nil, fmt.Errorf("open network namespace %s: %w", path, err)
	}
	h, err := handle(ns)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open netlink in %s: %w", path, err), ns.Close())
	}
	return &Kernel{sysRoot: sysRoot, ns: ns, h: h}, nil
}

// Close ends the use of the namespace; a subscription lives on until its context ends.
func (k *Kernel) Close() {
	k.h.Close()
	_ = k.ns.Close() // a read-only descriptor: nothing can be lost
}

// Handle is the namespace's netlink socket, for what node/sriov asks by it.
func (k *Kernel) Handle() *Handle { return k.h }

// Ask sends one request into the namespace and returns the answer's messages of a kind (nl.NetlinkRequest.Execute).
func (k *Kernel) Ask(req *nl.NetlinkRequest, kind uint16) ([][]byte, error) {
	s, err := nl.GetNetlinkSocketAt(k.ns, netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: s}}
	return req.Execute(unix.NETLINK_ROUTE, kind)
}

// rtnlgrpIPv6Rule is RTNLGRP_IPV6_RULE of linux/rtnetlink.h, which package unix lacks.
const rtnlgrpIPv6Rule = 19

// woken are the events after which a kernel can differ from what was observed.
var woken = []uint{unix.RTNLGRP_LINK, unix.RTNLGRP_NEIGH, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE,
	unix.RTNLGRP_IPV4_RULE, rtnlgrpIPv6Rule}

// Subscribe wakes the receiver after changes of links, addresses, routes, rules and permanent flood entries, events coalesced while
// it is busy. Events that overran the socket's buffer count as one more. The channel is closed when ctx ends.
func (k *Kernel) Subscribe(ctx context.Context) (<-chan struct{}, error) {
	s, err := nl.SubscribeAt(k.ns, netns.None(), unix.NETLINK_ROUTE, woken...)
	if err != nil {
		return nil, fmt.Errorf("subscribe to link events: %w", err)
	}
	ch := make(chan struct{}, 1)
	stop := context.AfterFunc(ctx, s.Close)
	go func() {
		defer close(ch)
		defer stop()
		for ctx.Err() == nil {
			msgs, _, err := s.Receive()
			if ctx.Err() != nil {
				return
			}
			if err != nil && !errors.Is(err, unix.ENOBUFS) {
				time.Sleep(100 * time.Millisecond) // whatever it is, it shall not spin
			}
			relevant := err != nil // an overrun: something was missed
			for _, m := range msgs {
				relevant = relevant || isRelevant(m.Header.Type, m.Data)
			}
			if relevant {
				select {
				case ch <- struct{}{}:
				default:
				}
			}
		}
	}()
	return ch, nil
}

// isRelevant leaves out neighbour entries other than permanent bridge ones: ARP's coming and going is no drift.
func isRelevant(kind uint16, data []byte) bool {
	if kind != unix.RTM_NEWNEIGH && kind != unix.RTM_DELNEIGH {
		return true
	}
	if len(data) < unix.SizeofNdMsg {
		return false
	}
	var msg netlink.Ndmsg
	msg.Family = data[0]
	msg.State = nl.NativeEndian().Uint16(data[8:10])
	return msg.Family == unix.AF_BRIDGE && msg.State&unix.NUD_PERMANENT != 0
}
