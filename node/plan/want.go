package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"danm.io/danm/spec/model"
)

// resolve finds the kernel's names of the declared links and writes parents and masters in them.
func (d *differ) resolve() {
	d.wants = make(map[string]model.Link, len(d.desired.Plan.Links))
	d.kernel = make(map[string]string, len(d.desired.Plan.Links))
	var found []model.Link
	for _, l := range d.desired.Plan.Links {
		name := l.Name
		if l.Kind == model.Physical {
			hits := d.find(l)
			switch len(hits) {
			case 0:
				if l.Lent {
					continue
				}
				d.miss(l, "no interface matches, waiting for it to appear", "connect the device, or correct the link's match")
				continue
			case 1:
				name = hits[0]
			default:
				for _, h := range hits {
					d.frozen[h] = true
				}
				d.miss(l, "several interfaces match: "+strings.Join(hits, ", "), "match it more precisely")
				continue
			}
		}
		d.kernel[l.Name] = name
		found = append(found, l)
	}
	for _, l := range found {
		planName := l.Name
		l.Name, l.Parent, l.Master = d.kernelName(l.Name), d.kernelName(l.Parent), d.kernelName(l.Master)
		if _, twice := d.wants[l.Name]; twice {
			l.Name = planName
			d.miss(l, "it is the same interface as another declared link", "match it more precisely")
			continue
		}
		if holdsPorts(l.Kind) {
			l.Parent = "" // it stands on its ports
		}
		if l.Bond != nil && l.Bond.Primary != "" {
			b := *l.Bond
			b.Primary = d.kernelName(b.Primary)
			l.Bond = &b
		}
		d.wants[l.Name] = l
	}
}

func (d *differ) miss(l model.Link, reason, remedy string) {
	d.absent = append(d.absent, Blocked{ID: LinkID(l.Name), Reason: reason, Remedy: remedy})
}

func (d *differ) kernelName(planName string) string {
	if k, ok := d.kernel[planName]; ok {
		return k
	}
	return planName
}

// blockLoops blocks links that stand on themselves: a link stands on its parent, a bridge on its ports.
func (d *differ) blockLoops() {
	below := map[string][]string{}
	for n, l := range d.wants {
		if l.Parent != "" {
			below[n] = append(below[n], l.Parent)
		}
		if l.Master != "" {
			below[l.Master] = append(below[l.Master], n)
		}
	}
	for n, l := range d.wants {
		if l.Kind == model.Bridge && l.Master != "" && d.holderKind(l.Master) == model.Bridge {
			d.block(LinkID(n), "a bridge cannot be the port of a bridge", "drop its master")
		}
		if (l.Kind == model.Bond || l.Kind == model.VRF) && l.Master != "" && d.holderKind(l.Master) == l.Kind {
			d.block(LinkID(n), fmt.Sprintf("a %s cannot be the port of a %s", l.Kind, l.Kind), "drop its master")
		}
		seen := map[string]bool{}
		var reaches func(string) bool
		reaches = func(at string) bool {
			if seen[at] {
				return false
			}
			seen[at] = true
			return slices.ContainsFunc(below[at], func(b string) bool { return b == n || reaches(b) })
		}
		if reaches(n) {
			d.block(LinkID(n), "it stands on itself", "correct its parent or master")
		}
	}
}

// find gives the kernel's names of the links that a physical link can mean, sorted.
func (d *differ) find(l model.Link) []string {
	m := model.Match{Name: l.Name}
	if l.Match != nil {
		m = *l.Match
	}
	var hits, hardware []string
	for _, o := range d.obs.links {
		if d.isOurs(o.Name) || !matches(m, o) {
			continue
		}
		hits = append(hits, o.Name)
		if o.KernelKind == "" {
			hardware = append(hardware, o.Name)
		}
	}
	// VLANs, bridges and bonds carry the MAC of what is below them: hardware goes before them.
	if len(hits) > 1 && len(hardware) > 0 {
		hits = hardware
	}
	slices.Sort(hits)
	return hits
}

// KernelNames are the kernel's names of the declared physical links that are found by a match, by the plan's. One that is not there, or
// that several interfaces match, has none.
func KernelNames(desired Desired, observed Observed) map[string]string {
	d := newDiffer(desired, observed)
	out := map[string]string{}
	for _, l := range desired.Plan.Links {
		if name, there := d.kernel[l.Name]; there && l.Match != nil {
			out[l.Name] = name
		}
	}
	return out
}

