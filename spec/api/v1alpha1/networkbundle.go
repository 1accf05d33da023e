package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// NetworkBundle is one bundle in the cluster: its source and, in the status, how far it came.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,path=networkbundles,shortName=nb
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name=Ready,type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name=Status,type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name=Fetched,type=string,JSONPath=`.status.fetched.short`
// +kubebuilder:printcolumn:name=Rolled Out,type=string,JSONPath=`.status.rolledOut.short`
// +kubebuilder:printcolumn:name=Nodes,type=string,JSONPath=`.status.nodes`
// +kubebuilder:printcolumn:name=Age,type=date,JSONPath=`.metadata.creationTimestamp`
type NetworkBundle struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// Spec says where the bundle comes from.
	// +required
	Spec NetworkBundleSpec `json:"spec"`
	// Status says how far it came.
	// +optional
	Status NetworkBundleStatus `json:"status,omitzero"`
}

// NetworkBundleList is a list of them.
//
// +kubebuilder:object:root=true
type NetworkBundleList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []NetworkBundle `json:"items"`
}

// NetworkBundleSpec has exactly one source.
//
// +kubebuilder:validation:XValidation:rule="has(self.git) != has(self.configMaps)",message="give exactly one source: git or configMaps"
type NetworkBundleSpec struct {
	// Git is a repository reached over https or ssh.
	// +optional
	Git *GitSource `json:"git,omitempty"`
	// ConfigMaps are the source where no Git server is reached from the cluster, or another tool writes them.
	// +optional
	ConfigMaps *ConfigMapSource `json:"configMaps,omitempty"`
	// Interval between two looks at the source; a change of ConfigMaps is seen at once.
	// +optional
	// +kubebuilder:default="1m"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('5s')",message="an interval is at least 5s"
	Interval *metav1.Duration `json:"interval,omitempty"`
	// Suspend stops fetching and publishing; what is rolled out stays.
	// +optional
	Suspend bool `json:"suspend,omitempty"`
	// AllowEmpty lets a bundle without any network or host link take everything away.
	// +optional
	AllowEmpty bool `json:"allowEmpty,omitempty"`
	// Prune deletes objects that the bundle no longer has, and all of them when the NetworkBundle is deleted. Nodes keep
	// their host links in either case.
	// +optional
	// +kubebuilder:default=true
	Prune *bool `json:"prune,omitempty"`
}

// GitSource is a place in a Git repository.
type GitSource struct {
	// URL is https://HOST/REPOSITORY or ssh://USER@HOST/REPOSITORY, without credentials.
	// +required
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="self.startsWith('https://') || self.startsWith('ssh://')",message="write https://… or ssh://…; other schemes are refused"
	// +kubebuilder:validation:XValidation:rule="!self.matches('^https://[^/]*@') && !self.matches('^ssh://[^/@]*:[^/@]*@')",message="credentials do not stand in the URL; name a Secret in secretRef"
	URL string `json:"url"`
	// Ref is what to follow; absent is the repository's default branch.
	// +optional
	Ref *GitRef `json:"ref,omitempty"`
	// Path of the bundle in the repository; absent is its root.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="!self.split('/').exists(p, p == '..')",message="the path must stay inside the repository"
	Path string `json:"path,omitempty"`
	// SecretRef names a Secret in the controller's namespace with bearerToken, or username and password, and ca.crt (https);
	// or identity and known_hosts (ssh).
	// +optional
	SecretRef *LocalReference `json:"secretRef,omitempty"`
	// Verify refuses commits that are not signed by a known key.
	// +optional
	Verify *Verify `json:"verify,omitempty"`
}

