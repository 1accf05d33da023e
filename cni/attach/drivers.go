package attach

import (
	"cmp"
	"errors"
	"fmt"
	"net"

	"danm.io/danm/spec/model"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// driver creates a link inside the Pod, under the name in attrs. It pushes the undo of what it makes in the host.
type driver func(w *work, parent netlink.Link, attrs netlink.LinkAttrs, at model.Attachment) error

var drivers = map[model.NetworkType]driver{
	model.MACVLAN: createMacvlan,
	model.IPVLAN:  createIPVLAN,
	model.BRIDGE:  createPort,
	model.TAGGED:  createTagged,
}

// kernelKinds are the IFLA_INFO_KIND of the links that drivers create.
var kernelKinds = map[model.NetworkType]string{model.MACVLAN: "macvlan", model.IPVLAN: "ipvlan", model.BRIDGE: "veth", model.TAGGED: "vlan"}

// link makes one interface: created, set up while down, named, addressed, up.
func (w *work) link(at model.Attachment) (m made, err error) {
	switch {
	case isMoved(at):
		return w.move(at)
	case forProgram(at):
		return w.stand(at)
	}
	create, ok := drivers[at.Type]
	if !ok {
		return m, fmt.Errorf("type %q: %w", at.Type, ErrType)
	}
	mac, err := parseMAC(at.MAC)
	if err != nil {
		return m, err
	}
	parent, err := w.device(at)
	if err != nil {
		return m, err
	}
	attrs := netlink.NewLinkAttrs() // a zero TxQLen would mean a queue of no length
	attrs.Name, attrs.MTU, attrs.HardwareAddr = temporaryName(w.pod.Sandbox, at.IfName), at.MTU, mac
	if err := create(w, parent, attrs, at); err != nil {
		return m, err
	}
	var l netlink.Link
	w.undo.push(func() error { return w.unmake(l, attrs.Name, kernelKinds[at.Type]) })
	if err := w.do(func() (err error) { l, err = w.inside.LinkByName(attrs.Name); return err }, "find the new link %s", attrs.Name); err != nil {
		return m, err
	}
	return w.finish(l, at)
}

// device is the host's link that an interface stands on, or is. ErrHostLink: it is not there.
func (w *work) device(at model.Attachment) (l netlink.Link, err error) {
	err = w.do(func() (err error) { l, err = w.host.LinkByName(at.Device); return err }, "find host link %s", at.Device)
	if err != nil && gone(err) {
		return nil, fmt.Errorf("%w: %w", ErrHostLink, err)
	}
	return l, err
}

func parseMAC(s string) (net.HardwareAddr, error) {
	if s == "" {
		return nil, nil
	}
	mac, err := net.ParseMAC(s)
	if err != nil {
		return nil, fmt.Errorf("MAC %q: %w", s, err)
	}
	return mac, nil
}

func createMacvlan(w *work, parent netlink.Link, attrs netlink.LinkAttrs, at model.Attachment) error {
	mode, ok := macvlanModes[at.Mode]
	if !ok {
		return fmt.Errorf("macvlan mode %q: %w", at.Mode, ErrType)
	}
	return w.createChild(&netlink.Macvlan{LinkAttrs: child(w, parent, attrs), Mode: mode}, at)
}

var macvlanModes = map[string]netlink.MacvlanMode{"": netlink.MACVLAN_MODE_BRIDGE, model.PRIVATE: netlink.MACVLAN_MODE_PRIVATE,
	model.VEPA: netlink.MACVLAN_MODE_VEPA, model.PASSTHRU: netlink.MACVLAN_MODE_PASSTHRU}

// modeOf is the mode of a macvlan or ipvlan as networks name it, "" for another link or a mode that no network has.
func modeOf(l netlink.Link) string {
	switch l := l.(type) {
	case *netlink.Macvlan:
		for name, mode := range macvlanModes {
			if mode == l.Mode {
				return cmp.Or(name, model.DefaultMode(model.MACVLAN))
			}
		}
	case *netlink.IPVlan:
		for name, mode := range ipvlanModes {
			if mode == l.Mode {
				return cmp.Or(name, model.DefaultMode(model.IPVLAN))
			}
		}
	}
	return ""
}

var ipvlanModes = map[string]netlink.IPVlanMode{"": netlink.IPVLAN_MODE_L2, model.L3: netlink.IPVLAN_MODE_L3, model.L3S: netlink.IPVLAN_MODE_L3S}

func createIPVLAN(w *work, parent netlink.Link, attrs netlink.LinkAttrs, at model.Attachment) error {
	attrs.HardwareAddr = nil // it shares its parent's
	mode, ok := ipvlanModes[at.Mode]
	if !ok {
		return fmt.Errorf("ipvlan mode %q: %w", at.Mode, ErrType)
	}
	return w.createChild(&netlink.IPVlan{LinkAttrs: child(w, parent, attrs), Mode: mode}, at)
}

// createTagged creates the VLAN link of a device in the Pod. It has the device's MAC. A device has one link for a VLAN, in whatever
// namespace (Linux, vlan_check_real_dev).
func createTagged(w *work, parent netlink.Link, attrs netlink.LinkAttrs, at model.Attachment) error {
	attrs.HardwareAddr = nil
	if at.VLAN == 0 || at.VLAN > maxVLAN {
		return fmt.Errorf("VLAN %d: %w", at.VLAN, ErrType)
	}
	err := w.createChild(&netlink.Vlan{LinkAttrs: child(w, parent, attrs), VlanId: int(at.VLAN), VlanProtocol: netlink.VLAN_PROTOCOL_8021Q}, at)
	if errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("VLAN %d of %s has a link already, on the host or in another Pod: %w: %w", at.VLAN, at.Device, ErrServed, err)
	}
	return err
}

