// Package v1 is the part of k8s.cni.cncf.io/v1 that DANM writes and reads: the Network Plumbing Working Group's
// NetworkAttachmentDefinition (multi-net-spec v1.3, section 3.1), by which Multus and others find a network.
// The types are plain data; what they mean is decided elsewhere.
package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// APIVersion is the apiVersion of a NetworkAttachmentDefinition.
const APIVersion = "k8s.cni.cncf.io/v1"

// Kind is the kind of a NetworkAttachmentDefinition.
const Kind = "NetworkAttachmentDefinition"

// ResourceName is the annotation that names the extended resource whose devices the network hands out.
const ResourceName = "k8s.v1.cni.cncf.io/resourceName"

// NetworkAttachmentDefinition is a network as a CNI configuration.
type NetworkAttachmentDefinition struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// Spec is the network's configuration.
	// +optional
	Spec Spec `json:"spec,omitzero"`
}

// Spec of a NetworkAttachmentDefinition.
type Spec struct {
	// Config is JSON of a CNI network configuration or configuration list; empty means a file on the node, found by the
	// object's name.
	// +optional
	Config string `json:"config,omitempty"`
}
