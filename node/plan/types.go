package plan

import (
	"context"
	"net/netip"

	"danm.io/danm/spec/model"
)

// Group is the IFLA_GROUP that every link created by us carries, set atomically at creation ("danm" on a phone's keys).
const Group uint32 = 3266

// RouteProtocol marks our routes and rules (rtnetlink(7) rtm_protocol; 0..4 are the kernel's, low numbers are taken by daemons).
const RouteProtocol = 156

// Desired is what the node shall look like. Peers and repairs are class-none and part of no digest.
type Desired struct {
	Plan  model.NodePlan
	Peers []model.Peer
}

// Observed is everything of the kernel that Diff may look at, as of one moment, normalised: no indexes, counters, lifetimes.
type Observed struct {
	Links   []ObservedLink  `json:"links"`             // sorted by name
	Routes  []ObservedRoute `json:"routes,omitempty"`  // sorted; main and other tables, without the kernel's own (protocol kernel, local table)
	Rules   []ObservedRule  `json:"rules,omitempty"`   // sorted; see ObservedRule for which
	Sysctls []model.Sysctl  `json:"sysctls,omitempty"` // those asked for that exist, sorted by key, blanks in values single
	Peers   []model.Peer    `json:"peers,omitempty"`   // all-zero FDB entries of vxlan links, sorted
	Owned   []Record        `json:"owned,omitempty"`   // from node/ledger, sorted by ID
}

// ObservedLink is one host link. The embedded Link's Name is the kernel's; Alias, MTU, Up, Master, Parent, Addresses are as seen.
type ObservedLink struct {
	model.Link
	KernelKind string   `json:"kernelKind"`      // IFLA_INFO_KIND, "" for hardware
	Group      uint32   `json:"group,omitempty"` // IFLA_GROUP
	MAC        string   `json:"mac,omitempty"`   // lower case, colons
	PCI        string   `json:"pci,omitempty"`
	Driver     string   `json:"driver,omitempty"`
	MinMTU     int      `json:"minMTU,omitempty"` // MTU limits of devices that we do not make, 0 = unknown
	MaxMTU     int      `json:"maxMTU,omitempty"`
	Children   int      `json:"children,omitempty"` // upper links seen in this netns
	AltNames   []string `json:"altNames,omitempty"`
	// NoCarrier says that the link is up and nothing is at its other end. It comes and goes by itself.
	NoCarrier bool `json:"noCarrier,omitempty"`
	// SRIOV is what a physical function has, nil for every other link.
	SRIOV *ObservedPF `json:"sriov,omitempty"`
}

// ObservedPF is SR-IOV of a physical function (Linux, Documentation/PCI/pci-iov-howto.rst).
type ObservedPF struct {
	TotalVFs int          `json:"totalVFs,omitempty"` // most that the device takes, 0 = unknown
	Vendor   string       `json:"vendor,omitempty"`   // PCI ids: four hexadecimal digits, lower case
	Device   string       `json:"device,omitempty"`
	VFs      []ObservedVF `json:"vfs,omitempty"` // by number; as many as sriov_numvfs says
	// Lacks are drivers for programs that the kernel does not have now.
	Lacks []string `json:"lacks,omitempty"`
	// Unseen is why the card does not tell, "" if it does. Nothing about its functions is decided then.
	Unseen string `json:"unseen,omitempty"`
}

// ObservedVF is one virtual function. A function that steps are yet to make has no PCI address.
type ObservedVF struct {
	PCI        string `json:"pci,omitempty"`
	Link       string `json:"link,omitempty"` // its interface in this namespace, "" if there is none
	Away       bool   `json:"away,omitempty"` // a driver of the kernel has it, and its interface is in another namespace
	VFSettings        // what is not known is ""
}

// VFSettings are the properties of a virtual function that plans own, as steps and records carry them. VLAN, priority and the MAC that
// is set through the physical function are those of the Pod that has it, and no plan's.
type VFSettings struct {
	Driver     string `json:"driver,omitempty"`     // DriverKernel for whatever the kernel chose, DriverNone, DriverBusy, or a driver for programs by its name
	Trust      string `json:"trust,omitempty"`      // on, off
	SpoofCheck string `json:"spoofCheck,omitempty"` // on, off
	LinkState  string `json:"linkState,omitempty"`  // auto, enable, disable
	Rate       string `json:"rate,omitempty"`       // "<least>-<most>" in Mbit/s, 0 = none
	MTU        string `json:"mtu,omitempty"`        // of its interface, while that is in this namespace
}

// What VFSettings.Driver says besides names of drivers for programs.
const (
	DriverKernel = "kernel"
	DriverNone   = "none"
	DriverBusy   = "busy" // it does not answer: a program has it open, and the kernel waits for that
	DriverVFIO   = "vfio-pci"
)

// ObservedRoute is one route with the protocol that made it.
type ObservedRoute struct {
	model.Route
	Protocol int `json:"protocol,omitempty"`
}

