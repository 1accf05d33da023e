package model

// Sizes of the world. A scenario uses as much of it as it needs.
const (
	nodes    = 2
	addrs    = 2
	places   = 2 // ranges that an IPBlock can be made for
	pods     = 3
	boxes    = 2 // sandboxes of a Pod, one after the other
	inFlight = 2 // API calls without an answer that may land yet
)

// halfLease and wholeLease are ages in long ticks, of half a block lease each.
const (
	halfLease  = 1
	wholeLease = 2
)

// State is the whole world. Every field is a byte, so that it is compared and hashed as one piece of memory.
// Where a place or an address is named by number, 0 stands for none and i+1 for number i.
type State struct {
	API      api
	Saved    api   // etcd's backup
	HasSaved uint8 // there is one
	Restored uint8 // it was put back
	Ctl      ctl
	Node     [nodes]node
	Pod      [pods]pod
	Net      [inFlight]message
	Warm     [addrs]uint8 // neighbours still send to who had it
	Left     budget
	Bad      uint8 // an address was given out while warm
}

// api is what the API server says.
type api struct {
	Root   uint8
	Block  [places]object
	Single [addrs]object
	Lease  [nodes]lease
	Node   [nodes]uint8 // UID of the Node object, 0 = none
}

// object is an IPBlock. Owner 0 is the controller, i+1 node i.
type object struct {
	There, UID, Owner, Ident uint8
	Version                  uint8        // tells it from what a call in flight has read of it
	Asked                    uint8        // of a Single: place around it + 1
	Kept                     uint8        // of a Single: it has a reservation
	Ceded                    [addrs]uint8 // cession, 0 = not ceded
	Held                     [addrs]uint8
}

// cession is a Single's UID and whose it is, in one byte.
func cession(o *object) uint8 { return o.UID | o.Owner<<6 }

func cededUID(c uint8) uint8 { return c & 63 }
func cededTo(c uint8) uint8  { return c >> 6 }

type lease struct {
	There, Epoch, Ident uint8
	Age                 uint8 // long ticks since the renewal that it tells of
	Acquired            uint8 // since another identity took it
	Off                 uint8 // a person says that this identity is off
}

// ctl is what the controller keeps beside the objects: only what it could read again.
type ctl struct {
	Imported uint8
	Cool     [addrs]uint8 // of orphans
}

// node is a machine with its agent.
type node struct {
	On, Cut uint8 // powered; without the API
	Machine uint8
	// of the agent's process
	Started, Tried, Stopped, Starting uint8
	Halted                            uint8 // it begins anew, and gives nothing out before it has
	Fenced                            uint8 // verdict of the start under way: the controller may have freed blocks
	ClockBehind                       uint8 // the wall clock is behind the journal since the last boot
	J                                 journal
	Snap                              journal
	HasSnap                           uint8
}

// identity of a node: its machine's, and its Node object's.
func (s *State) identity(n uint8) uint8 { return s.Node[n].Machine<<4 | s.API.Node[n] }

func machineOf(identity uint8) uint8 { return identity >> 4 }

// The states of a block in a journal.
const (
	none uint8 = iota
	claiming
	asked
	owned
	frozen
	releasing
	parking
)

// journal is what is on a node's disk.
type journal struct {
	Epoch, Raising, Ident uint8
	Renewed, Renewing     uint8 // ages
	Suspect, Seen         uint8 // Seen: the API as of after the backup
	Lost                  uint8 // sandboxes seen when it was found lost: bit pod*boxes+box
	Thawing               uint8 // 2 = lost; 1 = all gone, not yet cool
	Block                 [places]jblock
	Single                [addrs]jblock
	Rec                   [pods]record
	Cool                  [addrs]uint8
}

type jblock struct {
	State, UID uint8
	Told       uint8 // the object lists what the journal has ceded
	Kept       uint8
	Ceded      [addrs]uint8
}

// record says which sandbox of a Pod has which address. Addr 0 = no record.
type record struct{ Addr, Box uint8 }

// pod is one Pod UID.
type pod struct {
	Node   uint8 // i+1; 0 = not there yet
	Boxes  uint8 // sandboxes begun
	Ended  uint8 // it is gone from the API, or its machine went off
	Adding uint8 // the ADD of its newest sandbox is under way: addresses are journaled, links come next
	Link   [boxes]uint8
	Del    [boxes]uint8 // DELs that the runtime has still to make
}

// message is an API call whose caller has had no answer, and that may land yet.
type message struct {
	Kind, From, At, UID uint8
	Was, Is             object
}

// The kinds of message.
const (
	noMessage uint8 = iota
	msgCreateBlock
	msgDeleteBlock
	msgCreateSingle
	msgDeleteSingle
	msgUpdateBlock
	msgUpdateSingle
)

// budget is how many more times each thing of the world may happen.
type budget struct {
	Late, Lost                         uint8 // calls that land late; answers that are lost
	Crash, Off, Wipe, Snap, Cut        uint8
	NodeGone, NodeBack, Clock, Replace uint8
	NewBox, Repeat, End                uint8
	Backup, PoweredOff, NetworkGone    uint8
	RestoreLive                        uint8
	DeleteLive, RestoreSame            uint8 // beyond what is promised: see Limits
}
