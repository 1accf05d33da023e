package model

import (
	"net/netip"
	"time"
)

// Home says who fills the state directory. It is recorded; switching needs an empty journal.
type Home string

const (
	LocalHome   Home = "local"
	ClusterHome Home = "cluster"
)

// NodeState is everything one node needs to configure its kernel and to attach Pods without asking anybody.
// node/state stores it; its writers are reconcile/local and node/mirror; its only reader is the agent.
type NodeState struct {
	Home           Home          `json:"home"`
	Node           string        `json:"node"`
	Slot           int           `json:"slot"` // local home: this node owns blocks with number ≡ Slot mod Slots
	Slots          int           `json:"slots"`
	Bundle         string        `json:"bundle"`
	Revision       string        `json:"revision"`         // "main@sha1:<40 hex>", "dir@sha256:<64 hex>"
	Source         string        `json:"source,omitempty"` // host:port of the source for the source probe, "" if local
	Digest         string        `json:"digest"`           // of Plan, see Digest
	Plan           NodePlan      `json:"plan"`
	Peers          []Peer        `json:"peers,omitempty"` // part of no digest
	Networks       []Network     `json:"networks,omitempty"`
	Tenants        []Tenant      `json:"tenants,omitempty"`
	Pools          Dropped       `json:"pools,omitzero"` // of the release before, which had them here; the plan has them now
	Probes         []Probe       `json:"probes,omitempty"`
	ConfirmTimeout time.Duration `json:"confirmTimeout"`       // nanoseconds
	Layers         []LayerRef    `json:"layers,omitempty"`     // cluster home: what the plan was put together from; part of no digest
	Disruptive     bool          `json:"disruptive,omitempty"` // steps that take links of attached Pods down run; those that destroy Pods' links never do
}

// Dropped is a field that the release before wrote and this one reads past: strict readers take it, and nothing is written.
type Dropped struct{}

// UnmarshalJSON keeps nothing.
func (*Dropped) UnmarshalJSON([]byte) error { return nil }

// LayerRef names one layer of a node's plan as the API has it.
type LayerRef struct {
	Name     string   `json:"name"` // "bundle" or "api"
	Revision string   `json:"revision"`
	Digest   string   `json:"digest"` // of the layer's own plan
	Segments []string `json:"segments,omitempty"`
}

// NodePlan is the declared part of one node's kernel: nothing that is not named here is touched.
type NodePlan struct {
	Links   []Link   `json:"links,omitempty"`   // sorted by name
	Routes  []Route  `json:"routes,omitempty"`  // sorted by table, destination, metric
	Rules   []Rule   `json:"rules,omitempty"`   // sorted by priority, then as written out
	Sysctls []Sysctl `json:"sysctls,omitempty"` // sorted by key
	// Pools are those whose selector matches the node; sorted by name.
	Pools []SRIOVPool `json:"pools,omitempty"`
}

// LinkKind is what a host link is. Physical links exist before us and are never created or deleted.
type LinkKind string

const (
	Physical LinkKind = "physical"
	Bridge   LinkKind = "bridge"
	VXLAN    LinkKind = "vxlan"
	VLAN     LinkKind = "vlan"
	Bond     LinkKind = "bond"
	VRF      LinkKind = "vrf"
	Dummy    LinkKind = "dummy"
)

// Adopt says what becomes of an untagged link that is in the way of one we would create.
type Adopt string

const (
	AdoptIdentical Adopt = ""      // taken over without a change if equal in kind, parent, id and name
	AdoptNever     Adopt = "never" // always Blocked
)

