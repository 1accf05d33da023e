package attach

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

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
	if attrs.Alias == marker+device { // a Pod had it, and nobody was there to tidy up
		m.Alias = ""
	}
	return m, nil
}

// unused refuses what the host would miss: a port of something, the loopback device, and a device with addresses of its own.
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

// same says whether l is the device that was recorded. Pods may rename it and change its MAC, but not what is burnt in; links
// without that are known by what their alias says.
func same(l netlink.Link, at model.Attachment) bool {
	if l.Type() != at.Moved.Kind {
		return false
	}
	if at.Moved.PermMAC != "" {
		return permanent(l) == at.Moved.PermMAC
	}
	return l.Attrs().Alias == marker+at.Device
}

// move gives the Pod a device of the host. The kernel takes its addresses and routes away and sets it down on the way; its name
// must be free on the other side, so it goes under a temporary one.
func (w *work) move(at model.Attachment) (m made, err error) {
	if at.Moved == nil {
		return m, fmt.Errorf("%s was not looked at before: %w", at.Device, ErrType)
	}
	l, err := w.device(at)
	if err != nil {
		return m, err
	}
	if at.Moved.PermMAC != permanent(l) || at.Moved.Kind != l.Type() {
		return m, fmt.Errorf("%s is another card than at first (%s, was %s): %w", at.Device, permanent(l), at.Moved.PermMAC, ErrMismatch)
	}
	temporary := temporaryName(w.pod.Sandbox, at.IfName)
	w.undo.push(func() error { return w.giveBack(at) })
	for _, step := range []struct {
		what string
		do   func() error
	}{
		{"mark %s", func() error { return w.host.LinkSetAlias(l, marker+at.Device) }},
		{"set %s down", func() error { return w.host.LinkSetDown(l) }},
		{"rename %s", func() error { return w.host.LinkSetName(l, temporary) }},
		{"move %s into the Pod", func() error { return w.host.LinkSetNsFd(l, w.inside.Fd()) }},
		{"find %s in the Pod", func() (err error) { l, err = w.inside.LinkByName(temporary); return err }},
	} {
		if err := w.do(step.do, step.what, at.Device); err != nil {
			return m, err
		}
	}
	mtu := l.Attrs().MTU
	if at.MTU != 0 && at.MTU != mtu {
		mtu = at.MTU
		if err := w.do(func() error { return w.inside.LinkSetMTU(l, mtu) }, "set the MTU of %s to %d", at.Device, mtu); err != nil {
			return m, err
		}
	}
	if err := w.setUp(l, at); err != nil {
		return m, err
	}
	return made{index: l.Attrs().Index, mtu: mtu, mac: l.Attrs().HardwareAddr}, nil
}

// returnTime is how long a device is waited for whose Pod's namespace is gone: the kernel ends namespaces behind the scenes, and
// brings hardware back to the host under the name that it had in the Pod, or as dev<index> (Linux, default_device_exit_net).
const returnTime = 3 * time.Second

