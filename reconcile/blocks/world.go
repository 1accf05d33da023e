package blocks

import (
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/model"
)

// What this loop writes on objects beside their fields.
const (
	// AnnotationSince on an IPBlock says since when the controller sees what may end it: JSON, what → RFC 3339 time.
	AnnotationSince = "danm.io/since"
	// AnnotationSuspect on a node's Lease says that it waits for a check since the API went back in time, AnnotationChecked for which
	// there was one (ipam writes them).
	AnnotationSuspect = "danm.io/ipam-suspect"
	AnnotationChecked = "danm.io/ipam-checked"
	// AnnotationAgain on an orphan says when it was made around addresses that nodes rely on: RFC 3339.
	AnnotationAgain = "danm.io/made-again"
	// AnnotationPoweredOff on a node's Lease is a person's word that the machine with this identity is off.
	AnnotationPoweredOff = "danm.io/powered-off"
	// Finalizer keeps a network while Pods are attached to it.
	Finalizer = "danm.io/attached"
	// LeasePrefix and a node's name are the name of its Lease.
	LeasePrefix = "danm-node-"
)

// Options are the loop's times. Zero values are the defaults.
type Options struct {
	BlockLease time.Duration // how long after its last sign of life a lost node's blocks are freed; 12 h
	Grace      time.Duration // how long a Pod or a StatefulSet must be gone before its address is; 10 min
	Cooldown   time.Duration // how long an address that came back to an orphan rests; 30 s
	Linger     time.Duration // how long a deleted network waits for what nodes report; 60 s
	HintEvery  time.Duration // how often a root's status is written at most; 5 s
	CountEvery time.Duration // how often a network's counts are written at most; 30 s
	Look       time.Duration // how often Pods, StatefulSets and DanmEps are looked for at most, and how often the loop looks anyway; 1 min
}

func (o Options) withDefaults() Options {
	for _, x := range []struct {
		value   *time.Duration
		usually time.Duration
	}{
		{&o.BlockLease, 12 * time.Hour}, {&o.Grace, 10 * time.Minute}, {&o.Cooldown, 30 * time.Second}, {&o.Linger, time.Minute},
		{&o.HintEvery, 5 * time.Second}, {&o.CountEvery, 30 * time.Second}, {&o.Look, time.Minute},
	} {
		if *x.value == 0 {
			*x.value = x.usually
		}
	}
	return o
}

// World is what the API has. Decide changes nothing in it.
type World struct {
	Now     time.Time
	Options Options
	// Always read, from a cache.
	Nodes    map[string]bool // that exist
	Plans    []v1alpha1.NodePlan
	Lost     time.Time                // when a node last was without a plan, in which it reports
	Segments map[string]model.Segment // decoded, by name
	Blocks   []v1alpha1.IPBlock
	Leases   map[string]*coordinationv1.Lease // by node
	Networks []Network
	// Fresh says that plans, segments and networks come from the API server itself.
	Fresh bool
	// Read when a decision asks for it; nil until then.
	Signs     map[string]Sign // of nodes, from the API server itself
	Endpoints []danmv1.DanmEp
	Pods      *Pods
	Sets      map[string]StatefulSet // by UID
	// Wrote is when a status was written last, by Action.Key: that alone is the loop's memory.
	Wrote map[string]time.Time
}

// Network is a network object of one of DANM's kinds.
type Network struct {
	Kind    string
	Object  client.Object
	Spec    *danmv1.NetworkSpec
	Status  *danmv1.NetworkStatus
	Deleted time.Time // zero if it is not being deleted
}

// Key is "Kind/namespace/name" or "Kind/name", as in NodePlan.status.attached.
func (n Network) Key() string { return networkKey(n.Kind, n.Object.GetNamespace(), n.Object.GetName()) }

func networkKey(kind, namespace, name string) string {
	if kind == danmv1.KindClusterNetwork || namespace == "" {
		return kind + "/" + name
	}
	return kind + "/" + namespace + "/" + name
}

// Pods that exist.
type Pods struct {
	UIDs  map[string]bool // with those of static Pods' manifests
	Names map[string]bool // namespace/name
}

// StatefulSet is what says which ordinals there are.
type StatefulSet struct {
	Namespace, Name string
	Start, Replicas int32
}

// has says whether a reservation is for a Pod of the set.
func (s StatefulSet) has(r *v1alpha1.IPReservation) bool {
	return s.Namespace == r.Namespace && s.Name == r.StatefulSet && r.Ordinal >= s.Start && int64(r.Ordinal) < int64(s.Start)+int64(s.Replicas)
}

// Needs are what has to be read before more can be decided.
type Needs struct {
	Nodes     []string // whose Node and Lease are asked for, sorted
	Fresh     bool
	Endpoints bool // for a space that is to be opened
	Users     bool // the same, of networks that are being deleted
	Pods      bool
	Sets      bool
}

// Any says whether something is needed.
func (n Needs) Any() bool {
	return len(n.Nodes) > 0 || n.Fresh || n.Endpoints || n.Users || n.Pods || n.Sets
}

// Verb is what an Action does.
type Verb string

// The verbs.
const (
	Create       Verb = "create"       // the Block
	Update       Verb = "update"       // spec and metadata of the Block
	UpdateStatus Verb = "updateStatus" // of the Block
	Remove       Verb = "remove"       // the finalizer, then the Block
	DeleteLease  Verb = "deleteLease"
	Finalize     Verb = "finalize" // give the Network the Finalizer, or take it away
	Tell         Verb = "tell"     // write the Network's status
)

// Action is one write. Those of one decision are independent of each other.
type Action struct {
	Verb    Verb
	Block   *v1alpha1.IPBlock     // as it shall be, with the version decided upon; Remove: as it is
	Lease   *coordinationv1.Lease // DeleteLease
	Network *Network              // Finalize, Tell
	Keep    bool                  // Finalize: give
	Status  *danmv1.NetworkStatus // Tell: what is this loop's of it
	Events  []Event               // told when the write succeeded
	Why     string                // for the log and metrics, one word
	Node    string                // whose the block was that is freed
	Key     string                // of World.Wrote, "" if nothing is remembered
	Prompt  bool                  // decided upon fresh reads: not carried out later than a moment after them
}

// Event is what people are told.
type Event struct {
	About   client.Object // nil: the Action's own object
	Warning bool
	Reason  string
	Text    string
}

// Decision is what to do now.
type Decision struct {
	Actions []Action
	Needs   Needs
	Next    time.Time // when time alone makes a difference, zero if it does not
	Report  Report
}

// Report is what metrics show of a decision.
type Report struct {
	Spaces  []SpaceReport
	Blocks  map[string]int // by whose they are: node, controller, single, parked, root
	Lost    int            // nodes that are lost and whose blocks wait for their lease to pass
	Unclear int            // spaces without a root that cannot be given one
}

// SpaceReport is what a root says.
type SpaceReport struct {
	Space                v1alpha1.IPSpace
	Used, Capacity, Free int64
}
