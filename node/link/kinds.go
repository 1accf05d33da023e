package link

import (
	"fmt"
	"net"
	"slices"
	"strconv"

	"danm.io/danm/node/plan"
	"danm.io/danm/spec/model"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
)

// netlinkBond is a new bond with all options but the primary, which is set once it is a port.
func netlinkBond(l model.Link, a netlink.LinkAttrs) netlink.Link {
	b := netlink.NewLinkBond(a)
	if l.Bond == nil {
		return b
	}
	b.Mode = netlink.StringToBondMode(l.Bond.Mode)
	b.Miimon, b.UpDelay, b.DownDelay, b.MinLinks = l.Bond.MIIMonitor, l.Bond.UpDelay, l.Bond.DownDelay, l.Bond.MinLinks
	b.XmitHashPolicy = netlink.StringToBondXmitHashPolicy(l.Bond.XmitHashPolicy)
	if b.Mode == netlink.BOND_MODE_802_3AD { // other modes refuse it
		b.LacpRate = netlink.StringToBondLacpRate(l.Bond.LACPRate)
	}
	return b
}

// modelBond is a bond's options as observed.
func modelBond(b *netlink.Bond, names map[int]string) *model.BondOptions {
	o := &model.BondOptions{Mode: b.Mode.String(), MIIMonitor: max(b.Miimon, 0), UpDelay: max(b.UpDelay, 0), DownDelay: max(b.DownDelay, 0),
		MinLinks: max(b.MinLinks, 0), LACPRate: "slow", XmitHashPolicy: "layer2"}
	if b.LacpRate >= 0 {
		o.LACPRate = b.LacpRate.String()
	}
	if b.XmitHashPolicy >= 0 {
		o.XmitHashPolicy = b.XmitHashPolicy.String()
	}
	if b.Primary > 0 {
		o.Primary = names[b.Primary]
	}
	return o
}

func (k *Kernel) setBondOption(name, property, value string) error {
	l, err := k.h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	b := netlink.NewLinkBond(named(name))
	n, notNumber := strconv.Atoi(value)
	numbers := map[string]*int{"bond.miimon": &b.Miimon, "bond.updelay": &b.UpDelay, "bond.downdelay": &b.DownDelay, "bond.min_links": &b.MinLinks}
	if at, isNumber := numbers[property]; isNumber {
		if notNumber != nil {
			return fmt.Errorf("%s %q: %w", property, value, ErrStep)
		}
		*at = n
		return wrap("set "+property, k.h.LinkModify(b))
	}
	switch property {
	case "bond.xmit_hash_policy":
		b.XmitHashPolicy = netlink.StringToBondXmitHashPolicy(value)
	case "bond.primary":
		b.Primary = 0 // none
		if value != "" {
			if b.Primary, err = k.index(value); err != nil {
				return err
			}
		}
	case "bond.lacp_rate":
		b.LacpRate = netlink.StringToBondLacpRate(value)
		return k.whileDown(l, func() error { return wrap("set "+property, k.h.LinkModify(b)) })
	default:
		return fmt.Errorf("property %q: %w", property, ErrStep)
	}
	return wrap("set "+property, k.h.LinkModify(b))
}

// named addresses a link by its name alone: with an index beside it the name is a wish to rename, which links that are up
// refuse (EBUSY, even if it is their name).
func named(name string) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name = name
	return a
}

// whileDown runs change with the link down, and takes it up again if it was up, whatever came of the change.
func (k *Kernel) whileDown(l netlink.Link, change func() error) error {
	if l.Attrs().Flags&net.FlagUp == 0 {
		return change()
	}
	if err := k.h.LinkSetDown(l); err != nil {
		return fmt.Errorf("set down: %w", err)
	}
	failed := change()
	if err := k.h.LinkSetUp(l); failed == nil {
		failed = wrap("set up", err)
	}
	return failed
}

// enslave makes a link the port of another. A bond takes only ports that are down, and takes them up itself.
func (k *Kernel) enslave(l netlink.Link, master string) error {
	m, err := k.h.LinkByName(master)
	if err != nil {
		return fmt.Errorf("find %s: %w", master, err)
	}
	port, err := k.h.LinkByIndex(l.Attrs().Index)
	if err != nil {
		return fmt.Errorf("find %s: %w", l.Attrs().Name, err)
	}
	if port.Attrs().MasterIndex == m.Attrs().Index {
		return nil
	}
	if m.Type() == "bond" && port.Attrs().Flags&net.FlagUp != 0 {
		if err := k.h.LinkSetDown(port); err != nil {
			return fmt.Errorf("set down: %w", err)
		}
	}
	return wrap("set master", k.h.LinkSetMasterByIndex(port, m.Attrs().Index))
}

