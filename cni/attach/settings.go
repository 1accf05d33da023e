package attach

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"

	"danm.io/danm/node/sriov"
	"danm.io/danm/spec/model"
	"github.com/vishvananda/netlink"
)

// settings are what a physical function says of a virtual one.
type settings struct {
	mac  string // "" = none
	vlan uint16
	qos  uint8
}

// settingsOf reads them; told is false where the card's driver does not tell.
func (w *work) settingsOf(pf netlink.Link, number int) (now settings, told bool, err error) {
	all, err := w.host.Functions(pf)
	for _, vf := range all {
		if vf.Number == number {
			return settingsIn(vf), true, err
		}
	}
	return settings{}, false, err
}

func settingsIn(vf sriov.VF) settings {
	return settings{mac: nonzero(vf.MAC), vlan: uint16(vf.VLAN), qos: uint8(vf.QoS)}
}

// nonzero is an address as text, "" if it is all zeros: no address.
func nonzero(mac net.HardwareAddr) string {
	for _, b := range mac {
		if b != 0 {
			return mac.String()
		}
	}
	return ""
}

// recorded is the function of an attachment and its physical one's interface. Errors: ErrHostLink: either is not there; ErrMismatch: it is
// another function.
func (w *work) recorded(at model.Attachment) (f sriov.Function, pf netlink.Link, err error) {
	if f, err = w.sys.Function(at.DeviceID); err != nil {
		return f, nil, fmt.Errorf("%w: %w", ErrHostLink, err)
	}
	if !isRecorded(f, at) {
		return f, nil, fmt.Errorf("%s is function %d of %s now, and was %d of %s: %w", f.PCI, f.Number, f.PFPCI, at.VF.Number, at.VF.PFPCI, ErrMismatch)
	}
	pf, err = w.physical(f)
	return f, pf, err
}

func (w *work) setVLAN(pf netlink.Link, f sriov.Function, at model.Attachment) error {
	return w.do(func() error { return w.host.LinkSetVfVlanQos(pf, f.Number, int(at.VLAN), int(at.QoS)) },
		"set VLAN %d, priority %d on virtual function %d of %s", at.VLAN, at.QoS, f.Number, f.PF)
}

func (w *work) setMAC(pf netlink.Link, f sriov.Function, at model.Attachment) error {
	mac, err := parseMAC(at.MAC)
	if err != nil {
		return err
	}
	return w.do(func() error { return w.host.LinkSetVfHardwareAddr(pf, f.Number, mac) }, "set MAC %s on virtual function %d of %s", mac, f.Number, f.PF)
}

// ownMAC is the MAC that a function had by itself.
func ownMAC(at model.Attachment) string {
	if at.Moved != nil {
		return at.Moved.MAC
	}
	return at.VF.MAC
}

// lacksVLAN and lacksMAC say what a card has to be told again of an attached function. A MAC counts if it was asked for, or if the card had
// it before and has none now; what the Pod makes of a function's own one is its business.
func (now settings) lacksVLAN(at model.Attachment) bool {
	return now.vlan != at.VLAN || now.qos != at.QoS
}

func (now settings) lacksMAC(at model.Attachment) bool {
	if at.MAC == "" || now.mac == at.MAC {
		return false
	}
	return at.MAC != ownMAC(at) || now.mac == "" && at.MAC == at.VF.MAC
}

// Differing are the PCI addresses of those virtual functions of attached Pods of which the card says something else than the record: it has
// made them anew, or others have told it so. Mend sets it again. Each card is asked once; one that does not tell differs in nothing, nor
// does a function that is no more.
func (a *Attacher) Differing(attached []model.Attachment) (functions []string, err error) {
	cards := map[string][]model.Attachment{}
	for _, at := range attached {
		cards[at.VF.PFPCI] = append(cards[at.VF.PFPCI], at)
	}
	var errs []error
	for _, card := range slices.Sorted(maps.Keys(cards)) {
		some, err := a.differing(card, cards[card])
		functions, errs = append(functions, some...), append(errs, err)
	}
	return functions, errors.Join(errs...)
}

func (a *Attacher) differing(card string, attached []model.Attachment) (functions []string, err error) {
	name := a.sys.Interface(card)
	if name == "" {
		return nil, nil
	}
	pf, err := a.host.LinkByName(name)
	if err != nil && gone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find physical function %s: %w", name, err)
	}
	told, err := a.host.Functions(pf)
	if err != nil {
		return nil, err
	}
	says := map[int]settings{}
	for _, vf := range told {
		says[vf.Number] = settingsIn(vf)
	}
	addresses := a.sys.Functions(card)
	for _, at := range attached {
		now, is := says[at.VF.Number]
		if is && addresses[at.VF.Number] == at.DeviceID && (now.lacksVLAN(at) || now.lacksMAC(at)) {
			functions = append(functions, at.DeviceID)
		}
	}
	return functions, nil
}

// setAgain tells the card what the record says of a function that its Pod has, where that differs.
func (w *work) setAgain(at model.Attachment) (changed bool, err error) {
	f, pf, err := w.recorded(at)
	if err != nil {
		return false, err
	}
	now, told, err := w.settingsOf(pf, f.Number)
	if err != nil || !told || !now.lacksVLAN(at) && !now.lacksMAC(at) {
		return false, err
	}
	if now.lacksVLAN(at) {
		err = w.setVLAN(pf, f, at)
	}
	if now.lacksMAC(at) {
		err = errors.Join(err, w.setMAC(pf, f, at))
	}
	if err != nil {
		return false, err
	}
	if now, _, err = w.settingsOf(pf, f.Number); err == nil && (now.lacksVLAN(at) || now.lacksMAC(at)) {
		err = fmt.Errorf("the card has VLAN %d, priority %d, MAC %q for virtual function %d of %s although it took others: %w", now.vlan, now.qos, now.mac, f.Number, f.PF, ErrMismatch)
	}
	return err == nil, err
}