// Link is a declared host link. A zero property is not declared and, on links not made by us, not touched.
type Link struct {
	Name      string         `json:"name"` // ≤ 15 bytes; for Physical without Match also the kernel's name
	Kind      LinkKind       `json:"kind"`
	Match     *Match         `json:"match,omitempty"` // physical only
	Alias     string         `json:"alias,omitempty"` // for people: which network or interface this link serves
	MTU       int            `json:"mtu,omitempty"`   // bytes, 0 = not declared
	Up        bool           `json:"up,omitempty"`    // created links are always up; true on a physical link declares it
	Master    string         `json:"master,omitempty"`
	Parent    string         `json:"parent,omitempty"` // vlan, vxlan: the device below
	VLANID    uint16         `json:"vlanID,omitempty"`
	VXLAN     *VXLANOptions  `json:"vxlan,omitempty"`
	Bond      *BondOptions   `json:"bond,omitempty"`
	Table     uint32         `json:"table,omitempty"`         // vrf: its routing table
	Filtering bool           `json:"vlanFiltering,omitempty"` // bridge: VLAN filtering is on
	PortVLANs *PortVLANs     `json:"portVLANs,omitempty"`     // port of a filtering bridge, or the bridge itself
	Adopt     Adopt          `json:"adopt,omitempty"`
	Lent      bool           `json:"lent,omitempty"`      // physical: a Pod may have it, so that it is missed by nobody
	Addresses []netip.Prefix `json:"addresses,omitempty"` // sorted; with prefix length, host part kept
}

// Match finds a physical link; every field given must agree.
type Match struct {
	Name   string `json:"name,omitempty"`
	MAC    string `json:"mac,omitempty"` // lower case, colons
	PCI    string `json:"pci,omitempty"`
	Driver string `json:"driver,omitempty"`
}

// VXLANOptions cannot be changed on a live link (the kernel refuses most of them): a difference means replacing it.
type VXLANOptions struct {
	VNI      uint32     `json:"vni"`
	Port     int        `json:"port"`
	Group    netip.Addr `json:"group,omitzero"` // multicast; otherwise Peers are flooded
	Local    netip.Addr `json:"local,omitzero"`
	Learning bool       `json:"learning,omitempty"`
}

// BondOptions of a bond (Documentation/networking/bonding.rst). Zero values are the kernel's defaults and not declared.
type BondOptions struct {
	Mode           string `json:"mode"`                     // active-backup, balance-xor, 802.3ad
	MIIMonitor     int    `json:"miimon,omitempty"`         // milliseconds
	UpDelay        int    `json:"upDelay,omitempty"`        // milliseconds, a multiple of MIIMonitor
	DownDelay      int    `json:"downDelay,omitempty"`      // milliseconds, a multiple of MIIMonitor
	XmitHashPolicy string `json:"xmitHashPolicy,omitempty"` // layer2, layer2+3, layer3+4, encap2+3, encap3+4, vlan+srcmac
	LACPRate       string `json:"lacpRate,omitempty"`       // slow, fast; 802.3ad only
	MinLinks       int    `json:"minLinks,omitempty"`       // 802.3ad only
	Primary        string `json:"primary,omitempty"`        // a port; active-backup only
}

// PortVLANs are the VLANs a port of a filtering bridge is a member of; nothing else is.
type PortVLANs struct {
	Tagged   []Range32 `json:"tagged,omitempty"`   // sorted, disjoint
	Untagged uint16    `json:"untagged,omitempty"` // the PVID, also leaves untagged; 0 = none
}

// Rule is a declared routing rule (ip-rule(8)). A zero selector matches everything.
type Rule struct {
	Priority uint32       `json:"priority"`
	Family   int          `json:"family"` // 4 or 6
	From     netip.Prefix `json:"from,omitzero"`
	To       netip.Prefix `json:"to,omitzero"`
	IIF      string       `json:"iif,omitempty"`
	OIF      string       `json:"oif,omitempty"`
	Mark     uint32       `json:"mark,omitempty"`
	Mask     uint32       `json:"mask,omitempty"` // of Mark; 0 with a Mark means all bits
	Table    uint32       `json:"table"`
}

// Sysctl is a declared kernel parameter of the host; Key is dotted, with "/" for a dot in a link's name, as sysctl(8) has it.
type Sysctl struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// IfNameWord stands for the name of a Pod's interface in the key of a Sysctl (as in the configuration of CNI's tuning plugin).
const IfNameWord = "IFNAME"

// Route is a declared host route. Table 0 means main (254).
type Route struct {
	To     netip.Prefix `json:"to"`
	Via    netip.Addr   `json:"via,omitzero"`
	Dev    string       `json:"dev,omitempty"`
	Table  uint32       `json:"table,omitempty"`
	Metric uint32       `json:"metric,omitempty"`
}

// Peer is one flood destination of a VXLAN link (an all-zero FDB entry).
type Peer struct {
	Link string     `json:"link"`
	Addr netip.Addr `json:"addr"`
}
