package v1

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// Bond joins physical interfaces into one that DANM creates.
type Bond struct {
	// Name of the bond, at most 15 bytes.
	Name string `json:"name" schema:"required"`
	// Mode is active-backup (one port carries all, no switch support needed), balance-xor (a static group) or 802.3ad (LACP).
	Mode string `json:"mode" schema:"required,enum=active-backup|balance-xor|802.3ad"`
	// Ports are physical interfaces put into the bond; one that is not among the group's interfaces is found by its name.
	// They have no addresses of their own and the bond's MTU.
	Ports []string `json:"ports" schema:"required"`
	// MIIMonitor is how often links are looked at, in milliseconds; 100 on a new bond if absent.
	MIIMonitor int `json:"miiMonitor,omitempty" schema:"min=0,max=60000"`
	// UpDelay is how long a port must have its link before it is used, in milliseconds, a multiple of miiMonitor.
	UpDelay int `json:"upDelay,omitempty" schema:"min=0,max=600000"`
	// DownDelay is how long a port must be without its link before it is left, in milliseconds, a multiple of miiMonitor.
	DownDelay int `json:"downDelay,omitempty" schema:"min=0,max=600000"`
	// XmitHashPolicy says what spreads flows over ports with balance-xor and 802.3ad.
	XmitHashPolicy string `json:"xmitHashPolicy,omitempty" schema:"enum=layer2|layer2+3|layer3+4|encap2+3|encap3+4|vlan+srcmac"`
	// LACPRate is how often the partner shall send, with 802.3ad: slow is every 30 seconds, fast every second.
	LACPRate string `json:"lacpRate,omitempty" schema:"enum=slow|fast"`
	// MinLinks is how many ports must work for the bond to have carrier, with 802.3ad.
	MinLinks int `json:"minLinks,omitempty" schema:"min=0,max=64"`
	// Primary is the port used whenever it works, with active-backup.
	Primary string `json:"primary,omitempty"`
	// MTU in bytes; the kernel's choice if absent.
	MTU int `json:"mtu,omitempty" schema:"min=68,max=65535"`
	// Addresses with prefix length, the same on every node of the group.
	Addresses []string `json:"addresses,omitempty"`
}

// VLANLink is a VLAN of the host itself, on a device of the group. VLANs of networks need no such link.
type VLANLink struct {
	// Name of the link, at most 15 bytes.
	Name string `json:"name" schema:"required"`
	// Device below: an interface, bond, bridge or VLAN of the group.
	Device string `json:"device" schema:"required"`
	// ID is the VLAN id, 1 to 4094.
	ID int `json:"id" schema:"required,min=1,max=4094"`
	// MTU in bytes, at most the device's; that of the device if absent.
	MTU int `json:"mtu,omitempty" schema:"min=68,max=65535"`
	// Addresses with prefix length, the same on every node of the group.
	Addresses []string `json:"addresses,omitempty"`
}

// Dummy is a link that leads nowhere and is always up: a place for addresses that routing protocols announce.
type Dummy struct {
	// Name of the link, at most 15 bytes.
	Name string `json:"name" schema:"required"`
	// MTU in bytes; the kernel's choice if absent.
	MTU int `json:"mtu,omitempty" schema:"min=68,max=65535"`
	// Addresses with prefix length, the same on every node of the group.
	Addresses []string `json:"addresses,omitempty"`
}

// VRF is a routing domain of its own (Documentation/networking/vrf.rst): what comes in by its interfaces is routed by its table.
type VRF struct {
	// Name of the link that stands for the VRF, at most 15 bytes.
	Name string `json:"name" schema:"required"`
	// Table is its routing table, 1 to 2147483647 without those of the kernel (253 to 255), unique on a node.
	Table int64 `json:"table" schema:"required,min=1,max=2147483647"`
	// Interfaces of the group that belong to it; one that is not among them is found by its name.
	Interfaces []string `json:"interfaces,omitempty"`
	// Addresses with prefix length on the VRF itself.
	Addresses []string `json:"addresses,omitempty"`
}

// Membership says in which VLANs a port of a filtering bridge is.
type Membership struct {
	// Tagged are VLAN ids whose frames keep their tag: "100-199" or "310".
	Tagged []string `json:"tagged,omitempty"`
	// Untagged is the VLAN of frames without a tag, in both directions; none if absent.
	Untagged int `json:"untagged,omitempty" schema:"min=1,max=4094"`
}