// giveBack makes a device the host's again, as it was, wherever it is on the way. One that is nowhere is no error: it was pulled
// out, or was no hardware and ended with the Pod's namespace.
func (w *work) giveBack(at model.Attachment) error {
	if at.Moved == nil {
		return nil
	}
	if w.inside != nil {
		l, err := find(w.inside, at, at.IfName, temporaryName(w.pod.Sandbox, at.IfName))
		if err != nil {
			return fmt.Errorf("look for %s in the Pod: %w", at.Device, err)
		}
		if l != nil {
			if err := w.takeOut(l, at); err != nil {
				return err
			}
		}
	}
	deadline := time.Now().Add(returnTime)
	for {
		l, err := find(w.host, at, temporaryName(w.pod.Sandbox, at.IfName), at.Device)
		switch {
		case err != nil:
			return fmt.Errorf("look for %s in the host: %w", at.Device, err)
		case l != nil:
			return w.restore(l, at)
		case w.inside != nil || at.Moved.PermMAC == "" || time.Now().After(deadline) || w.ctx.Err() != nil:
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// find is the recorded device among the links of a namespace, first by the names that it may have; nil if it is not there.
func find(h handle, at model.Attachment, names ...string) (netlink.Link, error) {
	for _, name := range names {
		l, err := h.LinkByName(name)
		if err == nil && same(l, at) {
			return l, nil
		}
		if err != nil && !gone(err) {
			return nil, err
		}
	}
	all, err := h.Links()
	if err != nil {
		return nil, err
	}
	for _, l := range all {
		if same(l, at) {
			return l, nil
		}
	}
	return nil, nil
}

// takeOut moves a device from the Pod to the host, under its temporary name.
func (w *work) takeOut(l netlink.Link, at model.Attachment) error {
	temporary := temporaryName(w.pod.Sandbox, at.IfName)
	if err := w.inside.LinkSetDown(l); err != nil {
		return fmt.Errorf("set %s down in the Pod: %w", at.Device, err)
	}
	if l.Attrs().Name != temporary {
		if err := w.inside.LinkSetName(l, temporary); err != nil {
			return fmt.Errorf("rename %s in the Pod: %w", at.Device, err)
		}
	}
	if err := w.inside.LinkSetNsFd(l, int(w.home.Fd())); err != nil {
		return fmt.Errorf("move %s back to the host: %w", at.Device, err)
	}
	return nil
}

// restore gives a device in the host the name and the properties that it had. What the host has changed since it came back by
// itself, such as an alias of its own, is left alone.
func (w *work) restore(l netlink.Link, at model.Attachment) error {
	was, now := at.Moved, l.Attrs()
	if now.Alias != marker+at.Device && now.Name == at.Device {
		return nil // it is the host's: it never left, or somebody tidied up
	}
	var errs []error
	try := func(err error, what string) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s of %s: %w", what, at.Device, err))
		}
	}
	if now.Name != at.Device {
		if now.Flags&net.FlagUp != 0 {
			try(w.host.LinkSetDown(l), "set down for the name")
		}
		try(w.host.LinkSetName(l, at.Device), "give back the name")
	}
	if mac, err := net.ParseMAC(was.MAC); err == nil && now.HardwareAddr.String() != was.MAC {
		try(w.host.LinkSetHardwareAddr(l, mac), "give back the MAC")
	}
	if now.MTU != was.MTU {
		try(w.host.LinkSetMTU(l, was.MTU), "give back the MTU")
	}
	if was.Up {
		try(w.host.LinkSetUp(l), "set up")
	}
	if len(errs) == 0 { // it stays marked until all is done
		try(w.host.LinkSetAlias(l, was.Alias), "give back the alias")
	}
	return errors.Join(errs...)
}

// Homeless brings devices of the host to order that came back from a Pod after its record was gone: those of the given names whose
// alias says that they are under another one. It returns the names that it gave back. A Pod can write any alias, so only names
// that the caller knows count.
func (a *Attacher) Homeless(ctx context.Context, devices []string) (names []string, err error) {
	if len(devices) == 0 {
		return nil, nil
	}
	links, err := a.host.Links()
	if err != nil {
		return nil, fmt.Errorf("list host links: %w", err)
	}
	var errs []error
	for _, l := range links {
		attrs := l.Attrs()
		device, marked := strings.CutPrefix(attrs.Alias, marker)
		if !marked || !slices.Contains(devices, device) || ctx.Err() != nil {
			continue
		}
		was := &model.Moved{Kind: l.Type(), MAC: attrs.HardwareAddr.String(), MTU: attrs.MTU, Up: attrs.Flags&net.FlagUp != 0}
		if err := a.work(ctx, Pod{}, nil).restore(l, model.Attachment{Device: device, Moved: was}); err != nil {
			errs = append(errs, err)
			continue
		}
		names = append(names, device)
	}
	return names, errors.Join(errs...)
}
