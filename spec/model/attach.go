package model

import (
	"encoding/json"
	"net/netip"
)

// InterfaceRequest is one interface a Pod asks for, from an annotation or from the CNI conf's `interfaces` key.
// An empty Kind asks for the default network.
type InterfaceRequest struct {
	Kind      APIKind        `json:"kind,omitempty"`
	Network   string         `json:"network,omitempty"`
	IP        AddressRequest `json:"ip,omitzero"`
	IP6       AddressRequest `json:"ip6,omitzero"`
	Routes    []PodRoute     `json:"routes,omitempty"`    // policy routes (proutes, proutes6), in the network's table
	Selection *Selection     `json:"selection,omitempty"` // in the NPWG's dialect; Kind is Definition then
}

// Selection is what the NPWG's dialect says of an interface beside the definition's name (multi-net-spec v1.3, section 4.1.2).
type Selection struct {
	Namespace string   `json:"namespace,omitempty"` // of the definition, "" = the Pod's
	Default   bool     `json:"default,omitempty"`   // in the place of the default network
	IfName    string   `json:"ifName,omitempty"`    // "" = by its place in the list
	Addresses []string `json:"addresses,omitempty"` // asked for by hand, in their order and as written, with or without a length
	MAC       string   `json:"mac,omitempty"`       // lower case, colons
	// DefaultRoute asks for the Pod's default routes on this interface, by Gateways, at most one a family, or else by those of its network.
	DefaultRoute bool                       `json:"defaultRoute,omitempty"`
	Gateways     []netip.Addr               `json:"gateways,omitempty"`
	Capabilities map[string]any             `json:"capabilities,omitempty"` // portMappings, bandwidth, infinibandGUID: runtimeConfig
	Args         map[string]json.RawMessage `json:"args,omitempty"`         // "cni" of the plugin's args
}

// AddressMode is how one address family of an interface is chosen.
type AddressMode string

const (
	NoAddress      AddressMode = ""        // family not asked for
	AddressNone    AddressMode = "none"    // explicitly none
	AddressDynamic AddressMode = "dynamic" // from the network's pools
	AddressStatic  AddressMode = "static"  // AddressRequest.Addr
	// AddressReserved is the network's reservation called AddressRequest.Name.
	AddressReserved AddressMode = "reserved"
)

// AddressRequest is the wish for one family of one interface.
type AddressRequest struct {
	Mode AddressMode `json:"mode,omitempty"`
	Addr netip.Addr  `json:"addr,omitzero"`  // static only
	Name string      `json:"name,omitempty"` // reserved only
}

// Attachment is one Pod interface as decided before the kernel is touched: all that DEL and CHECK need.
type Attachment struct {
	NetworkKind  APIKind        `json:"networkKind"`
	Network      string         `json:"network"` // Network.Key()
	NetworkID    string         `json:"networkID"`
	Type         NetworkType    `json:"type"`
	Mode         string         `json:"mode,omitempty"`     // as Network.Mode
	Device       string         `json:"device"`             // host parent (macvlan, ipvlan, vlan), bridge, or what is moved (host-device, sriov; "" where a program drives it)
	VLAN         uint16         `json:"vlan,omitempty"`     // vlan: the tag of the link; sriov: the tag that the card puts on
	QoS          uint8          `json:"qos,omitempty"`      // sriov: priority in that tag
	VF           *Function      `json:"vf,omitempty"`       // sriov: which virtual function it is, and what it was like before
	Pool         string         `json:"pool,omitempty"`     // as Network.DevicePool
	DeviceID     string         `json:"deviceID,omitempty"` // which of the Pod's devices of the pool the interface has
	Delegate     *DelegateCall  `json:"delegate,omitempty"` // another CNI plugin makes the link; Type is the plugin's name
	Moved        *Moved         `json:"moved,omitempty"`    // host-device, sriov: what the device was like before
	HostLink     string         `json:"hostLink,omitempty"` // bridge: host end of the veth
	IfName       string         `json:"ifName"`             // in the Pod
	MAC          string         `json:"mac,omitempty"`      // chosen by us, or a virtual function's own; empty where the link has its device's
	MTU          int            `json:"mtu,omitempty"`
	Sysctls      []Sysctl       `json:"sysctls,omitempty"`   // as Network.Sysctls
	Addresses    []netip.Prefix `json:"addresses,omitempty"` // v4 before v6, with the network's prefix length
	Gateways     []netip.Addr   `json:"gateways,omitempty"`
	Routes       []PodRoute     `json:"routes,omitempty"`
	Table        uint32         `json:"table,omitempty"`
	PolicyRoutes []PodRoute     `json:"policyRoutes,omitempty"`
	IPv6         bool           `json:"ipv6,omitempty"` // IPv6 is on on the link; false turns it off there
}

// DelegateCall is what other CNI plugins were called with, and are called with again.
type DelegateCall struct {
	List         json.RawMessage `json:"list"` // a network configuration list
	Args         [][2]string     `json:"args,omitempty"`
	Capabilities map[string]any  `json:"capabilities,omitempty"`
	// NoDefault are the families, as 0.0.0.0/0 and ::/0, whose default routes are taken from the interface, for another one has the Pod's;
	// or because it is to have them by Gateways.
	NoDefault []netip.Prefix `json:"noDefault,omitempty"`
	Gateways  []netip.Addr   `json:"gateways,omitempty"`
}

// Function is a virtual function that a Pod has, and what of it is to be as before again afterwards. What the pool says of it (trust,
// rates, driver) is the guard's and not written here.
type Function struct {
	PF     string `json:"pf"`               // interface of the physical function when it was looked at
	PFPCI  string `json:"pfPCI,omitempty"`  // PCI address of it: interfaces are renamed
	Number int    `json:"number"`           // among the virtual functions of the physical one, from 0
	Driver string `json:"driver,omitempty"` // "" = the kernel's, which makes an interface; else one for programs, such as vfio-pci
	MAC    string `json:"mac,omitempty"`    // set through the physical function before; "" = none was, or it is not known
	VLAN   uint16 `json:"vlan,omitempty"`   // set before
	QoS    uint8  `json:"qos,omitempty"`
}

// Moved is what a device of the host was like before a Pod got it, and is to be like again afterwards.
type Moved struct {
	Kind    string `json:"kind"`              // the kernel's, "device" for hardware
	Index   int    `json:"index"`             // in the host
	MAC     string `json:"mac,omitempty"`     // lower case, colons
	PermMAC string `json:"permMAC,omitempty"` // burnt in; "" for links that have none
	MTU     int    `json:"mtu"`
	Up      bool   `json:"up,omitempty"`
	Alias   string `json:"alias,omitempty"`
}

// Attached is a sandbox with all its interfaces as they were seen: each Attachment has the MAC, the MTU and the addresses that the link
// has, whoever chose them.
type Attached struct {
	Sandbox        string // the container's ID
	Netns          string // path, the host's
	Namespace, Pod string
	PodUID         string // as the runtime knows the Pod
	Interfaces     []Attachment
}
