package model

import (
	"net/netip"
	"slices"
)

// NetworkType is the driver that attaches a Pod.
type NetworkType string

const (
	IPVLAN  NetworkType = "ipvlan"
	MACVLAN NetworkType = "macvlan"
	BRIDGE  NetworkType = "bridge"
	// SRIOV takes a virtual function of DevicePool, HOSTDEVICE moves HostDevice itself into the Pod.
	SRIOV      NetworkType = "sriov"
	HOSTDEVICE NetworkType = "host-device"
	// TAGGED makes the VLAN link of the device inside the Pod; the host has none.
	TAGGED NetworkType = "vlan"
)

// Modes of macvlan and ipvlan that are not the default (ip-link(8)).
const (
	PRIVATE  = "private"
	VEPA     = "vepa"
	PASSTHRU = "passthru"
	L3       = "l3"
	L3S      = "l3s"
)

// DefaultMode is the mode that Network.Mode leaves out, "" for drivers without modes.
func DefaultMode(t NetworkType) string {
	switch t { //nolint:exhaustive // the others have none
	case MACVLAN:
		return "bridge"
	case IPVLAN:
		return "l2"
	}
	return ""
}

// Modes are those of a driver, the default first.
func Modes(t NetworkType) []string {
	switch t { //nolint:exhaustive // the others have none
	case MACVLAN:
		return []string{DefaultMode(t), PRIVATE, VEPA, PASSTHRU}
	case IPVLAN:
		return []string{DefaultMode(t), L3, L3S}
	}
	return nil
}

// Delegate is what another CNI plugin is called with; Network.Type is then the plugin's name.
type Delegate struct {
	Conf     string `json:"conf,omitempty"`     // JSON of one network configuration
	ConfList string `json:"confList,omitempty"` // JSON of a network configuration list
	File     string `json:"file,omitempty"`     // <name> of <name>.conf or .conflist in the node's CNI directory
}

// Reservation keeps addresses for who asks for them by name.
type Reservation struct {
	Name      string     `json:"name"`
	Namespace string     `json:"namespace,omitempty"` // may use it; "" = everyone who may use the network
	IP        netip.Addr `json:"ip,omitzero"`
	IP6       netip.Addr `json:"ip6,omitzero"`
}

// APIKind is the DANM kind through which Pods name a network.
type APIKind string

const (
	DanmNet        APIKind = "DanmNet"
	TenantNetwork  APIKind = "TenantNetwork"
	ClusterNetwork APIKind = "ClusterNetwork"
	// Definition is the NPWG's: a definition that was made by hand, not rendered from a bundle.
	Definition APIKind = "NetworkAttachmentDefinition"
)

// Network is a logical network as Pods see it. In a NodeState, Device is the host link Pods attach to on that node.
type Network struct {
	Kind              APIKind       `json:"kind"`
	Namespace         string        `json:"namespace,omitempty"` // "" for ClusterNetwork
	Name              string        `json:"name"`
	NetworkID         string        `json:"networkID"`
	Type              NetworkType   `json:"type"`
	Mode              string        `json:"mode,omitempty"` // of macvlan and ipvlan; "" = DefaultMode
	Fabric            string        `json:"fabric,omitempty"`
	HostDevice        string        `json:"hostDevice,omitempty"` // without a fabric: an interface or bridge of the nodes
	VLAN              uint16        `json:"vlan,omitempty"`       // 1..4094, 0 = none
	QoS               uint8         `json:"qos,omitempty"`        // sriov: priority in the VLAN tag, 0..7 (IEEE 802.1Q, PCP)
	VNI               uint32        `json:"vni,omitempty"`        // 1..2^24-1, 0 = none
	VXLAN             bool          `json:"vxlan,omitempty"`      // wants a VNI; VNI 0 = to be assigned
	VLANAuto          bool          `json:"vlanAuto,omitempty"`   // wants a VLAN id; VLAN 0 = to be assigned
	Device            string        `json:"device,omitempty"`
	MTU               int           `json:"mtu,omitempty"`     // bytes inside the Pod, 0 = the device's
	Sysctls           []Sysctl      `json:"sysctls,omitempty"` // of the interface in the Pod: keys with IfNameWord for its name, sorted
	IPv4              *Subnet       `json:"ipv4,omitempty"`
	IPv6              *Subnet       `json:"ipv6,omitempty"`
	InterfacePrefix   string        `json:"interfacePrefix,omitempty"`
	Table             uint32        `json:"table,omitempty"`             // policy routing table, 0 = none
	AllowedTenants    []string      `json:"allowedTenants,omitempty"`    // ClusterNetwork: tenant names, as written
	AllowedNamespaces []string      `json:"allowedNamespaces,omitempty"` // ClusterNetwork: resolved by render; empty = everyone
	SharedWith        []string      `json:"sharedWith,omitempty"`        // keys of networks on the same id and CIDR
	BlockSize         int           `json:"blockSize,omitempty"`         // addresses a block, 0 = chosen
	SpaceDomain       string        `json:"spaceDomain"`                 // first part of the IPAM space: fabric, host device, or what else it stands on
	DevicePool        string        `json:"devicePool,omitempty"`        // sriov: the extended resource, such as danm.io/fast
	Delegate          *Delegate     `json:"delegate,omitempty"`
	Reserved          []Reservation `json:"reserved,omitempty"` // sorted by namespace, name; never chosen dynamically
	Sticky            bool          `json:"sticky,omitempty"`   // Pods of a StatefulSet keep their address by ordinal
	NAD               bool          `json:"nad,omitempty"`      // rendered as a NetworkAttachmentDefinition too
}

