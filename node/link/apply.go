package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"danm.io/danm/node/plan"
	"danm.io/danm/spec/model"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Apply executes one step. An object that is already as the step wants it, or already gone, is no error.
func (k *Kernel) Apply(ctx context.Context, s plan.Step) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s: %w", s, err)
	}
	if err := k.apply(s); err != nil {
		return fmt.Errorf("%s: %w", s, err)
	}
	return nil
}

func (k *Kernel) apply(s plan.Step) error {
	if s.Link == nil && (s.Op == plan.CreateLink || s.Op == plan.DeleteLink) || s.Route == nil && (s.Op == plan.AddRoute || s.Op == plan.DeleteRoute) ||
		s.Peer == nil && (s.Op == plan.AddPeer || s.Op == plan.DeletePeer) || s.Rule == nil && (s.Op == plan.AddRule || s.Op == plan.DeleteRule) {
		return ErrStep
	}
	switch s.Op {
	case plan.CreateLink:
		return k.create(*s.Link)
	case plan.DeleteLink:
		return k.delete(s.Link.Name)
	case plan.SetLink:
		return k.set(s.LinkName, s.Property, s.To)
	case plan.AddAddress:
		return k.addAddress(s.LinkName, s.Address)
	case plan.DeleteAddress:
		return k.deleteAddress(s.LinkName, s.Address)
	case plan.AddRoute:
		return k.addRoute(s)
	case plan.DeleteRoute:
		return k.deleteRoute(s)
	case plan.SetSysctl:
		return k.writeSysctl(s.Sysctl, s.To)
	case plan.AddRule, plan.DeleteRule:
		return k.rule(s)
	case plan.AddPeer, plan.DeletePeer:
		return k.peer(s.Op, *s.Peer)
	}
	return fmt.Errorf("operation %q: %w", s.Op, ErrStep)
}

func (k *Kernel) index(name string) (int, error) {
	l, err := k.h.LinkByName(name)
	if err != nil {
		return 0, fmt.Errorf("find %s: %w", name, err)
	}
	return l.Attrs().Index, nil
}

func isMissing(err error) bool { return errors.Is(err, unix.ENODEV) }

// create makes a link in one message with group, MTU and state, and then what cannot stand in it: the alias
// (IFLA_IFALIAS is ignored at RTM_NEWLINK) and the master. A link of ours that is there already is finished.
func (k *Kernel) create(l model.Link) error {
	a := netlink.NewLinkAttrs()
	a.Name, a.MTU, a.Group = l.Name, l.MTU, plan.Group
	if l.Parent != "" {
		i, err := k.index(l.Parent)
		if err != nil {
			return err
		}
		a.ParentIndex = i
	}
	if l.Up {
		a.Flags |= net.FlagUp
	}
	made := netlinkLink(l, a)
	err := k.h.LinkAdd(made)
	if bridge, ok := made.(*netlink.Bridge); ok && errors.Is(err, unix.EOPNOTSUPP) && !l.Filtering {
		bridge.VlanFiltering, bridge.VlanDefaultPVID = nil, nil // a kernel that cannot filter refuses even the wish not to
		err = k.h.LinkAdd(bridge)
	}
	switch {
	case errors.Is(err, unix.EEXIST):
		// Our link from an attempt that was cut off, another's of that name, or another's with that id.
		have, missing := k.h.LinkByName(l.Name)
		if missing != nil || have.Attrs().Group != plan.Group || have.Type() != string(l.Kind) {
			return fmt.Errorf("add link: %w", err)
		}
		return k.finish(l, have.Attrs())
	case err != nil:
		return fmt.Errorf("add link: %w", err)
	}
	fresh := netlink.LinkAttrs{Name: l.Name, MTU: bridgeMTU(l, l.MTU), Flags: a.Flags}
	if l.Kind == model.VRF {
		fresh.MTU = l.MTU
	}
	return k.finish(l, &fresh)
}

// bridgeMTU is off by one at a bridge's creation: only a later change by hand keeps the bridge from following its ports'
// MTUs for ever (BROPT_MTU_SET_BY_USER in br_change_mtu; setting the same value again does not count).
func bridgeMTU(l model.Link, mtu int) int {
	switch {
	case l.Kind != model.Bridge || mtu == 0:
		return mtu
	case mtu > 1500:
		return mtu - 1
	}
	return mtu + 1
}

