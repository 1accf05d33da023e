package diag

// Codes of reading documents (spec/decode).
const (
	BrokenYAML     Code = "BrokenYAML"
	WrongVersion   Code = "WrongVersion"
	WrongKind      Code = "WrongKind"
	UnknownField   Code = "UnknownField"
	DuplicateField Code = "DuplicateField"
	MissingField   Code = "MissingField"
	WrongType      Code = "WrongType"
	AliasBomb      Code = "AliasBomb"
	TooDeep        Code = "TooDeep"
	BundleTooLarge Code = "BundleTooLarge"
)

// Codes of the rule book (spec/validate). It uses some of render's too: what render would refuse, it refuses with file and line.
const (
	EmptyBundle          Code = "EmptyBundle"
	MissingBundle        Code = "MissingBundle"
	DuplicateBundle      Code = "DuplicateBundle"
	DuplicateName        Code = "DuplicateName"
	InvalidName          Code = "InvalidName"
	LinkNameTooLong      Code = "LinkNameTooLong"
	InvalidVersion       Code = "InvalidVersion"
	InvalidDuration      Code = "InvalidDuration"
	InvalidProbe         Code = "InvalidProbe"
	InvalidSlot          Code = "InvalidSlot"
	SlotTaken            Code = "SlotTaken"
	InvalidMatch         Code = "InvalidMatch"
	InvalidNumber        Code = "InvalidNumber"
	InvalidMTU           Code = "InvalidMTU"
	InvalidAddress       Code = "InvalidAddress"
	InvalidCIDR          Code = "InvalidCIDR"
	HostBitsSet          Code = "HostBitsSet"
	InvalidRange         Code = "InvalidRange"
	PoolOutside          Code = "PoolOutside"
	PoolOverlap          Code = "PoolOverlap"
	PoolUnusable         Code = "PoolUnusable"
	ExcludeOutside       Code = "ExcludeOutside"
	GatewayOutside       Code = "GatewayOutside"
	GatewayInPool        Code = "GatewayInPool"
	GatewayUnusual       Code = "GatewayUnusual"
	ViaOutside           Code = "ViaOutside"
	DuplicateRoute       Code = "DuplicateRoute"
	InvalidType          Code = "InvalidType"
	FabricOrDevice       Code = "FabricOrDevice"
	VLANAndVXLAN         Code = "VLANAndVXLAN"
	InvalidVLAN          Code = "InvalidVLAN"
	InvalidVNI           Code = "InvalidVNI"
	InvalidBlockSize     Code = "InvalidBlockSize"
	FieldNotAllowed      Code = "FieldNotAllowed"
	UnknownReference     Code = "UnknownReference"
	NoUnderlay           Code = "NoUnderlay"
	IDOutsideRange       Code = "IDOutsideRange"
	FabricNotGranted     Code = "FabricNotGranted"
	IDNotShared          Code = "IDNotShared"
	VLANTwiceOnDevice    Code = "VLANTwiceOnDevice"
	VNITwiceOnPort       Code = "VNITwiceOnPort"
	CIDROverlap          Code = "CIDROverlap"
	SharedMismatch       Code = "SharedMismatch"
	TenantEmpty          Code = "TenantEmpty"
	NamespaceTaken       Code = "NamespaceTaken"
	DefaultNotAllowed    Code = "DefaultNotAllowed"
	UnderlayAddressTaken Code = "UnderlayAddressTaken"
)

