// Package history judges what nodes did with addresses, from what each kernel had when and from what journals and API said
// at the end. It shares no code with ipam, and knows nothing of blocks, journals or protocols but what a reader of the API
// sees: it asks whether an address had two live holders, not how that came to be.
//
// What it cannot see: an address that was promised and never set in a kernel. Times of freeing are lower bounds, so it
// never blames a node wrongly, and misses a cooldown that is short by less than the time between links down and release.
package history

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Where is an address, and where it is unique.
type Where struct {
	Space string
	Addr  netip.Addr
}

func (w Where) String() string { return w.Space + " " + w.Addr.String() }

// Why is how an address was chosen.
type Why int

// The ways.
const (
	Dynamic Why = iota // by the node
	Static             // by the Pod
	Sticky             // it was kept for this Pod
)

// Holder is a sandbox with an address of its own.
type Holder struct {
	Node, Sandbox string
	Pod           string // UID
	IfName        string
}

func (h Holder) String() string {
	return fmt.Sprintf("sandbox %s of Pod %s on %s (%s)", h.Sandbox, h.Pod, h.Node, h.IfName)
}

// The kinds of violation.
const (
	Double     = "two live holders"
	Outside    = "outside the pools"
	Warm       = "not cooled down"
	Leaked     = "leaked"
	Starved    = "an address is free and a Pod gets none"
	Unrecorded = "live without a record"
	TwoBooks   = "two journals list it"
	Frozen     = "frozen although nothing was lost"
	Odd        = "the kernel was told nonsense"
)

// Violation is one thing that must not be.
type Violation struct {
	Kind  string
	At    time.Time
	Where Where // zero, if it is about no one address
	Text  string
	Past  []string // the last events about the address
}

func (v Violation) String() string {
	return fmt.Sprintf("%s: %s %s: %s\n  %s", v.At.Format(timeFormat), v.Kind, v.Where, v.Text, strings.Join(v.Past, "\n  "))
}

const timeFormat = "2006-01-02 15:04:05.000000"

// pastLen is how many events about one address are kept for the report.
const pastLen = 12

// Pool is what may be chosen dynamically in a space, and how long a freed address is not.
type Pool struct {
	Allowed  func(netip.Addr) bool
	Cooldown time.Duration
}

// Checker keeps the history of every address. It is not safe for concurrent use.
type Checker struct {
	pools     map[string]Pool
	addrs     map[Where]*life
	sandboxes map[string]map[holding]bool // by node and sandbox
	found     []Violation
	sets      int
	digest    uint64
}

// Digest is a number for all that happened, with the times: two runs of one seed have the same.
func (c *Checker) Digest() uint64 { return c.digest }

type holding struct {
	where  Where
	ifName string
}

// life is what is known of one address.
type life struct {
	live []Holder
	last Holder    // who had it last
	free time.Time // not freed before that; zero = never used
	past []event
}

type event struct {
	at   time.Time
	what string
	who  Holder
}

// New is a checker that has seen nothing.
func New() *Checker {
	return &Checker{pools: map[string]Pool{}, addrs: map[Where]*life{}, sandboxes: map[string]map[holding]bool{}}
}

// Space tells what a space's pool is. An address of a space that was not told is outside.
func (c *Checker) Space(name string, p Pool) { c.pools[name] = p }

// Violations are what was found so far.
func (c *Checker) Violations() []Violation { return c.found }

// Sets is how many addresses kernels got.
func (c *Checker) Sets() int { return c.sets }

func (c *Checker) life(w Where) *life {
	l := c.addrs[w]
	if l == nil {
		l = &life{}
		c.addrs[w] = l
	}
	return l
}

// note keeps an event. The digest is a sum: addresses that go at one instant have no order.
func (c *Checker) note(l *life, w Where, at time.Time, what string, who Holder) {
	b := w.Addr.As16()
	h := fnv.New64a()
	h.Write(binary.BigEndian.AppendUint64(b[:], uint64(at.UnixNano())))
	for _, text := range []string{what, who.Sandbox, who.IfName, who.Node, w.Space} {
		io.WriteString(h, text)
	}
	c.digest += h.Sum64()
	if len(l.past) == pastLen {
		l.past = append(l.past[:0], l.past[1:]...)
	}
	l.past = append(l.past, event{at, what, who})
}

func (c *Checker) blame(kind string, at time.Time, w Where, format string, args ...any) {
	v := Violation{Kind: kind, At: at, Where: w, Text: fmt.Sprintf(format, args...)}
	if l := c.addrs[w]; l != nil {
		for _, e := range l.past {
			v.Past = append(v.Past, e.at.Format(timeFormat)+" "+e.what+" "+e.who.String())
		}
	}
	c.found = append(c.found, v)
}

func place(node, sandbox string) string { return node + "/" + sandbox }

// Set says that a kernel has an address from now on.
func (c *Checker) Set(at time.Time, h Holder, w Where, why Why) {
	c.sets++
	l := c.life(w)
	c.note(l, w, at, "set in", h)
	pool, known := c.pools[w.Space]
	if !known || why == Dynamic && !pool.Allowed(w.Addr) {
		c.blame(Outside, at, w, "%s", h)
	}
	for _, other := range l.live {
		if other == h {
			return // once more
		}
		c.blame(Double, at, w, "%s has it, and so has %s", h, other)
	}
	own := l.last.Pod == h.Pod && l.last.IfName == h.IfName
	if why == Dynamic && !l.free.IsZero() && !own && at.Sub(l.free) < pool.Cooldown {
		c.blame(Warm, at, w, "given to %s %s after %s had it", h, at.Sub(l.free), l.last)
	}
	l.live, l.last, l.free = append(l.live, h), h, at
	p := place(h.Node, h.Sandbox)
	if c.sandboxes[p] == nil {
		c.sandboxes[p] = map[holding]bool{}
	}
	c.sandboxes[p][holding{w, h.IfName}] = true
}

// Clear says that the links of a sandbox are down.
func (c *Checker) Clear(at time.Time, node, sandbox string) {
	c.end(at, node, sandbox, "links down of")
}

// Off says that a machine lost its power, with all its sandboxes.
func (c *Checker) Off(at time.Time, node string, sandboxes []string) {
	for _, s := range sandboxes {
		c.end(at, node, s, "machine off under")
	}
}

func (c *Checker) end(at time.Time, node, sandbox, what string) {
	p := place(node, sandbox)
	for h := range c.sandboxes[p] {
		l := c.life(h.where)
		l.live = slices.DeleteFunc(l.live, func(x Holder) bool {
			if x.Node != node || x.Sandbox != sandbox {
				return false
			}
			c.note(l, h.where, at, what, x)
			return true
		})
		l.free = at
	}
	delete(c.sandboxes, p)
}

// Live is how many addresses kernels have now.
func (c *Checker) Live() (n int) {
	for _, s := range c.sandboxes {
		n += len(s)
	}
	return n
}

// Forget drops what was freed before a time and is of no more interest: large spaces would fill the memory.
func (c *Checker) Forget(before time.Time) {
	for w, l := range c.addrs {
		if len(l.live) == 0 && l.free.Before(before) {
			delete(c.addrs, w)
		}
	}
}
