package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// DanmNet is a network of one namespace, made by its users.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:path=danmnets,shortName={dn,dnet}
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name=Type,type=string,JSONPath=`.spec.NetworkType`
// +kubebuilder:printcolumn:name=VLAN,type=integer,JSONPath=`.spec.Options.vlan`
// +kubebuilder:printcolumn:name=VXLAN,type=integer,JSONPath=`.spec.Options.vxlan`
// +kubebuilder:printcolumn:name=CIDR,type=string,JSONPath=`.spec.Options.cidr`
// +kubebuilder:printcolumn:name=Used,type=integer,JSONPath=`.status.addresses.ipv4.used`
// +kubebuilder:printcolumn:name=Of,type=integer,JSONPath=`.status.addresses.ipv4.capacity`
// +kubebuilder:printcolumn:name=Ready,type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name=Reason,type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name=Age,type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="!has(self.spec.AllowedTenants) || self.spec.AllowedTenants.size() == 0",message="AllowedTenants is for ClusterNetworks: a DanmNet belongs to its namespace"
type DanmNet struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// Spec is what the network is made of.
	// +required
	Spec NetworkSpec `json:"spec"`
	// Status is what became of it.
	// +optional
	Status NetworkStatus `json:"status,omitzero"`
}

// TenantNetwork is a network of one namespace whose physical side the cluster's administrator decides.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:path=tenantnetworks,shortName={tn,tnet}
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name=Type,type=string,JSONPath=`.spec.NetworkType`
// +kubebuilder:printcolumn:name=VLAN,type=integer,JSONPath=`.spec.Options.vlan`
// +kubebuilder:printcolumn:name=VXLAN,type=integer,JSONPath=`.spec.Options.vxlan`
// +kubebuilder:printcolumn:name=CIDR,type=string,JSONPath=`.spec.Options.cidr`
// +kubebuilder:printcolumn:name=Used,type=integer,JSONPath=`.status.addresses.ipv4.used`
// +kubebuilder:printcolumn:name=Of,type=integer,JSONPath=`.status.addresses.ipv4.capacity`
// +kubebuilder:printcolumn:name=Ready,type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name=Reason,type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name=Age,type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="!has(self.spec.AllowedTenants) || self.spec.AllowedTenants.size() == 0",message="AllowedTenants is for ClusterNetworks: a TenantNetwork belongs to its namespace"
type TenantNetwork struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// Spec is what the network is made of.
	// +required
	Spec NetworkSpec `json:"spec"`
	// Status is what became of it.
	// +optional
	Status NetworkStatus `json:"status,omitzero"`
}

// ClusterNetwork is a network of the cluster, for the namespaces in AllowedTenants or for everyone.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Cluster,path=clusternetworks,shortName={cn,cnet}
// +kubebuilder:subresource:status
// +kubebuilder:printcolumn:name=Type,type=string,JSONPath=`.spec.NetworkType`
// +kubebuilder:printcolumn:name=VLAN,type=integer,JSONPath=`.spec.Options.vlan`
// +kubebuilder:printcolumn:name=VXLAN,type=integer,JSONPath=`.spec.Options.vxlan`
// +kubebuilder:printcolumn:name=CIDR,type=string,JSONPath=`.spec.Options.cidr`
// +kubebuilder:printcolumn:name=Used,type=integer,JSONPath=`.status.addresses.ipv4.used`
// +kubebuilder:printcolumn:name=Of,type=integer,JSONPath=`.status.addresses.ipv4.capacity`
// +kubebuilder:printcolumn:name=Ready,type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name=Reason,type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name=Age,type=date,JSONPath=`.metadata.creationTimestamp`
type ClusterNetwork struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// Spec is what the network is made of.
	// +required
	Spec NetworkSpec `json:"spec"`
	// Status is what became of it.
	// +optional
	Status NetworkStatus `json:"status,omitzero"`
}

// NetworkSpec is what a network of any of the three kinds is made of.
type NetworkSpec struct {
	// NetworkID names host links (vx_<NetworkID>, <NetworkID>.<vlan>) and, for static delegates, the CNI conf.
	// +optional
	// +kubebuilder:validation:XValidation:rule="!self.contains('/') && self != '..'",message="a NetworkID names host links and files: it holds no slash"
	// +kubebuilder:validation:MaxLength=253
	NetworkID string `json:"NetworkID,omitempty"`
	// NetworkType is ipvlan (also if empty), another native driver, or a CNI plugin's name.
	// +optional
	// +kubebuilder:validation:XValidation:rule="!self.contains('/') && self != '..'",message="a NetworkType is a driver or the name of a CNI plugin: it holds no slash"
	// +kubebuilder:validation:MaxLength=253
	NetworkType string `json:"NetworkType,omitempty"`
	// AllowedTenants lists the namespaces that may use a ClusterNetwork; empty is everyone.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=4096
	// +kubebuilder:validation:items:MaxLength=63
	AllowedTenants []string `json:"AllowedTenants,omitempty"`
	// Options are the network's parameters.
	// +optional
	Options NetworkOptions `json:"Options,omitzero"`
	// Extension is what DANM's fields cannot say.
	// +optional
	Extension *NetworkExtension `json:"extension,omitempty"`
}

