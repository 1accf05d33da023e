package diag

// Codes of the cluster home; they are the reasons of conditions on NetworkBundles, NodePlans and networks.
const (
	RolledOut           Code = "RolledOut"
	RollingOut          Code = "RollingOut"
	Soaking             Code = "Soaking"
	RevisionQuarantined Code = "RevisionQuarantined"
	Reverting           Code = "Reverting"
	NodesLate           Code = "NodesLate"
	NodeOwnedByOther    Code = "NodeOwnedByOther"
	ObjectOwnedByOther  Code = "ObjectOwnedByOther"
	Suspended           Code = "Suspended"
	BundleInvalid       Code = "BundleInvalid"
	EmptyRender         Code = "EmptyRender"
	PruneLimit          Code = "PruneLimit"
	VersionWentBack     Code = "VersionWentBack"
	FieldConflict       Code = "FieldConflict"
	DefinitionMissing   Code = "DefinitionMissing"
	NamespaceMissing    Code = "NamespaceMissing"
	SecretMissing       Code = "SecretMissing"
	ObjectRefused       Code = "ObjectRefused"
	ObjectTooLarge      Code = "ObjectTooLarge"
	APIUnavailable      Code = "APIUnavailable"
	Deleting            Code = "Deleting"
	SegmentMissing      Code = "SegmentMissing"
	HomeSwitch          Code = "HomeSwitch"
	NoPlan              Code = "NoPlan"
	Published           Code = "Published"
	NetworkRefused      Code = "NetworkRefused"
	NotAssigned         Code = "NotAssigned"
	NoNode              Code = "NoNode"
	Assigned            Code = "Assigned"
	AssignmentChanged   Code = "AssignmentChanged"
	DefaultMissing      Code = "DefaultMissing"
	DeviceNotAllowed    Code = "DeviceNotAllowed"
	NoProfile           Code = "NoProfile"
	NumberNotAllowed    Code = "NumberNotAllowed"
	NumberTaken         Code = "NumberTaken"
	RangeExhausted      Code = "RangeExhausted"
	RangeInvalid        Code = "RangeInvalid"
	RangeOverlap        Code = "RangeOverlap"
	TenantServed        Code = "TenantServed"
)

