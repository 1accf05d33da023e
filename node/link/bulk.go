package link

import (
	"context"
	"fmt"
	"slices"

	"danm.io/danm/node/plan"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// doomed is the IFLA_GROUP into which links of ours are put to be deleted by one call. A link that was left in it by a
// process that died counts as one of Group.
const doomed = plan.Group + 1

// DeleteLinks executes a batch of deletions by one call for their group (rtnl_group_dellink). After an error some links may
// be gone; Apply of the single steps says which one resists.
func (k *Kernel) DeleteLinks(ctx context.Context, steps []plan.Step) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	links, err := k.h.LinkList()
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	wanted := make(map[string]bool, len(steps))
	for _, s := range steps {
		wanted[s.Link.Name] = true
	}
	if slices.ContainsFunc(links, func(l netlink.Link) bool { return l.Attrs().Group == doomed && !wanted[l.Attrs().Name] }) {
		return fmt.Errorf("delete links: group %d is in use: %w", doomed, ErrNotOurs)
	}
	for _, l := range links {
		if a := l.Attrs(); !wanted[a.Name] || a.Group == doomed {
			continue
		} else if a.Group != plan.Group {
			return fmt.Errorf("delete link %s: %w", a.Name, ErrNotOurs)
		}
		if err := k.h.LinkSetGroup(l, int(doomed)); err != nil {
			return fmt.Errorf("delete link %s: %w", l.Attrs().Name, err)
		}
	}
	return k.deleteGroup(doomed)
}

func (k *Kernel) deleteGroup(group uint32) error {
	s, err := nl.GetNetlinkSocketAt(k.ns, netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("delete links: %w", err)
	}
	defer s.Close()
	req := nl.NewNetlinkRequest(unix.RTM_DELLINK, unix.NLM_F_ACK)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: s}}
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_GROUP, nl.Uint32Attr(group)))
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return fmt.Errorf("delete links: %w", err)
	}
	return nil
}

// groupOf is a link's group as others shall see it.
func groupOf(a *netlink.LinkAttrs) uint32 {
	if a.Group == doomed {
		return plan.Group
	}
	return a.Group
}
