package diag

// Codes of the cluster-wide IPAM; they are reasons of conditions and events on networks, Nodes and IPBlocks.
const (
	AddressesEnough      Code = "AddressesEnough"
	AddressesLow         Code = "AddressesLow"
	AddressesScarce      Code = "AddressesScarce"
	AddressesExhausted   Code = "AddressesExhausted"
	AddressesFreed       Code = "AddressesFreed"
	AddressesImported    Code = "AddressesImported"
	AddressesNotImported Code = "AddressesNotImported"
	AddressGridUnclear   Code = "AddressGridUnclear"
	ImportTooLarge       Code = "ImportTooLarge"
	BlockSizeKept        Code = "BlockSizeKept"
	NetworkAttached      Code = "NetworkAttached"
)

var addressCodes = []Explanation{
	{AddressesEnough, "less than four fifths of the network's addresses are used", "It is said again only when less than three quarters are, so that a network at the border does not flicker.", "Nothing is to be done."},
	{AddressesLow, "four fifths of the network's addresses are used", "Pods still get addresses. status.addresses of the network has the counts.", "Widen the pools or add a network before they are used up."},
	{AddressesScarce, "nineteen of twenty addresses of the network are used", "Pods still get addresses, but nodes have to ask each other for them.", "Widen the pools, or remove Pods that are not needed."},
	{AddressesExhausted, "every address of the network is used", "Pods that need one wait. Addresses that were freed cool down first; blocks of a node that is lost come back after a block lease.", "Widen the pools, remove Pods, or say that a lost node is off: danmctl ipam release --node NODE --powered-off."},
	{AddressesFreed, "a lost node's addresses were freed", "Its Node object is gone or belongs to another machine, and nothing was heard of it for a whole block lease; or a person said that it is off.", "Nothing is to be done."},
	{AddressesImported, "addresses that Pods had before are kept for them", "Blocks around them belong to the controller until those Pods are gone.", "Nothing is to be done."},
	{AddressesNotImported, "the network came after its space was opened, with addresses in use", "alloc and alloc6 are read once, before nodes may claim blocks. Another network had the space already, so nodes may hold blocks with those addresses.", "Stop the Pods that DANM attached to this network, and start them anew."},
	{AddressGridUnclear, "blocks of one space have two sizes and no root says which is right", "The root was removed by hand. Nodes claim nothing in the space until there is one.", "Make the IPBlock of role Root again with the spec.blockBits it had; the message names the sizes found."},
	{ImportTooLarge, "the bitmaps of DANM on the space have more addresses in use than are imported", "A space has at most 65,536 addresses from before. It is not opened, so that none is given out twice.", "Look at spec.Options.alloc and alloc6 of the networks on it: clear what nobody has, or cut the network into smaller ones."},
	{BlockSizeKept, "the network's blockSize is not the one its space is cut by", "A space is cut once; blocks of two sizes could overlap. The size stays while any network or block is on the space.", "Give the network the size that the message names, or none."},
	{NetworkAttached, "the network is being deleted and Pods are attached to it", "It goes when the last of them has. No new Pod is attached; its host links stay.", "Delete the Pods, or wait."},
}
