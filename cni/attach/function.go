package attach

import (
	"context"
	"errors"
	"fmt"
	"net"

	"danm.io/danm/node/sriov"
	"danm.io/danm/spec/model"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// ErrFunction says that a device is no virtual function.
var ErrFunction = errors.New("no virtual function of a card")

// IsPCI says whether a device's id is a PCI address, as those of virtual functions are.
func IsPCI(id string) bool { return sriov.IsPCI(id) }

// Function is a virtual function as it is before a Pod gets it.
type Function struct {
	VF     model.Function
	Device string       // its interface in the host, "" if a program drives it
	Moved  *model.Moved // what that is like, nil if a program drives it
	MAC    string       // that it has, "" = not known
}

// SurveyFunction says what a virtual function is like now, for the record that is written before a Pod gets it.
// Errors: ErrFunction: the id is no PCI address; ErrHostLink: the function, its interface or its physical function is not there; ErrInUse.
func (a *Attacher) SurveyFunction(pci string) (out Function, err error) {
	if !IsPCI(pci) {
		return out, fmt.Errorf("%q: %w", pci, ErrFunction)
	}
	f, err := a.sys.Function(pci)
	if err != nil {
		return out, fmt.Errorf("%w: %w", ErrHostLink, err)
	}
	w := a.work(context.Background(), Pod{}, nil)
	pf, err := w.physical(f)
	if err != nil {
		return out, err
	}
	now, _, err := w.settingsOf(pf, f.Number)
	if err != nil {
		return out, err
	}
	out.VF = model.Function{PF: f.PF, PFPCI: f.PFPCI, Number: f.Number, MAC: now.mac, VLAN: now.vlan, QoS: now.qos}
	if f.ForPrograms() {
		out.VF.Driver, out.MAC = f.Driver, now.mac
		return out, nil
	}
	l, _, err := w.functionLink(pci)
	if err != nil {
		return out, err
	}
	out.Device = l.Attrs().Name
	if out.Moved, err = a.Survey(out.Device); err != nil {
		return out, err
	}
	out.MAC = out.Moved.MAC
	return out, nil
}

// FunctionIndex is the kernel's index of a virtual function's interface in the host, 0 if it has none there. It is asked of every function
// that a Pod has, again and again, so one look at sysfs answers for those that their Pods still have.
func (a *Attacher) FunctionIndex(pci string) (int, error) {
	if a.sys.Interface(pci) == "" {
		return 0, nil
	}
	l, _, err := a.work(context.Background(), Pod{}, nil).functionLink(pci)
	if errors.Is(err, ErrHostLink) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return l.Attrs().Index, nil
}

// forProgram says whether the interface stands for a virtual function that a program in the Pod drives.
func forProgram(at model.Attachment) bool {
	return at.Type == model.SRIOV && at.VF != nil && at.VF.Driver != ""
}

// functionLink is the interface of a virtual function in the host. ErrHostLink: there is none there.
func (w *work) functionLink(pci string) (netlink.Link, sriov.Function, error) {
	f, err := w.sys.Function(pci)
	if err != nil {
		return nil, f, fmt.Errorf("%w: %w", ErrHostLink, err)
	}
	if f.Link == "" {
		return nil, f, fmt.Errorf("%w: virtual function %s has no interface on the host (driver %q)", ErrHostLink, pci, f.Driver)
	}
	l, err := w.host.LinkByName(f.Link)
	if err == nil && pciOf(l) != "" && pciOf(l) != pci {
		return nil, f, fmt.Errorf("%w: %s is the interface of %s, not of %s", ErrHostLink, f.Link, pciOf(l), pci)
	}
	if err != nil && gone(err) {
		return nil, f, fmt.Errorf("interface of virtual function %s: %w: %w", pci, ErrHostLink, err)
	}
	if err != nil {
		return nil, f, fmt.Errorf("find %s, the interface of virtual function %s: %w", f.Link, pci, err)
	}
	return l, f, nil
}

// physical is the interface of a function's physical one. ErrHostLink: there is none in the host.
func (w *work) physical(f sriov.Function) (netlink.Link, error) {
	if f.PF == "" {
		return nil, fmt.Errorf("%w: physical function %s of %s has no interface on the host", ErrHostLink, f.PFPCI, f.PCI)
	}
	pf, err := w.host.LinkByName(f.PF)
	if err != nil && gone(err) {
		return nil, fmt.Errorf("%w: %w", ErrHostLink, err)
	}
	if err != nil {
		return nil, fmt.Errorf("find physical function %s: %w", f.PF, err)
	}
	return pf, nil
}

// setFunction sets VLAN, priority and, if it is not the one that the function has, MAC through the physical function. A VLAN that is
// not wanted is taken away explicitly. has is the function's MAC now. The caller has pushed what takes it back.
func (w *work) setFunction(at model.Attachment, has string) error {
	f, pf, err := w.recorded(at)
	if err != nil {
		return err
	}
	var now settings
	if err := w.do(func() (err error) { now, _, err = w.settingsOf(pf, f.Number); return err }, "look at virtual function %d", f.Number); err != nil {
		return err
	}
	err = w.setVLAN(pf, f, at)
	none := settings{mac: now.mac}
	if errors.Is(err, unix.EOPNOTSUPP) && now == none && at.VLAN == 0 && at.QoS == 0 {
		err = nil // a card that tags nothing
	}
	if err != nil || at.MAC == "" || at.MAC == has {
		return err
	}
	return w.setMAC(pf, f, at)
}

// isRecorded says whether it is the function that was looked at: cards that have another number of functions have others at the same
// addresses.
func isRecorded(f sriov.Function, at model.Attachment) bool {
	return f.PFPCI == at.VF.PFPCI && f.Number == at.VF.Number
}

// resetFunction takes back what setFunction has set, and nothing else. A function that is not there any more has none of it, nor has
// one of a machine that has started anew.
func (w *work) resetFunction(at model.Attachment) error {
	f, err := w.sys.Function(at.DeviceID)
	if errors.Is(err, sriov.ErrNoFunction) || err == nil && !isRecorded(f, at) {
		return nil
	}
	if err != nil {
		return err
	}
	own := ownMAC(at)
	pf, err := w.physical(f)
	if err != nil {
		if errors.Is(err, ErrHostLink) && at.VLAN == at.VF.VLAN && at.QoS == at.VF.QoS && at.MAC == own {
			return nil
		}
		return fmt.Errorf("take VLAN and MAC of virtual function %d back: %w", f.Number, err)
	}
	now, told, err := w.settingsOf(pf, f.Number)
	if err != nil {
		return err
	}
	if !told { // then it is what was set, if it can be set at all
		now = settings{mac: at.VF.MAC, vlan: at.VLAN, qos: at.QoS}
		if at.MAC != own {
			now.mac = at.MAC
		}
	}
	cannot := func(err error) bool { return !told && errors.Is(err, unix.EOPNOTSUPP) }
	var errs []error
	if now.vlan != at.VF.VLAN || now.qos != at.VF.QoS {
		if err := w.host.LinkSetVfVlanQos(pf, f.Number, int(at.VF.VLAN), int(at.VF.QoS)); err != nil && !cannot(err) {
			errs = append(errs, fmt.Errorf("give VLAN %d back to virtual function %d of %s: %w", at.VF.VLAN, f.Number, f.PF, err))
		}
	}
	// Others may set it, and some cards tell what the function itself has set. Where there is none, what was set is gone: functions were made anew.
	if ours := now.mac == at.MAC || at.MAC != own && now.mac != ""; ours && now.mac != at.VF.MAC {
		if err := w.resetMAC(pf, f.Number, at, own); err != nil && !cannot(err) {
			errs = append(errs, fmt.Errorf("give MAC %q back to virtual function %d of %s: %w", at.VF.MAC, f.Number, f.PF, err))
		}
	}
	return errors.Join(errs...)
}

// resetMAC sets the MAC that there was; all zeros is none. Drivers that refuse that (EINVAL) get the one that the function itself had.
func (w *work) resetMAC(pf netlink.Link, number int, at model.Attachment, own string) error {
	mac, err := parseMAC(at.VF.MAC)
	if err != nil {
		return err
	}
	if mac != nil {
		return w.host.LinkSetVfHardwareAddr(pf, number, mac)
	}
	err = w.host.LinkSetVfHardwareAddr(pf, number, make(net.HardwareAddr, 6))
	if mac, bad := parseMAC(own); errors.Is(err, unix.EINVAL) && bad == nil && mac != nil {
		return w.host.LinkSetVfHardwareAddr(pf, number, mac)
	}
	return err
}
