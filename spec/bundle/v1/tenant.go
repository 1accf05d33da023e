package v1

// Tenant groups namespaces and says what they may use.
type Tenant struct {
	// APIVersion is bundle.danm.io/v1.
	APIVersion string `json:"apiVersion" schema:"required"`
	// Kind is Tenant.
	Kind string `json:"kind" schema:"required"`
	// Metadata names the tenant; the name is a DNS label.
	Metadata Metadata `json:"metadata" schema:"required"`
	// Spec is who the tenant is and what it may use.
	Spec TenantSpec `json:"spec" schema:"required"`
}

// TenantSpec is who a tenant is and what it may use.
type TenantSpec struct {
	// Namespaces of the tenant, at least one; a namespace belongs to one tenant.
	Namespaces []string `json:"namespaces" schema:"required"`
	// Fabrics the tenant's networks may use; absent: every fabric.
	Fabrics []TenantFabric `json:"fabrics,omitempty"`
	// Networks of the cluster granted to the tenant; naming one here closes it to tenants that are not granted it.
	Networks []string `json:"networks,omitempty"`
	// DefaultNetwork is what a Pod that asks for nothing gets: "namespace/name" or the name of a network of the cluster.
	DefaultNetwork string `json:"defaultNetwork,omitempty"`
	// NetworkIDs replace, by network type, the networkID of networks the tenant makes through the API.
	NetworkIDs map[string]string `json:"networkIDs,omitempty"`
	// Quotas bound what the tenant uses, over all its namespaces.
	Quotas Quotas `json:"quotas,omitzero"`
}

// Quotas are upper bounds; what is absent is not bounded.
type Quotas struct {
	// Networks of the tenant's namespaces.
	Networks *int `json:"networks,omitempty" schema:"min=0"`
	// Endpoints are attached Pod interfaces.
	Endpoints *int `json:"endpoints,omitempty" schema:"min=0"`
	// Addresses of both families that Pods of the tenant hold.
	Addresses *int `json:"addresses,omitempty" schema:"min=0"`
}

// TenantFabric is a tenant's share of a fabric.
type TenantFabric struct {
	// Name of the fabric.
	Name string `json:"name" schema:"required"`
	// VLANRanges of the tenant, inside the fabric's. Without any ranges all of the fabric's; if only VNI ranges are given, no
	// VLANs.
	VLANRanges []string `json:"vlanRanges,omitempty"`
	// VNIRanges of the tenant, inside the fabric's. Without any ranges all of the fabric's; if only VLAN ranges are given, no
	// VNIs.
	VNIRanges []string `json:"vniRanges,omitempty"`
}
