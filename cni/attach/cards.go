package attach

import (
	"fmt"

	"danm.io/danm/node/sriov"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// hostHandle is the host's side. Its socket is for questions about cards: they are asked from threads that are inside a Pod.
type hostHandle struct {
	netlinkHandle
	socket *nl.SocketHandle
}

func newHostHandle() (hostKernel, error) {
	h, err := newHandle()
	if err != nil {
		return nil, err
	}
	s, err := nl.GetNetlinkSocketAt(netns.None(), netns.None(), unix.NETLINK_ROUTE)
	if err != nil {
		h.Close()
		return nil, err
	}
	return hostHandle{h, &nl.SocketHandle{Socket: s}}, nil
}

func (h hostHandle) Close() {
	h.netlinkHandle.Close()
	h.socket.Close()
}

func (h hostHandle) Functions(pf netlink.Link) ([]sriov.VF, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_ACK)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: h.socket}
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(pf.Attrs().Index)
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(sriov.WithVFs)))
	messages, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err != nil {
		return nil, fmt.Errorf("list virtual functions of %s: %w", pf.Attrs().Name, err)
	}
	var out []sriov.VF
	for _, m := range messages {
		more, err := sriov.ParseVFs(m)
		if err != nil {
			return nil, nil // some 300 of them do not fit into an attribute, whose length then is wrong
		}
		out = append(out, more...)
	}
	return out, nil
}