// observeVLANs lists the memberships of filtering bridges and of those that we made, and of their ports.
func (k *Kernel) observeVLANs(o *plan.Observed, byIndex map[int]int) error {
	bridges := map[string]bool{}
	for _, l := range o.Links {
		bridges[l.Name] = l.Kind == model.Bridge && (l.Filtering || l.Group == plan.Group)
	}
	shown := func(l plan.ObservedLink) bool { return bridges[l.Name] || bridges[l.Master] }
	if !slices.ContainsFunc(o.Links, shown) {
		return nil
	}
	lists, err := completeDump(k.h.BridgeVlanList)
	if err != nil {
		return fmt.Errorf("list VLANs of bridges: %w", err)
	}
	for index, list := range lists {
		if i, known := byIndex[int(index)]; known && shown(o.Links[i]) {
			o.Links[i].PortVLANs = modelVLANs(list)
		}
	}
	return nil
}

const pvid = nl.BRIDGE_VLAN_INFO_PVID | nl.BRIDGE_VLAN_INFO_UNTAGGED

// modelVLANs leaves out what a bundle cannot say: an untagged VLAN that is not the PVID, or the other way round.
func modelVLANs(list []*nl.BridgeVlanInfo) *model.PortVLANs {
	var v model.PortVLANs
	for id, flags := range membership(list) {
		if flags == pvid {
			v.Untagged = id
		}
	}
	for _, r := range ranges(membership(list), 0) {
		v.Tagged = append(v.Tagged, model.Range32{First: uint32(r[0]), Last: uint32(r[1])})
	}
	if v.Untagged == 0 && v.Tagged == nil {
		return nil
	}
	return &v
}

// membership maps VLAN ids to their flags, ranges spelled out.
func membership(list []*nl.BridgeVlanInfo) map[uint16]uint16 {
	out := map[uint16]uint16{}
	first := uint16(0)
	for _, v := range list {
		flags := v.Flags & pvid
		switch {
		case v.Flags&nl.BRIDGE_VLAN_INFO_RANGE_BEGIN != 0:
			first = v.Vid
		case v.Flags&nl.BRIDGE_VLAN_INFO_RANGE_END != 0 && first != 0:
			for id := first; id < v.Vid; id++ {
				out[id] = flags
			}
			first = 0
		}
		out[v.Vid] = flags
	}
	return out
}

// ranges lists the ids that have the flags, neighbours together.
func ranges(of map[uint16]uint16, flags uint16) [][2]uint16 {
	var out [][2]uint16
	for id := uint16(1); id < 4095; id++ {
		have, member := of[id]
		switch {
		case !member || have != flags:
		case len(out) > 0 && out[len(out)-1][1]+1 == id:
			out[len(out)-1][1] = id
		default:
			out = append(out, [2]uint16{id, id})
		}
	}
	return out
}

// rangeEnd is 0 for a single VLAN: the kernel refuses a range that ends where it begins.
func rangeEnd(r [2]uint16) uint16 {
	if r[0] == r[1] {
		return 0
	}
	return r[1]
}

// setVLANs makes a port, or a bridge itself, a member of exactly the VLANs in text (plan.PortVLANsText).
func (k *Kernel) setVLANs(name, text string) error {
	want, err := plan.ParsePortVLANs(text)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrStep, err)
	}
	l, err := k.h.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	lists, err := completeDump(k.h.BridgeVlanList)
	if err != nil {
		return fmt.Errorf("list VLANs of bridges: %w", err)
	}
	have := membership(lists[int32(l.Attrs().Index)])
	wanted := map[uint16]uint16{}
	if want != nil {
		for _, r := range want.Tagged {
			for id := r.First; id <= r.Last; id++ {
				wanted[uint16(id)] = 0
			}
		}
		if want.Untagged != 0 {
			wanted[want.Untagged] = pvid
		}
	}
	surplus, missing := map[uint16]uint16{}, map[uint16]uint16{}
	for id := range have {
		if _, ok := wanted[id]; !ok {
			surplus[id] = 0
		}
	}
	for id, flags := range wanted {
		if f, ok := have[id]; !ok || f != flags {
			missing[id] = flags
		}
	}
	self := l.Type() == "bridge"
	for _, r := range ranges(surplus, 0) {
		if err := k.h.BridgeVlanDelRange(l, r[0], rangeEnd(r), false, false, self, !self); err != nil {
			return fmt.Errorf("delete VLANs %d-%d: %w", r[0], r[1], err)
		}
	}
	for _, flags := range []uint16{0, pvid} {
		for _, r := range ranges(missing, flags) {
			if err := k.h.BridgeVlanAddRange(l, r[0], rangeEnd(r), flags != 0, flags != 0, self, !self); err != nil {
				return fmt.Errorf("add VLANs %d-%d: %w", r[0], r[1], err)
			}
		}
	}
	return nil
}
