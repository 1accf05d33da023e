package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// NodePlan is what one node should have: its own part, and the names of the PlanSegments it shares with others. Its name is
// the node's. A NodePlan that is gone is no empty plan: the node keeps what it has.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,path=nodeplans,shortName=np
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name=Desired,type=string,JSONPath=`.spec.layers.bundle.short`
// +kubebuilder:printcolumn:name=Applied,type=string,JSONPath=`.status.applied.short`
// +kubebuilder:printcolumn:name=Status,type=string,JSONPath=`.status.phase`
// +kubebuilder:printcolumn:name=Reason,type=string,JSONPath=`.status.reason`
// +kubebuilder:printcolumn:name=Drift,type=integer,JSONPath=`.status.drift`
// +kubebuilder:printcolumn:name=Age,type=date,JSONPath=`.metadata.creationTimestamp`
type NodePlan struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// Spec is what the node should have.
	// +required
	Spec NodePlanSpec `json:"spec"`
	// Status is what it has, written by the node alone.
	// +optional
	Status NodePlanStatus `json:"status,omitzero"`
}

// NodePlanList is a list of them.
//
// +kubebuilder:object:root=true
type NodePlanList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []NodePlan `json:"items"`
}

// NodePlanSpec is what a node should have.
type NodePlanSpec struct {
	// Bundle is the NetworkBundle whose node this is.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Bundle string `json:"bundle,omitempty"`
	// Layers make the plan together.
	// +optional
	Layers Layers `json:"layers,omitzero"`
	// LastGood is the bundle's layer of the newest rollout that every node confirmed, where it is another one than Layers has.
	// +optional
	LastGood *Layer `json:"lastGood,omitempty"`
	// Teardown removes every link, address, route and rule that DANM made on the node. Nothing else does.
	// +optional
	Teardown bool `json:"teardown,omitempty"`
}

// Layers of a plan.
type Layers struct {
	// Bundle is what the administrators committed. It changes in waves.
	// +optional
	Bundle *Layer `json:"bundle,omitempty"`
	// API is what networks made with kubectl need: VLAN and VXLAN links on the bundle's devices.
	// +optional
	API *Layer `json:"api,omitempty"`
}

// Layer is one layer of a plan, at one revision.
type Layer struct {
	// Revision of the source.
	// +required
	// +kubebuilder:validation:MaxLength=512
	Revision string `json:"revision"`
	// Short is the revision for people: "3f2c9d1".
	// +optional
	// +kubebuilder:validation:MaxLength=128
	Short string `json:"short,omitempty"`
	// Rollout is the number of the rollout that wrote the layer.
	// +optional
	Rollout int64 `json:"rollout,omitempty"`
	// Digest of the plan that part and segments make, "sha256:<64 hex>".
	// +required
	// +kubebuilder:validation:Pattern=`^sha256:[0-9a-f]{64}$`
	Digest string `json:"digest"`
	// Segments are the names of PlanSegments.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=63
	Segments []string `json:"segments,omitempty"`
	// Addresses by link, beyond those that are shared, with prefix length.
	// +optional
	Addresses map[string][]string `json:"addresses,omitempty"`
	// Underlays are the node's VXLAN source addresses by fabric.
	// +optional
	Underlays map[string]string `json:"underlays,omitempty"`
	// Source is host:port of the bundle's source, for the probe of that name.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Source string `json:"source,omitempty"`
	// ConfirmTimeout is how long the node waits for its probes before it undoes the plan.
	// +optional
	ConfirmTimeout metav1.Duration `json:"confirmTimeout,omitzero"`
	// Disruptive allows steps that take links of attached Pods down; steps that destroy them are never allowed.
	// +optional
	Disruptive bool `json:"disruptive,omitempty"`
}