var clusterCodes = []Explanation{
	{RolledOut, "every node has the revision", "All plans are confirmed by their nodes and the objects are in the cluster.", "Nothing is to be done."},
	{RollingOut, "a wave is under way", "The nodes of the wave apply their plan and confirm it. The next wave begins when they have.", "Wait, or see the nodes of the wave in status.rollout."},
	{Soaking, "a wave is done and watched", "spec.rollout.soak of the bundle is the pause between two waves.", "Wait, or shorten the soak in the bundle."},
	{RevisionQuarantined, "a plan cut a node off, so the revision goes no further", "The node undid the plan by itself; its probes failed while it was applied and passed again afterwards. The plan's digest is not rolled out again, whatever commit asks for it.", "Correct the bundle, or, if the cause was elsewhere, lift the quarantine with danmctl retry."},
	{Reverting, "nodes go back to the last good revision", "A plan cut a node off and the bundle says onFailure: Revert.", "Wait; then correct the bundle."},
	{NodesLate, "nodes have not confirmed in time", "They did not report, or tried and could not say whether the plan is good. Nobody waits for them; they follow when they come back.", "See the NodePlans of the named nodes and the danm-node agents there."},
	{NodeOwnedByOther, "a node belongs to another NetworkBundle", "A node takes its plan from one bundle. Two would undo each other's work.", "Make the selectors of the two topologies exclude each other. A node that leaves the other bundle's groups is emptied, and free then; so is one whose bundle is deleted."},
	{ObjectOwnedByOther, "a network or tenant belongs to another NetworkBundle", "Each of the two would write its own over the other's, and whichever is deleted first would take it away from both. The bundle that had it first keeps it, and nothing of this revision is published.", "Give the network another name or namespace in one of the bundles, or take it out of the other bundle first."},
	{Suspended, "the NetworkBundle is suspended", "Nothing is fetched or published; what is rolled out stays.", "Set spec.suspend to false."},
	{BundleInvalid, "the revision does not validate", "The cluster keeps the last good revision. status.diagnostics has the first ten problems with file and line.", "Run danmctl validate on the commit, and mend it."},
	{EmptyRender, "the bundle has become empty", "It had networks or host links and now has none. That is more often a wrong path than a wish, and it would take everything away.", "Mend the path or the commit; if it is meant, set spec.allowEmpty, or delete the NetworkBundle."},
	{PruneLimit, "the revision would delete more than allowed", "spec.prune of the bundle bounds what one revision may delete.", "Raise the limit in the same commit if the deletion is meant."},
	{VersionWentBack, "the bundle's version is below the one rolled out", "spec.versionPolicy is Monotonic. Without it going back is a warning, since git revert is a rescue.", "Raise spec.version, or drop the policy."},
	{FieldConflict, "another program owns a field", "Server-side apply refuses to take fields from another manager, and we do not force it.", "Let the other manager give up the field, or delete the object so that it is made anew."},
	{DefinitionMissing, "the API server does not know a kind", "A custom resource definition is not installed.", "kubectl apply --server-side -k deploy/crd; for NetworkAttachmentDefinitions install the working group's definition."},
	{NamespaceMissing, "a namespace does not exist", "Networks of a tenant stand in the tenant's namespaces, which DANM does not make.", "Create the namespace; the rest follows by itself."},
	{SecretMissing, "a Secret, or a key in it, is missing", "spec.git.secretRef and spec.git.verify.secretRef name Secrets in the controller's namespace.", "Create it there with the keys that the reference names."},
	{ObjectRefused, "the API server refused an object", "A definition's rule or an admission webhook says no.", "See the message, and mend the bundle or the policy."},
	{ObjectTooLarge, "a node's part or an item does not fit into an object", "A part has at most 32 KiB, a segment 512 KiB; etcd takes 1.5 MiB in one request.", "Move what many nodes share into a group, or split the network."},
	{APIUnavailable, "the API server did not answer", "The last good state stays; the loop tries again with growing pauses.", "Nothing, if it passes."},
	{Deleting, "the NetworkBundle, or an object that it wants again, is being deleted", "Objects that a bundle made are deleted first, if spec.prune says so; nodes keep their links. A network goes when the last Pod that is attached to it has; it is made again after that.", "Wait, or delete the Pods that the network's condition Attached leads to."},
	{SegmentMissing, "a node plan names a segment that is not there", "The node keeps what it has until the controller has written it again.", "See whether the controller runs."},
	{HomeSwitch, "the state directory belongs to the other home", "Local and cluster home own address blocks by different rules; switching while a record exists could give one address two holders.", "Drain the node of Pods with addresses, then start the agent again."},
	{Published, "nodes have been told of the network", "The network goes together with all others; the nodes it reaches make its link and attach Pods.", "Nothing is to be done; NodePlans say how far each node is."},
	{NetworkRefused, "a network made with kubectl cannot be used", "Its object stands for no network that DANM knows, or does not go together with older ones.", "See the message, and correct the object."},
	{NotAssigned, "a tenant's network has no device or number yet, or another than was reserved", "TenantNetworks get device and VLAN or VNI from a TenantConfig; what they say themselves counts only if it is what was reserved.", "See the condition Assigned; remove host_device, vlan and vxlan from the object to get new ones."},
	{NoNode, "no node has what the network stands on", "A network reaches the nodes whose bundle declares its fabric or device, or that have the card.", "Correct host_device or the fabric, or declare the device in the bundle."},
	{NoPlan, "there is no NodePlan for this node", "A plan that is gone is no empty plan: the node keeps what it has.", "Give the node a group in the bundle; to empty it on purpose, set spec.teardown on its NodePlan."},
	{Assigned, "the network has its device and number", "They are reserved in the status of a TenantConfig and written into the network. They stay until it is deleted.", "Nothing is to be done."},
	{AssignmentChanged, "a network says another device or number than it was given", "What a TenantNetwork was given does not change: its Pods' links stand on it. What is reserved stays reserved.", "Write back what the message names, or make the network anew."},
	{DefaultMissing, "a tenant's default network does not exist", "Pods of the tenant that ask for nothing get no network, and do not start.", "Make the network, or correct extension.defaultNetwork."},
	{DeviceNotAllowed, "a network asks for a device that its tenant may not use", "host_device and device_pool of a TenantNetwork must be, to the letter, the name of one of the hostDevices in the TenantConfigs that speak for its namespace.", "Take one that the message names, or leave the choice open."},
	{NoProfile, "no TenantConfig offers the network a device", "A TenantConfig speaks for a namespace that its extension lists, or that its label danm.io/tenant names; if there is none, those without the label speak for everyone.", "Add hostDevices to the tenant's TenantConfig, or make one."},
	{NumberNotAllowed, "a network brings a VLAN id or VNI that its tenant may not use", "A number in a TenantNetwork is taken over, as for networks that come from DANM, if it lies in the vniRange of a device that the tenant may use.", "Make the network anew without the number; it gets one."},
	{NumberTaken, "another network has the VLAN id or VNI", "A VLAN id has one network on a device, a VNI one in the cluster. Of two that came to one number at the same moment both give it up and choose again.", "If the number was written by hand, make the network anew without it; otherwise wait."},
	{RangeExhausted, "no VLAN id or VNI of the tenant is free", "Taken are: what other networks have on the device, whoever made them; what bundles recorded; and what DANM's alloc bitmap says. Numbers of deleted networks are free once no node plan has their link.", "Widen the vniRange, delete networks, or remove alloc once everything is moved over from DANM."},
	{RangeInvalid, "a vniRange or alloc of a TenantConfig cannot be read", "VLAN ids go from 1 to 4094, VNIs to 16777215, and a range from low to high; alloc is base64. Of a device with such a record nothing is given out.", "Correct it as the message says."},
	{RangeOverlap, "two TenantConfigs have common numbers on a device", "No number is given out twice, but one tenant can use up what the other was promised.", "Make the ranges disjoint, if that is not meant."},
	{TenantServed, "the TenantConfig can be used as it is", "The message counts the networks that have their device or number from it, and those that were refused one.", "Nothing is to be done."},
}
