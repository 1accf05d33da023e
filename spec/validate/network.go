package validate

import (
	"fmt"
	"math/bits"

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
	odd    bool  // its type is not known, so rules about types say nothing
	tagged bool  // wants a VLAN or VNI
	auto   bool  // leaves its number open
	wire   *wire // where its frames are, nil if that cannot be said
}

// domain is the name of the fabric or host device, which are two name spaces, or of what a network without them stands on.
func (n *network) domain() string {
	switch {
	case n.Fabric != "":
		return "fabric " + n.Fabric
	case n.HostDevice != "":
		return "device " + n.HostDevice
	}
	return n.SpaceDomain
}

// linkless says that a network needs no link of the host: a virtual function carries its VLAN tag itself, and a delegate
// may need nothing that is known here.
func (n *network) linkless() bool {
	return n.Driver() == model.SRIOV || n.Fabric == "" && n.HostDevice == ""
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
	n.Fabric, n.HostDevice, n.DevicePool = v.Fabric, v.HostDevice, v.DevicePool
	c.networkType(n, s, v)
	c.identifiers(n, s, v)
	c.standing(n, s, v)
	c.mtu(s.in("mtu"), v.MTU, v.IPv6 != nil)
	n.MTU = v.MTU
	c.podSysctls(n, s.in("sysctls"), v)
	if v.InterfacePrefix != "" {
		c.interfacePrefix(s.in("interfacePrefix"), v.InterfacePrefix)
	}
	n.InterfacePrefix = v.InterfacePrefix
	c.table(n, s.in("table"), v.Table)
	n.IPv4 = c.subnet(s.in("ipv4"), v.IPv4, true)
	n.IPv6 = c.subnet(s.in("ipv6"), v.IPv6, false)
	c.reserved(n, s.in("reserved"), v)
	c.handsOut(n, s)
	c.blockSize(n, s.in("blockSize"), v.BlockSize)
	n.Sticky = c.choice(s.in("sticky"), v.Sticky, "StatefulSet") == "StatefulSet"
	if n.Sticky && v.IPv4 == nil && v.IPv6 == nil && !s.broken() {
		c.error(diag.FieldNotAllowed, s.in("sticky"), fmt.Sprintf("network %s has no addresses that Pods could keep", n.Key()), "add ipv4 or ipv6, or remove sticky")
	}
	n.NAD = c.choice(s.in("render"), v.Render, "nad") == "nad"
	n.AllowedTenants, n.SharedWith = sortedSet(v.AllowedTenants), sortedSet(v.SharedWith)
	if n.Namespace != "" && len(v.AllowedTenants) > 0 {
		c.error(diag.FieldNotAllowed, s.in("allowedTenants"), fmt.Sprintf("network %s belongs to a namespace, so no tenants can be allowed", n.Key()), "remove allowedTenants, or remove metadata.namespace to make it a network of the cluster")
	}
}

// identifiers checks VLAN and VNI.
func (c *checker) identifiers(n *network, s spot, v *v1.NetworkSpec) {
	n.tagged = v.VLAN != nil || v.VXLAN != nil
	n.auto = v.VLAN != nil && v.VLAN.Auto || v.VXLAN != nil && v.VXLAN.Auto
	if v.VLAN != nil && v.VXLAN != nil {
		c.error(diag.VLANAndVXLAN, s.in("vxlan"), fmt.Sprintf("network %s has a VLAN and a VXLAN", n.Key()), "keep one of them")
	}
	switch {
	case v.VLAN == nil, *v.VLAN == v1.ID{} && s.broken():
	case v.VLAN.Auto:
		n.VLANAuto = true
	case c.number(diag.InvalidVLAN, s.in("vlan"), v.VLAN.Value, 1, maxVLAN):
		n.VLAN = uint16(v.VLAN.Value)
	}
	c.priority(n, s, v)
	if v.VXLAN == nil {
		return
	}
	n.VXLAN = true
	if !v.VXLAN.Auto && (v.VXLAN.Value != 0 || !s.broken()) && c.number(diag.InvalidVNI, s.in("vxlan"), v.VXLAN.Value, 1, maxVNI) {
		n.VNI = uint32(v.VXLAN.Value)
	}
}

// priority checks the priority in the VLAN tag, which virtual functions alone have.
func (c *checker) priority(n *network, s spot, v *v1.NetworkSpec) {
	switch field := s.in("vlanQoS"); {
	case v.VLANQoS == 0 || !c.number(diag.InvalidNumber, field, int64(v.VLANQoS), 0, maxQoS) || n.odd:
	case n.Driver() != model.SRIOV:
		c.error(diag.FieldNotAllowed, field, fmt.Sprintf("network %s of type %s has no priority in its tags", n.Key(), n.Type), "remove vlanQoS, or set type to sriov")
	case v.VLAN == nil && !s.broken():
		c.error(diag.FieldNotAllowed, field, fmt.Sprintf("network %s has no VLAN tag that a priority could be in", n.Key()), "add vlan, or remove vlanQoS")
	default:
		n.QoS = uint8(v.VLANQoS)
	}
}

// networkID checks what names host links; how long they get is checked where they are made.
func (c *checker) networkID(s spot, id string) {
	if !linkChars(id) || len(id) > 63 {
		c.error(diag.InvalidName, s, fmt.Sprintf("%q cannot be part of a link's name", id), "no /, :, % or white space")
	}
}

// table checks the number of a routing table of Pods.
func (c *checker) table(n *network, s spot, table int64) {
	if !c.number(diag.InvalidNumber, s, table, 0, 1<<31-1) {
		return
	}
	n.Table = uint32(table)
	if table >= 253 && table <= 255 { // RT_TABLE_DEFAULT, _MAIN, _LOCAL in linux/rtnetlink.h
		c.warn(diag.TableReserved, s, fmt.Sprintf("table %d is the kernel's own (default, main or local): policy routes in it hold for all traffic of the Pod", table), "take a number from 1 to 252, or above 255")
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

// blockSize checks that blocks tile the CIDRs, and that there is one for each slot.
func (c *checker) blockSize(n *network, s spot, size int) {
	n.BlockSize = size
	if size < 0 || size > 65536 || size > 0 && bits.OnesCount(uint(size)) != 1 {
		c.error(diag.InvalidBlockSize, s, fmt.Sprintf("block size %d is no power of two from 1 to 65536", size), "take 16, for example")
		return
	}
	for _, v4 := range []bool{true, false} {
		subnet := n.subnetOf(v4)
		if subnet == nil {
			continue
		}
		blocks := blocksOf(*subnet, size)
		switch {
		case blocks == 0:
			c.error(diag.InvalidBlockSize, s, fmt.Sprintf("a block of %d addresses is larger than %s", size, subnet.CIDR), fmt.Sprintf("at most %d", 1<<(subnet.CIDR.Addr().BitLen()-subnet.CIDR.Bits())))
		case blocks < c.out.Slots:
			c.warn(diag.TooFewBlocks, familySpot(n.in("spec"), v4), fmt.Sprintf("%s has %s of addresses for %d slots, so nodes with a slot from %d on cannot give Pods an address", subnet.CIDR, plural(blocks, "block", "blocks"), c.out.Slots, blocks), widen(false, size > 1))
		}
	}
}