// NodePlanStatus is what a node says of itself.
type NodePlanStatus struct {
	// Conditions: Applied, Blocked, Degraded and RolledBack; Ready, Reconciling and Stalled as kstatus reads them.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// ObservedGeneration is the generation the status speaks of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Phase is one word for people: Applied, Applying, Waiting, RolledBack, Blocked, Degraded or Refused.
	// +optional
	Phase string `json:"phase,omitempty"`
	// Reason behind a phase other than Applied.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Reason string `json:"reason,omitempty"`
	// Observed is the revision the node has read.
	// +optional
	Observed *AppliedPlan `json:"observed,omitempty"`
	// Applied is the revision the node's kernel has.
	// +optional
	Applied *AppliedPlan `json:"applied,omitempty"`
	// Refused is the plan that the node undid, or does not try, with the verdict.
	// +optional
	Refused *RefusedPlan `json:"refused,omitempty"`
	// HandledRetry is the newest danm.io/retry annotation that was acted upon.
	// +optional
	HandledRetry string `json:"handledRetry,omitempty"`
	// Drift counts the objects repaired since the agent started. None is written as 0, so that kubectl shows it.
	// +optional
	Drift int64 `json:"drift"`
	// Hardware are the node's network cards.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=512
	Hardware []NIC `json:"hardware,omitempty"`
	// Underlays are addresses on the devices of fabrics that the bundle does not declare, by device.
	// +optional
	Underlays map[string]string `json:"underlays,omitempty"`
	// Addresses are the spaces in which the node owns addresses, and how they are used.
	// +optional
	// +listType=map
	// +listMapKey=space
	// +kubebuilder:validation:MaxItems=2048
	Addresses []AddressUse `json:"addresses,omitempty"`
	// Attached counts the interfaces of Pods by network: "ClusterNetwork/oam", "TenantNetwork/acme/voice".
	// +optional
	Attached map[string]int32 `json:"attached,omitempty"`
}

// AddressUse is what a node's addresses of one space are doing.
type AddressUse struct {
	// Space is the hash of the space, as IPBlocks have it.
	// +required
	// +kubebuilder:validation:MaxLength=16
	Space string `json:"space"`
	// Held by Pods.
	// +required
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=9007199254740992
	Held int64 `json:"held"`
	// Cooling: freed a short while ago.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=9007199254740992
	Cooling int64 `json:"cooling,omitempty"`
	// Frozen: in blocks from before a lost journal, not given out yet.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=9007199254740992
	Frozen int64 `json:"frozen,omitempty"`
	// Free to be given out by this node, saturating at 2^53.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=9007199254740992
	Free int64 `json:"free,omitempty"`
	// Offers are free addresses that the node would cede.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MaxLength=39
	Offers []string `json:"offers,omitempty"`
	// Stray counts Strays, which may be more than are listed.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=9007199254740992
	Stray int64 `json:"stray,omitempty"`
	// Strays are addresses that Pods have in no block of the node, as after etcd was set back, so that another node may give them
	// out; and whole blocks that another has and whose addresses Pods may have since before the node's journal was lost.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=8
	// +kubebuilder:validation:items:MaxLength=43
	Strays []string `json:"strays,omitempty"`
}

// AppliedPlan is a plan by revision and digest.
type AppliedPlan struct {
	// Revision of the bundle's layer.
	// +required
	Revision string `json:"revision"`
	// Short is the revision for people: "3f2c9d1".
	// +optional
	Short string `json:"short,omitempty"`
	// Digest of the layer's plan.
	// +required
	Digest string `json:"digest"`
	// Segments of the layer: with the digest, all that the node has of it.
	// +optional
	// +listType=set
	Segments []string `json:"segments,omitempty"`
	// Plan is the digest of the node's whole plan, all layers together: the one the guard speaks of.
	// +optional
	Plan string `json:"plan,omitempty"`
}

