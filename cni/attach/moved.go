package attach

import (
	"errors"
	"fmt"
	"net"
	"time"

	"danm.io/danm/spec/model"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// isMoved says whether the interface is a device of the host, and not a link that is made for the Pod.
func isMoved(at model.Attachment) bool {
	return at.Type == model.HOSTDEVICE || at.Type == model.SRIOV && !forProgram(at)
}

// same says whether l is the device that was recorded. A virtual function is known by the PCI address that the kernel tells of (Linux
// 5.14, IFLA_PARENT_DEV_NAME). Pods may rename a device and change its MAC, but not what is burnt in; links without that are known by
// what their alias says. What is burnt into a virtual function is what its physical one says, and can change.
func same(l netlink.Link, at model.Attachment) bool {
	if l.Type() != at.Moved.Kind {
		return false
	}
	marked := l.Attrs().Alias == marker+at.Device
	if at.VF != nil {
		if pci := pciOf(l); pci != "" {
			return pci == at.DeviceID
		}
		return marked || at.Moved.PermMAC != "" && permanent(l) == at.Moved.PermMAC
	}
	if at.Moved.PermMAC != "" {
		return permanent(l) == at.Moved.PermMAC
	}
	return marked
}

// pciOf is the PCI address of a link's device, "" where the kernel tells of none.
func pciOf(l netlink.Link) string {
	if l.Attrs().ParentDevBus != "pci" {
		return ""
	}
	return l.Attrs().ParentDev
}

// inHost is the device that a Pod is to get. Errors: ErrHostLink: it is not there; ErrMismatch: another one is in its place.
func (w *work) inHost(at model.Attachment) (netlink.Link, error) {
	if at.VF != nil {
		l, _, err := w.functionLink(at.DeviceID)
		if err == nil && l.Type() != at.Moved.Kind {
			err = fmt.Errorf("%s is of kind %s and was of kind %s: %w", l.Attrs().Name, l.Type(), at.Moved.Kind, ErrMismatch)
		}
		return l, err
	}
	l, err := w.device(at)
	if err == nil && (at.Moved.PermMAC != permanent(l) || at.Moved.Kind != l.Type()) {
		err = fmt.Errorf("%s is another card than at first (%s, was %s): %w", at.Device, permanent(l), at.Moved.PermMAC, ErrMismatch)
	}
	return l, err
}

// move gives the Pod a device of the host. The kernel takes its addresses and routes away and sets it down on the way; its name
// must be free on the other side, so it goes under a temporary one. What a virtual function's physical one says of it is set before.
func (w *work) move(at model.Attachment) (m made, err error) {
	if at.Moved == nil || at.Type == model.SRIOV && at.VF == nil {
		return m, fmt.Errorf("%s was not looked at before: %w", at.Device, ErrType)
	}
	mac, err := parseMAC(at.MAC)
	if err != nil {
		return m, err
	}
	l, err := w.inHost(at)
	if err != nil {
		return m, err
	}
	temporary := temporaryName(w.pod.Sandbox, at.IfName)
	w.undo.push(func() error { return w.giveBack(at) })
	if at.VF != nil {
		if err := w.setFunction(at, l.Attrs().HardwareAddr.String()); err != nil {
			return m, err
		}
	}
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
	if at.VF == nil || mac == nil { // who gets a card of the host gets it with its address
		mac = l.Attrs().HardwareAddr
	}
	var refused error
	if mac.String() != l.Attrs().HardwareAddr.String() {
		refused = w.patiently(func() error { return w.inside.LinkSetHardwareAddr(l, mac) }, "set the MAC of %s to %s", at.Device, mac)
		if refused != nil && !takenAtStart(refused) {
			return m, refused
		}
	}
	mtu := l.Attrs().MTU
	if at.MTU != 0 && at.MTU != mtu {
		mtu = at.MTU
		if err := w.do(func() error { return w.inside.LinkSetMTU(l, mtu) }, "set the MTU of %s to %d, which its card bounds", at.Device, mtu); err != nil {
			return m, err
		}
	}
	if err := w.setUp(l, at); err != nil {
		return m, err
	}
	if refused != nil {
		if err := w.do(func() (err error) { l, err = w.inside.LinkByName(at.IfName); return err }, "find %s in the Pod", at.Device); err != nil {
			return m, err
		}
		if l.Attrs().HardwareAddr.String() != mac.String() {
			return m, refused
		}
	}
	return made{index: l.Attrs().Index, mtu: mtu, mac: mac}, nil
}

// takenAtStart says whether a driver that refuses a MAC may have it once it has started, which setting the link up makes it do: igbvf lets
// nobody set a MAC where the physical function has set one, be it the same, and takes that one then (Linux, igb_set_vf_mac_addr).
func takenAtStart(err error) bool { return errors.Is(err, unix.EADDRNOTAVAIL) }

// Drivers of virtual functions answer so while they start anew, which setting their VLAN or MAC makes some of them do.
const (
	resetTime = 2 * time.Second
	resetStep = 100 * time.Millisecond
)

// patiently is do for a call that a device which is being reset refuses for a while.
func (w *work) patiently(call func() error, format string, args ...any) error {
	return w.do(func() error { return whileReset(w.ctx.Done(), call) }, format, args...)
}

func whileReset(end <-chan struct{}, call func() error) error {
	for deadline := time.Now().Add(resetTime); ; {
		err := call()
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return err
		}
		select {
		case <-end:
			return err
		case <-time.After(resetStep):
		}
	}
}

