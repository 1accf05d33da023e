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
	// NetworkID names the host link: vx_<networkID>, <networkID>.<vlan>, br_<networkID>, at most 15 bytes each; a delegate
	// gets it as its name. Default: metadata.name.
	NetworkID string `json:"networkID,omitempty"`
	// Type is the driver that attaches a Pod: ipvlan (default), macvlan or bridge on a device of the host, vlan for a VLAN link
	// of the device in the Pod itself, sriov for a virtual function of devicePool, host-device for the hostDevice itself (vlan and
	// host-device: one Pod of a node at a time). With delegate it is the name of the CNI plugin to call, also if a driver is called
	// the same.
	Type string `json:"type,omitempty" schema:"pattern=^[A-Za-z0-9][A-Za-z0-9._-]*$,known=ipvlan|macvlan|bridge|vlan|sriov|host-device"`
	// Mode of a macvlan: bridge (default), private, vepa, or passthru, which has the device for one Pod of a node at a time; of
	// an ipvlan: l2 (default), l3 or l3s. All ipvlan networks of a device have one mode.
	Mode string `json:"mode,omitempty" schema:"enum=bridge|private|vepa|passthru|l2|l3|l3s"`
	// Fabric the network runs on. ipvlan, macvlan, bridge and vlan need a fabric or a hostDevice; not both.
	Fabric string `json:"fabric,omitempty"`
	// HostDevice is an interface or bridge of the node groups, used without a fabric. With type host-device it is moved into
	// the Pod, so nothing else may use it.
	HostDevice string `json:"hostDevice,omitempty"`
	// DevicePool is the extended resource that Pods ask for, such as danm.io/fast; sriov needs it, a delegate may have it
	// in place of hostDevice.
	DevicePool string `json:"devicePool,omitempty"`
	// VLAN is the VLAN id on the fabric, 1 to 4094, or the word auto: the lowest free one of the ranges (one node only, as
	// long as no cluster keeps the choice). Without vlan and vxlan the device is used untagged.
	VLAN *ID `json:"vlan,omitempty" schema:"min=1,max=4094"`
	// VLANQoS is the priority in the VLAN tag, 0 (default) to 7, of type sriov: the hardware writes it (IEEE 802.1Q, PCP).
	VLANQoS int `json:"vlanQoS,omitempty" schema:"min=0,max=7"`
	// VXLAN is the VNI on the fabric, 1 to 16777215, or auto, as with vlan.
	VXLAN *ID `json:"vxlan,omitempty" schema:"min=1,max=16777215"`
	// IPv4 addresses of the network; none if absent.
	IPv4 *Subnet `json:"ipv4,omitempty"`
	// IPv6 addresses of the network; none if absent.
	IPv6 *Subnet `json:"ipv6,omitempty"`
	// Reserved addresses are handed only to Pods that ask for them by name.
	Reserved []Reservation `json:"reserved,omitempty"`
	// Sticky StatefulSet lets each Pod of a StatefulSet keep its addresses when it is made anew.
	Sticky string `json:"sticky,omitempty" schema:"enum=StatefulSet"`
	// MTU in bytes inside the Pods; the device's if absent (VXLAN takes 50 bytes over IPv4, 70 over IPv6).
	MTU int `json:"mtu,omitempty" schema:"min=68,max=65535"`
	// Sysctls are kernel parameters of the interface in the Pod, from a list (reference-sysctls.md): keys as sysctl(8) has them,
	// with IFNAME for the interface's name, such as net.ipv4.conf.IFNAME.rp_filter. Values are in quotes.
	Sysctls map[string]string `json:"sysctls,omitempty"`
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
	// Delegate is the configuration of the CNI plugin that type names, in place of a driver.
	Delegate *Delegate `json:"delegate,omitempty"`
	// Render nad makes a NetworkAttachmentDefinition of the network too, so that Multus finds it.
	Render string `json:"render,omitempty" schema:"enum=nad"`
}

// Delegate is the configuration of another CNI plugin. Exactly one of conf, confList and file is given.
type Delegate struct {
	// Conf is JSON of one network configuration whose type is the network's, at most 64 KiB.
	Conf string `json:"conf,omitempty"`
	// ConfList is JSON of a network configuration list whose first plugin is the network's type, at most 64 KiB.
	ConfList string `json:"confList,omitempty"`
	// File is the name, without ending, of a .conf or .conflist in the node's CNI directory.
	File string `json:"file,omitempty" schema:"pattern=^[A-Za-z0-9][A-Za-z0-9._-]*$"`
}

// Reservation keeps an address of one or both families for those who ask for it by name.
type Reservation struct {
	// Name to ask by, in place of an address: a DNS label, unique among the reservations of its namespace.
	Name string `json:"name" schema:"required,pattern=^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"`
	// Namespace whose Pods may ask; absent: everyone who may use the network.
	Namespace string `json:"namespace,omitempty" schema:"pattern=^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"`
	// IP is the IPv4 address; with ip6 at least one of the two.
	IP string `json:"ip,omitempty"`
	// IP6 is the IPv6 address.
	IP6 string `json:"ip6,omitempty"`
}

// Subnet is one address family of a network.
type Subnet struct {
	// CIDR of the subnet, without host bits, such as 10.40.0.0/22.
	CIDR string `json:"cidr" schema:"required"`
	// Pools are the addresses handed out: "10.40.0.10-10.40.0.200" or one address. Default: the CIDR without its ends.
	Pools []string `json:"pools,omitempty"`
	// Exclude lists addresses and ranges that are not handed out to Pods that ask for any; a Pod may still ask for one of them.
	Exclude []string `json:"exclude,omitempty"`
	// Gateway is the Pods' default route. No Pod gets its address, but for Pods of the network's own namespace that ask for it.
	Gateway string `json:"gateway,omitempty"`
	// Routes set in every Pod; via defaults to the gateway, lies inside the CIDR, and is given only to a Pod that asks for it.
	Routes []Route `json:"routes,omitempty"`
}

// ID is a VLAN id or VNI, or auto.
type ID struct {
	// Value is the number as written; 0 with Auto.
	Value int64
	// Auto asks for the lowest free one.
	Auto bool
}

// UnmarshalText accepts a number and the word auto. Its bounds are for spec/validate to say.
func (v *ID) UnmarshalText(text []byte) error {
	if string(text) == "auto" {
		*v = ID{Auto: true}
		return nil
	}
	n, err := strconv.ParseInt(string(text), 10, 64)
	if err != nil {
		return fmt.Errorf("%q is neither a number nor auto", text)
	}
	*v = ID{Value: n}
	return nil
}

// MarshalJSON writes the number, or "auto".
func (v ID) MarshalJSON() ([]byte, error) {
	if v.Auto {
		return []byte(`"auto"`), nil
	}
	return json.Marshal(v.Value)
}
