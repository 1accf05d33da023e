package diag

// Codes of the rule book (spec/validate) about networks, tenants and SR-IOV pools; those of issue with every document stand
// in catalogue_bundle.go.
const (
	DefaultUnfit      Code = "DefaultUnfit"
	DelegateFile      Code = "DelegateFile"
	DelegateNotOne    Code = "DelegateNotOne"
	DelegateSyntax    Code = "DelegateSyntax"
	DelegateTooLarge  Code = "DelegateTooLarge"
	DelegateType      Code = "DelegateType"
	DelegateVersion   Code = "DelegateVersion"
	DevicePoolMissing Code = "DevicePoolMissing"
	HostDeviceTwice   Code = "HostDeviceTwice"
	HostDeviceUnfit   Code = "HostDeviceUnfit"
	InvalidChoice     Code = "InvalidChoice"
	InvalidPFSelector Code = "InvalidPFSelector"
	NodeAddressInPool Code = "NodeAddressInPool"
	NothingToHandOut  Code = "NothingToHandOut"
	NumVFsDiffer      Code = "NumVFsDiffer"
	PFInUse           Code = "PFInUse"
	PoolAndDevice     Code = "PoolAndDevice"
	PoolUnknown       Code = "PoolUnknown"
	QuotaExceeded     Code = "QuotaExceeded"
	RateOrder         Code = "RateOrder"
	ReservedEmpty     Code = "ReservedEmpty"
	ReservedForNobody Code = "ReservedForNobody"
	ReservedOutside   Code = "ReservedOutside"
	ReservedTaken     Code = "ReservedTaken"
	ReservedUnusable  Code = "ReservedUnusable"
	ResourceMixed     Code = "ResourceMixed"
	ResourceReserved  Code = "ResourceReserved"
	ResourceUneven    Code = "ResourceUneven"
	TableReserved     Code = "TableReserved"
	TooFewBlocks      Code = "TooFewBlocks"
	VFOutside         Code = "VFOutside"
	VFOverlap         Code = "VFOverlap"
)

