package v1

// Topology is the physical side: nodes, what is configured on groups of them, and the fabrics networks run on. A bundle may
// have several; names of nodes, groups and fabrics are unique over all.
type Topology struct {
	// APIVersion is bundle.danm.io/v1.
	APIVersion string `json:"apiVersion" schema:"required"`
	// Kind is Topology.
	Kind string `json:"kind" schema:"required"`
	// Metadata names the topology.
	Metadata Metadata `json:"metadata" schema:"required"`
	// Spec is the physical side of the cluster or of a part of it.
	Spec TopologySpec `json:"spec" schema:"required"`
}

// TopologySpec is the physical side of the cluster or of a part of it.
type TopologySpec struct {
	// Slots is, without a cluster, the fixed number of shares into which every address pool is cut: node k hands out the
	// blocks with number ≡ k mod slots. It cannot be changed while an address is in use.
	Slots int `json:"slots,omitempty" schema:"min=0,max=65536"`
	// Nodes are the machines, without a cluster; in a cluster they come from the API.
	Nodes []Node `json:"nodes,omitempty"`
	// Groups configure every node that their selector matches.
	Groups []Group `json:"groups,omitempty"`
	// Fabrics are the devices on which networks get their VLANs and VNIs.
	Fabrics []Fabric `json:"fabrics,omitempty"`
	// Adopt is for groups that do not say it themselves.
	Adopt string `json:"adopt,omitempty" schema:"enum=Identical|Never"`
}

// Node is one machine.
type Node struct {
	// Name of the node, as the agent is started with: a DNS subdomain.
	Name string `json:"name" schema:"required"`
	// Slot is the node's immutable share of every address pool: 0 to slots-1, unique.
	Slot *int `json:"slot,omitempty" schema:"min=0"`
	// Labels are what group selectors look at.
	Labels map[string]string `json:"labels,omitempty"`
	// Interfaces carry this node's own addresses; they are added to the group's link of that name.
	Interfaces []NodeInterface `json:"interfaces,omitempty"`
}

// NodeInterface is one node's share of an interface that its groups declare.
type NodeInterface struct {
	// Name of a link of the node's groups.
	Name string `json:"name" schema:"required"`
	// Addresses with prefix length, such as 192.0.2.1/24.
	Addresses []string `json:"addresses,omitempty"`
}

// Group is host configuration for every node whose labels match the selector.
type Group struct {
	// Name is unique over all topologies.
	Name string `json:"name" schema:"required"`
	// Selector lists labels that must all match; empty matches every node.
	Selector map[string]string `json:"selector,omitempty"`
	// Interfaces are physical and exist before DANM; only the attributes written here are managed.
	Interfaces []Interface `json:"interfaces,omitempty"`
	// Bonds are created on the node.
	Bonds []Bond `json:"bonds,omitempty"`
	// Bridges are created on the node.
	Bridges []Bridge `json:"bridges,omitempty"`
	// VLANs are created on the node, for the node's own use.
	VLANs []VLANLink `json:"vlans,omitempty"`
	// Dummies are created on the node.
	Dummies []Dummy `json:"dummies,omitempty"`
	// VRFs are created on the node.
	VRFs []VRF `json:"vrfs,omitempty"`
	// Routes are set on the node.
	Routes []HostRoute `json:"routes,omitempty"`
	// Rules choose routing tables on the node.
	Rules []Rule `json:"rules,omitempty"`
	// Sysctls are kernel parameters of the node, from a list of those that concern its network (reference-sysctls.md): keys as
	// sysctl(8) has them, a dot in a link's name written as /. Values are in quotes.
	Sysctls map[string]string `json:"sysctls,omitempty"`
	// Adopt says what becomes of a link that is there already under the name of one to create, and that nobody of DANM made:
	// Identical (default) takes it over without a change if kind, device and id are the same; Never reports it and waits
	// until it is gone. Links of networks on the group's devices follow it.
	Adopt string `json:"adopt,omitempty" schema:"enum=Identical|Never"`
}

