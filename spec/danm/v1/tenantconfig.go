package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// TenantConfig says which devices and ids tenants may use. Like DANM's it has no spec: its fields stand at the top. With
// the label danm.io/tenant it speaks of that tenant, without one of everyone.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,path=tenantconfigs,shortName={tc,tconf}
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name=Tenant,type=string,JSONPath=`.metadata.labels.danm\.io/tenant`
// +kubebuilder:printcolumn:name=Ready,type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name=Reason,type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name=Age,type=date,JSONPath=`.metadata.creationTimestamp`
type TenantConfig struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// HostDevices that tenants may use. One device may stand twice, with different vniTypes.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=256
	HostDevices []IfaceProfile `json:"hostDevices,omitempty"`
	// NetworkIds replace, by network type (case-insensitive), the NetworkID of tenants' networks.
	// +optional
	NetworkIds map[string]string `json:"networkIds,omitempty"`
	// AllowedClusterNetworks are ClusterNetworks tenants have privileges on (DANM 2026).
	// +optional
	// +listType=map
	// +listMapKey=name
	AllowedClusterNetworks []AllowedClusterNetwork `json:"allowedClusterNetworks,omitempty"`
	// Extension is what DANM's fields cannot say.
	// +optional
	Extension *TenantExtension `json:"extension,omitempty"`
	// Status is what became of it.
	// +optional
	Status TenantStatus `json:"status,omitzero"`
}

// TenantStatus is what became of a TenantConfig, and the numbers given out under it.
type TenantStatus struct {
	// Conditions of the configuration.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// ObservedGeneration is the generation the conditions speak of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Reserved are the VLAN ids and VNIs of networks, written here before they are written into the network.
	// +optional
	// +listType=map
	// +listMapKey=network
	// +kubebuilder:validation:MaxItems=16384
	Reserved []ReservedNumber `json:"reserved,omitempty"`
}

// ReservedNumber is the device and number of one network.
type ReservedNumber struct {
	// Network is "namespace/name".
	// +required
	Network string `json:"network"`
	// UID of the network: another one of that name gets a number of its own.
	// +required
	UID string `json:"uid"`
	// Device, or device pool, that was chosen.
	// +required
	Device string `json:"device"`
	// VniType is vlan or vxlan, empty if the device has none.
	// +optional
	VniType string `json:"vniType,omitempty"`
	// ID is the VLAN id or VNI, 0 if the device has none.
	// +optional
	ID int64 `json:"id,omitempty"`
}

// TenantExtension is what DANM's fields cannot say of a tenant.
type TenantExtension struct {
	// Namespaces of the tenant.
	// +optional
	// +listType=set
	Namespaces []string `json:"namespaces,omitempty"`
	// DefaultNetwork is what a Pod that asks for nothing gets: "namespace/name", or the name of a ClusterNetwork.
	// +optional
	DefaultNetwork string `json:"defaultNetwork,omitempty"`
	// Fabrics are the tenant's shares, by the bundle's names; absent is every fabric.
	// +optional
	// +listType=atomic
	Fabrics []TenantFabric `json:"fabrics,omitempty"`
	// Quotas bound the tenant over all its namespaces.
	// +optional
	Quotas *Quotas `json:"quotas,omitempty"`
}

// TenantFabric is a tenant's share of a fabric.
type TenantFabric struct {
	// Name of the fabric.
	// +required
	Name string `json:"name"`
	// VLANRanges as in cpusets: "100-199,310".
	// +optional
	VLANRanges string `json:"vlanRanges,omitempty"`
	// VNIRanges as in cpusets.
	// +optional
	VNIRanges string `json:"vniRanges,omitempty"`
}

// Quotas are upper bounds; an absent one is none.
type Quotas struct {
	// Networks of the tenant's namespaces.
	// +optional
	Networks *int `json:"networks,omitempty"`
	// Endpoints are attached Pod interfaces.
	// +optional
	Endpoints *int `json:"endpoints,omitempty"`
	// Addresses of both families.
	// +optional
	Addresses *int `json:"addresses,omitempty"`
}

// LabelTenant on a TenantConfig names its tenant.
const LabelTenant = "danm.io/tenant"

// IfaceProfile is one device, or pool of devices, that tenants may use.
//
// +kubebuilder:validation:XValidation:rule="(has(self.vniType) && self.vniType != \"\") == (has(self.vniRange) && self.vniRange != \"\")",message="vniType and vniRange are given together"
type IfaceProfile struct {
	// Name of the interface, or of a device pool if it contains a slash.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=316
	Name string `json:"name"`
	// VniType is vlan or vxlan; given together with vniRange.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self in ['', 'vlan', 'vxlan']",message="vniType is vlan or vxlan"
	// +kubebuilder:validation:MaxLength=16
	VniType string `json:"vniType,omitempty"`
	// VniRange lists ids as in cpusets: "2000-2500,2601".
	// +optional
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:Pattern=`^([0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*)?$`
	VniRange string `json:"vniRange,omitempty"`
	// Alloc is DANM's bitmap of ids in use, base64: read for import, never written.
	// +optional
	Alloc string `json:"alloc,omitempty"`
}

// AllowedClusterNetwork is what tenants may do with a ClusterNetwork.
type AllowedClusterNetwork struct {
	// Name of the ClusterNetwork.
	// +required
	Name string `json:"name"`
	// Privileges on it, such as reservedIp.
	// +optional
	// +listType=set
	Privileges []string `json:"privileges,omitempty"`
}

// TenantConfigList is a list of them.
//
// +kubebuilder:object:root=true
type TenantConfigList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []TenantConfig `json:"items"`
}