// returnTime is how long a device is waited for whose Pod's namespace is gone: the kernel ends namespaces behind the scenes, and
// brings hardware back to the host under the name that it had in the Pod, or as dev<index> (Linux, default_device_exit_net).
const returnTime = 3 * time.Second

// giveBack makes a device the host's again, as it was, wherever it is on the way. One that is nowhere is no error: it was pulled
// out, or was no hardware and ended with the Pod's namespace. A virtual function's VLAN and MAC are taken back when it is in the host, or
// is no more: before, its frames would be another network's. One that is not back in time is noted as away.
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
	for {
		l, err := w.findInHost(at)
		switch {
		case err != nil:
			return fmt.Errorf("look for %s in the host: %w", at.Device, err)
		case l != nil:
			return w.receive(l, at)
		case !w.isAway(at):
			return w.reset(at)
		case w.inside != nil || w.waited():
			if at.VF != nil {
				w.away = append(w.away, at)
			}
			return nil
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// waited says that devices have been waited for long enough: all of a Pod's come back together.
func (w *work) waited() bool {
	if w.until.IsZero() {
		w.until = time.Now().Add(returnTime)
	}
	return time.Now().After(w.until) || w.ctx.Err() != nil
}

// receive makes a device that is in the host what it was.
func (w *work) receive(l netlink.Link, at model.Attachment) error {
	return errors.Join(w.reset(at), w.restore(l, at))
}

// reset takes back what the card was told of a device, if it is a virtual function.
func (w *work) reset(at model.Attachment) error {
	if at.VF == nil {
		return nil
	}
	return w.resetFunction(at)
}

// isAway says whether a device that is not in the host may be in a namespace: the one that the kernel is ending, or another one that
// somebody in the Pod has made, or keeps. A virtual function that a driver of the kernel has is somewhere.
func (w *work) isAway(at model.Attachment) bool {
	if at.VF == nil {
		return w.inside == nil && at.Moved.PermMAC != ""
	}
	f, err := w.sys.Function(at.DeviceID)
	return err == nil && isRecorded(f, at) && f.Driver != "" && !f.ForPrograms()
}

// findInHost is the recorded device among the host's links, nil if it is not there. Of a virtual function sysfs knows the name, also
// on kernels that do not tell of the device by netlink.
func (w *work) findInHost(at model.Attachment) (netlink.Link, error) {
	if at.VF != nil {
		l, _, err := w.functionLink(at.DeviceID)
		if err == nil && l.Type() == at.Moved.Kind {
			return l, nil
		}
		if err != nil && !errors.Is(err, ErrHostLink) {
			return nil, err
		}
	}
	return find(w.host, at, temporaryName(w.pod.Sandbox, at.IfName), at.Device)
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
	if now.Alias != marker+at.Device {
		if now.Name == at.Device {
			return nil // it is the host's: it never left, or somebody tidied up
		}
		if err := w.host.LinkSetAlias(l, marker+at.Device); err != nil { // or who is cut off would find the name right, and be done
			return fmt.Errorf("mark %s: %w", at.Device, err)
		}
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
		try(w.restoreMAC(l, mac), "give back the MAC")
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

// restoreMAC gives a device in the host its MAC, and starts it for that if its driver wants it so.
func (w *work) restoreMAC(l netlink.Link, mac net.HardwareAddr) error {
	refused := whileReset(w.ctx.Done(), func() error { return w.host.LinkSetHardwareAddr(l, mac) })
	if !takenAtStart(refused) {
		return refused
	}
	if err := errors.Join(w.host.LinkSetUp(l), w.host.LinkSetDown(l)); err != nil {
		return errors.Join(refused, err)
	}
	all, err := w.host.Links() // it may have another name by now
	if err != nil {
		return errors.Join(refused, err)
	}
	for _, now := range all {
		if now.Attrs().Index == l.Attrs().Index && now.Attrs().HardwareAddr.String() == mac.String() {
			return nil
		}
	}
	return refused
}
