package v1

import (
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// DanmEp is one interface of one Pod. Only DANM writes it.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:path=danmeps,shortName={de,dep}
// +kubebuilder:printcolumn:name=Pod,type=string,JSONPath=`.spec.Pod`
// +kubebuilder:printcolumn:name=Network,type=string,JSONPath=`.spec.NetworkName`
// +kubebuilder:printcolumn:name=Interface,type=string,JSONPath=`.spec.Interface.Name`
// +kubebuilder:printcolumn:name=Address,type=string,JSONPath=`.spec.Interface.Address`
// +kubebuilder:printcolumn:name=Host,type=string,JSONPath=`.spec.Host`
type DanmEp struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// Spec is the interface and whose it is.
	// +required
	Spec DanmEpSpec `json:"spec"`
}

// DanmEpSpec is an interface and whose it is.
type DanmEpSpec struct {
	// NetworkName is the name of the network object.
	// +optional
	NetworkName string `json:"NetworkName,omitempty"`
	// NetworkType is the network's type.
	// +optional
	NetworkType string `json:"NetworkType,omitempty"`
	// EndpointID is the object's own name, a UUID.
	// +optional
	EndpointID string `json:"EndpointID,omitempty"`
	// Interface in the Pod.
	// +optional
	Iface DanmEpIface `json:"Interface,omitzero"`
	// Host is the node's name.
	// +optional
	Host string `json:"Host,omitempty"`
	// Pod is the Pod's name.
	// +optional
	Pod string `json:"Pod,omitempty"`
	// PodUID is the Pod's UID.
	// +optional
	PodUID string `json:"PodUID,omitempty"`
	// CID is the ID of the sandbox container.
	// +optional
	CID string `json:"CID,omitempty"`
	// Netns is the path of the Pod's network namespace.
	// +optional
	Netns string `json:"netns,omitempty"`
	// ApiType is the network's kind; "" is read as DanmNet.
	// +optional
	ApiType string `json:"apiType,omitempty"` //nolint:revive // DANM's name
}

// DanmEpIface is an interface in a Pod.
type DanmEpIface struct {
	// Name in the Pod.
	// +optional
	Name string `json:"Name,omitempty"`
	// Address is IPv4 with prefix length, "none", or "".
	// +optional
	Address string `json:"Address,omitempty"`
	// AddressIPv6 is IPv6 with prefix length, "none", or "".
	// +optional
	AddressIPv6 string `json:"AddressIPv6,omitempty"`
	// MacAddress of the interface.
	// +optional
	MacAddress string `json:"MacAddress,omitempty"`
	// Proutes are IPv4 policy routes, destination to gateway.
	// +optional
	Proutes map[string]string `json:"proutes,omitempty"`
	// Proutes6 are IPv6 policy routes.
	// +optional
	Proutes6 map[string]string `json:"proutes6,omitempty"`
	// DeviceID is the PCI address of an attached device.
	// +optional
	DeviceID string `json:"DeviceID,omitempty"`
	// Mtu in bytes (DANM 2026).
	// +optional
	Mtu int `json:"Mtu,omitempty"`
}

// DanmEpList is a list of them.
//
// +kubebuilder:object:root=true
type DanmEpList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []DanmEp `json:"items"`
}

// Labels of a DanmEp, beside those of its Pod. A value is the name if it has at most 63 bytes, else 16 hexadecimal digits of its
// digest; spec has it in full.
const (
	LabelNode    = "danm.io/node"     // spec.Host
	LabelPodUID  = "danm.io/pod-uid"  // spec.PodUID
	LabelSandbox = "danm.io/sandbox"  // spec.CID
	LabelNetwork = "danm.io/network"  // spec.NetworkName, with . for /
	LabelAPIType = "danm.io/api-type" // spec.apiType
)

// Network is the network that an endpoint of that namespace is of. A network of another namespace has that in front of its NetworkName.
func (s DanmEpSpec) Network(of string) (kind, namespace, name string) {
	kind, namespace, name = s.ApiType, of, s.NetworkName
	if kind == "" {
		kind = KindDanmNet
	}
	if other, rest, has := strings.Cut(name, "/"); has {
		namespace, name = other, rest
	}
	if kind == KindClusterNetwork {
		namespace = ""
	}
	return kind, namespace, name
}