// ObjectID names one thing that can be ours: "link/<name>", "address/<link>/<prefix>", "route/<table>/<to>/<metric>",
// "rule/<family>/<priority>/<selectors>",
// "property/<link>/<mtu|up|master|numvfs>", "vf/<physical function>/<number>/<property>", "sysctl/<key>", "peer/<link>/<addr>" (recorded on adopted links only).
type ObjectID string

// Record says that an object is ours, written ahead of the kernel call. Prior is the value before us of an adopted
// property or kernel parameter ("1500", "down"); it is put back on release. Links and addresses that were there before us have the Prior
// "adopted": they are left in place on release. Routes have no record, RouteProtocol marks them.
type Record struct {
	ID    ObjectID `json:"id"`
	Prior string   `json:"prior,omitempty"`
}

// Op is what a step does to its object.
type Op string

const (
	CreateLink    Op = "create-link"
	DeleteLink    Op = "delete-link"
	SetLink       Op = "set-link" // one property a step, named by Property
	AddAddress    Op = "add-address"
	DeleteAddress Op = "delete-address"
	AddRoute      Op = "add-route"
	DeleteRoute   Op = "delete-route"
	AddPeer       Op = "add-peer"
	DeletePeer    Op = "delete-peer"
	AddRule       Op = "add-rule"
	DeleteRule    Op = "delete-rule"
	SetSysctl     Op = "set-sysctl"
	SetVF         Op = "set-vf" // one property of a virtual function a step, named by Property
)

// Disruption says what a step does to traffic, mildest first.
type Disruption string

const (
	None         Disruption = "none"
	Blip         Disruption = "blip"          // packets may be lost for a moment
	LinkDown     Disruption = "link-down"     // the link goes down, or loses an address or its master
	DestroysPods Disruption = "destroys-pods" // the kernel deletes the Pods' links on it for good
)

// Step is one idempotent change of one object.
type Step struct {
	Op         Op           `json:"op"`
	ID         ObjectID     `json:"id"`
	Link       *model.Link  `json:"link,omitempty"`     // create: the whole link; set: the desired link; kernel names
	Property   string       `json:"property,omitempty"` // set: "mtu", "up", "master", "alias", "numvfs"
	From       string       `json:"from,omitempty"`     // set link or sysctl: value before, for people and for undo
	To         string       `json:"to,omitempty"`
	Address    netip.Prefix `json:"address,omitzero"`
	LinkName   string       `json:"linkName,omitempty"` // address and set steps: the kernel's name
	Route      *model.Route `json:"route,omitempty"`
	Protocol   int          `json:"protocol,omitempty"` // route and rule steps: 0 = RouteProtocol; else a foreign one that a revert puts back
	Rule       *model.Rule  `json:"rule,omitempty"`
	Sysctl     string       `json:"sysctl,omitempty"` // key; values in From ("" unknown) and To
	Peer       *model.Peer  `json:"peer,omitempty"`
	VF         *VFRef       `json:"vf,omitempty"` // of LinkName, the physical function
	Disruption Disruption   `json:"disruption"`
	Pods       []string     `json:"pods,omitempty"` // named by the caller, see Plan.NamePods
	Reason     string       `json:"reason"`         // "declared, not present", "mtu differs", "no longer declared", …
}

// VFRef is which virtual function of a physical one a step is about.
type VFRef struct {
	Number int    `json:"number"`        // from 0
	PCI    string `json:"pci,omitempty"` // "" for one that a step before makes
}

// Blocked is a wanted object that cannot be had without touching what is not ours.
type Blocked struct {
	ID     ObjectID `json:"id"`
	Reason string   `json:"reason"`
	Remedy string   `json:"remedy"`
}

// Plan is the result of Diff, in execution order. Claims are the ledger records that must be durable before the first
// step; Adopted names existing objects taken over without a change; Released are records to drop after the last step.
type Plan struct {
	Steps    []Step     `json:"steps,omitempty"`
	Blocked  []Blocked  `json:"blocked,omitempty"`
	Claims   []Record   `json:"claims,omitempty"`
	Released []ObjectID `json:"released,omitempty"`
}

// Kernel is the node's network stack as the guard and the agent use it. node/link implements it on netlink, node/fake in
// memory. All methods are safe for concurrent use by readers; Apply has one caller at a time.
type Kernel interface {
	// Observe lists everything afresh, of kernel parameters those asked for (see SysctlKeys; a * stands for every link, all
	// and default). An error means "unknown", never "empty".
	Observe(ctx context.Context, sysctls ...string) (Observed, error)
	// Apply executes one step. It is idempotent: an object already as wanted, or already gone, is no error.
	Apply(ctx context.Context, step Step) error
	// DeleteLinks executes a batch of deletions (see Batches), as if each was applied. After an error some may be done.
	DeleteLinks(ctx context.Context, steps []Step) error
	// Subscribe wakes the receiver after changes (coalesced, contents say nothing); closed when ctx ends.
	Subscribe(ctx context.Context) (<-chan struct{}, error)
}
