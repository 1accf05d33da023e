package ipamsim

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"danm.io/danm/ipam"
	"danm.io/danm/spec/model"
	"danm.io/danm/test/ipamsim/history"
	"danm.io/danm/test/ipamsim/world"
)

// Stack is one node's agent, as far as addresses go. Its methods may be called concurrently, but not after Kill.
type Stack interface {
	// Add makes the addresses of a sandbox durable, sets them in the kernel, and answers them, one list for each want. With
	// an error it has taken back what it did, or left it to a Del.
	Add(ctx context.Context, p PodSpec) ([][]netip.Prefix, error)
	// Del takes a sandbox's links down and frees what it has; it succeeds when there is nothing.
	Del(ctx context.Context, sandbox string) error
	// Entries is what the journal says.
	Entries() ([]history.Entry, error)
	// Kill ends what runs, without writing anything: disk, kernel and API are already dead for it.
	Kill()
}

// Home is a way to run nodes.
type Home interface {
	// Start starts a node's agent; ctx is the life of its process. It is called again later if it fails.
	Start(ctx context.Context, e Env) (Stack, error)
	// Faults that the home promises to survive.
	Faults() Faults
	// Share is how many addresses of a network this node can give when nobody has any, or -1: as many as are left.
	Share(node int, n model.Network, allowed func(netip.Addr) bool) int
	// Settle is how long it takes at most until all is in order after the last fault and the last Pod.
	Settle() time.Duration
}

// Controlled is a Home with a program beside the nodes. RunController runs it until ctx ends.
type Controlled interface {
	RunController(ctx context.Context, c *world.Client)
}

// Faults are what may be done to a home, beyond what every home must survive: kill -9 at any write, freeze, power cut, full
// disk, late and repeated DELs.
type Faults struct {
	API          bool // it talks to the API: cuts, freezes, lost answers, late writes, a restored etcd, a controller that is away
	LiveJournal  bool // the journal is lost or set back while Pods live
	OtherMachine bool // a clone starts, a Node is deleted, comes back
	ClockSteps   bool // the wall clock is set between two starts of the agent
	Sticky       bool // addresses are kept for Pods of StatefulSets
}

// PodSpec is one ADD.
type PodSpec struct {
	Sandbox        string
	UID            string
	Namespace, Pod string
	StatefulSet    string // UID, "" if the Pod is of none
	Ordinal        int32
	Wants          []ipam.Want
}

// Env is what a node's agent lives in. All of it dies with the process.
type Env struct {
	Node      string
	Index     int
	MachineID string
	BootID    string
	Disk      ipam.Disk // or, if it is nil, Dir
	Dir       string    // a real directory
	Kernel    Kernel
	API       ipam.API // nil in a home without one
	Wall      func() time.Time
	Boottime  func() time.Duration
	BootWall  time.Time // what the wall clock was when the boot began
	Random    func() float64
	Log       *slog.Logger
	HighWater ipam.HighWater // of this boot
	// Doubtful says that the disk was set back: what docs/ipam.md says it takes to notice that, the API, is then at hand.
	Doubtful bool
}

// Address is one that a kernel gets.
type Address struct {
	IfName string
	Where  history.Where
	Why    history.Why
}

// Kernel is what an agent sees of its machine's sandboxes.
type Kernel interface {
	// Up sets addresses in a sandbox. With an error some of them may be set.
	Up(ctx context.Context, sandbox string, addrs []Address) error
	// Down takes the links of a sandbox down; it succeeds when there are none.
	Down(ctx context.Context, sandbox string) error
	// Sandboxes are those that the runtime lists.
	Sandboxes() []string
}

// SpaceName is a space as the checker is told of it.
func SpaceName(domain string, id uint32, cidr netip.Prefix) string {
	return fmt.Sprintf("%s.%d %s", domain, id, cidr)
}
