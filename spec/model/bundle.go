// Package model is the validated, parse-once form of everything the project works on.
//
// spec/decode and spec/validate make it; nobody behind them parses an address, a range or an enum again. Values are plain
// data: no methods that decide, no I/O, slices sorted by their producer, JSON with a stable field order (digests hash it).
// It does not know how users spell things (spec/bundle/v1) nor what the kernel can do (node/plan).
package model

import (
	"net/netip"
	"strconv"
	"time"
)

// Bundle is one validated bundle: what Render needs and nothing else.
type Bundle struct {
	Name           string
	Version        string // semver of the content, "" if not given
	ConfirmTimeout time.Duration
	Probes         []Probe // sorted by name
	Monotonic      bool    // a version below the last one is an error, not a warning
	Rollout        Rollout
	Prune          Prune
	Slots          int    // local home: the fixed total of node slots; 0 = no local nodes
	Nodes          []Node // sorted by name
	Groups         []NodeGroup
	Fabrics        []Fabric
	Networks       []Network // sorted by namespace, name
	Tenants        []Tenant
	SRIOVPools     []SRIOVPool
	Origins        map[string]Origin // "Kind/name", "Network/namespace/name" → where the document stands, for diffs
}

// Origin is the place of a document in the bundle.
type Origin struct {
	File string `json:"file"`
	Line int    `json:"line"`
}

// Rollout is how a revision travels from node to node in the cluster home.
type Rollout struct {
	CanarySelector   map[string]string `json:"canarySelector,omitempty"` // nodes of the first wave; empty = any
	CanaryCount      int               `json:"canaryCount,omitempty"`    // how many of them, 0 = no canary
	MaxUnavailable   IntOrPercent      `json:"maxUnavailable"`           // nodes of a wave
	Soak             time.Duration     `json:"soak,omitempty"`           // nanoseconds between waves
	RevertOnFailure  bool              `json:"revertOnFailure,omitempty"`
	AllowsDisruptive bool              `json:"allowsDisruptive,omitempty"` // steps above blip run without asking; destroys-pods never do
}

// IntOrPercent is a number, or a share of the whole; one of them is set.
type IntOrPercent struct {
	Int     int `json:"int,omitempty"`
	Percent int `json:"percent,omitempty"` // 1 to 100
}

// String is "3" or "10%".
func (n IntOrPercent) String() string {
	if n.Percent > 0 {
		return strconv.Itoa(n.Percent) + "%"
	}
	return strconv.Itoa(n.Int)
}

// Prune bounds what one revision may delete before it is refused. Nil is no bound.
type Prune struct {
	MaxNetworks *int `json:"maxNetworks,omitempty"`
	MaxTenants  *int `json:"maxTenants,omitempty"`
}

// Node is a machine known by name. In the local home Slot is its immutable share of every address pool.
type Node struct {
	Name       string
	Labels     map[string]string
	Slot       int                       // -1 if not given
	Interfaces map[string][]netip.Prefix // per-node addresses by interface name: merged into the group's interface
}

// NodeGroup is host configuration for every node whose labels match Selector.
type NodeGroup struct {
	Name       string
	Selector   map[string]string // all must match; empty matches every node
	Interfaces []Link            // every kind but vxlan, as plan links
	Routes     []Route
	Rules      []Rule
	Sysctls    []Sysctl
}

// Fabric is a device on which networks get their VLANs or VNIs, on every node of its groups.
type Fabric struct {
	Name       string    `json:"name"`
	Groups     []string  `json:"groups,omitempty"`
	Device     string    `json:"device"` // name of an interface declared in the groups
	VLANRanges []Range32 `json:"vlanRanges,omitempty"`
	VNIRanges  []Range32 `json:"vniRanges,omitempty"`
	VXLAN      *Underlay `json:"vxlan,omitempty"` // nil: no VXLAN on this fabric
}

// Underlay says how VXLAN packets find the other nodes: Multicast, or (if invalid) unicast to the declared addresses of Device.
type Underlay struct {
	Port      int        `json:"port"`
	Multicast netip.Addr `json:"multicast,omitzero"`
	PerVNI    bool       `json:"perVNI,omitempty"` // each VNI has a group of its own: Multicast and the VNI added up
}

// Range32 is an inclusive range of VLAN ids or VNIs.
type Range32 struct {
	First uint32 `json:"first"`
	Last  uint32 `json:"last"`
}

// String is "100-199", or "310" of a single number.
func (r Range32) String() string {
	if r.First == r.Last {
		return strconv.FormatUint(uint64(r.First), 10)
	}
	return strconv.FormatUint(uint64(r.First), 10) + "-" + strconv.FormatUint(uint64(r.Last), 10)
}

// Contains says whether v lies in the range.
func (r Range32) Contains(v uint32) bool { return r.First <= v && v <= r.Last }