// RefusedPlan is a plan that did not last on the node.
type RefusedPlan struct {
	// Digest of the layer's plan.
	// +required
	Digest string `json:"digest"`
	// Plan is the digest of the whole plan, which `danmctl retry` takes.
	// +required
	Plan string `json:"plan"`
	// Revision it came with.
	// +optional
	Revision string `json:"revision,omitempty"`
	// Guilty means that the plan cut the node off. Otherwise nobody knows, and the node tries again.
	// +optional
	Guilty bool `json:"guilty,omitempty"`
	// Attempts of the node so far.
	// +optional
	Attempts int `json:"attempts,omitempty"`
	// Reason, with the failing probe.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	Reason string `json:"reason,omitempty"`
}

// NIC is a network card as the node found it.
type NIC struct {
	// Name of the interface.
	// +required
	Name string `json:"name"`
	// AltNames are its other names.
	// +optional
	// +listType=atomic
	AltNames []string `json:"altNames,omitempty"`
	// MAC it was made with.
	// +optional
	MAC string `json:"mac,omitempty"`
	// PCI address.
	// +optional
	PCI string `json:"pci,omitempty"`
	// Driver of the device.
	// +optional
	Driver string `json:"driver,omitempty"`
	// Vendor is the PCI vendor id, four hexadecimal digits.
	// +optional
	Vendor string `json:"vendor,omitempty"`
	// Device is the PCI device id, four hexadecimal digits.
	// +optional
	Device string `json:"device,omitempty"`
	// Speed in Mbit/s, absent if unknown.
	// +optional
	Speed int `json:"speed,omitempty"`
	// MinMTU in bytes.
	// +optional
	MinMTU int `json:"minMTU,omitempty"`
	// MaxMTU in bytes, absent if unknown.
	// +optional
	MaxMTU int `json:"maxMTU,omitempty"`
	// TotalVFs the device can have.
	// +optional
	TotalVFs int `json:"totalVFs,omitempty"`
	// VFs it has now.
	// +optional
	VFs int `json:"vfs,omitempty"`
	// PF is the PCI address of a virtual function's physical one.
	// +optional
	PF string `json:"pf,omitempty"`
}

// PlanSegment is a part of what many nodes share, named by its content and never changed.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,path=plansegments,shortName=ps
// +kubebuilder:validation:XValidation:rule="self.data == oldSelf.data",message="a segment is named by its content and never changes"
type PlanSegment struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// Data is the segment as JSON, in the bytes that its name is the digest of.
	// +required
	// +kubebuilder:validation:MaxLength=524288
	Data string `json:"data"`
}

// PlanSegmentList is a list of them.
//
// +kubebuilder:object:root=true
type PlanSegmentList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []PlanSegment `json:"items"`
}

// FabricPeers is one shard of where the nodes of a fabric are reached by VXLAN.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,path=fabricpeers
// +kubebuilder:printcolumn:name=Fabric,type=string,JSONPath=`.spec.fabric`
// +kubebuilder:printcolumn:name=Age,type=date,JSONPath=`.metadata.creationTimestamp`
type FabricPeers struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// Spec is the shard.
	// +required
	Spec FabricPeersSpec `json:"spec"`
}

// FabricPeersList is a list of them.
//
// +kubebuilder:object:root=true
type FabricPeersList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []FabricPeers `json:"items"`
}

// FabricPeersSpec is one shard.
type FabricPeersSpec struct {
	// Fabric the nodes are on.
	// +required
	// +kubebuilder:validation:MaxLength=253
	Fabric string `json:"fabric"`
	// Shard counts from 0; a node's shard is chosen by the hash of its name.
	// +required
	Shard int `json:"shard"`
	// Nodes of the shard.
	// +optional
	// +listType=map
	// +listMapKey=node
	// +kubebuilder:validation:MaxItems=512
	Nodes []FabricPeer `json:"nodes,omitempty"`
}

// FabricPeer is a node's address on a fabric.
type FabricPeer struct {
	// Node by name.
	// +required
	Node string `json:"node"`
	// Address without prefix length.
	// +required
	Address string `json:"address"`
}
