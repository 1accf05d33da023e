package fake

import (
	"fmt"
	"slices"
	"strconv"

	"danm.io/danm/node/plan"
)

// newVFs are virtual functions as most drivers make them. They have no interfaces until somebody adds those.
func newVFs(pf string, n int) []plan.ObservedVF {
	out := make([]plan.ObservedVF, n)
	for i := range out {
		out[i] = plan.ObservedVF{PCI: fmt.Sprintf("0000:%s.%d", pf, i), VFSettings: plan.VFSettings{Driver: plan.DriverKernel, Trust: "off", SpoofCheck: "on", LinkState: "auto", Rate: "0-0"}}
	}
	return out
}

// setNumVFs is a write of 0 and one of the number to sriov_numvfs: all functions go, with their interfaces, and new ones come.
func (k *Kernel) setNumVFs(l *plan.ObservedLink, text string) error {
	n, err := strconv.Atoi(text)
	switch {
	case l.SRIOV == nil:
		return fmt.Errorf("%s: %w", l.Name, ErrNoEntry)
	case err != nil || n < 0 || n > l.SRIOV.TotalVFs:
		return fmt.Errorf("numvfs %q: %w", text, ErrInvalid)
	case n == len(l.SRIOV.VFs):
		return nil
	}
	for _, vf := range l.SRIOV.VFs {
		k.remove(vf.Link)
	}
	s := *l.SRIOV
	s.VFs = newVFs(l.Name, n)
	l.SRIOV = &s
	return nil
}

// setVF sets one property of a virtual function.
func (k *Kernel) setVF(s plan.Step) error {
	l := k.links[s.LinkName]
	if l == nil || l.SRIOV == nil || s.VF == nil || s.VF.Number >= len(l.SRIOV.VFs) {
		return ErrNoDevice
	}
	sriov := *l.SRIOV
	sriov.VFs = slices.Clone(sriov.VFs)
	vf := &sriov.VFs[s.VF.Number]
	switch s.Property {
	case "trust":
		vf.Trust = s.To
	case "spoofcheck":
		vf.SpoofCheck = s.To
	case "linkstate":
		vf.LinkState = s.To
	case "rate":
		least, most, err := plan.ParseRate(s.To)
		if err != nil || most != 0 && least > most {
			return fmt.Errorf("rate %q: %w", s.To, ErrInvalid)
		}
		vf.Rate = s.To
	case "driver":
		if s.To == vf.Driver {
			return nil
		}
		k.remove(vf.Link)
		vf.Driver, vf.Link, vf.MTU = s.To, "", ""
	case "mtu":
		link := k.links[vf.Link]
		if link == nil {
			return ErrNoDevice
		}
		if err := k.setMTU(link, s.To); err != nil {
			return err
		}
		vf.MTU = s.To
	default:
		return fmt.Errorf("property %q: %w", s.Property, ErrInvalid)
	}
	l.SRIOV = &sriov
	return nil
}

// SetNumVFs makes and removes virtual functions of a link that has SR-IOV.
func (k *Kernel) SetNumVFs(name string, n int) error {
	return k.foreign(func() error {
		l := k.links[name]
		if l == nil {
			return ErrNoDevice
		}
		return k.setNumVFs(l, strconv.Itoa(n))
	})
}

// SetVF sets a property of a virtual function, or with property "link" the name of its interface, which has been added before.
func (k *Kernel) SetVF(pf string, number int, property, value string) error {
	return k.foreign(func() error {
		if property != "link" {
			return k.setVF(plan.Step{LinkName: pf, VF: &plan.VFRef{Number: number}, Property: property, To: value})
		}
		l, link := k.links[pf], k.links[value]
		if l == nil || link == nil || l.SRIOV == nil || number >= len(l.SRIOV.VFs) {
			return ErrNoDevice
		}
		vf := &l.SRIOV.VFs[number]
		vf.Link, vf.MTU = value, strconv.Itoa(link.MTU)
		return nil
	})
}