// Tenant groups namespaces and says what they may use.
type Tenant struct {
	Name           string            `json:"name"`
	Namespaces     []string          `json:"namespaces"`
	DefaultNetwork string            `json:"defaultNetwork,omitempty"` // "namespace/name" or "name" of a cluster network
	Networks       []string          `json:"networks,omitempty"`       // cluster networks granted to the tenant
	Fabrics        []TenantFabric    `json:"fabrics,omitempty"`
	NetworkIDs     map[string]string `json:"networkIDs,omitempty"` // NetworkType → NetworkID
	Quotas         Quotas            `json:"quotas,omitzero"`
}

// Quotas of a tenant, over all its namespaces. Nil is no bound.
type Quotas struct {
	Networks  *int `json:"networks,omitempty"`
	Endpoints *int `json:"endpoints,omitempty"` // attached Pod interfaces
	Addresses *int `json:"addresses,omitempty"` // both families
}

// TenantFabric is a tenant's share of a fabric's identifiers.
type TenantFabric struct {
	Fabric     string    `json:"fabric"`
	VLANRanges []Range32 `json:"vlanRanges,omitempty"`
	VNIRanges  []Range32 `json:"vniRanges,omitempty"`
}

// SRIOVPool is a set of virtual functions offered as a resource.
type SRIOVPool struct {
	Name         string            `json:"name"`
	NodeSelector map[string]string `json:"nodeSelector,omitempty"` // all must match; empty matches every node
	PFs          PFSelector        `json:"pfs"`
	NumVFs       int               `json:"numVFs"`           // on each physical function; pools that share one agree
	VFs          []Range32         `json:"vfs,omitempty"`    // which of them are in this pool, from 0; sorted, disjoint; empty = all
	Driver       string            `json:"driver,omitempty"` // "" keeps the kernel's, or vfio-pci
	Trust        *bool             `json:"trust,omitempty"`  // nil = not declared, as with the others
	SpoofCheck   *bool             `json:"spoofCheck,omitempty"`
	LinkState    string            `json:"linkState,omitempty"` // auto, enable, disable
	MinTxRate    int               `json:"minTxRate,omitempty"` // Mbit/s
	MaxTxRate    int               `json:"maxTxRate,omitempty"` // Mbit/s
	MTU          int               `json:"mtu,omitempty"`       // bytes
	ResourceName string            `json:"resourceName"`
}

// Numbers are the virtual functions of each physical function that are in the pool.
func (p SRIOVPool) Numbers() []Range32 {
	if len(p.VFs) > 0 || p.NumVFs == 0 {
		return p.VFs
	}
	return []Range32{{First: 0, Last: uint32(p.NumVFs) - 1}}
}

// PFSelector finds physical functions: every list given must have a member that agrees.
type PFSelector struct {
	Names   []string `json:"names,omitempty"`   // of the interfaces
	PCI     []string `json:"pci,omitempty"`     // addresses, lower case
	Vendors []string `json:"vendors,omitempty"` // four hexadecimal digits, lower case
	Devices []string `json:"devices,omitempty"` // four hexadecimal digits, lower case
	Drivers []string `json:"drivers,omitempty"`
}

// ProbeKind is how a probe tests the way out of a node.
type ProbeKind string

const (
	ProbeTCP     ProbeKind = "tcp"     // Target host:port accepts a new connection
	ProbeGateway ProbeKind = "gateway" // the default gateway answers ARP or ND
	ProbeICMP    ProbeKind = "icmp"    // Target address answers an echo
	ProbeSource  ProbeKind = "source"  // the host:port of the bundle's source accepts a new connection
)

// Probe must pass before a plan is confirmed. It counts only if it passed just before the apply.
type Probe struct {
	Name    string        `json:"name"`
	Kind    ProbeKind     `json:"kind"`
	Target  string        `json:"target,omitempty"`
	Timeout time.Duration `json:"timeout"` // nanoseconds
}

// Inventory is what Render knows of the world besides the bundle; in the local home, the node's own hardware.
type Inventory struct {
	Assignments map[string]uint32 `json:"assignments,omitempty"` // Network.Key() → VLAN or VNI given earlier
	// Found are numbers that networks have without a record, by Network.Key(): kept where the network may have them.
	Found    map[string]uint32 `json:"found,omitempty"`
	Nodes    []Node            `json:"nodes,omitempty"`    // cluster home: nodes and labels from the API
	Hardware map[string][]NIC  `json:"hardware,omitempty"` // by node, as far as nodes have reported it; sorted by name
	// Underlays are addresses that nodes report, by node and device: not nil in the cluster home, where a node without a declared
	// address is reached at that one.
	Underlays map[string]map[string]netip.Addr `json:"underlays,omitempty"`
}
