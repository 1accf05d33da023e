package validate

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// poolPairs checks what pools owe each other: one kind of device a resource, and one owner a virtual function.
func (c *checker) poolPairs() {
	offers := map[string]*pool{}
	for i, p := range c.poolList {
		if p.broken() {
			continue
		}
		if o := offers[p.ResourceName]; o == nil {
			offers[p.ResourceName] = p
		} else if o.Driver != p.Driver {
			c.error(diag.ResourceMixed, p.in("spec").in("resourceName"), fmt.Sprintf("pools %s and %s offer %s with two drivers (%s, %s), and a Pod could get either", o.Name, p.Name, p.ResourceName, driverText(o), driverText(p)), "give each driver its own resourceName")
		} else if unlike := unlikeness(o.SRIOVPool, p.SRIOVPool); len(unlike) > 0 {
			c.warn(diag.ResourceUneven, p.in("spec").in("resourceName"), fmt.Sprintf("pools %s and %s offer %s, but their virtual functions differ in %s, and a Pod could get either", o.Name, p.Name, p.ResourceName, strings.Join(unlike, ", ")), "say the same in both, or give each its own resourceName")
		}
		for _, o := range c.poolList[:i] {
			if o.whole && p.whole && onePF(o.PFs, p.PFs) && c.onOneNode(o, p) && !c.sharePF(o, p) {
				break // one report a pool is enough
			}
		}
	}
}

// unlikeness is what a Pod could notice when it gets a virtual function of one pool in place of the other's.
func unlikeness(a, b model.SRIOVPool) (fields []string) {
	same := func(x, y *bool) bool { return x == y || x != nil && y != nil && *x == *y }
	for _, f := range []struct {
		name string
		same bool
	}{
		{"trust", same(a.Trust, b.Trust)}, {"spoofCheck", same(a.SpoofCheck, b.SpoofCheck)}, {"linkState", a.LinkState == b.LinkState},
		{"minTxRate", a.MinTxRate == b.MinTxRate}, {"maxTxRate", a.MaxTxRate == b.MaxTxRate}, {"mtu", a.MTU == b.MTU},
	} {
		if !f.same {
			fields = append(fields, f.name)
		}
	}
	return fields
}

func driverText(p *pool) string { return cmp.Or(p.Driver, "kernel") }

// onOneNode says whether a node may be in both pools: a declared one, or, as long as nodes come from a cluster, any whose
// labels fit both selectors.
func (c *checker) onOneNode(a, b *pool) bool {
	if len(c.nodes) > 0 {
		return slices.ContainsFunc(c.nodes, func(n *node) bool { return selects(a.NodeSelector, n.Labels) && selects(b.NodeSelector, n.Labels) })
	}
	for k, v := range a.NodeSelector {
		if w, both := b.NodeSelector[k]; both && v != w {
			return false
		}
	}
	return true
}

// onePF says whether two selectors find one physical function for certain: they agree in something, and differ in nothing
// that both ask. What is on a node's bus is not known here; a name and a PCI address may well be of one function.
func onePF(a, b model.PFSelector) bool {
	agree := false
	for _, pair := range [][2][]string{{a.Names, b.Names}, {a.PCI, b.PCI}, {a.Vendors, b.Vendors}, {a.Devices, b.Devices}, {a.Drivers, b.Drivers}} {
		if len(pair[0]) == 0 || len(pair[1]) == 0 {
			continue
		}
		if !slices.ContainsFunc(pair[0], func(s string) bool { return slices.Contains(pair[1], s) }) {
			return false
		}
		agree = true
	}
	return agree
}

// sharePF checks two pools of one physical function; false if they do not get along.
func (c *checker) sharePF(o, p *pool) bool {
	s := p.in("spec")
	if o.NumVFs != p.NumVFs {
		c.error(diag.NumVFsDiffer, s.in("numVFs"), fmt.Sprintf("pools %s (%s) and %s find one physical function, and want %d and %d virtual functions made", o.Name, o.place(), p.Name, o.NumVFs, p.NumVFs), "give both the same numVFs, or other physical functions")
		return false
	}
	for _, a := range o.Numbers() {
		for _, b := range p.Numbers() {
			if overlap(a, b) {
				c.error(diag.VFOverlap, s.in("vfs"), fmt.Sprintf("pools %s (%s) and %s find one physical function, and both have its virtual function %d", o.Name, o.place(), p.Name, max(a.First, b.First)), "write vfs in both, such as \"0-3\" and \"4-7\"")
				return false
			}
		}
	}
	return true
}

// poolMTUs checks pools' MTUs against those of the physical functions that the topology declares by the same name, and
// networks' against those of the pools.
func (c *checker) poolMTUs() {
	for _, p := range c.poolList {
		if p.MTU == 0 || p.broken() {
			continue
		}
		for _, name := range sortedKeys(c.groups) {
			g := c.groups[name]
			for _, pf := range p.PFs.Names {
				l := g.links[pf]
				if l != nil && l.MTU != 0 && p.MTU > l.MTU && c.poolOnNodeOf(p, c.scopeOf([]*group{g})) {
					c.error(diag.MTUAboveParent, p.in("spec").in("mtu"), fmt.Sprintf("MTU %d does not fit the physical function %s, which has %d (%s)", p.MTU, pf, l.MTU, l.in("mtu").place()), fmt.Sprintf("at most %d", l.MTU))
				}
			}
		}
		for _, n := range c.netList {
			if n.Driver() == model.SRIOV && n.DevicePool == p.ResourceName && n.MTU > p.MTU && !n.broken() {
				c.error(diag.MTUAboveParent, n.in("spec").in("mtu"), fmt.Sprintf("MTU %d does not fit the virtual functions of SRIOVPool %s, which have %d (%s)", n.MTU, p.Name, p.MTU, p.in("spec").in("mtu").place()), fmt.Sprintf("at most %d", p.MTU))
			}
		}
	}
}
