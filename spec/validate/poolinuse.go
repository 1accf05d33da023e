package validate

import (
	"fmt"

	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// poolsInUse warns of physical functions that carry something else: many cards reset when virtual functions are made. Only names are
// known here; render compares with the cards that nodes have.
func (c *checker) poolsInUse() {
	for _, p := range c.poolList {
		if p.broken() {
			continue
		}
		for i, name := range p.names {
			if use := c.useOfPF(p, name); use != "" {
				c.warn(diag.PFInUse, p.in("spec").in("pfs").in("names").nth(i), fmt.Sprintf("pool %s makes virtual functions of %s, which %s", p.Name, name, use), "take a card of its own, or make them while the node is drained")
			}
		}
	}
}

// useOfPF says what else an interface carries where the pool is, "" if nothing.
func (c *checker) useOfPF(p *pool, name string) string {
	for _, key := range sortedKeys(c.groups) {
		g := c.groups[key]
		l := g.links[name]
		if l == nil || !c.poolOnNodeOf(p, c.scopeOf([]*group{g})) {
			continue
		}
		if master := g.links[l.Master]; l.Master != "" && (master == nil || master.Kind != model.VRF) {
			return fmt.Sprintf("is a port of %s (%s)", l.Master, l.place())
		}
		if len(l.Addresses) > 0 {
			return fmt.Sprintf("has addresses of the host (%s)", l.place())
		}
		for _, n := range g.nodes {
			if len(n.Interfaces[name]) > 0 && selects(p.NodeSelector, n.Labels) {
				return fmt.Sprintf("has addresses of node %s (%s)", n.Name, n.place())
			}
		}
	}
	for _, key := range sortedKeys(c.groups) { // its VLANs may stand in another group of the same nodes
		g := c.groups[key]
		for _, k := range sortedKeys(g.links) {
			if l := g.links[k]; l.Parent == name && c.poolOnNodeOf(p, c.scopeOf([]*group{g})) {
				return fmt.Sprintf("carries %s (%s)", l.Name, l.place())
			}
		}
	}
	for _, f := range c.fabricList {
		if f.Device == name && f.scope != nil && c.poolOnNodeOf(p, f.scope) {
			return fmt.Sprintf("carries fabric %s (%s)", f.Name, f.place())
		}
	}
	for _, n := range c.netList {
		if n.HostDevice == name && n.Driver() != model.HOSTDEVICE && n.scope != nil && c.poolOnNodeOf(p, n.scope) {
			return fmt.Sprintf("carries network %s (%s)", n.Key(), n.place())
		}
	}
	return ""
}
