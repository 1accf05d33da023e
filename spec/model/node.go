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
	Probes         []Probe       `json:"probes,omitempty"`
	ConfirmTimeout time.Duration `json:"confirmTimeout"` // nanoseconds
}

// NodePlan is the declared part of one node's kernel: nothing that is not named here is touched.
type NodePlan struct {
	Links  []Link  `json:"links,omitempty"`  // sorted by name
	Routes []Route `json:"routes,omitempty"` // sorted by table, destination, metric
}

// LinkKind is what a host link is. Physical links exist before us and are never created or deleted.
type LinkKind string

const (
	Physical LinkKind = "physical"
	Bridge   LinkKind = "bridge"
	VXLAN    LinkKind = "vxlan"
	VLAN     LinkKind = "vlan"
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
