// Package v1 is danm.io/v1, DANM's API: DanmNet, TenantNetwork, ClusterNetwork, TenantConfig and DanmEp with DANM's own
// field names, so that manifests written for DANM are read as they are.
//
// What DANM's fields cannot say stands in one optional field of ours, spec.extension. alloc, alloc6 and lastIp are read
// (for import) and never written. Admission rules are not here.
//
// +kubebuilder:object:generate=true
// +groupName=danm.io
package v1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

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

// GroupVersion of every kind in this package.
var GroupVersion = schema.GroupVersion{Group: Group, Version: Version}

// AddToScheme makes the kinds known to clients.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion, &DanmNet{}, &DanmNetList{}, &TenantNetwork{}, &TenantNetworkList{}, &ClusterNetwork{}, &ClusterNetworkList{},
		&TenantConfig{}, &TenantConfigList{}, &DanmEp{}, &DanmEpList{})
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
