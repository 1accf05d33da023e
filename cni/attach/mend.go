package attach

import (
	"context"
	"errors"
	"fmt"
	"net"

	"danm.io/danm/spec/model"
)

// HostIndex is the kernel's index of a host link, 0 if there is none: a link that was made anew has another one.
func (a *Attacher) HostIndex(name string) (int, error) {
	l, err := a.host.LinkByName(name)
	if gone(err) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("find host link %s: %w", name, err)
	}
	return l.Attrs().Index, nil
}

// Mend makes the interfaces again that ended together with what they stood on, as recorded, and plugs the host ends that
// lost their bridge into the new one. A card is told again what it does not say of a virtual function any more. It returns the names of
// those it changed; interfaces that are there are left as they are, also where they differ from the record. An interface that fails leaves nothing behind; the others are mended.
func (a *Attacher) Mend(ctx context.Context, pod Pod, interfaces []model.Attachment) (mended []string, err error) {
	inside, err := a.enter(pod)
	if err != nil {
		return nil, err
	}
	defer inside.Close()
	var failed []error
	for _, at := range interfaces {
		w := a.work(ctx, pod, inside)
		changed, err := w.mend(at)
		if err != nil {
			failed = append(failed, fmt.Errorf("interface %s on network %s: %w", at.IfName, at.Network, errors.Join(err, w.undo.run())))
		}
		if changed && err == nil {
			mended = append(mended, at.IfName)
		}
	}
	a.late.tell(pod.Sandbox, inside.Unheard())
	return mended, errors.Join(failed...)
}

func (w *work) mend(at model.Attachment) (changed bool, err error) {
	switch _, err := w.inside.LinkByName(at.IfName); {
	case err == nil && at.HostLink != "":
		return w.replug(at)
	case err == nil && at.VF != nil:
		return w.setAgain(at)
	case err == nil:
		return false, nil
	case !gone(err):
		return false, fmt.Errorf("find link %s: %w", at.IfName, err)
	case at.VF != nil && isMoved(at) && w.sys.Interface(at.DeviceID) == "": // the Pod has it under another name
		return w.setAgain(at)
	}
	l, err := w.link(at)
	if err != nil {
		return false, err
	}
	if err := w.routes(l.index, at); err != nil {
		return false, err
	}
	w.inside.Announce(l.index, l.mac, at.Addresses, !isMoved(at))
	return true, w.ctx.Err()
}

// replug makes the host end of a veth a port of its bridge, which may be another one of the name.
func (w *work) replug(at model.Attachment) (changed bool, err error) {
	port, err := w.host.LinkByName(at.HostLink)
	if err != nil {
		return false, fmt.Errorf("find veth %s: %w", at.HostLink, err)
	}
	bridge, err := w.host.LinkByName(at.Device)
	if err != nil && gone(err) {
		return false, fmt.Errorf("%w: %w", ErrHostLink, err)
	}
	if err != nil {
		return false, fmt.Errorf("find host link %s: %w", at.Device, err)
	}
	if port.Attrs().MasterIndex == bridge.Attrs().Index && port.Attrs().Flags&net.FlagUp != 0 {
		return false, nil
	}
	if err := w.do(func() error { return w.host.LinkSetMasterByIndex(port, bridge.Attrs().Index) }, "make %s a port of %s", at.HostLink, at.Device); err != nil {
		return false, err
	}
	return true, w.do(func() error { return w.host.LinkSetUp(port) }, "set %s up", at.HostLink)
}