// PortVLANs is the membership of one port.
type PortVLANs struct {
	// Port of the bridge.
	Port string `json:"port" schema:"required"`
	// Tagged are VLAN ids whose frames keep their tag: "100-199" or "310".
	Tagged []string `json:"tagged,omitempty"`
	// Untagged is the VLAN of frames without a tag, in both directions; none if absent.
	Untagged int `json:"untagged,omitempty" schema:"min=1,max=4094"`
}

// Rule sends packets to a routing table (ip-rule(8)); what it does not name matches everything.
type Rule struct {
	// Priority of the rule; lower is asked first. Main is asked at 32766.
	Priority int64 `json:"priority" schema:"required,min=1,max=4294967295"`
	// Family is ipv4 or ipv6: that of from and to, both families without them.
	Family string `json:"family,omitempty" schema:"enum=ipv4|ipv6"`
	// From is the source, in CIDR form without host bits.
	From string `json:"from,omitempty"`
	// To is the destination, in CIDR form without host bits.
	To string `json:"to,omitempty"`
	// IIF is the interface the packet came in by; lo for the node's own packets.
	IIF string `json:"iif,omitempty"`
	// OIF is the interface a local socket is bound to.
	OIF string `json:"oif,omitempty"`
	// Mark of the packet, a decimal number.
	Mark int64 `json:"mark,omitempty" schema:"min=1,max=4294967295"`
	// Mask of the mark; all bits if absent.
	Mask int64 `json:"mask,omitempty" schema:"min=1,max=4294967295"`
	// Table that the packet is routed by.
	Table int64 `json:"table" schema:"required,min=1,max=2147483647"`
}

// Rollout is how a revision travels from node to node in a cluster.
type Rollout struct {
	// Canary nodes get a revision before all others; one node if absent.
	Canary *Canary `json:"canary,omitempty"`
	// MaxUnavailable nodes change at the same time: a number, or a share such as 10%, which is the default. A share is at
	// least one node.
	MaxUnavailable *Share `json:"maxUnavailable,omitempty" schema:"min=1"`
	// Soak is how long a wave must have been well before the next begins: up to 24h, default 30s.
	Soak string `json:"soak,omitempty" schema:"pattern=^([0-9]+([.][0-9]+)?(ns|us|ms|s|m|h))+$"`
	// OnFailure Halt (default) stops the rollout where it is; Revert brings every node back to the last good revision.
	OnFailure string `json:"onFailure,omitempty" schema:"enum=Halt|Revert"`
	// Disruptive Deny (default) holds back steps that take a link down under attached Pods until these are gone; Allow runs
	// them. A step that destroys Pods' interfaces waits until no Pod is attached, whatever stands here.
	Disruptive string `json:"disruptive,omitempty" schema:"enum=Deny|Allow"`
}

// Canary is the first wave of a rollout.
type Canary struct {
	// Selector lists labels of nodes to take them from; any node if absent.
	Selector map[string]string `json:"selector,omitempty"`
	// Count of nodes; 0 is no canary.
	Count *int `json:"count,omitempty" schema:"min=0,max=5000"`
}

// Prune bounds what one revision may delete before it is refused as a likely mistake. Absent is no bound.
type Prune struct {
	// MaxNetworks that one revision may delete.
	MaxNetworks *int `json:"maxNetworks,omitempty" schema:"min=0"`
	// MaxTenants that one revision may delete.
	MaxTenants *int `json:"maxTenants,omitempty" schema:"min=0"`
}

// Share is a number of nodes, or a share of all of them.
type Share struct {
	// Value is the number, or the percentage.
	Value int64
	// Percent says which.
	Percent bool
}

// UnmarshalText accepts "3" and "25%". Bounds are for spec/validate to say.
func (v *Share) UnmarshalText(text []byte) error {
	digits, percent := strings.CutSuffix(string(text), "%")
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return fmt.Errorf("%q is neither a number nor a share such as 25%%", text)
	}
	*v = Share{n, percent}
	return nil
}

// MarshalJSON writes the number, or "25%".
func (v Share) MarshalJSON() ([]byte, error) {
	if v.Percent {
		return json.Marshal(strconv.FormatInt(v.Value, 10) + "%")
	}
	return json.Marshal(v.Value)
}
