package validate

import (
	"fmt"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"danm.io/danm/spec/bundle/v1"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// network is the model's network with the place it came from and what rules between networks look at.
type network struct {
	model.Network
	spot
	device string  // below the VLAN or VXLAN: the fabric's, or the host device
	fabric *fabric // nil without one
	scope  *scope  // nil if the device is not known
	used   v1.NetworkSpec
}

// domain is the name of the fabric or host device, which are two name spaces.
func (n *network) domain() string {
	if n.Fabric != "" {
		return "fabric " + n.Fabric
	}
	return "device " + n.HostDevice
}

// readNetworks checks what networks say by themselves.
func (c *checker) readNetworks() {
	for i := range c.docs.Networks {
		doc := &c.docs.Networks[i]
		s, v := at(&doc.Where, ""), &doc.Value
		meta := s.in("metadata")
		c.subdomain(meta.in("name"), v.Metadata.Name)
		if v.Metadata.Namespace != "" {
			c.label(meta.in("namespace"), v.Metadata.Namespace)
		}
		n := &network{Network: model.Network{Kind: model.ClusterNetwork, Namespace: v.Metadata.Namespace, Name: v.Metadata.Name}, spot: s, used: v.Spec}
		if n.Namespace != "" {
			n.Kind = model.TenantNetwork
		}
		if !c.unique("network", n.Key(), meta.in("name")) {
			continue
		}
		c.origins["Network/"+n.Key()] = s.origin()
		c.networkSpec(n, s.in("spec"), &v.Spec)
		c.networks[n.Key()] = n
		c.netList = append(c.netList, n)
	}
}

func (c *checker) networkSpec(n *network, s spot, v *v1.NetworkSpec) {
	n.NetworkID = v.NetworkID
	if n.NetworkID == "" {
		n.NetworkID = n.Name
	} else {
		c.networkID(s.in("networkID"), n.NetworkID)
	}
	n.Type = model.IPVLAN
	if v.Type != "" {
		n.Type = model.NetworkType(v.Type)
		if !slices.Contains(networkTypes, v.Type) {
			c.error(diag.InvalidType, s.in("type"), fmt.Sprintf("%q is no network type", v.Type), typeHint(v.Type))
		}
	}
	n.Fabric, n.HostDevice = v.Fabric, v.HostDevice
	n.SpaceDomain = n.Fabric + n.HostDevice
	switch {
	case v.Fabric == "" && v.HostDevice == "" && !s.broken():
		c.error(diag.FabricOrDevice, s, fmt.Sprintf("network %s is on nothing", n.Key()), "give fabric or hostDevice")
	case v.Fabric != "" && v.HostDevice != "":
		c.error(diag.FabricOrDevice, s.in("hostDevice"), fmt.Sprintf("network %s names a fabric and a host device", n.Key()), "keep one of them")
	}
	c.identifiers(n, s, v)
	c.mtu(s.in("mtu"), v.MTU, v.IPv6 != nil)
	n.MTU = v.MTU
	if v.InterfacePrefix != "" {
		c.interfacePrefix(s.in("interfacePrefix"), v.InterfacePrefix)
	}
	n.InterfacePrefix = v.InterfacePrefix
	c.number(diag.InvalidNumber, s.in("table"), v.Table, 0, 1<<31-1)
	n.Table = uint32(v.Table)
	n.IPv4 = c.subnet(s.in("ipv4"), v.IPv4, true)
	n.IPv6 = c.subnet(s.in("ipv6"), v.IPv6, false)
	c.blockSize(n, s.in("blockSize"), v.BlockSize)
	n.AllowedTenants, n.SharedWith = sortedSet(v.AllowedTenants), sortedSet(v.SharedWith)
	if n.Namespace != "" && len(v.AllowedTenants) > 0 {
		c.error(diag.FieldNotAllowed, s.in("allowedTenants"), fmt.Sprintf("network %s belongs to a namespace, so no tenants can be allowed", n.Key()), "remove allowedTenants, or remove metadata.namespace to make it a network of the cluster")
	}
}

// identifiers checks VLAN and VNI.
func (c *checker) identifiers(n *network, s spot, v *v1.NetworkSpec) {
	if v.VLAN != nil && v.VXLAN != nil {
		c.error(diag.VLANAndVXLAN, s.in("vxlan"), fmt.Sprintf("network %s has a VLAN and a VXLAN", n.Key()), "keep one of them")
	}
	if v.VLAN != nil {
		if c.number(diag.InvalidVLAN, s.in("vlan"), int64(*v.VLAN), 1, maxVLAN) {
			n.VLAN = uint16(*v.VLAN)
		}
	}
	if v.VXLAN == nil {
		return
	}
	n.VXLAN = true
	if v.VXLAN.Auto {
		return
	}
	if c.number(diag.InvalidVNI, s.in("vxlan"), v.VXLAN.Value, 1, maxVNI) {
		n.VNI = uint32(v.VXLAN.Value)
	}
}

func typeHint(word string) string {
	if hint := diag.Suggest(word, networkTypes); hint != "" {
		return hint
	}
	return "one of " + strings.Join(networkTypes, ", ")
}

// networkID checks what names host links; how long they get is checked where they are made.
func (c *checker) networkID(s spot, id string) {
	if !linkChars(id) || len(id) > 63 {
		c.error(diag.InvalidName, s, fmt.Sprintf("%q cannot be part of a link's name", id), "no /, :, % or white space")
	}
}

// interfacePrefix leaves room for two digits in the Pod's interface name.
func (c *checker) interfacePrefix(s spot, prefix string) {
	switch {
	case !linkChars(prefix):
		c.error(diag.InvalidName, s, fmt.Sprintf("%q cannot begin a link's name", prefix), "no /, :, % or white space")
	case len(prefix) > maxLinkName-2:
		c.error(diag.LinkNameTooLong, s, fmt.Sprintf("the prefix %q has %d bytes; with a number behind it the kernel takes %d", prefix, len(prefix), maxLinkName-2), "choose a shorter prefix")
	}
}

// blockSize checks that blocks tile the CIDRs.
func (c *checker) blockSize(n *network, s spot, size int) {
	n.BlockSize = size
	if size == 0 {
		return
	}
	if size < 0 || size > 65536 || bits.OnesCount(uint(size)) != 1 {
		c.error(diag.InvalidBlockSize, s, fmt.Sprintf("block size %d is no power of two from 1 to 65536", size), "take 16, for example")
		return
	}
	for _, subnet := range []*model.Subnet{n.IPv4, n.IPv6} {
		if subnet == nil {
			continue
		}
		if free := subnet.CIDR.Addr().BitLen() - subnet.CIDR.Bits(); free < bits.TrailingZeros(uint(size)) {
			c.error(diag.InvalidBlockSize, s, fmt.Sprintf("a block of %d addresses is larger than %s", size, subnet.CIDR), fmt.Sprintf("at most %d", 1<<free))
		}
	}
}

// networkReferences checks what networks say of fabrics, devices, tenants and each other, and finds their scopes.
func (c *checker) networkReferences() {
	unsureTopology, unsureNet, unsureTenant := anyBroken(c.docs.Topologies), anyBroken(c.docs.Networks), anyBroken(c.docs.Tenants)
	deviceScopes := map[string]*scope{}
	for _, n := range c.netList {
		s := n.in("spec")
		switch {
		case n.Fabric != "":
			if n.fabric = c.fabrics[n.Fabric]; n.fabric == nil {
				c.dangling("fabric", n.Fabric, s.in("fabric"), keys(c.fabrics), unsureTopology)
				break
			}
			if !unsureTopology {
				n.device, n.scope = n.fabric.Device, n.fabric.scope
			}
			c.onFabric(n, s)
		case n.HostDevice != "":
			if deviceScopes[n.HostDevice] == nil {
				deviceScopes[n.HostDevice] = c.scopeOfDevice(n.HostDevice)
			}
			if sc := deviceScopes[n.HostDevice]; unsureTopology {
				break // which devices there are is not known
			} else if len(sc.groups) > 0 {
				n.device, n.scope = n.HostDevice, sc
			} else {
				c.dangling("host device", n.HostDevice, s.in("hostDevice"), c.devices(), unsureTopology)
			}
			if n.VXLAN && !s.broken() {
				c.error(diag.NoUnderlay, s.in("vxlan"), fmt.Sprintf("network %s wants a VXLAN, but %s is no fabric", n.Key(), n.HostDevice), "declare a fabric with a vxlan underlay on that device, and name it")
			}
		}
		if n.VXLAN && n.used.VXLAN.Auto && len(c.nodes) > 1 {
			c.error(diag.IDUnassigned, s.in("vxlan"), fmt.Sprintf("network %s leaves its VNI open, but %d nodes have to agree on it without a cluster", n.Key(), len(c.nodes)), "write the number")
		}
		for k, name := range n.used.AllowedTenants {
			if c.tenants[name] == nil {
				c.dangling("tenant", name, s.in("allowedTenants").nth(k), keys(c.tenants), unsureTenant)
			}
		}
		for k, name := range n.used.SharedWith {
			switch sp := s.in("sharedWith").nth(k); {
			case name == n.Key():
				c.error(diag.SharedMismatch, sp, fmt.Sprintf("network %s is shared with itself", name), "name the other networks only")
			case c.networks[name] == nil:
				c.dangling("network", name, sp, keys(c.networks), unsureNet)
			}
		}
		if n.Kind == model.ClusterNetwork {
			n.AllowedNamespaces = c.allowedNamespaces(n)
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
	field, word := s.in("vlan"), "VLAN"
	if n.VXLAN {
		field, word = s.in("vxlan"), "VNI"
		if f.VXLAN == nil {
			c.error(diag.NoUnderlay, field, fmt.Sprintf("network %s wants a VXLAN, but fabric %s has no underlay", n.Key(), f.Name), "add vxlan to the fabric ("+f.place()+")")
		}
	}
	if f.ranged && n.ID() != 0 && !inRanges(n, f.VLANRanges, f.VNIRanges) {
		c.error(diag.IDOutsideRange, field, fmt.Sprintf("fabric %s does not offer %s %d", f.Name, word, n.ID()), offer(word, f.VLANRanges, f.VNIRanges))
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
	if g := t.Fabrics[i]; t.ranged && n.ID() != 0 && !inRanges(n, g.VLANRanges, g.VNIRanges) {
		c.error(diag.IDOutsideRange, field, fmt.Sprintf("tenant %s was not granted %s %d on fabric %s", t.Name, word, n.ID(), f.Name), offer(word, g.VLANRanges, g.VNIRanges))
	}
}

// inRanges: no ranges at all offer everything; ranges of one sort offer that sort only.
func inRanges(n *network, vlans, vnis []model.Range32) bool {
	if len(vlans)+len(vnis) == 0 {
		return true
	}
	mine := vlans
	if n.VXLAN {
		mine = vnis
	}
	return slices.ContainsFunc(mine, func(r model.Range32) bool { return r.Contains(n.ID()) })
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
		texts[i] = strconv.Itoa(int(r.First)) + "-" + strconv.Itoa(int(r.Last))
	}
	return "take one of " + strings.Join(texts, ", ")
}
