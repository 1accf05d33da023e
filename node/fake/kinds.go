package fake

import (
	"fmt"
	"slices"
	"strconv"

	"danm.io/danm/node/plan"
	"danm.io/danm/spec/model"
)

// enslave is RTM_SETLINK with IFLA_MASTER, preceded for a bond by taking the port down, as node/link does it.
func (k *Kernel) enslave(l *plan.ObservedLink, master string) error {
	m := k.links[master]
	if master != "" && (m == nil || m == l || m.Kind != model.Bridge && m.Kind != model.Bond && m.Kind != model.VRF) {
		return fmt.Errorf("master %s: %w", master, ErrNoDevice)
	}
	if l.Master == master {
		return nil
	}
	if old := k.links[l.Master]; old != nil {
		k.release(l, old.Kind)
	}
	if m == nil {
		return nil
	}
	switch m.Kind {
	case model.Bond:
		if l.MaxMTU != 0 && m.MTU > l.MaxMTU {
			return fmt.Errorf("mtu %d: %w", m.MTU, ErrInvalid)
		}
		k.bringDown(l)
		k.mtus[l.Name] = l.MTU
		l.Master = master
		if err := k.setMTU(l, strconv.Itoa(m.MTU)); err != nil {
			return err
		}
		return k.bringUp(l)
	case model.VRF:
		if l.Up {
			k.bringDown(l)
			l.Master = master
			return k.bringUp(l)
		}
	}
	l.Master = master
	return nil
}

// release frees a port: a bond leaves it down with the MTU it came with, a VRF takes it down and up, a bridge forgets its VLANs.
func (k *Kernel) release(l *plan.ObservedLink, holder model.LinkKind) {
	l.Master = ""
	if l.Kind != model.Bridge {
		l.PortVLANs = nil
	}
	switch {
	case holder == model.Bond:
		k.bringDown(l)
		if mtu := k.mtus[l.Name]; mtu != 0 {
			_ = k.setMTU(l, strconv.Itoa(mtu)) // it had it before
		}
	case holder == model.VRF && l.Up:
		k.bringDown(l)
		_ = k.bringUp(l) // it was up a moment ago
	}
}

func (k *Kernel) setVLANs(l *plan.ObservedLink, text string) error {
	v, err := plan.ParsePortVLANs(text)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if m := k.links[l.Master]; l.Kind != model.Bridge && (m == nil || m.Kind != model.Bridge) {
		return fmt.Errorf("vlans of %s, which is no port: %w", l.Name, ErrInvalid)
	}
	l.PortVLANs = v
	return nil
}

// setBondOption holds delays as counts of the monitor's interval, takes a primary only that is a device, and another LACP
// rate only while the bond is down, which node/link sees to.
func (k *Kernel) setBondOption(l *plan.ObservedLink, property, value string) error {
	if l.Bond == nil {
		return fmt.Errorf("property %q: %w", property, ErrInvalid)
	}
	b := *l.Bond
	n, notNumber := strconv.Atoi(value)
	numeric := true
	switch property {
	case "bond.miimon":
		if b.MIIMonitor != 0 {
			b.UpDelay, b.DownDelay = b.UpDelay/b.MIIMonitor*n, b.DownDelay/b.MIIMonitor*n
		}
		b.MIIMonitor = n
	case "bond.updelay":
		b.UpDelay = n
	case "bond.downdelay":
		b.DownDelay = n
	case "bond.min_links":
		b.MinLinks = n
	default:
		numeric = false
	}
	switch {
	case numeric && notNumber != nil:
		return fmt.Errorf("%s %q: %w", property, value, ErrInvalid)
	case numeric && b.MIIMonitor == 0 && (b.UpDelay != 0 || b.DownDelay != 0):
		return fmt.Errorf("%s without miimon: %w", property, ErrInvalid)
	case numeric:
	case property == "bond.xmit_hash_policy" && slices.Contains([]string{"layer2", "layer2+3", "layer3+4", "encap2+3", "encap3+4", "vlan+srcmac"}, value):
		b.XmitHashPolicy = value
	case property == "bond.lacp_rate" && (value == "slow" || value == "fast") && b.Mode == "802.3ad":
		b.LACPRate = value
		if l.Up {
			k.bringDown(l)
			defer func() { _ = k.bringUp(l) }() // it was up a moment ago
		}
	case property == "bond.primary" && (value == "" || k.links[value] != nil) && b.Mode == "active-backup":
		b.Primary = value
	default:
		return fmt.Errorf("%s %q: %w", property, value, ErrInvalid)
	}
	l.Bond = &b
	return nil
}