// Driver is the built-in driver that attaches Pods, "" if a delegate does: then Type is the name of its plugin, whatever
// driver is called the same.
func (n Network) Driver() NetworkType {
	if n.Delegate != nil {
		return ""
	}
	return n.Type
}

// Use is what the network's Pods make of its device, as far as another use of the same device stands against it: a device has
// macvlans or ipvlans, its ipvlans have one mode (a second one in another mode would change them all), and a macvlan in passthru
// mode is alone.
func (n Network) Use() string {
	switch {
	case n.Mode == PASSTHRU:
		return "passthru of network " + n.Key()
	case n.Driver() == IPVLAN && n.Mode != "":
		return string(n.Type) + " " + n.Mode
	}
	return string(n.Type)
}

// ServesOne says whether the network's device serves one Pod of a node at a time, so that not every Pod can have it.
func (n Network) ServesOne() bool {
	return n.Driver() == SRIOV || n.Driver() == HOSTDEVICE || n.Driver() == TAGGED || n.Mode == PASSTHRU
}

// Key is "namespace/name", or "name" for a cluster network: how bundles, diffs and records refer to it.
func (n Network) Key() string {
	if n.Namespace == "" {
		return n.Name
	}
	return n.Namespace + "/" + n.Name
}

// everyonesNamespace is where definitions for everyone stand: Pods of other namespaces name them "default/<name>".
const everyonesNamespace = "default"

// DefinedIn are the namespaces in which the network is found as a NetworkAttachmentDefinition: its own, or for a cluster network
// each that may use it, or "default" if everyone may. nil if it is none.
func (n Network) DefinedIn() []string {
	switch {
	case !n.NAD:
		return nil
	case n.Kind != ClusterNetwork:
		return []string{n.Namespace}
	case len(n.AllowedNamespaces) > 0:
		return n.AllowedNamespaces
	}
	return []string{everyonesNamespace}
}

// UsableFrom says whether Pods of a namespace may use the network. A definition that was made by hand is its namespace's, or in
// "default" everyone's, as Multus has it with namespaceIsolation.
func (n Network) UsableFrom(namespace string) bool {
	switch n.Kind {
	case ClusterNetwork:
		return len(n.AllowedNamespaces) == 0 || slices.Contains(n.AllowedNamespaces, namespace)
	case Definition:
		return n.Namespace == namespace || n.Namespace == everyonesNamespace
	}
	return namespace != "" && n.Namespace == namespace
}

// ID is the VLAN id or VNI, 0 if the network has neither.
func (n Network) ID() uint32 {
	if n.VXLAN {
		return n.VNI
	}
	return uint32(n.VLAN)
}

// Subnet is one address family of a network.
type Subnet struct {
	CIDR    netip.Prefix `json:"cidr"`              // masked
	Pools   []AddrRange  `json:"pools,omitempty"`   // dynamic choice; sorted, disjoint; empty = the whole CIDR without its ends
	Exclude []AddrRange  `json:"exclude,omitempty"` // never chosen dynamically
	Gateway netip.Addr   `json:"gateway,omitzero"`  // never chosen dynamically; default route via it
	Routes  []PodRoute   `json:"routes,omitempty"`
}

// Routers are the gateway and those that routes go by: addresses of somebody on the wire, which a Pod gets only if it asks for
// one. Sorted, each once.
func (s Subnet) Routers() []netip.Addr {
	var out []netip.Addr
	for _, a := range append(viaOf(s.Routes), s.Gateway) {
		if a.IsValid() && s.CIDR.Contains(a) {
			out = append(out, a)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

func viaOf(routes []PodRoute) []netip.Addr {
	out := make([]netip.Addr, 0, len(routes)+1)
	for _, r := range routes {
		out = append(out, r.Via)
	}
	return out
}

// AddrRange is an inclusive range of addresses of one family.
type AddrRange struct {
	First netip.Addr `json:"first"`
	Last  netip.Addr `json:"last"`
}

// Contains says whether a lies in the range.
func (r AddrRange) Contains(a netip.Addr) bool {
	return r.First.Compare(a) <= 0 && a.Compare(r.Last) <= 0
}

// PodRoute is a route set in every Pod of a network.
type PodRoute struct {
	To  netip.Prefix `json:"to"`
	Via netip.Addr   `json:"via,omitzero"`
}
