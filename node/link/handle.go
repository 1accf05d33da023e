package link

import (
	"errors"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

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
func LinksIn(h *netlink.Handle) ([]netlink.Link, error) {
	return completeDump(h.LinkList)
}

// AddressesOn lists the addresses of one link through a handle that may be open in another network namespace.
func AddressesOn(h *netlink.Handle, l netlink.Link) ([]netlink.Addr, error) {
	return completeDump(func() ([]netlink.Addr, error) { return h.AddrList(l, netlink.FAMILY_ALL) })
}

// RoutesIn lists the routes of every table through a handle that may be open in another network namespace. family is
// netlink.FAMILY_V4 or FAMILY_V6.
func RoutesIn(h *netlink.Handle, family int) ([]netlink.Route, error) {
	return completeDump(func() ([]netlink.Route, error) {
		return h.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_UNSPEC}, netlink.RT_FILTER_TABLE)
	})
}

// RulesIn lists the policy rules of one family through a handle that may be open in another network namespace.
func RulesIn(h *netlink.Handle, family int) ([]netlink.Rule, error) {
	return completeDump(func() ([]netlink.Rule, error) { return h.RuleList(family) })
}
