package validate

import (
	"fmt"
	"slices"

	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// hostDevices checks networks whose Pods get a device of the host for themselves: with the device goes everything that
// stands on it, and the host's own way out.
func (c *checker) hostDevices() {
	var before []*network
	for _, n := range c.netList {
		if n.Driver() != model.HOSTDEVICE || n.scope == nil || n.device == "" || n.broken() || n.Fabric != "" {
			continue
		}
		if why := c.unmovable(n); why != "" {
			c.error(diag.HostDeviceUnfit, n.in("spec").in("hostDevice"), fmt.Sprintf("%s cannot be moved into a Pod: %s", n.HostDevice, why), "name a physical interface that the host itself does not use")
		} else if who := c.otherUser(n); who != "" {
			c.error(diag.DeviceConflict, n.in("spec").in("hostDevice"), fmt.Sprintf("network %s moves %s into a Pod, but %s uses it", n.Key(), n.HostDevice, who), "give the network a device of its own")
		}
		for _, o := range before {
			if o.device == n.device && c.meet(o.scope, n.scope) {
				c.warn(diag.HostDeviceTwice, n.in("spec").in("hostDevice"), fmt.Sprintf("networks %s and %s move the same device %s into Pods; a node has it once, so one Pod of either gets it", o.Key(), n.Key(), n.device), "give each network a device of its own")
				break
			}
		}
		before = append(before, n)
	}
}

// unmovable says why the host cannot do without a device, "" if it can.
func (c *checker) unmovable(n *network) string {
	for _, name := range sortedKeys(c.groups) {
		g := c.groups[name]
		l := g.links[n.device]
		switch {
		case l == nil || !c.meet(c.scopeOf([]*group{g}), n.scope):
		case l.Kind != model.Physical:
			return fmt.Sprintf("it is a %s that DANM makes on the host (%s)", l.Kind, l.place())
		case len(l.Addresses) > 0:
			return fmt.Sprintf("it has addresses of the host (%s)", l.place())
		case slices.ContainsFunc(g.Routes, func(r model.Route) bool { return r.Dev == n.device }):
			return fmt.Sprintf("the host has routes over it (%s)", g.place())
		}
	}
	for _, node := range n.scope.nodeList() {
		if len(node.Interfaces[n.device]) > 0 {
			return fmt.Sprintf("it has addresses of node %s (%s)", node.Name, node.place())
		}
	}
	return ""
}

// otherUser says who else uses a device, "" if nobody does.
func (c *checker) otherUser(n *network) string {
	for _, name := range sortedKeys(c.groups) {
		g := c.groups[name]
		if !c.meet(c.scopeOf([]*group{g}), n.scope) {
			continue
		}
		for _, link := range sortedKeys(g.links) {
			l := g.links[link]
			switch {
			case l.Parent == n.device:
				return fmt.Sprintf("the interface %s (%s)", link, l.place())
			case link == n.device && l.Master != "":
				return fmt.Sprintf("%s, of which it is a port (%s),", l.Master, l.place())
			}
		}
	}
	for _, f := range c.fabricList {
		if f.Device == n.device && c.meet(f.scope, n.scope) {
			return fmt.Sprintf("fabric %s (%s)", f.Name, f.place())
		}
	}
	for _, o := range c.netList {
		if o.Driver() != model.HOSTDEVICE && o.device == n.device && o.scope != nil && c.meet(o.scope, n.scope) {
			return fmt.Sprintf("network %s (%s)", o.Key(), o.place())
		}
	}
	for _, p := range c.poolList {
		if slices.Contains(p.PFs.Names, n.device) && c.poolOnNodeOf(p, n.scope) {
			return fmt.Sprintf("SRIOVPool %s (%s)", p.Name, p.place())
		}
	}
	return ""
}

// poolOnNodeOf says whether a pool reaches a node of a scope; without declared nodes that is not known, and supposed.
func (c *checker) poolOnNodeOf(p *pool, s *scope) bool {
	return len(c.nodes) == 0 || slices.ContainsFunc(s.nodeList(), func(n *node) bool { return selects(p.NodeSelector, n.Labels) })
}
