package v1

import (
	"encoding/json"
	"fmt"
	"strconv"
)

// Network is a logical network that Pods attach to. With a namespace it belongs to that namespace (TenantNetwork), without
// one to the cluster (ClusterNetwork).
type Network struct {
	// APIVersion is bundle.danm.io/v1.
	APIVersion string `json:"apiVersion" schema:"required"`
	// Kind is Network.
	Kind string `json:"kind" schema:"required"`
	// Metadata names the network and says which namespace owns it.
	Metadata NetworkMetadata `json:"metadata" schema:"required"`
	// Spec is what the network is made of.
	Spec NetworkSpec `json:"spec" schema:"required"`
}

// NetworkMetadata names a network.
type NetworkMetadata struct {
	// Name is unique among the networks of its namespace: a DNS subdomain (RFC 1123).
	Name string `json:"name" schema:"required,pattern=^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"`
	// Namespace whose Pods use the network; absent for a network of the cluster.
	Namespace string `json:"namespace,omitempty" schema:"pattern=^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"`
}

// NetworkSpec is what a network is made of.
type NetworkSpec struct {
	// NetworkID names the host link: vx_<networkID>, <networkID>.<vlan>, br_<networkID>, at most 15 bytes each. Default:
	// metadata.name.
	NetworkID string `json:"networkID,omitempty"`
	// Type is the driver that attaches a Pod, default ipvlan.
	Type string `json:"type,omitempty" schema:"enum=ipvlan|macvlan|bridge"`
	// Fabric the network runs on; either fabric or hostDevice is given.
	Fabric string `json:"fabric,omitempty"`
	// HostDevice is an interface or bridge of the node groups, used without a fabric.
	HostDevice string `json:"hostDevice,omitempty"`
	// VLAN is the VLAN id on the fabric, 1 to 4094. Without vlan and vxlan the device is used untagged.
	VLAN *int `json:"vlan,omitempty" schema:"min=1,max=4094"`
	// VXLAN is the VNI on the fabric, 1 to 16777215, or the word auto: the lowest free one of the ranges (one node only, as
	// long as no cluster keeps the choice).
	VXLAN *VNI `json:"vxlan,omitempty" schema:"min=1,max=16777215"`
	// IPv4 addresses of the network; none if absent.
	IPv4 *Subnet `json:"ipv4,omitempty"`
	// IPv6 addresses of the network; none if absent.
	IPv6 *Subnet `json:"ipv6,omitempty"`
	// MTU in bytes inside the Pods; the device's if absent (VXLAN takes 50 bytes over IPv4, 70 over IPv6).
	MTU int `json:"mtu,omitempty" schema:"min=68,max=65535"`
	// InterfacePrefix is the beginning of the interface's name in the Pod, followed by its number; default eth.
	InterfacePrefix string `json:"interfacePrefix,omitempty"`
	// Table is the routing table for the policy routes that Pods ask for; 0 or absent: none.
	Table int64 `json:"table,omitempty" schema:"min=0,max=2147483647"`
	// BlockSize is how many addresses a node claims at once, a power of two; chosen if absent.
	BlockSize int `json:"blockSize,omitempty" schema:"min=1,max=65536"`
	// AllowedTenants may use this network of the cluster, besides tenants that list it; nobody named at all: everyone.
	AllowedTenants []string `json:"allowedTenants,omitempty"`
	// SharedWith names networks ("namespace/name" or "name") on the same VLAN or VNI, or the same addresses; each must name
	// the other.
	SharedWith []string `json:"sharedWith,omitempty"`
}

// Subnet is one address family of a network.
type Subnet struct {
	// CIDR of the subnet, without host bits, such as 10.40.0.0/22.
	CIDR string `json:"cidr" schema:"required"`
	// Pools are the addresses handed out: "10.40.0.10-10.40.0.200" or one address. Default: the CIDR without its ends.
	Pools []string `json:"pools,omitempty"`
	// Exclude lists addresses and ranges that are never handed out by themselves; a Pod may still ask for one.
	Exclude []string `json:"exclude,omitempty"`
	// Gateway is the Pods' default route; it is never handed out.
	Gateway string `json:"gateway,omitempty"`
	// Routes set in every Pod; via defaults to the gateway and lies inside the CIDR.
	Routes []Route `json:"routes,omitempty"`
}

// VNI is a VXLAN network identifier, or auto.
type VNI struct {
	// Value is the number as written; 0 with Auto.
	Value int64
	// Auto asks for the lowest free one.
	Auto bool
}

// UnmarshalText accepts a number and the word auto. Whether the number is a VNI is for spec/validate to say.
func (v *VNI) UnmarshalText(text []byte) error {
	if string(text) == "auto" {
		*v = VNI{Auto: true}
		return nil
	}
	n, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil {
		return fmt.Errorf("%q is neither a number nor auto", text)
	}
	*v = VNI{Value: n}
	return nil
}

// MarshalJSON writes the number, or "auto".
func (v VNI) MarshalJSON() ([]byte, error) {
	if v.Auto {
		return []byte(`"auto"`), nil
	}
	return json.Marshal(v.Value)
}
