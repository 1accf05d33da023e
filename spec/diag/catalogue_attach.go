package diag

// Codes of what a Pod or a CNI configuration asks for (spec/annotation) and of attaching it (cni/server, cni/attach).
const (
	AnnotationSyntax    Code = "AnnotationSyntax"
	AnnotationTooBig    Code = "AnnotationTooBig"
	AnnotationTwice     Code = "AnnotationTwice"
	AnnotationDialects  Code = "AnnotationDialects"
	AnnotationField     Code = "AnnotationField"
	AnnotationReference Code = "AnnotationReference"
	AnnotationAddress   Code = "AnnotationAddress"
	AnnotationRoute     Code = "AnnotationRoute"

	ConfInvalid        Code = "ConfInvalid"
	ConfSocketRelative Code = "ConfSocketRelative"
	AgentNotReady      Code = "AgentNotReady"
	PodNetworkUnknown  Code = "PodNetworkUnknown"
	PodHostLinkMissing Code = "PodHostLinkMissing"
	PodTypeUnsupported Code = "PodTypeUnsupported"
	PodInterfaceName   Code = "PodInterfaceName"
	PodAddressUnusable Code = "PodAddressUnusable"
	PodAddressTaken    Code = "PodAddressTaken"
	PodAddressInUse    Code = "PodAddressInUse"
	PodPoolExhausted   Code = "PodPoolExhausted"
	PodPolicyTable     Code = "PodPolicyTable"
	PodRouteConflict   Code = "PodRouteConflict"
	PodAttachFailed    Code = "PodAttachFailed"
	PodCheckFailed     Code = "PodCheckFailed"
	PodAlreadyAttached Code = "PodAlreadyAttached"
	PodNetnsInvalid    Code = "PodNetnsInvalid"

	PodSpaceClosed      Code = "PodSpaceClosed"
	PodLeaseOver        Code = "PodLeaseOver"
	PodAPISuspect       Code = "PodAPISuspect"
	PodAddressFrozen    Code = "PodAddressFrozen"
	PodModeBusy         Code = "PodModeBusy"
	PodDeviceBusy       Code = "PodDeviceBusy"
	PodDelegateConfig   Code = "PodDelegateConfig"
	PodDelegateMissing  Code = "PodDelegateMissing"
	PodDeviceMissing    Code = "PodDeviceMissing"
	PodDelegateFailed   Code = "PodDelegateFailed"
	PodFormerSandbox    Code = "PodFormerSandbox"
	PodDeviceInUse      Code = "PodDeviceInUse"
	PodClaimFailed      Code = "PodClaimFailed"
	PodAddressElsewhere Code = "PodAddressElsewhere"
	PodUnknown          Code = "PodUnknown"
	PodSelectionRefused Code = "PodSelectionRefused"
)

