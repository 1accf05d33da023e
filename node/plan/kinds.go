package plan

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"danm.io/danm/spec/model"
)

// defaultMIIMonitor is the interval in milliseconds in which a bond of ours looks at its ports' carrier when none is
// declared: the kernel's own default, 0, never looks, and a dead port keeps its traffic (bonding.rst, miimon).
const defaultMIIMonitor = 100

// vrfMTU is what the kernel gives a VRF: that of the largest IPv6 packet with its header (vrf_setup, IP6_MAX_MTU).
const vrfMTU = 65575

// holdsPorts says whether links can have one of the kind as their master.
func holdsPorts(k model.LinkKind) bool {
	return k == model.Bridge || k == model.Bond || k == model.VRF
}

// holderKind is what a link is that others name as their master: as declared, else as it is; "" if it takes no ports.
func (d *differ) holderKind(name string) model.LinkKind {
	kind := model.LinkKind(d.obs.kernelKind(name))
	if l, wanted := d.wants[name]; wanted && l.Kind != model.Physical {
		kind = l.Kind
	} else if d.to != nil && d.to.links[name] == nil {
		return "" // it goes
	}
	if !holdsPorts(kind) {
		return ""
	}
	return kind
}

// bondOption is one option of a bond that can be changed while it lives.
type bondOption struct {
	name  string // of the property, after "bond."
	class Disruption
	get   func(model.BondOptions) string
	set   func(*model.BondOptions, string)
}

func numberOption(name string, of func(*model.BondOptions) *int) bondOption {
	return bondOption{name, None,
		func(b model.BondOptions) string { return strconv.Itoa(*of(&b)) },
		func(b *model.BondOptions, text string) { *of(b), _ = strconv.Atoi(text) }}
}

func textOption(name string, class Disruption, of func(*model.BondOptions) *string) bondOption {
	return bondOption{name, class, func(b model.BondOptions) string { return *of(&b) }, func(b *model.BondOptions, text string) { *of(b) = text }}
}

// bondOptions stand in the order in which they are set: delays are multiples of the monitor's interval, the primary has to
// be there. The kernel takes another LACP rate only from a bond that is down.
var bondOptions = []bondOption{
	numberOption("miimon", func(b *model.BondOptions) *int { return &b.MIIMonitor }),
	numberOption("updelay", func(b *model.BondOptions) *int { return &b.UpDelay }),
	numberOption("downdelay", func(b *model.BondOptions) *int { return &b.DownDelay }),
	textOption("xmit_hash_policy", Blip, func(b *model.BondOptions) *string { return &b.XmitHashPolicy }),
	textOption("lacp_rate", LinkDown, func(b *model.BondOptions) *string { return &b.LACPRate }),
	numberOption("min_links", func(b *model.BondOptions) *int { return &b.MinLinks }),
	textOption("primary", Blip, func(b *model.BondOptions) *string { return &b.Primary }),
}

const bondPrefix = "bond."

func bondOptionOf(property string) (bondOption, bool) {
	name, isBond := strings.CutPrefix(property, bondPrefix)
	i := slices.IndexFunc(bondOptions, func(o bondOption) bool { return isBond && o.name == name })
	if i < 0 {
		return bondOption{}, false
	}
	return bondOptions[i], true
}

// fullBond writes the defaults out that a bond of ours has.
func fullBond(b *model.BondOptions) *model.BondOptions {
	full := model.BondOptions{Mode: "balance-rr"}
	if b != nil {
		full = *b
	}
	if full.MIIMonitor == 0 {
		full.MIIMonitor = defaultMIIMonitor
	}
	if full.XmitHashPolicy == "" {
		full.XmitHashPolicy = "layer2"
	}
	if full.LACPRate == "" {
		full.LACPRate = "slow"
	}
	return &full
}

// setBondOption models the kernel: delays are held as counts of the monitor's interval.
func (l *ObservedLink) setBondOption(o bondOption, value string) {
	if l.Bond == nil {
		return
	}
	old := l.Bond.MIIMonitor
	o.set(l.Bond, value)
	if now := l.Bond.MIIMonitor; now != old && old != 0 {
		l.Bond.UpDelay, l.Bond.DownDelay = l.Bond.UpDelay/old*now, l.Bond.DownDelay/old*now
	}
}

// PortVLANsText is a membership as property steps carry it: "untagged 10, tagged 100-199,310", "" for none.
func PortVLANsText(v *model.PortVLANs) string {
	if v == nil {
		return ""
	}
	var parts []string
	if v.Untagged != 0 {
		parts = append(parts, fmt.Sprintf("untagged %d", v.Untagged))
	}
	if len(v.Tagged) > 0 {
		var ranges []string
		for _, r := range v.Tagged {
			ranges = append(ranges, r.String())
		}
		parts = append(parts, "tagged "+strings.Join(ranges, ","))
	}
	return strings.Join(parts, ", ")
}

