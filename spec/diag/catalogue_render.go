package diag

// Codes of render: what is seen first when host links are named and identifiers are given out.
const (
	MTUAboveCard           Code = "MTUAboveCard"
	BridgeNeedsBridge      Code = "BridgeNeedsBridge"
	ConflictingInterface   Code = "ConflictingInterface"
	DeviceConflict         Code = "DeviceConflict"
	HardwareOfNoNode       Code = "HardwareOfNoNode"
	IDUnassigned           Code = "IDUnassigned"
	LinkNameClash          Code = "LinkNameClash"
	MTUAboveParent         Code = "MTUAboveParent"
	NetworkReachesNobody   Code = "NetworkReachesNobody"
	NoSRIOV                Code = "NoSRIOV"
	PoolFindsNothing       Code = "PoolFindsNothing"
	PoolOnNoNode           Code = "PoolOnNoNode"
	UnderlayAddressMissing Code = "UnderlayAddressMissing"
	UnicastPeersMany       Code = "UnicastPeersMany"
	VFsAboveCard           Code = "VFsAboveCard"
)

var renderCodes = []Explanation{
	{MTUAboveCard, "a card of a node cannot have the MTU that is declared for it",
		"Each device has a largest MTU (IFLA_MAX_MTU); nodes report it in their inventory. The plan blocks the MTU on that node and applies the rest.",
		"Declare a smaller MTU, or give the node a group of its own."},
	{BridgeNeedsBridge, "a bridge network stands on a device that is no bridge",
		"Pods of a network of type bridge are plugged into a host bridge. Without VLAN or VNI no bridge is made, and making one of a physical interface would take its addresses away.",
		"Declare a bridge in the topology and name it as hostDevice, or give the network a VLAN or VNI: then a bridge br_<networkID> is made."},
	{ConflictingInterface, "two groups declare one interface differently",
		"A node that matches several groups gets all their interfaces. Two values for one attribute have no order that would decide between them.",
		"Keep the attribute in one group, or make the selectors exclude each other."},
	{DeviceConflict, "two networks use one device in ways the kernel does not combine",
		"A device serves macvlan, or ipvlan, or is a port of a bridge: each takes the device's receive handler, and the kernel answers EBUSY to the second kind (netdev_rx_handler_register).",
		"Give networks on one device the same type, or separate them by VLAN or VNI."},
	{HardwareOfNoNode, "an inventory has cards of a node that there is not",
		"Under hardware stand names of nodes, as the Topology or the inventory's own nodes have them. The cards of any other are not looked at.",
		"Correct the name, or add the node."},
	{IDUnassigned, "no VNI is free for a network",
		"A network with vxlan: auto gets the lowest free VNI of its tenant's share of the fabric, or of the fabric's ranges. All of them are taken.",
		"Widen vniRanges, or write a number that is inside them."},
	{LinkNameClash, "two networks need host links of one name",
		"Host links are named vx_<networkID>, <networkID>.<vlan> and br_<networkID>, as DANM names them, and a host has one link of a name.",
		"Give one of the networks another networkID."},
	{MTUAboveParent, "an MTU does not fit the device below",
		"VXLAN adds 50 bytes (70 over IPv6) to each packet (RFC 7348, section 5). Larger packets would be dropped or fragmented without a word. A VLAN has its device's MTU at most, a virtual function its card's, and a network on virtual functions its pool's.",
		"Lower the mtu of the network, link or pool, or raise the device's on every node and switch on the way."},
	{NetworkReachesNobody, "a restricted cluster network has no namespace",
		"The network is restricted to tenants, but none of them has a namespace. An empty list of namespaces means everyone, so it is refused instead of being opened.",
		"Give one of the tenants a namespace, or lift the restriction."},
	{NoSRIOV, "a card that a pool names has no SR-IOV",
		"The card says that it can have no virtual functions (sriov_totalvfs). Many cards have SR-IOV switched off in their firmware, and many machines in their setup.",
		"Switch SR-IOV on, or name another card."},
	{PoolFindsNothing, "no node of a pool has a card that it looks for",
		"All nodes that the pool is for have reported their cards, and its selector finds none: each list given must have a member that agrees.",
		"Compare the selector with the cards, which `danmctl status` and the status of NodePlans show."},
	{PoolOnNoNode, "no node has the labels that a pool wants",
		"Nobody offers the pool's resource, and Pods that ask for it stay pending.",
		"Correct the pool's nodeSelector, or label the nodes."},
	{UnderlayAddressMissing, "a node of a unicast VXLAN fabric has no underlay address",
		"Without multicast every node sends broadcasts to the declared addresses of the others. A node without an address would be reached by nobody.",
		"Declare the node's address on the fabric's device under nodes[].interfaces, or set vxlan.multicast."},
	{UnicastPeersMany, "many nodes flood to each other by unicast",
		"Each broadcast is sent once a peer, and each node keeps an entry a peer and VNI. This is fine up to 64 nodes and refused above 500.",
		"Set vxlan.multicast on the fabric, or use VLANs."},
	{VFsAboveCard, "a pool wants more virtual functions than a card can have",
		"Each card has a maximum (sriov_totalvfs), which its firmware may lower. In a cluster this is a warning and the node's plan blocks the pool on that card: all others go on.",
		"Lower numVFs, raise the maximum in the card's firmware, or give the card a pool of its own."},
}