// Find gives the indexes of the links that a physical link means: by its match, or else by its name.
func Find(l model.Link, links []ObservedLink) []int {
	m := model.Match{Name: l.Name}
	if l.Match != nil {
		m = *l.Match
	}
	var hits []int
	for i := range links {
		if matches(m, &links[i]) {
			hits = append(hits, i)
		}
	}
	return hits
}

func matches(m model.Match, o *ObservedLink) bool {
	if m.Name != "" && m.Name != o.Name && !slices.Contains(o.AltNames, m.Name) {
		return false
	}
	return (m.MAC == "" || strings.EqualFold(m.MAC, o.MAC)) && (m.PCI == "" || m.PCI == o.PCI) && (m.Driver == "" || m.Driver == o.Driver) && m != model.Match{}
}

// wantLink puts one declared link into the target, or leaves there what is observed and says why.
func (d *differ) wantLink(l model.Link) {
	id := LinkID(l.Name)
	if _, isBlocked := d.blocked[id]; isBlocked {
		return
	}
	have := d.obs.links[l.Name]
	if l.Kind == model.Physical {
		d.adopt(l, have)
		return
	}
	if reason, remedy := d.missingBelow(l); reason != "" {
		d.block(id, reason, remedy)
		return
	}
	switch {
	case have == nil:
		d.make(l, nil)
	case d.makes(l.Name) && (d.isOurs(l.Name) || identical(l, have.Link)):
		d.make(l, have)
	case l.Adopt == model.AdoptNever:
		d.block(id, fmt.Sprintf("%s exists and is not ours, and adopt: Never keeps it from being taken over", l.Name), "rename or remove it, or declare adopt: Identical")
	case !identical(l, have.Link):
		d.block(id, fmt.Sprintf("%s exists as %s and is not ours", l.Name, linkText(have.Link)), "rename or remove it")
	default:
		d.claim(id, adopted)
		l.Up = true
		d.adopt(l, have)
	}
}

// makes says whether a declared link is one that we make or made: not there, ours, or ours by the group alone because the
// ledger was lost.
func (d *differ) makes(name string) bool {
	l, wanted := d.wants[name]
	have := d.obs.links[name]
	_, recorded := d.records[LinkID(name)]
	return wanted && l.Kind != model.Physical && (have == nil || d.isOurs(name) || have.Group == Group && !recorded)
}

// missingBelow says why a link cannot stand: its parent or master is not there, is not what it should be, is down or too small.
func (d *differ) missingBelow(l model.Link) (reason, remedy string) {
	have := d.obs.links[l.Name]
	for _, below := range []string{l.Parent, l.Master} {
		if below == "" || have != nil && have.Parent == l.Parent && have.Master == l.Master && d.to.links[below] != nil {
			continue
		}
		if b, isBlocked := d.blocked[LinkID(below)]; isBlocked {
			return fmt.Sprintf("%s is blocked: %s", below, b.Reason), b.Remedy
		}
		if d.to.links[below] == nil {
			return below + " is missing, waiting for it to appear", "declare it or make it"
		}
	}
	if d.portOfBond(l) {
		return "only physical interfaces can be ports of a bond", "declare another master"
	}
	if l.Master != "" && d.holderKind(l.Master) == "" {
		return l.Master + " takes no ports", "declare a bridge, bond or VRF as its master"
	}
	if l.Kind == model.VLAN && l.Parent == "" {
		return "it has no device below", "name one"
	}
	if l.Kind == model.VLAN && !d.to.links[l.Parent].Up {
		return l.Parent + " is down and nothing declares it up", "declare up: true on it"
	}
	if room := d.room(l); l.MTU > room && room > 0 {
		return fmt.Sprintf("mtu %d does not fit: %s leaves %d", l.MTU, l.Parent, room), "declare a larger mtu on " + l.Parent
	}
	return "", ""
}