// ParsePortVLANs reads what PortVLANsText wrote; nil is none.
func ParsePortVLANs(text string) (*model.PortVLANs, error) {
	if text == "" {
		return nil, nil
	}
	var v model.PortVLANs
	for part := range strings.SplitSeq(text, ", ") {
		how, list, _ := strings.Cut(part, " ")
		for word := range strings.SplitSeq(list, ",") {
			first, last, isRange := strings.Cut(word, "-")
			if !isRange {
				last = first
			}
			from, err := strconv.ParseUint(first, 10, 12)
			to, errTo := strconv.ParseUint(last, 10, 12)
			switch {
			case err != nil || errTo != nil || from == 0 || to < from || to > 4094:
				return nil, fmt.Errorf("VLANs %q: bad id", text)
			case how == "untagged" && from == to && v.Untagged == 0:
				v.Untagged = uint16(from)
			case how == "tagged":
				v.Tagged = append(v.Tagged, model.Range32{First: uint32(from), Last: uint32(to)})
			default:
				return nil, fmt.Errorf("VLANs %q: neither tagged nor untagged", text)
			}
		}
	}
	return &v, nil
}

func canonicalVLANs(v *model.PortVLANs) *model.PortVLANs {
	if PortVLANsText(v) == "" {
		return nil
	}
	c := *v
	c.Tagged = slices.Clone(v.Tagged)
	return &c
}

// wantMembership puts the declared VLANs of a bridge's port, or of the bridge itself, into the target. Nobody else's links
// are touched: Pods' ports get theirs when they are attached.
func (d *differ) wantMembership(l model.Link, have *ObservedLink) {
	o := d.to.links[l.Name]
	bridge := o
	if l.Kind != model.Bridge {
		bridge = d.to.links[o.Master]
	}
	made := d.makes(l.Name)
	switch {
	case canonicalVLANs(l.PortVLANs) == nil && made:
		o.PortVLANs = nil
	case canonicalVLANs(l.PortVLANs) == nil:
	case bridge == nil || !bridge.Filtering:
		d.aside(PropertyID(l.Name, "vlans"), "it is no port of a bridge that filters VLANs", "declare vlanFiltering on its bridge")
		if made {
			o.PortVLANs = nil
		}
	default:
		if !made {
			d.own(l.Name, "vlans", PortVLANsText(have.PortVLANs))
		}
		o.PortVLANs = canonicalVLANs(l.PortVLANs)
	}
}

// adoptOptions takes the declared options of a bond that was there before us; the others stay as they are.
func (d *differ) adoptOptions(l model.Link, have *ObservedLink) {
	o := d.to.links[l.Name]
	if l.Kind == model.Bridge && l.Filtering && !have.Filtering {
		d.aside(PropertyID(l.Name, "vlan_filtering"), l.Name+" does not filter VLANs and is not ours: turning it on would cut its other ports off",
			"turn it on by hand, or remove the bridge and let it be made")
	}
	if l.Bond == nil || have.Bond == nil {
		return
	}
	for _, option := range bondOptions {
		want := option.get(*l.Bond)
		if want == "" || want == "0" {
			continue
		}
		if strings.HasSuffix(option.name, "delay") && o.Bond.MIIMonitor == 0 {
			d.aside(PropertyID(l.Name, bondPrefix+option.name), "the bond does not watch its ports", "declare miiMonitor")
			continue
		}
		d.own(l.Name, bondPrefix+option.name, option.get(*have.Bond))
		option.set(o.Bond, want)
	}
}

// becomePort puts a link that we did not make under its master. A bond gives its ports its MTU and takes them up.
func (d *differ) becomePort(l model.Link, have *ObservedLink) {
	o := d.to.links[l.Name]
	isBond := d.holderKind(l.Master) == model.Bond
	if mtu := d.mtu(l.Master); isBond && have.MaxMTU != 0 && mtu > have.MaxMTU {
		d.aside(PropertyID(l.Name, "master"), fmt.Sprintf("the bond's mtu %d is above the device's maximum %d", mtu, have.MaxMTU), "declare a smaller mtu on "+l.Master)
		return
	}
	d.own(l.Name, "master", have.Master)
	o.Master = l.Master
	if !isBond {
		return
	}
	d.own(l.Name, "mtu", strconv.Itoa(have.MTU))
	o.MTU = d.mtu(l.Name)
	d.own(l.Name, "up", upText(have.Up))
	o.Up = true
}