// GitRef is one of a branch, a tag, a range of versions and a commit.
//
// +kubebuilder:validation:XValidation:rule="[has(self.branch), has(self.tag), has(self.semver), has(self.commit)].filter(x, x).size() == 1",message="give exactly one of branch, tag, semver and commit"
type GitRef struct {
	// Branch to follow.
	// +optional
	// +kubebuilder:validation:MaxLength=255
	Branch string `json:"branch,omitempty"`
	// Tag to follow.
	// +optional
	// +kubebuilder:validation:MaxLength=255
	Tag string `json:"tag,omitempty"`
	// Semver is a range; the highest tag in it is taken.
	// +optional
	// +kubebuilder:validation:MaxLength=255
	Semver string `json:"semver,omitempty"`
	// Commit is a full or abbreviated commit id, at least 7 hexadecimal digits.
	// +optional
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{7,64}$`
	Commit string `json:"commit,omitempty"`
}

// LocalReference names an object in the controller's namespace.
type LocalReference struct {
	// Name of the object.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// Verify says who may sign.
type Verify struct {
	// SecretRef names a Secret in the controller's namespace; its key signers holds OpenPGP public keys or SSH allowed signers.
	// +required
	SecretRef LocalReference `json:"secretRef"`
}

// ConfigMapSource is every ConfigMap of a namespace with the labels. Their keys are file names, with __ for a slash.
type ConfigMapSource struct {
	// Namespace of the ConfigMaps.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Namespace string `json:"namespace"`
	// Selector: every label must match. It must not be empty.
	// +required
	// +kubebuilder:validation:MinProperties=1
	// +kubebuilder:validation:MaxProperties=16
	Selector map[string]string `json:"selector"`
	// Path of the bundle among the files; absent is their root.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="!self.split('/').exists(p, p == '..')",message="the path must stay inside the source"
	Path string `json:"path,omitempty"`
}

// NetworkBundleStatus says how far a bundle came.
type NetworkBundleStatus struct {
	// Conditions: Ready, Reconciling and Stalled as kstatus reads them, Fetched, Rendered and RolledOut.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// ObservedGeneration is the generation the status speaks of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// HandledRequest is the newest danm.io/requestedAt annotation that was acted upon.
	// +optional
	HandledRequest string `json:"handledRequest,omitempty"`
	// Fetched is the newest revision read from the source.
	// +optional
	Fetched *Revision `json:"fetched,omitempty"`
	// Rendered is the newest revision without errors.
	// +optional
	Rendered *Revision `json:"rendered,omitempty"`
	// RolledOut is the revision that every node has.
	// +optional
	RolledOut *Revision `json:"rolledOut,omitempty"`
	// Version is the bundle's own version (spec.version) that was rolled out last.
	// +optional
	Version string `json:"version,omitempty"`
	// Nodes is "done/all" of the nodes with a plan.
	// +optional
	Nodes string `json:"nodes,omitempty"`
	// Rollout is the one under way, or the newest.
	// +optional
	Rollout *RolloutStatus `json:"rollout,omitempty"`
	// Quarantined plans are not rolled out again until a commit changes them or danm.io/retry names their digest.
	// +optional
	// +listType=map
	// +listMapKey=digest
	// +kubebuilder:validation:MaxItems=100
	Quarantined []QuarantinedPlan `json:"quarantined,omitempty"`
	// Inventory is every object made from the bundle, written before it is made.
	// +optional
	// +listType=atomic
	Inventory []ObjectReference `json:"inventory,omitempty"`
	// Assignments are VLAN ids and VNIs given to networks that left the choice open, by network.
	// +optional
	// +listType=map
	// +listMapKey=network
	Assignments []Assignment `json:"assignments,omitempty"`
	// Diagnostics of the newest revision: the first ten.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=10
	Diagnostics []string `json:"diagnostics,omitempty"`
	// DiagnosticsTotal counts all of them.
	// +optional
	DiagnosticsTotal int `json:"diagnosticsTotal,omitempty"`
}

// Revision is one state of a source.
type Revision struct {
	// Name is "main@sha1:<40 hex>", "sha1:<40 hex>" or "configmaps@sha256:<64 hex>".
	// +required
	Name string `json:"name"`
	// Short is "main@3f2c9d1", for people.
	// +optional
	Short string `json:"short,omitempty"`
	// At is when it was seen first.
	// +optional
	At metav1.Time `json:"at,omitzero"`
}

// RolloutStatus is how a revision travels from node to node.
type RolloutStatus struct {
	// Number counts rollouts of this bundle from 1.
	// +required
	Number int64 `json:"number"`
	// Revision that is rolled out.
	// +required
	Revision string `json:"revision"`
	// Wave counts from 1; the canaries, if there are any, are the first.
	// +optional
	Wave int `json:"wave,omitempty"`
	// Nodes of the present wave.
	// +optional
	// +listType=set
	Nodes []string `json:"nodes,omitempty"`
	// WaveStarted is when they were told.
	// +optional
	WaveStarted metav1.Time `json:"waveStarted,omitzero"`
	// WaveDone is when they had all confirmed; the soak counts from it.
	// +optional
	WaveDone metav1.Time `json:"waveDone,omitzero"`
	// Done nodes have confirmed this rollout, Total is how many it changes.
	// +optional
	Done int `json:"done,omitempty"`
	// Total of nodes that the rollout changes.
	// +optional
	Total int `json:"total,omitempty"`
	// Late nodes did not confirm in time and were passed over; they follow when they come back.
	// +optional
	// +listType=set
	Late []string `json:"late,omitempty"`
	// LastComplete is the number of the newest complete rollout: layers of it, and of those before it, are good.
	// +optional
	LastComplete int64 `json:"lastComplete,omitempty"`
	// Complete says that every node has confirmed, or was passed over.
	// +optional
	Complete bool `json:"complete,omitempty"`
}

// QuarantinedPlan is a plan that a node undid because it cut the node off.
type QuarantinedPlan struct {
	// Digest of the plan.
	// +required
	Digest string `json:"digest"`
	// Revision it came with.
	// +required
	Revision string `json:"revision"`
	// Node that undid it.
	// +required
	Node string `json:"node"`
	// Reason the node gave.
	// +optional
	Reason string `json:"reason,omitempty"`
	// At is when the controller learned of it.
	// +optional
	At metav1.Time `json:"at,omitzero"`
}

// ObjectReference names an object.
type ObjectReference struct {
	// APIVersion of the object.
	// +required
	APIVersion string `json:"apiVersion"`
	// Kind of the object.
	// +required
	Kind string `json:"kind"`
	// Namespace of the object, absent for those of the cluster.
	// +optional
	Namespace string `json:"namespace,omitempty"`
	// Name of the object.
	// +required
	Name string `json:"name"`
}

// Assignment is a number given to a network.
type Assignment struct {
	// Network is "namespace/name", or "name" of a ClusterNetwork.
	// +required
	Network string `json:"network"`
	// ID is its VLAN id or VNI.
	// +required
	ID int64 `json:"id"`
}