const maxVLAN = 4094 // IEEE 802.1Q, table 9-2

func child(w *work, parent netlink.Link, attrs netlink.LinkAttrs) netlink.LinkAttrs {
	attrs.ParentIndex, attrs.Namespace = parent.Attrs().Index, netlink.NsFd(w.inside.Fd())
	return attrs
}

// createChild creates a link on a parent of the host, in the Pod. On 6.1 its name must be free in the host too; it is.
func (w *work) createChild(l netlink.Link, at model.Attachment) error {
	return w.do(func() error { return w.host.LinkAdd(l) }, "create %s on %s", l.Type(), at.Device)
}

// unmake deletes a new link: by index once that is known, because another link may have the name it was to get.
func (w *work) unmake(l netlink.Link, temporary, kind string) error {
	if l == nil {
		return removeLink(w.inside, temporary, kind, "")
	}
	if err := w.inside.LinkDel(l); err != nil && !gone(err) {
		return fmt.Errorf("delete link %s: %w", temporary, err)
	}
	return nil
}

// createPort creates a veth pair, one end in the Pod and one on the bridge.
func createPort(w *work, bridge netlink.Link, attrs netlink.LinkAttrs, at model.Attachment) error {
	hostEnd := netlink.NewLinkAttrs()
	hostEnd.Name, hostEnd.MTU = at.HostLink, at.MTU
	if hostEnd.MTU == 0 {
		hostEnd.MTU = bridge.Attrs().MTU // 0 means the device's, and a veth knows no device
	}
	pair := &netlink.Veth{LinkAttrs: hostEnd, PeerName: attrs.Name, PeerHardwareAddr: attrs.HardwareAddr,
		PeerNamespace: netlink.NsFd(w.inside.Fd()), PeerMTU: uint32(hostEnd.MTU)}
	if err := w.do(func() error { return w.host.LinkAdd(pair) }, "create veth %s", at.HostLink); err != nil {
		return err
	}
	w.undo.push(func() error { return removeLink(w.host, at.HostLink, "veth", "") })
	var port netlink.Link
	if err := w.do(func() (err error) { port, err = w.host.LinkByName(at.HostLink); return err }, "find veth %s", at.HostLink); err != nil {
		return err
	}
	if err := w.do(func() error { return w.host.LinkSetMasterByIndex(port, bridge.Attrs().Index) }, "make %s a port of %s", at.HostLink, at.Device); err != nil {
		return err
	}
	return w.do(func() error { return w.host.LinkSetUp(port) }, "set %s up", at.HostLink)
}

// removeLink removes the link called name if it is the one recorded, by kind and, where recorded, by MAC. A link that is
// gone is no error, and another link of that name is left alone.
func removeLink(h handle, name, kind, mac string) error {
	l, err := h.LinkByName(name)
	if err != nil {
		if gone(err) {
			return nil
		}
		return fmt.Errorf("find link %s: %w", name, err)
	}
	if l.Type() != kind || l.Attrs().Name != name || mac != "" && l.Attrs().HardwareAddr.String() != mac {
		return nil
	}
	if err := h.LinkDel(l); err != nil && !gone(err) {
		return fmt.Errorf("delete link %s: %w", name, err)
	}
	return nil
}
