package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"danm.io/danm/spec/model"
)

// vxlanOverhead is what VXLAN takes from the underlay's MTU: outer IP, UDP 8, VXLAN 8, inner Ethernet 14 (RFC 7348).
func vxlanOverhead(v *model.VXLANOptions) int {
	if v.Local.Is6() || v.Group.Is6() {
		return 70
	}
	return 50
}

// room is the largest MTU that the parent leaves, 0 for no bound.
func (d *differ) room(l model.Link) int {
	switch {
	case l.Parent == "" || d.to.links[l.Parent] == nil:
		return 0
	case l.Kind == model.VXLAN && l.VXLAN != nil:
		return d.mtu(l.Parent) - vxlanOverhead(l.VXLAN)
	case l.Kind == model.VLAN:
		return d.mtu(l.Parent)
	}
	return 0
}

// mtu is what a link has in the end: declared, observed on what is not ours, else what the kernel gives a new link.
func (d *differ) mtu(name string) int {
	if m, ok := d.mtus[name]; ok {
		return m
	}
	d.mtus[name] = 1500 // cuts a bridge under its own VLAN
	d.mtus[name] = d.mtuOf(name)
	return d.mtus[name]
}

func (d *differ) mtuOf(name string) int {
	l, wanted := d.wants[name]
	have := d.obs.links[name]
	_, isBlocked := d.blocked[LinkID(name)]
	tooLarge := have != nil && have.MaxMTU != 0 && l.MTU > have.MaxMTU
	switch {
	case have != nil && (isBlocked || tooLarge):
		return have.MTU
	case wanted && d.portOfBond(l):
		return d.mtu(l.Master)
	case wanted && l.MTU != 0:
		return l.MTU
	case have != nil && !d.makes(name):
		return d.restoredMTU(name, have.MTU)
	case l.Kind == model.VLAN:
		return d.mtu(l.Parent)
	case l.Kind == model.VXLAN && l.Parent != "" && l.VXLAN != nil:
		return d.mtu(l.Parent) - vxlanOverhead(l.VXLAN)
	case l.Kind == model.Bridge:
		return d.bridgeMTU(name)
	case l.Kind == model.VRF && have != nil && have.Kind == model.VRF:
		return have.MTU
	case l.Kind == model.VRF:
		return vrfMTU
	}
	return 1500
}

// bridgeMTU is the smallest of the declared ports', as the kernel does it for bridges that nobody set (br_mtu_auto_adjust).
func (d *differ) bridgeMTU(name string) int {
	least := 0
	for _, n := range d.ports(name) {
		if m := d.mtu(n); least == 0 || m < least {
			least = m
		}
	}
	return cmp.Or(least, 1500)
}

func (d *differ) ports(bridge string) []string {
	var out []string
	for n, l := range d.wants {
		if _, isBlocked := d.blocked[LinkID(n)]; l.Master == bridge && !isBlocked {
			out = append(out, n)
		}
	}
	slices.Sort(out)
	return out
}

// restoredMTU is what a link that we did not make has while no MTU is declared for it: that before us, if there is one on
// record and the links on it leave room for it.
func (d *differ) restoredMTU(link string, now int) int {
	r, recorded := d.records[PropertyID(link, "mtu")]
	prior, err := strconv.Atoi(r.Prior)
	if !recorded || d.frozen[link] || err != nil || prior <= 0 || d.needed(link) > prior {
		return now
	}
	return prior
}

// needed is the MTU that the links on a link need: declared ones, and VLANs of others, which the kernel would squeeze.
func (d *differ) needed(link string) int {
	need := 0
	for _, l := range d.wants {
		if l.Parent != link || l.MTU == 0 {
			continue
		}
		overhead := 0
		if l.VXLAN != nil {
			overhead = vxlanOverhead(l.VXLAN)
		}
		need = max(need, l.MTU+overhead)
	}
	for _, k := range d.kids[link] {
		if o := d.to.links[k]; o != nil && o.Kind == model.VLAN && !d.isOurs(k) {
			need = max(need, o.MTU)
		}
	}
	return need
}

// guardForeignMTUs takes back a lower MTU where the kernel would squeeze a VLAN that is not ours under it.
func (d *differ) guardForeignMTUs() {
	for _, n := range slices.Sorted(maps.Keys(d.wants)) {
		have, want := d.obs.links[n], d.to.links[n]
		if have == nil || want == nil || want.MTU >= have.MTU {
			continue
		}
		for _, k := range d.kids[n] {
			kid := d.to.links[k]
			if kid == nil || d.isOurs(k) || kid.Kind != model.VLAN || kid.MTU <= want.MTU {
				continue
			}
			d.aside(PropertyID(n, "mtu"), fmt.Sprintf("lowering it to %d would change %s, which is not ours", want.MTU, k), "lower or remove "+k+" first")
			want.MTU = have.MTU
			break
		}
	}
}