var bundleCodes = []Explanation{
	{BrokenYAML, "a file is not YAML",
		"The parser stops at the first place it cannot read, so later problems of the same file are not seen yet. JSON files are read as YAML.",
		"Look at the line and the one before; most often the indentation or a missing quote is to blame."},
	{WrongVersion, "a document is of another apiVersion",
		"A bundle holds documents of bundle.danm.io/v1 and nothing else, so that a file that is ignored by mistake is noticed.",
		"Correct the apiVersion, or move the file out of the bundle's directory."},
	{WrongKind, "a document is of an unknown kind",
		"The kinds are Bundle, Topology, Network, Tenant and SRIOVPool.",
		"Correct the kind; case matters."},
	{UnknownField, "a field does not exist",
		"A misspelt field would otherwise be dropped in silence. `danmctl schema` prints every field; editors can check against it.",
		"Take the suggested name, or remove the field."},
	{DuplicateField, "a field or key is given twice",
		"YAML leaves open which of them counts; parsers differ.",
		"Keep one of them."},
	{MissingField, "a required field is missing",
		"The document means nothing without it.",
		"Add the field."},
	{WrongType, "a value is of another type",
		"YAML guesses types of unquoted words: 1.2 is a number, true a truth value, 010 an octal number. Nothing is converted in silence.",
		"Quote strings, leave numbers unquoted and decimal, write lists with [ ] or -."},
	{AliasBomb, "aliases expand too far",
		"A few lines of nested aliases can stand for billions of values. What all aliases of a bundle add is bounded to 100,000 values; an alias inside its own anchor has no end.",
		"Write the values out."},
	{TooDeep, "a document is nested too deep",
		"No document of a bundle needs more than 32 levels.",
		"Flatten the document."},
	{BundleTooLarge, "the bundle passes the limits",
		"A bundle is limited to 10,000 files, 20,000 documents and 32 MiB in all.",
		"Split the bundle, or point to the subdirectory that holds it."},
	{EmptyBundle, "the bundle holds no documents",
		"Nothing is not taken for an empty bundle: it is more often a wrong path.",
		"Point to the directory with the documents."},
	{MissingBundle, "no document is of kind Bundle",
		"One Bundle document names the bundle and says how it is rolled out.",
		"Add a document of kind Bundle."},
	{DuplicateBundle, "two documents are of kind Bundle",
		"Two bundles in one directory would fight over the same nodes.",
		"Keep one, or point to one bundle's directory."},
	{DuplicateName, "a name is taken",
		"Names are what documents refer to each other by; a second bearer would make references ambiguous.",
		"Rename or remove one of them."},
	{InvalidName, "a name has characters that are not allowed",
		"Names of objects follow Kubernetes (RFC 1123). Names of links follow the kernel: no /, : or white space (dev_valid_name).",
		"Choose another name."},
	{LinkNameTooLong, "a host link's name is longer than 15 bytes",
		"The kernel keeps names of links in 16 bytes, the last of them zero (IFNAMSIZ). Networks' links are named vx_<networkID>, <networkID>.<vlan> and br_<networkID>.",
		"Give the network a shorter networkID, or the interface a shorter name."},
	{InvalidVersion, "the version is not semantic",
		"Versions are compared, so they follow https://semver.org in full.",
		"Write it as 1.2.0."},
	{InvalidDuration, "a duration is malformed or out of bounds",
		"confirmTimeout lies between 2s and 10m; a probe's timeout is not above it, otherwise it could never pass in time.",
		"Write it as 15s, 1m30s or 500ms."},
	{InvalidProbe, "a probe does not say what to test",
		"Each probe tests one thing: tcp, icmp, gateway or source.",
		"Give one target; write one probe for each."},
	{InvalidSlot, "a node's slot or the number of slots is wrong",
		"Without a cluster, node k owns the address blocks with number ≡ k mod slots. So slots is one number for all nodes, every node has a slot below it, and both stay as they are while addresses are in use.",
		"Give spec.slots once, and every node a slot from 0 to slots-1."},
	{SlotTaken, "two nodes have one slot",
		"They would hand out the same addresses.",
		"Give each node its own slot."},
	{InvalidMatch, "an interface's match is empty or malformed",
		"It must find one piece of hardware.",
		"Give name, mac, pci or driver."},
	{InvalidNumber, "a number is out of bounds",
		"The bounds are the kernel's or the protocol's.",
		"Correct the number."},
	{InvalidMTU, "an MTU is out of bounds",
		"IPv4 needs 68 bytes (RFC 791), IPv6 needs 1280 (RFC 8200, section 5).",
		"Correct the MTU."},
	{InvalidAddress, "an address is malformed or of the wrong sort",
		"Addresses of links carry their prefix length; gateways and groups do not.",
		"Write 192.0.2.1/24 for a link, 192.0.2.254 for a gateway."},
	{InvalidCIDR, "a CIDR is malformed or unusable",
		"Pods need unicast addresses of the field's family; loopback, multicast and link-local networks cannot be given to them.",
		"Write a CIDR such as 10.40.0.0/22 or fd00:40::/64."},
	{HostBitsSet, "a CIDR has bits set behind its prefix length",
		"10.40.0.7/22 may mean the network 10.40.0.0/22 or an address in it. Documents say which (DANM's own objects tolerate it).",
		"Write the network, as the hint shows."},
	{InvalidRange, "a range is malformed or ends before it begins",
		"Ranges are inclusive: \"100-199\", 10.40.0.10-10.40.0.200, or a single value.",
		"Correct the range."},
	{PoolOutside, "a pool leaves the CIDR",
		"Addresses outside the subnet reach nobody.",
		"Move the pool inside, or widen the CIDR."},
	{PoolOverlap, "two pools overlap",
		"It is most likely a slip: the address after the first pool's end was meant.",
		"Join them or separate them."},
	{PoolUnusable, "a pool holds an address no host may have",
		"The first and last address of an IPv4 subnet are the network's and the broadcast address (RFC 1122, section 3.2.1.3); the first of an IPv6 subnet is the routers' anycast address (RFC 4291, section 2.6.1).",
		"Leave it out of the pool."},
	{ExcludeOutside, "an excluded range leaves the CIDR",
		"Nothing there would be handed out anyway, so another address was meant.",
		"Correct the range."},
	{GatewayOutside, "a gateway is not in its subnet",
		"Pods find a gateway by ARP or neighbour discovery, on their own subnet.",
		"Correct the gateway or the CIDR."},
	{GatewayInPool, "a gateway lies in a pool",
		"It is never handed out; the pool has one address less than it seems.",
		"Begin the pool behind the gateway."},
	{GatewayUnusual, "a gateway is the first or last address of its subnet",
		"No host may have it (RFC 1122, section 3.2.1.3), though some routers do.",
		"Check the address and the prefix length."},
	{ViaOutside, "a route's gateway cannot be reached",
		"Pods reach gateways inside their subnet only, and a gateway is of its destination's family.",
		"Correct via, or the CIDR."},
	{DuplicateRoute, "two routes lead to one destination",
		"The kernel keeps one a table and metric (EEXIST), a network one a destination.",
		"Keep one of them, or give host routes different metrics."},
	{InvalidType, "a network type does not exist",
		"The types are ipvlan, macvlan and bridge.",
		"Correct the type."},
	{FabricOrDevice, "a network is on nothing, or on two things",
		"A network is on a fabric, or on a device of the hosts.",
		"Give fabric or hostDevice, one of them."},
	{VLANAndVXLAN, "a network has a VLAN and a VXLAN",
		"They are two ways to separate networks; a network has one of them.",
		"Keep one."},
	{InvalidVLAN, "a VLAN id is out of bounds",
		"VLAN ids are 1 to 4094: 0 means untagged, 4095 is reserved (IEEE 802.1Q).",
		"Correct the id."},
	{InvalidVNI, "a VNI is out of bounds",
		"VNIs are 1 to 16777215 (RFC 7348, section 5).",
		"Correct the number."},
	{InvalidBlockSize, "a block size is no power of two, or too large",
		"Nodes own blocks of addresses, and blocks tile the CIDR.",
		"Take a power of two that is not larger than the CIDR."},
	{FieldNotAllowed, "a field means nothing here",
		"Each field is for some kinds of links, networks or pools only. Thus allowedTenants opens a network of the cluster, while one of a namespace is that namespace's own; vlanQoS is a priority in the tag of a VLAN; a virtual function bound to vfio-pci has no interface whose MTU could be set.",
		"Remove the field, or add what it needs: the hint says which."},
	{UnknownReference, "a name refers to nothing",
		"Fabrics, groups, devices, tenants and networks are declared in the bundle before they are used. Nothing is reported while a file that might declare the name cannot be read.",
		"Correct the name, or declare it."},
	{NoUnderlay, "a network wants a VXLAN where there is no underlay",
		"A fabric's vxlan section says by which port, and by multicast or unicast, packets travel.",
		"Add vxlan to the fabric, or use a VLAN."},
	{IDOutsideRange, "a VLAN or VNI is not offered or not granted",
		"Fabrics offer ranges, tenants are granted parts of them. No ranges at all offer everything; ranges of one sort offer that sort only.",
		"Take an id from the ranges, or widen them."},
	{FabricNotGranted, "a tenant may not use the fabric",
		"A tenant that lists fabrics may use those only.",
		"List the fabric in the tenant, or take another."},
	{IDNotShared, "two networks are on one VLAN or VNI without saying so",
		"Their Pods would see each other's frames. If that is meant, each names the other in sharedWith.",
		"Take another id, or share it on both sides."},
	{VLANTwiceOnDevice, "one VLAN of one device is used under two names",
		"Two fabrics, or a fabric and a host device, lead to the same wire. The kernel refuses a second VLAN link with the same id on a device.",
		"Put the networks on one fabric."},
	{VNITwiceOnPort, "a VNI is used twice on one UDP port of a node",
		"VXLAN packets are told apart by port and VNI, so the kernel refuses the second link whatever its device (EEXIST).",
		"Take another VNI, or another port for one of the fabrics."},
	{CIDROverlap, "two networks on one link have overlapping addresses",
		"One address would be given to two Pods on one wire. The same CIDR on different VLANs or VNIs is fine.",
		"Change a CIDR, separate the networks, or share on both sides."},
	{SharedMismatch, "networks that share a link disagree",
		"They are one host link, named by networkID, and draw from the same blocks of addresses.",
		"Give them the same networkID, and the same cidr and blockSize where addresses overlap."},
	{TenantEmpty, "a tenant has no namespace",
		"Granted to it alone, a network would be for nobody.",
		"Name its namespaces, or remove the tenant."},
	{NamespaceTaken, "a namespace belongs to two tenants",
		"What its Pods may use would be ambiguous.",
		"Leave it with one tenant."},
	{DefaultNotAllowed, "a tenant may not use its default network",
		"Its Pods would be refused.",
		"Grant the network to the tenant, or choose another default."},
	{UnderlayAddressTaken, "two nodes declare one underlay address",
		"VXLAN packets for both would reach one of them.",
		"Give each node its own address under nodes[].interfaces."},
}