// Interface is a physical interface.
type Interface struct {
	// Name by which the bundle calls the interface, at most 15 bytes; without match also the kernel's name.
	Name string `json:"name" schema:"required"`
	// Match finds the interface by something else than its name; everything given must agree.
	Match *Match `json:"match,omitempty"`
	// MTU in bytes; not managed if absent.
	MTU int `json:"mtu,omitempty" schema:"min=68,max=65535"`
	// Up true keeps the interface up.
	Up bool `json:"up,omitempty"`
	// Addresses with prefix length, the same on every node of the group; a node's own addresses stand in nodes[].interfaces.
	Addresses []string `json:"addresses,omitempty"`
}

// Match finds a physical interface. Everything given must agree.
type Match struct {
	// Name the kernel gives the interface.
	Name string `json:"name,omitempty"`
	// MAC is the permanent hardware address, such as 52:54:00:12:34:56.
	MAC string `json:"mac,omitempty"`
	// PCI is the address on the bus, such as 0000:3b:00.0.
	PCI string `json:"pci,omitempty"`
	// Driver is the kernel driver's name.
	Driver string `json:"driver,omitempty"`
}

// Bridge is a Linux bridge that DANM creates.
type Bridge struct {
	// Name of the bridge, at most 15 bytes.
	Name string `json:"name" schema:"required"`
	// Ports are physical interfaces put into the bridge; one that is not among the group's interfaces is found by its name.
	Ports []string `json:"ports,omitempty"`
	// MTU in bytes; the kernel's choice if absent.
	MTU int `json:"mtu,omitempty" schema:"min=68,max=65535"`
	// Addresses with prefix length, the same on every node of the group.
	Addresses []string `json:"addresses,omitempty"`
	// VLANFiltering true lets a frame pass only between ports that are members of its VLAN. Then every port's membership is
	// what vlans and portVLANs say and nothing else.
	VLANFiltering bool `json:"vlanFiltering,omitempty"`
	// VLANs are those of the bridge itself: what the node, VLANs and networks on the bridge see. Needs vlanFiltering.
	VLANs *Membership `json:"vlans,omitempty"`
	// PortVLANs are those of the ports. Needs vlanFiltering.
	PortVLANs []PortVLANs `json:"portVLANs,omitempty"`
}

// HostRoute is a route of the node itself.
type HostRoute struct {
	// To is the destination in CIDR form, without host bits; 0.0.0.0/0 and ::/0 are default routes.
	To string `json:"to" schema:"required"`
	// Via is the gateway, an address of the destination's family.
	Via string `json:"via,omitempty"`
	// Dev is a link of the group.
	Dev string `json:"dev,omitempty"`
	// Table is the routing table; 0 or absent is main (254).
	Table int64 `json:"table,omitempty" schema:"min=0,max=2147483647"`
	// Metric of the route; lower wins.
	Metric int64 `json:"metric,omitempty" schema:"min=0,max=4294967295"`
}

// Fabric is a device on which networks get their VLANs or VNIs, on every node of its groups.
type Fabric struct {
	// Name is unique over all topologies.
	Name string `json:"name" schema:"required"`
	// Groups whose nodes are on this fabric.
	Groups []string `json:"groups" schema:"required"`
	// Device is a link that every one of the groups declares: an interface, bond, bridge or VLAN.
	Device string `json:"device" schema:"required"`
	// VLANRanges are the VLAN ids networks may take: "100-199" or "310". Without any ranges every id is free; if only VNI
	// ranges are given, the fabric offers no VLANs.
	VLANRanges []string `json:"vlanRanges,omitempty"`
	// VNIRanges are the VXLAN ids networks may take: "5000-5999" or "7000". Without any ranges every id is free; if only VLAN
	// ranges are given, the fabric offers no VNIs.
	VNIRanges []string `json:"vniRanges,omitempty"`
	// VXLAN describes the underlay; without it the fabric carries no VXLAN networks.
	VXLAN *Underlay `json:"vxlan,omitempty"`
}

// Underlay says how VXLAN packets travel between nodes.
type Underlay struct {
	// Port is the UDP port, default 4789 (RFC 7348, section 8).
	Port int `json:"port,omitempty" schema:"min=1,max=65535"`
	// Multicast is the group for unknown destinations, or a block of groups such as 239.0.0.0/8, of which each VXLAN has the
	// one that its VNI is added up to (as DANM has it). Without it packets are flooded to the declared addresses of the
	// fabric's device on the other nodes.
	Multicast string `json:"multicast,omitempty"`
}