func netlinkLink(l model.Link, a netlink.LinkAttrs) netlink.Link {
	a.MTU = bridgeMTU(l, l.MTU)
	switch l.Kind {
	case model.Bridge:
		noPVID := uint16(0) // a port is a member of what is declared, and of nothing by itself
		return &netlink.Bridge{LinkAttrs: a, VlanFiltering: &l.Filtering, VlanDefaultPVID: &noPVID}
	case model.Bond:
		return netlinkBond(l, a)
	case model.VRF:
		a.MTU = 0 // the kernel's: versions differ in what they allow
		return &netlink.Vrf{LinkAttrs: a, Table: l.Table}
	case model.Dummy:
		return &netlink.Dummy{LinkAttrs: a}
	case model.VLAN:
		return &netlink.Vlan{LinkAttrs: a, VlanId: int(l.VLANID), VlanProtocol: netlink.VLAN_PROTOCOL_8021Q}
	case model.VXLAN:
		x := &netlink.Vxlan{LinkAttrs: a, VtepDevIndex: a.ParentIndex, VxlanId: int(l.VXLAN.VNI), Port: l.VXLAN.Port, Learning: l.VXLAN.Learning}
		x.LinkAttrs.ParentIndex = 0 // IFLA_VXLAN_LINK says it
		if l.VXLAN.Group.IsValid() {
			x.Group = l.VXLAN.Group.AsSlice()
		}
		if l.VXLAN.Local.IsValid() {
			x.SrcAddr = l.VXLAN.Local.AsSlice()
		}
		return x
	}
	return &netlink.GenericLink{LinkAttrs: a, LinkType: string(l.Kind)}
}

// finish brings a link of ours from what it has to what it should have.
func (k *Kernel) finish(l model.Link, have *netlink.LinkAttrs) error {
	if l.MTU != 0 && have.MTU != l.MTU {
		if err := k.set(l.Name, "mtu", strconv.Itoa(l.MTU)); err != nil {
			return err
		}
	}
	if have.Alias != l.Alias {
		if err := k.set(l.Name, "alias", l.Alias); err != nil {
			return err
		}
	}
	if l.Master != "" || have.MasterIndex != 0 {
		if err := k.set(l.Name, "master", l.Master); err != nil {
			return err
		}
	}
	if l.Up && have.Flags&net.FlagUp == 0 {
		return k.set(l.Name, "up", "up")
	}
	return nil
}

// delete refuses links without our group: a name may have changed hands since the step was decided.
func (k *Kernel) delete(name string) error {
	l, err := k.h.LinkByName(name)
	if isMissing(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	if groupOf(l.Attrs()) != plan.Group {
		return ErrNotOurs
	}
	if err := k.h.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete link: %w", err)
	}
	return nil
}

func (k *Kernel) set(name, property, value string) error {
	i, err := k.index(name)
	if err != nil {
		return err
	}
	l := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: i, Name: name}}
	switch property {
	case "mtu":
		mtu, err := strconv.Atoi(value)
		if err != nil {
			return fmt.Errorf("mtu %q: %w", value, ErrStep)
		}
		return wrap("set mtu", k.h.LinkSetMTU(l, mtu))
	case "alias":
		return wrap("set alias", k.h.LinkSetAlias(l, value))
	case "master":
		if value == "" {
			return wrap("release from master", k.h.LinkSetNoMaster(l))
		}
		return k.enslave(l, value)
	case "up":
		if value == "up" {
			return wrap("set up", k.h.LinkSetUp(l))
		}
		return wrap("set down", k.h.LinkSetDown(l))
	case "vlan_filtering":
		on := value == "on"
		return wrap("set VLAN filtering", k.h.LinkModify(&netlink.Bridge{LinkAttrs: named(name), VlanFiltering: &on}))
	case "vlans":
		return k.setVLANs(name, value)
	}
	return k.setBondOption(name, property, value)
}

func wrap(what string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
