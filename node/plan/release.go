package plan

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"danm.io/danm/spec/model"
)

// dropLinks takes links of ours that are no longer declared out of the target, children before parents.
func (d *differ) dropLinks() {
	for _, n := range slices.Backward(d.obs.order()) {
		if _, wanted := d.wants[n]; wanted || !d.isOurs(n) || !d.mayEnd(n) {
			continue
		}
		delete(d.to.links, n)
		for id, r := range d.to.routes {
			if r.Dev == n {
				delete(d.to.routes, id)
			}
		}
		for p := range d.to.peers {
			if p.Link == n {
				delete(d.to.peers, p)
			}
		}
	}
}

// declaredPort says whether a link is to be a port of the master.
func (d *differ) declaredPort(name, master string) bool {
	_, isBlocked := d.blocked[LinkID(name)]
	return !isBlocked && d.wants[name].Master == master && d.holderKind(master) != ""
}

// settle takes the kernel's own doings into the target: ports of a bridge that is no more are free, and our VLANs that are
// blocked as they are have no larger MTU than their parent.
func (d *differ) settle() {
	for _, n := range d.to.order() {
		l := d.to.links[n]
		if m := d.to.links[l.Master]; l.Master != "" && (m == nil || m.KernelKind != d.obs.kernelKind(l.Master) && !d.declaredPort(n, l.Master)) {
			l.leave()
		}
		if p := d.to.links[l.Parent]; p != nil && l.Kind == model.VLAN && d.isOurs(n) && l.MTU > p.MTU {
			l.MTU = p.MTU
		}
	}
}

func (s *state) kernelKind(name string) string {
	if l := s.links[name]; l != nil {
		return l.KernelKind
	}
	return ""
}

// mayEnd says whether a link of ours can be deleted without taking what is not ours with it, and blocks it otherwise. Pods'
// veths are ports that go on living; the disruption class speaks for them.
func (d *differ) mayEnd(name string) bool {
	id := LinkID(name)
	if _, isBlocked := d.blocked[id]; isBlocked {
		return false
	}
	for _, k := range d.kids[name] {
		_, wanted := d.wants[k]
		stays := d.to.links[k] != nil && !(wanted && d.isOurs(k))
		if stays || wanted && d.wants[k].Parent == name && d.wants[name].Name == "" {
			d.block(id, fmt.Sprintf("the kernel would delete %s with it, which stands on it and is not ours to delete", k), "remove "+k+" first")
			return false
		}
		if wanted && d.isOurs(k) && !d.mayEnd(k) {
			d.block(id, k+" stands on it and cannot be made anew", "see link/"+k)
			return false
		}
	}
	if l := d.obs.links[name]; holdsPorts(l.Kind) {
		for _, n := range slices.Sorted(maps.Keys(d.obs.links)) {
			p := d.obs.links[n]
			_, declared := d.wants[n]
			_, recorded := d.records[PropertyID(n, "master")]
			if p.Master == name && !declared && !recorded && !d.isOurs(n) && p.KernelKind != "veth" {
				d.block(id, n+" is its port and is not ours", "take "+n+" out of it first")
				return false
			}
		}
	}
	return true
}

// findClashes blocks links whose VNI or VLAN id another link of the target holds.
func (d *differ) findClashes() {
	holders := map[string][]string{}
	for n, l := range d.to.links {
		if s := slot(l.Link); s != "" {
			holders[s] = append(holders[s], n)
		}
	}
	for s, names := range holders {
		slices.Sort(names)
		// The holder is who has it already; the others are in vain.
		slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(d.newTo(a, s), d.newTo(b, s)) })
		for _, n := range names[1:] {
			if d.newTo(n, s) == 1 {
				d.block(LinkID(n), fmt.Sprintf("%s has %s already", names[0], s), "remove "+names[0]+" or choose another id")
			}
		}
	}
}

func (d *differ) newTo(name, s string) int {
	if have := d.obs.links[name]; have != nil && slot(have.Link) == s {
		return 0
	}
	return 1
}

