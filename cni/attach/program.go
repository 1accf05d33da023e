package attach

import (
	"fmt"

	"danm.io/danm/spec/model"
	"github.com/vishvananda/netlink"
)

// baseName is the name in the Pod of what a tagged interface of a program's function stands on.
func baseName(sandbox, ifName string) string { return "dv" + digest(sandbox, ifName) }

// kindOf is the IFLA_INFO_KIND of an interface in the Pod.
func kindOf(at model.Attachment) string {
	switch {
	case forProgram(at) && at.VLAN != 0:
		return "vlan"
	case forProgram(at):
		return "dummy"
	case isMoved(at) && at.Moved != nil:
		return at.Moved.Kind
	}
	return kernelKinds[at.Type]
}

// stand makes what stands in the Pod for a virtual function that a program drives, as DANM does it: a dummy with its MAC, the function's PCI
// address as alias, addresses and routes, so that the program finds them by the interface's name. On a network with a VLAN the dummy
// has another name, and the interface is a VLAN link on it. The device's file comes to the container by the device plugin.
func (w *work) stand(at model.Attachment) (m made, err error) {
	mac, err := parseMAC(at.MAC)
	if err != nil {
		return m, err
	}
	w.undo.push(func() error { return w.resetFunction(at) })
	if err := w.setFunction(at, at.VF.MAC); err != nil {
		return m, err
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = temporaryName(w.pod.Sandbox, at.IfName), at.MTU, mac
	if at.VLAN == 0 {
		l, err := w.dummy(attrs, at)
		if err != nil {
			return m, err
		}
		return w.finish(l, at)
	}
	below := attrs
	below.Name = baseName(w.pod.Sandbox, at.IfName)
	base, err := w.dummy(below, at)
	if err != nil {
		return m, err
	}
	if err := w.sysctls(below.Name, model.Attachment{IfName: below.Name}); err != nil { // no IPv6 there
		return m, err
	}
	if err := w.do(func() error { return w.inside.LinkSetUp(base) }, "set %s up", below.Name); err != nil {
		return m, err
	}
	attrs.ParentIndex = base.Attrs().Index
	l, err := w.standIn(&netlink.Vlan{LinkAttrs: attrs, VlanId: int(at.VLAN), VlanProtocol: netlink.VLAN_PROTOCOL_8021Q}, at)
	if err != nil {
		return m, err
	}
	return w.finish(l, at)
}

func (w *work) dummy(attrs netlink.LinkAttrs, at model.Attachment) (netlink.Link, error) {
	return w.standIn(&netlink.Dummy{LinkAttrs: attrs}, at)
}

// standIn creates a link in the Pod with the function's address as its alias, which the kernel does not take at creation.
func (w *work) standIn(l netlink.Link, at model.Attachment) (made netlink.Link, err error) {
	name, kind := l.Attrs().Name, l.Type()
	if err := w.do(func() error { return w.inside.LinkAdd(l) }, "create the %s that stands for %s", kind, at.DeviceID); err != nil {
		return nil, err
	}
	w.undo.push(func() error { return w.unmake(made, name, kind) })
	if err := w.do(func() (err error) { made, err = w.inside.LinkByName(name); return err }, "find the new link %s", name); err != nil {
		return nil, err
	}
	return made, w.do(func() error { return w.inside.LinkSetAlias(made, at.DeviceID) }, "set the alias of %s", name)
}

func (w *work) finish(l netlink.Link, at model.Attachment) (made, error) {
	if err := w.setUp(l, at); err != nil {
		return made{}, err
	}
	return made{index: l.Attrs().Index, mtu: l.Attrs().MTU, mac: l.Attrs().HardwareAddr}, nil
}

// removeStand takes down what stand made.
func (w *work) removeStand(at model.Attachment) (errs []error) {
	for _, l := range [][2]string{{at.IfName, kindOf(at)}, {temporaryName(w.pod.Sandbox, at.IfName), kindOf(at)}, {baseName(w.pod.Sandbox, at.IfName), "dummy"}} {
		if err := removeLink(w.inside, l[0], l[1], at.MAC); err != nil {
			errs = append(errs, fmt.Errorf("what stands for %s: %w", at.DeviceID, err))
		}
	}
	return errs
}
