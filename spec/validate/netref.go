package validate

import (
	"fmt"
	"slices"
	"strings"

	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// networkReferences checks what networks say of fabrics, devices, pools, tenants and each other, and finds their scopes.
func (c *checker) networkReferences() {
	deviceScopes := map[string]*scope{}
	for _, n := range c.netList {
		s := n.in("spec")
		switch {
		case n.Fabric != "":
			c.fabricOf(n, s)
		case n.HostDevice != "":
			if deviceScopes[n.HostDevice] == nil {
				deviceScopes[n.HostDevice] = c.scopeOfDevice(n.HostDevice)
			}
			c.hostDeviceOf(n, s, deviceScopes[n.HostDevice])
		case n.linkless():
			n.scope = c.everywhere()
		}
		if n.auto && len(c.nodes) > 1 {
			c.error(diag.IDUnassigned, n.idSpot(), fmt.Sprintf("network %s leaves its %s open, but %d nodes have to agree on it without a cluster", n.Key(), idWord(n), len(c.nodes)), "write the number")
		}
		c.offered(n, s)
		c.partners(n, s)
		if n.Kind == model.ClusterNetwork {
			n.AllowedNamespaces = c.allowedNamespaces(n)
		}
		c.reservedNamespaces(n, s)
	}
}

// fabricOf finds the fabric and where it is.
func (c *checker) fabricOf(n *network, s spot) {
	unsure := anyBroken(c.docs.Topologies)
	if n.fabric = c.fabrics[n.Fabric]; n.fabric == nil {
		c.dangling("fabric", n.Fabric, s.in("fabric"), keys(c.fabrics), unsure)
		return
	}
	if !unsure {
		n.device, n.scope = n.fabric.Device, n.fabric.scope
	}
	c.onFabric(n, s)
}

// hostDeviceOf finds where the device is. A topology that could not be read may declare it.
func (c *checker) hostDeviceOf(n *network, s spot, where *scope) {
	unsure := anyBroken(c.docs.Topologies)
	if !unsure && len(where.groups) > 0 {
		n.device, n.scope = n.HostDevice, where
	}
	if len(where.groups) == 0 {
		c.dangling("host device", n.HostDevice, s.in("hostDevice"), c.devices(), unsure)
	}
	if n.VXLAN && n.Driver() != model.HOSTDEVICE && n.Driver() != model.SRIOV && !s.broken() && !unsure {
		c.error(diag.NoUnderlay, s.in("vxlan"), fmt.Sprintf("network %s wants a VXLAN, but %s is no fabric", n.Key(), n.HostDevice), "declare a fabric with a vxlan underlay on that device, and name it")
	}
}

// everywhere is the scope of networks that stand on nothing of the topology.
func (c *checker) everywhere() *scope {
	all := make([]*group, 0, len(c.groups))
	for _, g := range c.groups {
		all = append(all, g)
	}
	return c.scopeOf(all)
}

// offered looks for a pool of the resource. Other device plugins than DANM's may offer it, so this is a warning.
func (c *checker) offered(n *network, s spot) {
	if n.DevicePool == "" || c.docs.Incomplete || anyBroken(c.docs.SRIOVPools) || s.broken() {
		return
	}
	var known []string
	for _, p := range c.poolList {
		if p.ResourceName == n.DevicePool {
			return
		}
		known = append(known, p.ResourceName)
	}
	hint := diag.Suggest(n.DevicePool, known)
	if hint == "" {
		hint = "add an SRIOVPool with this resourceName, unless another device plugin offers it"
	}
	c.warn(diag.PoolUnknown, s.in("devicePool"), fmt.Sprintf("no SRIOVPool of the bundle offers %s", n.DevicePool), hint)
}

// partners checks the tenants and networks that a network names.
func (c *checker) partners(n *network, s spot) {
	for k, name := range n.used.AllowedTenants {
		if c.tenants[name] == nil {
			c.dangling("tenant", name, s.in("allowedTenants").nth(k), keys(c.tenants), anyBroken(c.docs.Tenants))
		}
	}
	for k, name := range n.used.SharedWith {
		switch sp := s.in("sharedWith").nth(k); {
		case name == n.Key():
			c.error(diag.SharedMismatch, sp, fmt.Sprintf("network %s is shared with itself", name), "name the other networks only")
		case c.networks[name] == nil:
			c.dangling("network", name, sp, keys(c.networks), anyBroken(c.docs.Networks))
		}
	}
}

// reservedNamespaces: a reservation for a namespace that may not use the network is for nobody.
func (c *checker) reservedNamespaces(n *network, s spot) {
	if len(n.AllowedNamespaces) == 0 || s.broken() || c.docs.Incomplete || anyBroken(c.docs.Tenants) {
		return
	}
	for i, r := range n.used.Reserved {
		if r.Namespace != "" && !slices.Contains(n.AllowedNamespaces, r.Namespace) {
			c.error(diag.ReservedForNobody, s.in("reserved").nth(i).in("namespace"), fmt.Sprintf("namespace %s may not use network %s, so nobody can use the reservation %s", r.Namespace, n.Key(), r.Name), "open the network to the namespace's tenant, or correct the namespace")
		}
	}
}

func (c *checker) devices() []string {
	seen := map[string]bool{}
	for _, g := range c.groups {
		for name := range g.links {
			seen[name] = true
		}
	}
	return keys(seen)
}

// onFabric checks a network's id against what the fabric offers and the tenant was granted.
func (c *checker) onFabric(n *network, s spot) {
	f := n.fabric
	if s.broken() || f.broken() {
		return
	}
	field, word := n.idSpot(), idWord(n)
	if n.VXLAN && f.VXLAN == nil && n.Driver() != model.SRIOV {
		c.error(diag.NoUnderlay, field, fmt.Sprintf("network %s wants a VXLAN, but fabric %s has no underlay", n.Key(), f.Name), "add vxlan to the fabric ("+f.place()+")")
	}
	judged := n.ID() != 0 || n.auto
	if f.ranged && judged && !inRanges(n, f.VLANRanges, f.VNIRanges) {
		c.error(diag.IDOutsideRange, field, fmt.Sprintf("fabric %s does not offer %s", f.Name, idText(n)), offer(word, f.VLANRanges, f.VNIRanges))
		judged = false // one report is enough
	}
	t := c.namespaces[n.Namespace]
	if n.Namespace == "" || t == nil || len(t.Fabrics) == 0 || t.broken() {
		return
	}
	i := slices.IndexFunc(t.Fabrics, func(g model.TenantFabric) bool { return g.Fabric == f.Name })
	if i < 0 {
		c.error(diag.FabricNotGranted, s.in("fabric"), fmt.Sprintf("tenant %s, whose namespace %s is, may not use fabric %s", t.Name, n.Namespace, f.Name), "list the fabric in the tenant ("+t.place()+")")
		return
	}
	if g := t.Fabrics[i]; t.ranged && judged && !inRanges(n, g.VLANRanges, g.VNIRanges) {
		c.error(diag.IDOutsideRange, field, fmt.Sprintf("tenant %s was not granted %s on fabric %s", t.Name, idText(n), f.Name), offer(word, g.VLANRanges, g.VNIRanges))
	}
}

// inRanges: no ranges at all offer everything; ranges of one sort offer that sort only. An open number needs any range.
func inRanges(n *network, vlans, vnis []model.Range32) bool {
	if len(vlans)+len(vnis) == 0 {
		return true
	}
	mine := vlans
	if n.VXLAN {
		mine = vnis
	}
	return n.ID() == 0 && len(mine) > 0 || slices.ContainsFunc(mine, func(r model.Range32) bool { return r.Contains(n.ID()) })
}

func idWord(n *network) string {
	if n.VXLAN {
		return "VNI"
	}
	return "VLAN"
}

// idText is a network's number for people.
func idText(n *network) string {
	if n.ID() == 0 {
		return "any " + idWord(n)
	}
	return fmt.Sprintf("%s %d", idWord(n), n.ID())
}

// idSpot is the field that holds a network's VLAN or VNI.
func (n *network) idSpot() spot {
	if n.VXLAN {
		return n.in("spec").in("vxlan")
	}
	return n.in("spec").in("vlan")
}

func offer(word string, vlans, vnis []model.Range32) string {
	mine := vlans
	if word == "VNI" {
		mine = vnis
	}
	if len(mine) == 0 {
		return "no " + word + "s are offered"
	}
	texts := make([]string, len(mine))
	for i, r := range mine {
		texts[i] = r.String()
	}
	if len(mine) == 1 && mine[0].First == mine[0].Last {
		return "take " + texts[0]
	}
	return "take one of " + strings.Join(texts, ", ")
}
