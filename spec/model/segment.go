package model

import "net/netip"

// Segment is a part of what many nodes share: their states without what is a node's own. Lists are in no order that
// means anything; spec/segment puts them together.
type Segment struct {
	Links    []SharedLink `json:"links,omitempty"`
	Routes   []Route      `json:"routes,omitempty"`
	Rules    []Rule       `json:"rules,omitempty"`
	Sysctls  []Sysctl     `json:"sysctls,omitempty"`
	Networks []Network    `json:"networks,omitempty"`
	Tenants  []Tenant     `json:"tenants,omitempty"`
	Pools    []SRIOVPool  `json:"pools,omitempty"`
	Probes   []Probe      `json:"probes,omitempty"`
	Fabrics  []Fabric     `json:"fabrics,omitempty"` // the nodes are on, without groups: no part of a node's state
}

// SharedLink is a link as many nodes have it. Underlay names the fabric in which a VXLAN link's local address is the node's.
type SharedLink struct {
	Link
	Underlay string `json:"underlay,omitempty"`
}

// NodePart is what a node has for itself: Digest is that of the plan which part and segments make together.
type NodePart struct {
	Node      string                  `json:"node"`
	Digest    string                  `json:"digest"`
	Segments  []string                `json:"segments,omitempty"`  // names, sorted
	Addresses map[string]NodePrefixes `json:"addresses,omitempty"` // link → addresses beyond the shared ones
	Underlays map[string]netip.Addr   `json:"underlays,omitempty"` // fabric → VXLAN source address
}

// NodePrefixes are addresses with prefix length, sorted.
type NodePrefixes []netip.Prefix

// FabricPeers is one shard of the underlay addresses of a fabric: where its nodes are reached by VXLAN.
type FabricPeers struct {
	Fabric string       `json:"fabric"`
	Shard  int          `json:"shard"`
	Nodes  []FabricPeer `json:"nodes"` // sorted by node
}

// FabricPeer is one node's address in a fabric.
type FabricPeer struct {
	Node    string     `json:"node"`
	Address netip.Addr `json:"address"`
}
