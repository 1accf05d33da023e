// Package v1 is danm.io/v1, DANM's API: DanmNet, TenantNetwork, ClusterNetwork, TenantConfig and DanmEp with DANM's own
// field names, so that manifests written for DANM are read as they are.
//
// What DANM's fields cannot say stands in one optional field of ours, spec.extension. alloc, alloc6 and lastIp are read
// (for import) and never written. Admission rules are not here.
package v1

// Group and version of the API. DANM before 4.4 called the group danm.k8s.io; Decode reads both.
const (
	Group       = "danm.io"
	LegacyGroup = "danm.k8s.io"
	Version     = "v1"
	APIVersion  = Group + "/" + Version
)

// The kinds of the API.
const (
	KindDanmNet        = "DanmNet"
	KindTenantNetwork  = "TenantNetwork"
	KindClusterNetwork = "ClusterNetwork"
	KindTenantConfig   = "TenantConfig"
	KindDanmEp         = "DanmEp"
)
