package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// TenantConfig says which devices and ids tenants may use. Like DANM's it has no spec: its fields stand at the top. With
// the label danm.io/tenant it speaks of that tenant, without one of everyone.
type TenantConfig struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// HostDevices that tenants may use. One device may stand twice, with different vniTypes.
	// +optional
	// +listType=atomic
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
	Status NetworkStatus `json:"status,omitzero"`
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
type IfaceProfile struct {
	// Name of the interface, or of a device pool if it contains a slash.
	// +required
	Name string `json:"name"`
	// VniType is vlan or vxlan; given together with vniRange.
	// +optional
	VniType string `json:"vniType,omitempty"`
	// VniRange lists ids as in cpusets: "2000-2500,2601".
	// +optional
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