var attachCodes = []Explanation{
	{AnnotationSyntax, "the interfaces a Pod asks for are not the JSON they should be",
		"The value is a JSON array of objects with string values; keys are case-sensitive. Nothing is attached, because a guess could leave an interface out.",
		"Correct the JSON at the byte named."},
	{AnnotationTooBig, "too many interfaces, or too long a value",
		"At most 1 MiB is read and at most 64 interfaces are attached to one Pod.",
		"Ask for less."},
	{AnnotationTwice, "danm.io/interfaces and danm.k8s.io/interfaces differ",
		"Both prefixes are accepted; with different values there is no telling which one is meant.",
		"Remove one of the two annotations."},
	{AnnotationDialects, "the Pod carries the annotation of another dialect",
		"Interfaces in k8s.v1.cni.cncf.io/networks and in danm.io/interfaces cannot be mixed: which one is eth0 would depend on the reader.",
		"Use one of them alone."},
	{AnnotationField, "an interface has a key that is unknown or stands twice",
		"A misspelt key would silently mean something else. Known keys: network, tenantNetwork, clusterNetwork, ip, ip6, proutes, proutes6.",
		"Correct or remove the key."},
	{AnnotationReference, "an interface does not name exactly one network",
		"Each interface needs one of network, tenantNetwork or clusterNetwork, with the name of the object.",
		"Name one network."},
	{AnnotationAddress, "an address is neither dynamic, none nor an address of its family",
		"ip takes IPv4 and ip6 takes IPv6 addresses; a /length behind it is allowed and ignored.",
		"Correct the address."},
	{AnnotationRoute, "a policy route is not destination: gateway",
		"proutes takes IPv4, proutes6 takes IPv6; the destination is a CIDR, the gateway an address; no destination twice.",
		"Correct the route."},
	{ConfInvalid, "the CNI configuration cannot be used",
		"It must be a JSON object of at most 1 MiB with name and a cniVersion of 0.3.1, 0.4.0, 1.0.0 or 1.1.0.",
		"Correct the file in /etc/cni/net.d, or what the runtime makes of it."},
	{ConfSocketRelative, "the socket in the CNI configuration is not an absolute path",
		"The plugin is started in whatever directory the runtime has; a relative path would lead elsewhere.",
		"Give an absolute path, or leave the key out for /run/danm/cni.sock."},
	{AgentNotReady, "the node's agent has no confirmed configuration yet",
		"Pods are attached only to links of a plan that was applied and confirmed. The runtime tries again by itself.",
		"Look at the agent's log; the first plan may be blocked or reverted."},
	{PodNetworkUnknown, "no such network for this Pod",
		"DanmNets and TenantNetworks are visible in their own namespace only; ClusterNetworks may be restricted to tenants. Networks of others are not named here.",
		"Choose one of the networks listed, or have the network made or shared."},
	{PodHostLinkMissing, "the host link that the network stands on is missing",
		"The plan declares the link, but the node does not have it: it is blocked by something foreign, its own device is missing, or somebody has deleted it and it is being made again. The runtime is told to try again.",
		"Run danm-node status on the node: it lists what is blocked, with the remedy."},
	{PodTypeUnsupported, "the network's type cannot be attached",
		"The network in the node's state is of a type that the agent of this version has no driver for, or lacks what its driver needs. A Pod that asks for such a network gets nothing rather than less.",
		"Attach the Pod to a network of another type."},
	{PodInterfaceName, "an interface name is longer than 15 bytes or used twice",
		"Names are eth0, then the network's prefix (or eth) and the position; the kernel takes 15 bytes (IFNAMSIZ).",
		"Shorten the network's interface prefix."},
	{PodAddressUnusable, "the network cannot give the address asked for",
		"The network has no subnet of that family, or the static address lies outside it or outside the node's own blocks.",
		"Ask for an address the network has, or for none."},
	{PodAddressTaken, "the static address is in use",
		"Another Pod holds it, or it was freed a moment ago and is still cooling down.",
		"Choose another address, or wait until it is free."},
	{PodAddressInUse, "somebody on the network has the address already",
		"A host that DANM knows nothing of answered for a static address, or for each of three chosen ones, before the Pod could get it. Only an agent with --probe-addresses asks.",
		"Find the host by the MAC that the error names; take its address away, or leave it out of the network's pools."},
	{PodPoolExhausted, "no free address is left",
		"Every address of the network's pools that this node may give out is held, or was freed less than 30 seconds ago. In the local home a node has the share of its slot; in a cluster no block is free and no node cedes an address. What is never given by choice are the subnet's own addresses, routers, and what is excluded or reserved.",
		"See danmctl ipam show NETWORK. Widen the CIDR or the pools, remove Pods, or in the local home take fewer slots."},
	{PodSpaceClosed, "the network's addresses are not open yet",
		"Before any node claims addresses of a VLAN or VNI, the controller writes how they are cut into blocks, after it has imported what DANM gave out before.",
		"See whether danm-controller runs; it opens a space within seconds of the network."},
	{PodLeaseOver, "the node may give no new address out",
		"A node that has not reached the API server for half a block lease (6 h), or whose clock is behind its journal, cannot know whether its blocks are still its own. Pods that have addresses keep them.",
		"Restore the way to the API server; the Pod is tried again by itself."},
	{PodAPISuspect, "the API server went back in time, so no block is claimed",
		"After a restore of etcd from a backup, blocks that look free may be in use. Nodes give out of their own blocks, and claim none until somebody has looked.",
		"Run danmctl ipam check; when it is clean, danmctl ipam check --accept."},
	{PodAddressFrozen, "what was given out before is not known",
		"The node's address journal was lost, or a block of the node is not in it. Addresses of such blocks may be in use by sandboxes from before; they thaw when those have gone.",
		"Wait, or drain the node. danmctl ipam show tells what is frozen."},
	{PodModeBusy, "the device's ipvlans are in another mode",
		"All ipvlans of a device have one mode: one more in another would change those of Pods that run.",
		"Delete the Pods that were attached before the network's mode changed, or change it back."},
	{PodDeviceBusy, "the device serves one Pod at a time, and another has it",
		"A host device, a virtual function, a macvlan in passthru mode, and a VLAN link in the Pod can be had once on a node. The runtime tries again by itself.",
		"Delete the Pod that the error names, let the scheduler choose another node, or attach to a network of another type."},
	{PodDeviceInUse, "the host uses the device that the Pod would get",
		"A device with addresses of the host, or that is the port of a bridge or bond, is not taken away from it: the node might be cut off.",
		"Take the address away, or name another hostDevice."},
	{PodDelegateConfig, "the configuration of another CNI plugin cannot be used",
		"A network names the plugin that makes its interfaces, with a configuration in the bundle or in a file of the node's CNI directory. That is not there, is no JSON, or would call DANM again.",
		"Correct the network's delegate, or put the file in place on the node."},
	{PodDelegateMissing, "another CNI plugin is not on this node",
		"Plugins are programs in the node's CNI plugin directories, /opt/cni/bin unless danm-node was told others.",
		"Install the plugin on the node."},
	{PodDeviceMissing, "a Pod has no device for a network that needs one",
		"The network's interfaces take devices of an extended resource, which the kubelet gives to Pods whose containers request it: one for each such interface. The Pod requests fewer, or the kubelet did not say which it gave.",
		"Add the resource to the limits of a container of the Pod, once for each interface on networks of it; the message has the lines. On the node, look at the kubelet and its device plugins."},
	{PodSelectionRefused, "what the Pod says of an interface cannot be done on its network",
		"k8s.v1.cni.cncf.io/networks asks for addresses, a MAC, port mappings, bandwidth or default routes. A plugin takes them only if its configuration declares the capability; interfaces that DANM makes itself take addresses, default routes and, of type macvlan, bridge and sriov, a MAC.",
		"Leave it out, declare the capability in the network's configuration, or take another network."},
	{PodDelegateFailed, "another CNI plugin failed",
		"The plugin that makes the network's interfaces said why; everything done for this Pod was undone and its addresses were released.",
		"Read the reason; it is the plugin's."},
	{PodFormerSandbox, "the Pod's former sandbox still has its address",
		"A Pod's next sandbox gets the address of the one before when that one's link is gone. This link was made by another plugin, which takes it down when the runtime says so.",
		"Wait for the runtime to take the former sandbox down; the Pod is tried again by itself."},
	{PodClaimFailed, "no address of the node is free, and no further block can be claimed now",
		"A node gives addresses out alone as long as it has some; a further block is claimed in the API. That server did not answer, or was reached again less than 20 seconds ago: after a restore others make their blocks again first.",
		"Restore the way to the API server, or wait; the Pod is tried again by itself."},
	{PodAddressElsewhere, "another node has the address",
		"A static, kept or borrowed address lies in a block of another node, which has it in use, refused, or did not answer in time.",
		"The message names the node. Choose another address, or wait until it is free."},
	{PodUnknown, "it is not known what the Pod asks for",
		"Pods ask for interfaces in their annotations, and sticky networks keep addresses for Pods of StatefulSets. The node has not been told of this Pod yet, and the API server did not answer, or has another Pod of its name.",
		"Restore the way to the API server; the Pod is tried again by itself."},
	{PodPolicyTable, "policy routes on a network without a routing table",
		"proutes go into the network's table; without one they could not be set, and traffic would take another way than asked for.",
		"Give the network a routing table (rt_tables), or remove the routes."},
	{PodRouteConflict, "two interfaces want different gateways for one destination",
		"One routing table holds one best route to a destination; choosing silently would send traffic elsewhere.",
		"Change the routes of one network, or use policy routes."},
	{PodAttachFailed, "an interface could not be made",
		"The kernel refused a step; everything done for this Pod was undone and its addresses were released.",
		"Read the reason; often the parent device is missing or in another use."},
	{PodCheckFailed, "a Pod's interface is not as recorded",
		"CHECK compares link, MAC, MTU, addresses, routes and parent with what was made.",
		"Restart the Pod; look for who changed its network."},
	{PodAlreadyAttached, "the container is attached already, differently",
		"The CNI specification forbids a second ADD without a DEL; it is answered only where everything is still as recorded.",
		"Delete the sandbox and let the runtime make it again."},
	{PodNetnsInvalid, "the network namespace given cannot be used",
		"It must be open, a network namespace, and not the host's.",
		"Check CNI_NETNS; Pods in the host's network need no CNI."},
}
