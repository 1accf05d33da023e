package ipam

import (
	"context"
	"net/netip"

	"danm.io/danm/spec/model"
)

// Space is where an address is unique: one broadcast domain and CIDR. Networks on one space share its blocks.
type Space struct {
	Domain string       `json:"domain"` // fabric or host device
	ID     uint32       `json:"id"`     // VLAN id or VNI, 0 = untagged
	VXLAN  bool         `json:"vxlan,omitempty"`
	CIDR   netip.Prefix `json:"cidr"`
}

// Intent is one ADD as decided before the kernel is touched.
type Intent struct {
	Sandbox   string // container ID
	PodUID    string
	Namespace string
	Pod       string
	Wants     []Want // one an interface, in order
	// Slot and Slots come from the NodeState whose networks the Wants carry, so that one ADD sees one state: this node
	// owns the blocks with number ≡ Slot mod Slots. Slots 0 means one node alone.
	Slot, Slots int
	// Claimed means that this node owns what it has claimed, and no slot: the cluster home.
	Claimed bool
	// Record makes the opaque attachment record that is made durable in the same transaction as the addresses.
	// It gets one Grant a Want. It must be pure: it may be called again.
	Record func([]Grant) ([]byte, error)
	// Evict takes down the links of an earlier record of the same Pod: its older sandbox, or an earlier try of the same
	// one. It is called before that record moves, so that no address is live in two sandboxes; its error fails the
	// acquisition. It may be called again for the same record. nil: nothing to take down.
	Evict func(ctx context.Context, old Record) error
}

// Want is the addresses of one interface. The network carries pools, exclusions, gateways.
type Want struct {
	IfName  string
	Network model.Network
	IP, IP6 model.AddressRequest
	// Sticky is for whom a dynamic address is kept; the zero value for nobody.
	Sticky Sticky
}

// Sticky is one Pod of a StatefulSet.
type Sticky struct {
	Namespace, StatefulSet string
	UID                    string // of the StatefulSet
	Ordinal                int32
}

// Grant is what a Want got: v4 before v6, with the network's prefix length. Empty when nothing was asked.
type Grant struct{ Addresses []netip.Prefix }

// Record is one durable attachment: which sandbox holds which addresses, and cni/server's opaque bytes.
type Record struct {
	Sandbox   string `json:"sandbox"`
	PodUID    string `json:"podUID"`
	Namespace string `json:"namespace"`
	Pod       string `json:"pod"`
	Holds     []Hold `json:"holds,omitempty"`
	Data      []byte `json:"data,omitempty"`
}

// Hold is one address held under the key {space, Pod UID, ifname}.
type Hold struct {
	Space  Space      `json:"space"`
	IfName string     `json:"ifName"`
	Addr   netip.Addr `json:"addr"`
}