// releaseRecords goes through what was ours and no longer is declared.
func (d *differ) releaseRecords() {
	for _, id := range slices.Sorted(maps.Keys(d.records)) {
		r := d.records[id]
		kind, rest, _ := strings.Cut(string(id), "/")
		link, last, _ := strings.Cut(rest, "/")
		_, wanted := d.wants[link]
		_, linkBlocked := d.blocked[LinkID(link)]
		switch {
		case kind == "sysctl": // see releaseSysctls
		case d.keep[id] || d.frozen[link] || kind == "vf" && d.heldVFs[link]:
		case linkBlocked && (wanted || d.to.links[link] != nil): // nothing about it is decided while it is blocked
		case kind == "link":
			d.released = append(d.released, id)
		case d.to.links[link] == nil:
			d.released = append(d.released, id)
		case kind == "address":
			d.releaseAddress(link, last, r)
			d.released = append(d.released, id)
		case kind == "peer":
			if addr, err := netip.ParseAddr(last); err == nil && r.Prior != adopted {
				delete(d.to.peers, model.Peer{Link: link, Addr: addr})
			}
			d.released = append(d.released, id)
		case kind == "vf":
			d.releaseVF(link, last, r.Prior)
			d.released = append(d.released, id)
		case kind == "property" && d.restore(link, last, r.Prior):
			d.released = append(d.released, id)
		}
	}
}

func (d *differ) releaseAddress(link, text string, r Record) {
	a, err := netip.ParsePrefix(text)
	if err != nil || r.Prior == adopted {
		return
	}
	l := d.to.links[link]
	l.Addresses = slices.DeleteFunc(l.Addresses, func(b netip.Prefix) bool { return a == b })
}

// restore puts the value before us back into the target. It says false while that is not possible.
func (d *differ) restore(link, property, prior string) bool {
	l := d.to.links[link]
	if l.Group == Group && d.isOurs(link) || d.claims[LinkID(link)].ID != "" && d.claims[LinkID(link)].Prior == "" {
		return true // gone and made by us since: what was before it has no meaning
	}
	if o, isBond := bondOptionOf(property); isBond {
		if l.Bond != nil {
			o.set(l.Bond, prior)
		}
		return true
	}
	switch property {
	case "mtu":
		if l.MTU = d.mtu(link); strconv.Itoa(l.MTU) != prior {
			d.aside(PropertyID(link, property), fmt.Sprintf("mtu %s cannot be put back: links on it need more", prior), "declare the mtu")
			return false
		}
	case "up":
		// Going down would cut off, and lose addresses and routes of, whoever came to rely on the link since.
		if prior != "down" || d.inUse(link, false) {
			return true
		}
		if d.inUse(link, true) {
			d.aside(PropertyID(link, property), "it cannot go down again while declared links or routes use it", "declare up: true")
			return false
		}
		l.Up = false
	case numVFs:
		return d.restoreNumVFs(l, prior)
	case "vlans":
		if v, err := ParsePortVLANs(prior); err == nil {
			l.PortVLANs = v
		}
	case "master":
		if prior != l.Master {
			l.leave()
		}
		if prior == "" || d.to.links[prior] != nil {
			l.Master = prior
		} else {
			l.Master = ""
		}
	}
	return true
}

// inUse says whether anything that stays hangs on a link: something of ours, or something of others.
func (d *differ) inUse(link string, ours bool) bool {
	for n, l := range d.to.links {
		if isOurs := d.makes(n) || d.isOurs(n); isOurs == ours && (l.Parent == link || l.Master == link) {
			return true
		}
	}
	l := d.to.links[link]
	isPort := d.to.links[l.Master] != nil && d.holderKind(l.Master) != "" && (!d.isMadeAnew(l.Master) || d.declaredPort(link, l.Master))
	portOfOurs := isPort && (d.makes(l.Master) || d.keep[PropertyID(link, "master")])
	if ours {
		return d.devices[link] || portOfOurs || len(d.wants[link].Addresses) > 0
	}
	for _, a := range l.Addresses {
		id := AddressID(link, a)
		_, declared := d.claims[id]
		if r, ok := d.records[id]; !declared && (!ok || r.Prior == adopted) {
			return true
		}
	}
	for _, r := range d.to.routes {
		if r.Dev == link && r.Protocol != RouteProtocol {
			return true
		}
	}
	return isPort && !portOfOurs || d.obs.links[link].Children > len(d.kids[link])
}
