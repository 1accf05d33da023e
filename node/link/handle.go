package link

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Handle is netlink in one network namespace whose links come without the virtual functions of cards: the kernel's answer about a card with
// some 200 of them is longer than an attribute can be (IFLA_VFINFO_LIST, 16 bits of length), and with it a whole list of links fails.
type Handle struct {
	*netlink.Handle
	links map[int]*nl.SocketHandle // for questions about links
}

// NewHandle is of the calling thread's namespace.
func NewHandle() (*Handle, error) {
	return newHandle(netns.None(), func() (*netlink.Handle, error) { return netlink.NewHandle(unix.NETLINK_ROUTE) })
}

// NewHandleAt is of a namespace.
func NewHandleAt(ns netns.NsHandle) (*Handle, error) {
	return newHandle(ns, func() (*netlink.Handle, error) { return netlink.NewHandleAt(ns, unix.NETLINK_ROUTE) })
}

func newHandle(ns netns.NsHandle, open func() (*netlink.Handle, error)) (*Handle, error) {
	h, err := open()
	if err != nil {
		return nil, err
	}
	s, err := nl.GetNetlinkSocketAt(ns, netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		h.Close()
		return nil, err
	}
	return &Handle{Handle: h, links: map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: s}}}, nil
}

// Close ends the use of the handle.
func (h *Handle) Close() {
	h.Handle.Close()
	h.links[unix.NETLINK_ROUTE].Close()
}

// extMask is RTEXT_FILTER_SKIP_STATS of linux/rtnetlink.h, without RTEXT_FILTER_VF.
const extMask = 1 << 3

// ask is one RTM_GETLINK. Flags are NLM_F_DUMP for all links; attributes choose one.
func (h *Handle) ask(flags int, index int32, attributes ...*nl.RtAttr) ([]netlink.Link, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, flags)
	req.Sockets = h.links
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = index
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(extMask)))
	for _, a := range attributes {
		req.AddData(a)
	}
	messages, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err != nil {
		return nil, err
	}
	out := make([]netlink.Link, 0, len(messages))
	for _, m := range messages {
		l, err := netlink.LinkDeserialize(nil, m)
		if err != nil {
			return nil, err
		}
		out = append(out, l)
	}
	return out, nil
}

// LinkByName is the link of a name. unix.ENODEV: there is none.
func (h *Handle) LinkByName(name string) (netlink.Link, error) {
	return one(h.ask(unix.NLM_F_ACK, 0, nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(name))))
}

// LinkByIndex is the link of an index. unix.ENODEV: there is none.
func (h *Handle) LinkByIndex(index int) (netlink.Link, error) {
	return one(h.ask(unix.NLM_F_ACK, int32(index)))
}

func one(links []netlink.Link, err error) (netlink.Link, error) {
	if err == nil && len(links) != 1 {
		err = fmt.Errorf("%d links: %w", len(links), unix.ENODEV)
	}
	if err != nil {
		return nil, err
	}
	return links[0], nil
}

// LinkList is one dump of all links, which the kernel may have cut short: see LinksIn.
func (h *Handle) LinkList() ([]netlink.Link, error) { return h.ask(unix.NLM_F_DUMP, 0) }

// dumpTries bounds how often a dump is repeated when the kernel's tables change under it (NLM_F_DUMP_INTR).
const dumpTries = 20

// completeDump repeats list until the kernel says that the answer is whole: half a list must never pass for all there is.
func completeDump[T any](list func() (T, error)) (T, error) {
	var err error
	for range dumpTries {
		var out T
		if out, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) && !errors.Is(err, unix.EINTR) {
			return out, err
		}
	}
	var none T
	return none, err
}

// LinksIn lists the links of the network namespace that a handle is open in.
func LinksIn(h *Handle) ([]netlink.Link, error) {
	return completeDump(h.LinkList)
}

// AddressesOn lists the addresses of one link through a handle that may be open in another network namespace.
func AddressesOn(h *Handle, l netlink.Link) ([]netlink.Addr, error) {
	return completeDump(func() ([]netlink.Addr, error) { return h.AddrList(l, netlink.FAMILY_ALL) })
}

// RoutesIn lists the routes of every table through a handle that may be open in another network namespace. family is
// netlink.FAMILY_V4 or FAMILY_V6.
func RoutesIn(h *Handle, family int) ([]netlink.Route, error) {
	return completeDump(func() ([]netlink.Route, error) {
		return h.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	})
}

// RulesIn lists the policy rules of one family through a handle that may be open in another network namespace.
func RulesIn(h *Handle, family int) ([]netlink.Rule, error) {
	return completeDump(func() ([]netlink.Rule, error) { return h.RuleList(family) })
}