// portOfBond says whether a declared link has its MTU from a bond, whatever it declares itself.
func (d *differ) portOfBond(l model.Link) bool {
	_, isBlocked := d.blocked[LinkID(l.Master)]
	return l.Master != "" && !isBlocked && d.holderKind(l.Master) == model.Bond
}

// setMaster models who is a port of whom: a bond takes its ports down, gives them its MTU and takes them up, and leaves
// those that it releases down (bond_enslave, __bond_release_one); a VRF takes them down and up again (cycle_netdev).
func (s *state) setMaster(l *ObservedLink, master string) {
	if l.Master == master {
		return
	}
	was, will := s.kernelKind(l.Master), s.kernelKind(master)
	wasUp := l.Up
	if was == "bond" || was == "vrf" || will == "bond" || will == "vrf" {
		s.setUp(l, false)
	}
	l.leave()
	l.Master = master
	switch {
	case will == "bond":
		l.MTU = s.links[master].MTU
		s.squeezeVLANs(l.Name, l.MTU)
		s.setUp(l, true)
	case was != "bond" && wasUp:
		s.setUp(l, true)
	}
}

// leave frees a port: its VLANs go with the bridge, a bridge's own stay.
func (l *ObservedLink) leave() {
	l.Master = ""
	if l.Kind != model.Bridge {
		l.PortVLANs = nil
	}
}

// setLinkMTU takes the ports of a bond and the VLANs above along.
func (s *state) setLinkMTU(l *ObservedLink, mtu int) {
	l.MTU = mtu
	s.squeezeVLANs(l.Name, mtu)
	if l.KernelKind != "bond" {
		return
	}
	for _, port := range s.links {
		if port.Master == l.Name {
			s.setLinkMTU(port, mtu)
		}
	}
}

// cycle takes a link down and up.
func (s *state) cycle(l *ObservedLink) {
	if l.Up {
		s.setUp(l, false)
		s.setUp(l, true)
	}
}

// properties emits one step for each property that differs, as it is then. The primary of a bond waits for its ports.
func (t *transition) properties(n string, late bool) {
	want := t.to.links[n]
	have := func() *ObservedLink { return t.now.links[n] }
	if want.Bond != nil && have().Bond != nil {
		for _, o := range bondOptions {
			if from, to := o.get(*have().Bond), o.get(*want.Bond); from != to && late == (o.name == "primary") {
				t.emit([]Step{t.set(want.Link, bondPrefix+o.name, from, to, o.class)})
			}
		}
	}
	if late {
		return
	}
	if want.Filtering != have().Filtering {
		t.emit([]Step{t.set(want.Link, "vlan_filtering", onOff(have().Filtering), onOff(want.Filtering), LinkDown)})
	}
	if want.Master != have().Master {
		t.emit([]Step{t.set(want.Link, "master", have().Master, want.Master, t.masterClass(have(), want))})
	}
	if from, to := PortVLANsText(have().PortVLANs), PortVLANsText(want.PortVLANs); from != to {
		class := None
		if from != "" {
			class = LinkDown
		}
		t.emit([]Step{t.set(want.Link, "vlans", from, to, class)})
	}
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// touchBond puts an option back, with the delays that follow the monitor's interval.
func (r *reverter) touchBond(was, is *ObservedLink, property string) {
	if was.Bond == nil || is.Bond == nil {
		return
	}
	for _, o := range bondOptions {
		follows := property == bondPrefix+"miimon" && strings.HasSuffix(o.name, "delay")
		if property == bondPrefix+o.name || follows {
			o.set(is.Bond, o.get(*was.Bond))
		}
	}
}

// touchVLANs puts back what a device that went down, or got another MTU, did to the VLANs on it.
func (r *reverter) touchVLANs(device string) {
	for n, was := range r.before.links {
		if was.Parent == device && was.Kind == model.VLAN {
			r.touchProperty(n, "mtu")
			r.touchProperty(n, "up")
			r.giveBack(n)
		}
	}
}

// touchPort puts back what a bond or VRF changes in its ports.
func (r *reverter) touchPort(was, is *ObservedLink) {
	before, after := r.before.kernelKind(was.Master), ""
	if now := r.after.links[is.Name]; now != nil {
		after = r.after.kernelKind(now.Master)
	}
	is.Master, is.PortVLANs = was.Master, canonicalVLANs(was.PortVLANs)
	if before == "bond" || before == "vrf" || after == "bond" || after == "vrf" || was.Up && !is.Up {
		is.Up, is.MTU = was.Up, was.MTU
		r.giveBack(is.Name)
		r.touchVLANs(is.Name) // they went down with it, and below its new MTU
	}
}