// NetworkOptions are the parameters of a network. Stored objects of DANM hold "" where a value is absent.
//
// +kubebuilder:validation:XValidation:rule="!(has(self.vlan) && self.vlan > 0 && has(self.vxlan) && self.vxlan > 0)",message="vlan and vxlan exclude each other"
// +kubebuilder:validation:XValidation:rule="!(has(self.host_device) && self.host_device != \"\" && has(self.device_pool) && self.device_pool != \"\")",message="host_device and device_pool exclude each other"
// +kubebuilder:validation:XValidation:rule="!has(self.routes) || self.routes.size() == 0 || (has(self.cidr) && self.cidr != \"\")",message="routes need a cidr"
// +kubebuilder:validation:XValidation:rule="!has(self.routes6) || self.routes6.size() == 0 || (has(self.net6) && self.net6 != \"\")",message="routes6 need a net6"
type NetworkOptions struct {
	// Device is host_device: the parent on the host; not together with device_pool.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	Device string `json:"host_device,omitempty"`
	// DevicePool is the extended resource whose devices are attached (sriov).
	// +optional
	// +kubebuilder:validation:MaxLength=316
	DevicePool string `json:"device_pool,omitempty"`
	// Vlan is the VLAN id of the host link, 1 to 4094; not together with vxlan.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=4094
	Vlan int `json:"vlan,omitempty"`
	// Vxlan is the VNI of the host link.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=16777215
	Vxlan int `json:"vxlan,omitempty"`
	// Cidr is the IPv4 subnet; host bits are tolerated; empty is none.
	// +optional
	Cidr string `json:"cidr,omitempty"`
	// Pool is allocation_pool: the range of dynamic IPv4 addresses inside cidr.
	// +optional
	Pool IPPool `json:"allocation_pool,omitzero"`
	// Alloc is DANM's bitmap of IPv4 addresses in use, base64: read for import, never written.
	// +optional
	Alloc string `json:"alloc,omitempty"`
	// Routes lead from a destination CIDR to a gateway inside cidr.
	// +optional
	// +kubebuilder:validation:MaxProperties=1024
	Routes map[string]string `json:"routes,omitempty"`
	// Net6 is the IPv6 subnet.
	// +optional
	Net6 string `json:"net6,omitempty"`
	// PoolV6 is allocation_pool_v6: the part of net6 for dynamic addresses.
	// +optional
	PoolV6 IPPoolV6 `json:"allocation_pool_v6,omitzero"`
	// Alloc6 is DANM's bitmap over allocation_pool_v6.cidr: read for import, never written.
	// +optional
	Alloc6 string `json:"alloc6,omitempty"`
	// Routes6 lead from an IPv6 destination to a gateway inside net6.
	// +optional
	// +kubebuilder:validation:MaxProperties=1024
	Routes6 map[string]string `json:"routes6,omitempty"`
	// Prefix is container_prefix: the beginning of the interface's name in the Pod.
	// +optional
	Prefix string `json:"container_prefix,omitempty"`
	// RTables is rt_tables: the table for policy routes, 0 (none) or 1 to 2147483647.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=2147483647
	RTables int64 `json:"rt_tables,omitempty"`
	// MTU in bytes (DANM 2026), 1280 to 9000 there.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=65535
	MTU int `json:"mtu,omitempty"`
}

// IPPool is a range of addresses.
type IPPool struct {
	// Start is the first address; "" is the subnet's.
	// +optional
	Start string `json:"start,omitempty"`
	// End is the last address; "" is the subnet's.
	// +optional
	End string `json:"end,omitempty"`
	// LastIp is DANM's cursor: read, never written.
	// +optional
	LastIp string `json:"lastIp,omitempty"` //nolint:revive // DANM's name
}

// IPPoolV6 is a range of IPv6 addresses inside a part of net6.
type IPPoolV6 struct {
	IPPool `json:",inline"`
	// Cidr is the part of net6 that dynamic addresses come from.
	// +optional
	Cidr string `json:"cidr,omitempty"`
}

