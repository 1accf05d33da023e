package attach

import (
	"fmt"
	"net"
	"strings"

	"danm.io/danm/spec/model"
	"github.com/vishvananda/netlink"
)

// marker begins the alias of a device while a Pod has it. The device's name in the host follows: who finds such a link knows whose
// it is and what it was called.
const marker = "danm-pod:"

// Survey says what a device of the host is like now, for the record that is written before a Pod gets it.
// Errors: ErrHostLink: it is not there; ErrInUse: the host has addresses or a use of its own for it.
func (a *Attacher) Survey(device string) (*model.Moved, error) {
	l, err := a.host.LinkByName(device)
	if gone(err) {
		return nil, fmt.Errorf("%w: %w", ErrHostLink, err)
	}
	if err != nil {
		return nil, fmt.Errorf("find host link %s: %w", device, err)
	}
	if err := a.unused(l); err != nil {
		return nil, err
	}
	attrs := l.Attrs()
	m := &model.Moved{Kind: l.Type(), Index: attrs.Index, MAC: attrs.HardwareAddr.String(), PermMAC: permanent(l), MTU: attrs.MTU, Up: attrs.Flags&net.FlagUp != 0, Alias: attrs.Alias}
	if strings.HasPrefix(attrs.Alias, marker) { // a Pod had it, and nobody was there to tidy up
		m.Alias = ""
	}
	return m, nil
}

// unused refuses what the host would miss: a port of something, the loopback device, and a device with addresses or links of its own.
func (a *Attacher) unused(l netlink.Link) error {
	name := l.Attrs().Name
	if l.Attrs().Flags&net.FlagLoopback != 0 || l.Attrs().MasterIndex != 0 {
		return fmt.Errorf("%s is the loopback device or a port of another link: %w", name, ErrInUse)
	}
	addresses, err := a.host.Addresses(l)
	if err != nil {
		return fmt.Errorf("list addresses of %s: %w", name, err)
	}
	for _, x := range addresses {
		if !x.IP.IsLinkLocalUnicast() {
			return fmt.Errorf("%s has the host's address %s: %w", name, x.IPNet, ErrInUse)
		}
	}
	all, err := a.host.Links()
	if err != nil {
		return fmt.Errorf("list host links: %w", err)
	}
	for _, on := range all { // a veth names its other end there, which may be in another namespace
		if x := on.Attrs(); x.ParentIndex == l.Attrs().Index && x.NetNsID < 0 && on.Type() != "veth" {
			return fmt.Errorf("the host's %s stands on %s: %w", x.Name, name, ErrInUse)
		}
	}
	return nil
}

func permanent(l netlink.Link) string {
	for _, b := range l.Attrs().PermHWAddr {
		if b != 0 {
			return l.Attrs().PermHWAddr.String()
		}
	}
	return ""
}
