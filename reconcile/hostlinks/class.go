package hostlinks

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"hash/fnv"
	"net/netip"
	"slices"
	"strings"

	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/spec/model"
)

// class is all nodes with the same shared part of the bundle's layer, and the same of the cards that networks ask for.
type class struct {
	key      string
	plans    []*v1alpha1.NodePlan // sorted by name
	links    []model.SharedLink   // of the bundle's layer, sorted by name
	networks []model.Network      // of the bundle's layer
	tenants  []model.Tenant
	fabrics  []model.Fabric // sorted by name
	cards    []string       // present and asked for, but not declared; sorted
}

// classes groups node plans. wanted are the devices that objects name; segments are those that plans name, decoded. A node
// whose segments are not all there is left out, and so keeps the layer it has.
func classes(plans []v1alpha1.NodePlan, segments map[string]model.Segment, wanted map[string]bool) []*class {
	byKey := map[string]*class{}
	for i := range plans {
		p := &plans[i]
		if p.Spec.Teardown {
			continue
		}
		var names []string
		if l := p.Spec.Layers.Bundle; l != nil {
			names = l.Segments
		}
		cards := cardsOf(p, wanted)
		key := strings.Join(names, ",") + "|" + strings.Join(cards, ",")
		c := byKey[key]
		if c == nil {
			c = &class{key: key, cards: cards}
			if !c.read(names, segments) {
				continue
			}
			byKey[key] = c
		}
		c.plans = append(c.plans, p)
	}
	out := make([]*class, 0, len(byKey))
	for _, c := range byKey {
		slices.SortFunc(c.plans, func(a, b *v1alpha1.NodePlan) int { return cmp.Compare(a.Name, b.Name) })
		c.cards = slices.DeleteFunc(c.cards, func(name string) bool { _, declared := c.link(name); return declared })
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b *class) int { return cmp.Compare(a.plans[0].Name, b.plans[0].Name) })
	return out
}

func cardsOf(p *v1alpha1.NodePlan, wanted map[string]bool) []string {
	var out []string
	for _, c := range p.Status.Hardware {
		if wanted[c.Name] {
			out = append(out, c.Name)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (c *class) read(names []string, segments map[string]model.Segment) bool {
	for _, name := range names {
		s, ok := segments[name]
		if !ok {
			return false
		}
		c.links = append(c.links, s.Links...)
		c.networks = append(c.networks, s.Networks...)
		c.tenants = append(c.tenants, s.Tenants...)
		c.fabrics = append(c.fabrics, s.Fabrics...)
	}
	slices.SortFunc(c.links, func(a, b model.SharedLink) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(c.fabrics, func(a, b model.Fabric) int { return cmp.Compare(a.Name, b.Name) })
	return true
}

func (c *class) link(name string) (model.Link, bool) {
	i, ok := slices.BinarySearchFunc(c.links, name, func(l model.SharedLink, n string) int { return cmp.Compare(l.Name, n) })
	if !ok {
		return model.Link{}, false
	}
	return c.links[i].Link, true
}

// has says whether the nodes have a device: declared, or found among their cards.
func (c *class) has(device string) bool {
	_, declared := c.link(device)
	return declared || slices.Contains(c.cards, device)
}

// carrier is the bundle's link with a tag on a device, and where Pods of a type attach: the bridge above it, if that is their type.
func (c *class) carrier(device string, vxlan bool, id uint32, typ model.NetworkType) (string, bool) {
	for _, l := range c.links {
		vlan := !vxlan && l.Kind == model.VLAN && uint32(l.VLANID) == id
		vx := vxlan && l.Kind == model.VXLAN && l.VXLAN != nil && l.VXLAN.VNI == id
		if l.Parent != device || !vlan && !vx {
			continue
		}
		if typ == model.BRIDGE && l.Master != "" {
			return l.Master, true
		}
		return l.Name, true
	}
	return "", false
}

// underlay is the address that a node's VXLANs of a fabric come from: what the bundle's layer says, else the first that is
// declared on the device. Invalid if nothing is declared: the kernel takes the device's.
func (c *class) underlay(p *v1alpha1.NodePlan, f model.Fabric) netip.Addr {
	l := p.Spec.Layers.Bundle
	if l == nil {
		return netip.Addr{}
	}
	if a, err := netip.ParseAddr(l.Underlays[f.Name]); err == nil {
		return a
	}
	shared, _ := c.link(f.Device)
	all := slices.Clone(shared.Addresses)
	for _, text := range l.Addresses[f.Device] {
		if a, err := netip.ParsePrefix(text); err == nil {
			all = append(all, a)
		}
	}
	slices.SortFunc(all, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	v6 := f.VXLAN != nil && f.VXLAN.Multicast.Is6() // else IPv4 goes first, as in render
	for _, family6 := range []bool{v6, true} {
		for _, a := range all {
			if a.Addr().Is6() == family6 && !a.Addr().IsLinkLocalUnicast() {
				return a.Addr()
			}
		}
	}
	return netip.Addr{}
}

// short is a name made of anything.
func short(parts ...any) string {
	h := fnv.New64a()
	fmt.Fprint(h, parts...)
	return hex.EncodeToString(h.Sum(nil))
}