// NetworkExtension is what DANM's fields cannot say of a network.
type NetworkExtension struct {
	// Mode of a macvlan: bridge (default), private, vepa or passthru; of an ipvlan: l2 (default), l3 or l3s.
	// +optional
	// +kubebuilder:validation:Enum=bridge;private;vepa;passthru;l2;l3;l3s
	Mode string `json:"mode,omitempty"`
	// VLANQoS is the priority in the VLAN tag of NetworkType sriov (IEEE 802.1Q, PCP).
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=7
	VLANQoS int `json:"vlanQoS,omitempty"`
	// Native says that NetworkType vlan is the driver of that name, not the CNI plugin.
	// +optional
	Native bool `json:"native,omitempty"`
	// Fabric the network runs on, by the bundle's name.
	// +optional
	Fabric string `json:"fabric,omitempty"`
	// Pools of dynamic IPv4 addresses where one range is not enough, "first-last".
	// +optional
	// +listType=atomic
	Pools []string `json:"pools,omitempty"`
	// PoolsV6 of dynamic IPv6 addresses, "first-last".
	// +optional
	// +listType=atomic
	PoolsV6 []string `json:"poolsV6,omitempty"`
	// Exclude lists IPv4 ranges that are never chosen dynamically.
	// +optional
	// +listType=atomic
	Exclude []string `json:"exclude,omitempty"`
	// ExcludeV6 lists IPv6 ranges that are never chosen dynamically.
	// +optional
	// +listType=atomic
	ExcludeV6 []string `json:"excludeV6,omitempty"`
	// Gateway is the IPv4 default gateway; never chosen dynamically.
	// +optional
	Gateway string `json:"gateway,omitempty"`
	// GatewayV6 is the IPv6 default gateway.
	// +optional
	GatewayV6 string `json:"gatewayV6,omitempty"`
	// Sysctls are kernel parameters of the interface in the Pod, with IFNAME in their keys for its name.
	// +optional
	Sysctls map[string]string `json:"sysctls,omitempty"`
	// BlockSize is how many addresses a node claims at once.
	// +optional
	BlockSize int `json:"blockSize,omitempty"`
	// SharedWith names networks on the same VLAN or VNI, "namespace/name" or "name".
	// +optional
	// +listType=set
	SharedWith []string `json:"sharedWith,omitempty"`
	// AllowedTenants are the tenants, by name, behind the namespaces in spec.AllowedTenants.
	// +optional
	// +listType=set
	AllowedTenants []string `json:"allowedTenants,omitempty"`
	// Reserved addresses are handed to who asks for them by name.
	// +optional
	// +listType=atomic
	Reserved []ReservedAddress `json:"reserved,omitempty"`
	// Sticky StatefulSet: Pods of a StatefulSet keep their address by ordinal.
	// +optional
	Sticky string `json:"sticky,omitempty"`
	// Delegate is what the CNI plugin named by NetworkType is called with.
	// +optional
	Delegate *Delegate `json:"delegate,omitempty"`
}

// ReservedAddress is an address kept under a name.
type ReservedAddress struct {
	// Name to ask for it by.
	// +required
	Name string `json:"name"`
	// Namespace whose Pods may ask; empty is everyone who may use the network.
	// +optional
	Namespace string `json:"namespace,omitempty"`
	// IP is the IPv4 address.
	// +optional
	IP string `json:"ip,omitempty"`
	// IP6 is the IPv6 address.
	// +optional
	IP6 string `json:"ip6,omitempty"`
}

// Delegate is the configuration of another CNI plugin: one of the three.
type Delegate struct {
	// Conf is JSON of one network configuration.
	// +optional
	Conf string `json:"conf,omitempty"`
	// ConfList is JSON of a network configuration list.
	// +optional
	ConfList string `json:"confList,omitempty"`
	// File is the name, without ending, of a configuration in the node's CNI directory; empty is NetworkID, as in DANM.
	// +optional
	File string `json:"file,omitempty"`
}

// NetworkStatus is what became of a network.
type NetworkStatus struct {
	// Conditions of the network; it attaches Pods only when Ready.
	// +optional
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// ObservedGeneration is the generation the conditions speak of.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Addresses counts the addresses of the network's space, in steps of half a minute. Networks that share a space show the same.
	// +optional
	Addresses *NetworkAddresses `json:"addresses,omitempty"`
}

// NetworkAddresses counts addresses by family.
type NetworkAddresses struct {
	// IPv4 addresses.
	// +optional
	IPv4 *AddressCount `json:"ipv4,omitempty"`
	// IPv6 addresses.
	// +optional
	IPv6 *AddressCount `json:"ipv6,omitempty"`
}

// AddressCount is how many addresses there are and how many are used.
type AddressCount struct {
	// Used by Pods, or kept for them. None is written as 0, so that kubectl shows it.
	// +required
	Used int64 `json:"used"`
	// Capacity is how many may be chosen dynamically, saturating at 2^53.
	// +required
	Capacity int64 `json:"capacity"`
}

// DanmNetList is a list of them.
//
// +kubebuilder:object:root=true
type DanmNetList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []DanmNet `json:"items"`
}

// TenantNetworkList is a list of them.
//
// +kubebuilder:object:root=true
type TenantNetworkList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []TenantNetwork `json:"items"`
}

// ClusterNetworkList is a list of them.
//
// +kubebuilder:object:root=true
type ClusterNetworkList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ClusterNetwork `json:"items"`
}