// identical is what `adopt: Identical` asks: kind, parent, id and name. What either side may leave open (learning, the
// source address) does not keep it from being the same link.
func identical(want, have model.Link) bool {
	if want.VXLAN != nil && have.VXLAN != nil {
		v := *want.VXLAN
		v.Learning = have.VXLAN.Learning
		if !have.VXLAN.Local.IsValid() || !v.Local.IsValid() {
			v.Local = have.VXLAN.Local
		}
		want.VXLAN = &v
	}
	return sameIdentity(want, have)
}

// make puts a link of ours into the target, new or with everything as declared.
func (d *differ) make(l model.Link, have *ObservedLink) {
	if have != nil && !sameIdentity(l, have.Link) && !d.mayEnd(l.Name) {
		return
	}
	d.claim(LinkID(l.Name), "")
	o := ObservedLink{Link: l, KernelKind: string(l.Kind), Group: Group}
	if have != nil {
		o.Addresses, o.MAC, o.Children, o.AltNames = slices.Clone(have.Addresses), have.MAC, have.Children, have.AltNames
		o.PCI, o.Driver, o.MaxMTU = have.PCI, have.Driver, have.MaxMTU
	} else {
		o.Addresses = nil
	}
	o.Up, o.Match, o.Adopt, o.MTU = true, nil, "", d.mtu(l.Name)
	if l.Kind == model.Bond {
		o.Bond = fullBond(l.Bond)
	}
	d.to.links[l.Name] = &o
	d.wantMembership(l, have)
	d.wantAddresses(l, have)
}

// adopt puts the declared properties of a link that we did not make into the target, and records what they were.
func (d *differ) adopt(l model.Link, have *ObservedLink) {
	o := d.to.links[l.Name]
	if l.MTU != 0 {
		if have.MaxMTU != 0 && l.MTU > have.MaxMTU {
			d.aside(PropertyID(l.Name, "mtu"), fmt.Sprintf("mtu %d is above the device's maximum %d", l.MTU, have.MaxMTU), "declare a smaller mtu")
		} else {
			d.own(l.Name, "mtu", strconv.Itoa(have.MTU))
			o.MTU = d.mtu(l.Name)
		}
	}
	if l.Up {
		d.own(l.Name, "up", upText(have.Up))
		o.Up = true
	}
	if l.Master != "" {
		_, isBlocked := d.blocked[LinkID(l.Master)]
		m := d.to.links[l.Master]
		switch {
		case m == nil || isBlocked && have.Master != l.Master:
			d.aside(PropertyID(l.Name, "master"), l.Master+" is missing, waiting for it to appear", "declare it or make it")
		case d.holderKind(l.Master) == "":
			d.aside(PropertyID(l.Name, "master"), l.Master+" takes no ports", "declare a bridge, bond or VRF as its master")
		default:
			d.becomePort(l, have)
		}
	}
	d.adoptOptions(l, have)
	d.wantMembership(l, have)
	d.wantAddresses(l, have)
}

func upText(up bool) string {
	if up {
		return "up"
	}
	return "down"
}

// own claims a property once: the first record holds the value before us.
func (d *differ) own(link, property, prior string) {
	id := PropertyID(link, property)
	d.keep[id] = true
	if _, ok := d.records[id]; !ok {
		d.claims[id] = Record{ID: id, Prior: prior}
	}
}

func (d *differ) wantAddresses(l model.Link, have *ObservedLink) {
	o := d.to.links[l.Name]
	for _, a := range l.Addresses {
		id := AddressID(l.Name, a)
		r, recorded := d.records[id]
		if have != nil && slices.Contains(have.Addresses, a) {
			if recorded {
				d.keep[id] = true
			} else {
				d.claim(id, adopted)
			}
			continue
		}
		if b, clash := d.obs.sameHost(l.Name, a); clash && have != nil && !d.releasable(l, b) {
			d.aside(id, fmt.Sprintf("%s is there and is not ours", b), "remove it, or declare its prefix length")
			continue
		}
		if recorded && r.Prior == "" {
			d.keep[id] = true
		} else {
			d.claim(id, "")
		}
		o.Addresses = append(o.Addresses, a)
	}
	sortPrefixes(o.Addresses)
}

// releasable says whether an address is ours to delete and no longer declared.
func (d *differ) releasable(l model.Link, a netip.Prefix) bool {
	r, ok := d.records[AddressID(l.Name, a)]
	return ok && r.Prior != adopted && !slices.Contains(l.Addresses, a)
}
