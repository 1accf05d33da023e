package history

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// Entry is an address that a node's journal says a sandbox has.
type Entry struct {
	Node, Sandbox, Pod string
	Where              Where
}

// Block is an object of the API that speaks of addresses.
type Block struct {
	Name     string
	Root     bool
	Owner    string // "" = the controller
	Identity string
	Deleting bool
	Single   bool     // of one address, in another's block
	Kept     bool     // a Single that is kept for a Pod that may come back
	Ceded    []string // UIDs of Singles
	Held     int      // addresses from before
	UID      string
}

// Books is everything that journals and API say at one moment.
type Books struct {
	Entries []Entry
	Blocks  []Block
	Nodes   map[string]string // those that are there → identity
}

// Recorded compares the kernel of one node with its journal, at a moment when no ADD is under way there: every address that
// is set must be recorded for its sandbox.
func (c *Checker) Recorded(at time.Time, node string, live []Holder, entries []Entry) {
	recorded := map[string]bool{}
	for _, e := range entries {
		recorded[e.Sandbox+" "+e.Where.String()] = true
	}
	for _, h := range live {
		for x := range c.sandboxes[place(node, h.Sandbox)] {
			if !recorded[h.Sandbox+" "+x.where.String()] {
				c.blame(Unrecorded, at, x.where, "%s has it", h)
			}
		}
	}
}

// Consistent looks for what no journals may say together at any time: one address twice.
func (c *Checker) Consistent(at time.Time, b Books) {
	by := map[Where]Entry{}
	for _, e := range b.Entries {
		if other, ok := by[e.Where]; ok {
			c.blame(TwoBooks, at, e.Where, "%s for %s, %s for %s", e.Node, e.Sandbox, other.Node, other.Sandbox)
		}
		by[e.Where] = e
	}
}

// Quiet judges the books when no Pod is left, everything is healthy, and every lease and cooldown has passed.
func (c *Checker) Quiet(at time.Time, b Books) {
	for _, p := range slices.Sorted(maps.Keys(c.sandboxes)) {
		for h := range c.sandboxes[p] {
			c.blame(Leaked, at, h.where, "the kernel still has it in %s", p)
		}
	}
	for _, e := range b.Entries {
		c.blame(Leaked, at, e.Where, "the journal of %s still lists it for sandbox %s of Pod %s", e.Node, e.Sandbox, e.Pod)
	}
	singles := map[string]bool{}
	for _, x := range b.Blocks {
		singles[x.UID] = singles[x.UID] || x.Single
	}
	for _, x := range b.Blocks {
		if why := x.leak(b.Nodes, singles); why != "" {
			c.blame(Leaked, at, Where{}, "%s: %s", x.Name, why)
		}
	}
}

// leak says why the addresses of a block can never be used again, "" if they can.
func (x Block) leak(nodes map[string]string, singles map[string]bool) string {
	if x.Root {
		return ""
	}
	identity, there := nodes[x.Owner]
	switch {
	case x.Deleting:
		return fmt.Sprintf("deleted, and the finalizer of %q stays", x.Owner)
	case x.Single && !x.Kept:
		return fmt.Sprintf("a single address of %q, and nobody has it", x.Owner)
	case x.Owner == "" && !x.Single && len(x.Ceded) == 0 && x.Held == 0:
		return "an orphan without a reason"
	case x.Owner != "" && !there:
		return fmt.Sprintf("its owner %s is gone", x.Owner)
	case x.Owner != "" && identity != x.Identity:
		return fmt.Sprintf("its owner %s is another machine or Node now", x.Owner)
	}
	for _, uid := range x.Ceded {
		if !singles[uid] {
			return "ceded to " + uid + ", which is gone"
		}
	}
	return ""
}

// Froze says that a node does not use a block of its own, where no journal, machine or API has lost anything.
func (c *Checker) Froze(at time.Time, node, block string) {
	c.blame(Frozen, at, Where{}, "%s on %s", block, node)
}

// Starve says that a Pod got no address although there are as many as Pods.
func (c *Checker) Starve(at time.Time, space, pod, why string) {
	c.blame(Starved, at, Where{Space: space}, "Pod %s: %s", pod, why)
}