var networkCodes = []Explanation{
	{DefaultUnfit, "a tenant's default network cannot serve every Pod",
		"Pods that ask for nothing get the default network. A virtual function has to be asked for as a resource, and a host device, a macvlan in passthru mode or a VLAN link in the Pod serves one Pod of a node at a time.",
		"Choose a default network of type ipvlan, macvlan or bridge."},
	{DelegateFile, "a delegate's file is no plain name",
		"The name is joined to the node's CNI directory and an ending. With a slash or dots in front it would read any file of the host.",
		"Write the name alone, without .conf or .conflist."},
	{DelegateNotOne, "a delegate has no configuration, or several",
		"A plugin is called with one configuration: conf, confList, or a file of the node.",
		"Give exactly one of conf, confList and file."},
	{DelegateSyntax, "a delegate's configuration is no JSON object",
		"It is passed to the plugin as it is, so it must be whole JSON. A key that stands twice is refused too: parsers differ about which one counts.",
		"Correct the JSON at the byte named."},
	{DelegateTooLarge, "a delegate's configuration is longer than 64 KiB",
		"It travels to every node and into every call of the plugin.",
		"Shorten it, or put it into a file of the node and name that with file."},
	{DelegateType, "a delegate's configuration is for another plugin, or for none",
		"The network's type, the plugin that makes the interface, and the configuration's type are one name; in a list it is the first plugin's. A key in another case (Type) is refused, since some parsers take it for the right one.",
		"Give the network and the configuration the same type."},
	{DelegateVersion, "a delegate's cniVersion is not supported",
		"Plugins are called with versions 0.3.1, 0.4.0, 1.0.0 and 1.1.0 of the CNI specification.",
		"Leave cniVersion out, or take one of these."},
	{DevicePoolMissing, "a network of virtual functions names no pool",
		"Which virtual function a Pod gets is decided by the resource that it asks for.",
		"Set devicePool to the resourceName of an SRIOVPool."},
	{HostDeviceTwice, "two networks move the same device into Pods",
		"A device is in one place: while a Pod of one network has it, Pods of the other are refused.",
		"Give each network a device of its own, or keep one of the networks."},
	{HostDeviceUnfit, "a host device cannot be given away",
		"Type host-device moves the device itself into the Pod. A link that DANM makes would be missed on the host; addresses and routes of the host would be lost with it, and with them perhaps the way to the node.",
		"Name a physical interface without addresses and routes, or set type to macvlan."},
	{InvalidChoice, "a word is none of those that have a meaning here",
		"The field takes a few words only; the reference of documents lists them.",
		"Take one of the words in the hint; case matters."},
	{InvalidPFSelector, "a selector of physical functions is malformed",
		"PCI addresses are written 0000:3b:00.0, ids of vendors and devices as four hexadecimal digits without 0x, drivers by the kernel's name. Unquoted, 8086 is a number. A name has no range of virtual functions behind it, such as ens1f0#0-3: the range stands in vfs.",
		"Correct the value; `lspci -nn` and `ethtool -i` show them."},
	{NodeAddressInPool, "an address of a node would be handed to Pods",
		"The node has it on the very device that the network's Pods are on, so two hosts of one wire would have one address.",
		"Exclude the address, begin the pools behind it, or make it the gateway."},
	{NothingToHandOut, "a subnet has no address for Pods that ask for any",
		"Pools without what is excluded or reserved, the gateway and the ends of the subnet leave nothing. Pods can only ask for certain addresses.",
		"Widen the CIDR or the pools."},
	{NumVFsDiffer, "two pools want different numbers of virtual functions",
		"A physical function has one number of virtual functions; the kernel changes it only by removing all of them.",
		"Give the pools the same numVFs."},
	{PFInUse, "a card of which virtual functions are made carries something else",
		"Many cards reset when their number of virtual functions changes: what stands on the card, a fabric, a bond, addresses of the host, loses packets for a moment, and the node may lose its way to the cluster.",
		"Take a card of its own for the pool, or let the node make the functions while it is drained."},
	{PoolAndDevice, "a network names a host device and a pool of devices",
		"The device comes from one or from the other. DANM refuses both together too.",
		"Keep one of them; sriov takes a pool."},
	{PoolUnknown, "no pool of the bundle offers the resource",
		"Another device plugin may offer it, so this is a warning. If none does, Pods that ask for it stay pending.",
		"Correct devicePool, or add an SRIOVPool with this resourceName."},
	{QuotaExceeded, "a tenant has more networks than its quota",
		"Networks of the bundle count like those that the tenant makes itself. A bundle may not begin above the bound; of networks made through the API those beyond it, the youngest first, get no number.",
		"Raise the quota, or remove networks."},
	{RateOrder, "a promised rate is above the greatest",
		"The hardware cannot send more than maxTxRate.",
		"Raise maxTxRate, or lower minTxRate."},
	{ReservedEmpty, "a reservation has no address",
		"It would keep nothing.",
		"Give ip, ip6 or both."},
	{ReservedForNobody, "a reservation is for a namespace that may not use the network",
		"Its Pods are refused before they could ask by name.",
		"Correct the namespace, or open the network to its tenant."},
	{ReservedOutside, "a reserved address is not inside the network",
		"Only addresses of the network's own subnets can be handed out.",
		"Correct the address, or add the subnet."},
	{ReservedTaken, "a reserved address has another use",
		"It is the gateway, or reserved a second time, perhaps by a network that shares the addresses.",
		"Take another address."},
	{ReservedUnusable, "a reserved address is one that no host may have",
		"The first and last address of an IPv4 subnet are the network's and the broadcast address (RFC 1122, section 3.2.1.3); the first of an IPv6 subnet is the routers' anycast address (RFC 4291, section 2.6.1).",
		"Take one in between."},
	{ResourceMixed, "two pools offer one resource with different drivers",
		"A Pod that asks for the resource could get a network interface or a device for vfio, whichever is free.",
		"Give each driver its own resourceName."},
	{ResourceReserved, "a resource name belongs to Kubernetes",
		"Names under kubernetes.io, and those that begin with requests., are refused for extended resources.",
		"Take a domain of your own, or danm.io."},
	{ResourceUneven, "two pools offer one resource with unlike virtual functions",
		"The kubelet gives a Pod any device of the resource. One Pod would be trusted, or faster, and another not, by chance.",
		"Say the same of both pools, or give each its own resourceName."},
	{TableReserved, "a routing table is the kernel's own",
		"Tables 253, 254 and 255 are default, main and local: a policy route there is none, it holds for all traffic of the Pod.",
		"Take another number."},
	{TooFewBlocks, "some nodes own no address of a network",
		"Without a cluster, addresses are cut into blocks, and node k owns the blocks with number ≡ k mod slots. With fewer blocks than slots the last nodes cannot give Pods an address, and with pools that lie in blocks of a few slots those of the others cannot.",
		"Widen the CIDR or the pools, or take a smaller blockSize."},
	{VFOutside, "a pool has virtual functions that are not made",
		"They are counted from 0, so numVFs 8 makes 0 to 7.",
		"Raise numVFs, or narrow the range."},
	{VFOverlap, "a virtual function is in two pools, or twice in one",
		"It would be offered to two Pods.",
		"Write ranges that do not overlap; pools of one physical function both need vfs."},
}
