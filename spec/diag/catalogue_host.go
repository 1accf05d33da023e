package diag

// Codes of the rule book (spec/validate) about a node's own links, rules and kernel parameters.
const (
	DuplicateRule     Code = "DuplicateRule"
	GroupWithoutNodes Code = "GroupWithoutNodes"
	InvalidRule       Code = "InvalidRule"
	InvalidSysctl     Code = "InvalidSysctl"
	LinkLoop          Code = "LinkLoop"
	NoMembership      Code = "NoMembership"
	NodeAddressTwice  Code = "NodeAddressTwice"
	NodeWithoutGroup  Code = "NodeWithoutGroup"
	RouteOutsideVRF   Code = "RouteOutsideVRF"
	NotMember         Code = "NotMember"
	PortHasAddresses  Code = "PortHasAddresses"
	PortMTU           Code = "PortMTU"
	SysctlConflict    Code = "SysctlConflict"
	UndeclaredPort    Code = "UndeclaredPort"
	UnknownSysctl     Code = "UnknownSysctl"
	VRFTableTaken     Code = "VRFTableTaken"
)

var hostCodes = []Explanation{
	{DuplicateRule, "a routing rule is written twice",
		"The kernel refuses a second rule that is the same in everything (EEXIST).",
		"Remove one of them."},
	{GroupWithoutNodes, "a group selects no node",
		"Selectors are compared with the labels of nodes word by word; one that fits nothing configures nothing.",
		"Correct the selector, or give a node its labels. A group for nodes to come may stay as it is."},
	{InvalidRule, "a routing rule can never match, or is the kernel's own",
		"A rule has one family, and a mark lies within its mask. The kernel asks main at priority 32766 and default at 32767 (ip-rule(8)).",
		"Correct the selectors or the priority; write one rule for each family."},
	{InvalidSysctl, "a kernel parameter cannot have this value",
		"Bounds are those of Documentation/networking/ip-sysctl.rst; the kernel would refuse the value, or take another one in silence.",
		"Take a value that the message names."},
	{LinkLoop, "a link stands on itself",
		"A VLAN stands on its device, a bridge on its ports. Going down from link to link has to end at an interface.",
		"Name another device, or take the link out of the bridge."},
	{NoMembership, "a bridge filters VLANs and no port is a member of any",
		"With vlanFiltering a frame passes only between members of its VLAN, and members are those that the bundle names.",
		"Say the ports' VLANs in portVLANs, and the bridge's own in vlans."},
	{NodeAddressTwice, "two nodes have one address on links of one name",
		"Links of one name are as a rule on one wire, where an address belongs to one host; the other would not be reached.",
		"Give each node its own address. Addresses that several nodes announce belong on a dummy."},
	{NodeWithoutGroup, "a node is in no group",
		"What is configured on a node is what the groups and SRIOVPools say whose selectors its labels fit. Without one the node gets an empty plan.",
		"Give the node the labels of a group's selector, or of a pool's nodeSelector."},
	{NotMember, "a filtering bridge would drop the frames of a link on it",
		"What stands on a bridge sends and receives through the bridge itself, which has to be a member of the VLAN: tagged for VLANs on it, untagged for what uses it as it is.",
		"Add the VLAN to the bridge's vlans."},
	{PortHasAddresses, "a port of a bond or bridge has addresses",
		"The bond or bridge takes all packets of its ports, so nobody would answer on the port's addresses.",
		"Move the addresses to the bond or bridge."},
	{PortMTU, "a port of a bond has an MTU of its own",
		"The kernel sets the MTU of a bond's ports whenever it sets the bond's (bond_change_mtu).",
		"Declare mtu on the bond only."},
	{RouteOutsideVRF, "a route leaves by a link of a VRF and is in another table",
		"What comes in by a VRF's interfaces is routed by the VRF's table (Documentation/networking/vrf.rst); a route in main or elsewhere is not asked.",
		"Set the route's table to the VRF's."},
	{SysctlConflict, "two groups give one kernel parameter two values",
		"A node that matches several groups gets the parameters of all. Two values have no order that would decide between them.",
		"Keep the parameter in one group, or make the selectors exclude each other."},
	{UndeclaredPort, "a port is not declared and spelt almost like a link that is",
		"A port that the group does not declare is taken for a card of that name, which is handy where nothing else is said of it, and hides slips.",
		"Correct the name, or declare the card under interfaces."},
	{UnknownSysctl, "a kernel parameter is not one that a bundle may set",
		"Bundles set parameters of routing, neighbours and buffers, from a list (docs/reference-sysctls.md). Others would reach beyond the network, or take addresses away behind the back of a plan.",
		"Correct the key, or set it where the node itself is configured."},
	{VRFTableTaken, "two VRFs of a node share a routing table",
		"A VRF's table is what keeps it apart; with one table two VRFs are one.",
		"Give each VRF its own table."},
}
