package alloc

import (
	"cmp"
	"math"
	"net/netip"
	"slices"

	"danm.io/danm/spec/model"
)

// keepFreed bounds how many freed and cooled addresses of a space are remembered in order of age. Beyond it the oldest
// are forgotten, that is, fresh again: a /64 under churn must not fill the memory.
const keepFreed = 1 << 14

// Space is the state of a node's own addresses of one CIDR. Every own address is fresh, held, or freed; freed ones stand
// in a queue, oldest first. Not safe for concurrent use.
type Space struct {
	geo    Geometry
	used   spanSet         // indices of the held and the freed
	held   map[U128]uint32 // index → holder
	freed  map[U128]uint64 // index → number of its valid entry in the queue
	queue  []freedEntry    // by time; entries that freed does not point to are void
	next   uint64          // number of the next queue entry
	lastAt int64           // times in the queue do not decrease
	cursor U128            // fresh addresses are taken from here on, then from the beginning
	owned  Set             // of a claimed geometry
	usable []span          // the same as indices
}

type freedEntry struct {
	index U128
	at    int64
	num   uint64
}

// NewSpace is a space nobody holds an address of.
func NewSpace(g Geometry) *Space {
	return &Space{geo: g, held: map[U128]uint32{}, freed: map[U128]uint64{}}
}

// Geometry is how the space is cut.
func (s *Space) Geometry() Geometry { return s.geo }

// Held is the number of held addresses.
func (s *Space) Held() int { return len(s.held) }

// Freed is the number of freed addresses still remembered.
func (s *Space) Freed() int { return len(s.freed) }

// Owns says whether an address is one of the node's own in this space.
func (s *Space) Owns(a netip.Addr) bool {
	return s.geo.owns(a) && (!s.geo.Claimed || s.owned.Contains(a))
}

// Own sets what the node owns of a claimed geometry. Addresses that are held or freed stay so, inside the set or not.
func (s *Space) Own(set Set) {
	s.owned, s.usable = set, nil
	base := number(s.geo.CIDR.Addr())
	for _, x := range intersect(set.spans, []span{prefixSpan(s.geo.CIDR)}) {
		s.usable = append(s.usable, span{x.lo.sub(base), x.hi.sub(base)})
	}
}

// Owned is what Own set.
func (s *Space) Owned() Set { return s.owned }

// Busy counts the addresses of a prefix that are held, and those freed after ready, which are cooling down.
func (s *Space) Busy(p netip.Prefix, ready int64) (held, cooling int) {
	x := prefixSpan(p)
	base := number(s.geo.CIDR.Addr())
	for v, end := x.lo.sub(base), x.hi.sub(base); ; {
		c, i, ok := s.used.find(v)
		if !ok {
			return held, cooling
		}
		run := s.used.chunks[c][i]
		for v = maxU128(v, run.lo); !minU128(run.hi, end).less(v); v = v.inc() {
			if _, ok := s.held[v]; ok {
				held++
			} else if at, ok := s.freedAt(v); ok && at > ready {
				cooling++
			}
			if v.isMax() {
				return held, cooling
			}
		}
		if !run.hi.less(end) {
			return held, cooling
		}
	}
}

// Cooling says whether an address was freed after ready.
func (s *Space) Cooling(a netip.Addr, ready int64) bool {
	at, ok := s.freedAt(s.geo.index(a))
	return ok && at > ready
}

// freedAt is when a remembered address was freed.
func (s *Space) freedAt(index U128) (int64, bool) {
	num, ok := s.freed[index]
	if !ok {
		return 0, false
	}
	i, ok := slices.BinarySearchFunc(s.queue, num, func(e freedEntry, num uint64) int { return cmp.Compare(e.num, num) })
	return s.queue[i].at, ok
}

// Free counts the addresses that Dynamic could choose now for a network with this subnet, and lists the first few.
func (s *Space) Free(sub model.Subnet, ready int64, list int) (count uint64, some []netip.Addr) {
	ranges := s.candidates(sub)
	for _, r := range ranges {
		s.used.gaps(r.lo, r.hi, func(g span) {
			count = saturatingAdd(count, size([]span{g}))
			for x := g.lo; len(some) < list && !g.hi.less(x); x = x.inc() {
				some = append(some, s.geo.addr(x))
				if x.isMax() {
					return
				}
			}
		})
	}
	for _, e := range s.queue {
		if e.at > ready {
			break
		}
		if s.valid(e) && inSpans(ranges, e.index) {
			count = saturatingAdd(count, 1)
			if len(some) < list {
				some = append(some, s.geo.addr(e.index))
			}
		}
	}
	return count, some
}

func saturatingAdd(a, b uint64) uint64 {
	if a+b < a {
		return math.MaxUint64
	}
	return a + b
}

// Holder says who holds an address.
func (s *Space) Holder(a netip.Addr) (uint32, bool) {
	if !s.geo.owns(a) {
		return 0, false
	}
	h, ok := s.held[s.geo.index(a)]
	return h, ok
}

// EachHeld calls f for the held addresses, in no order.
func (s *Space) EachHeld(f func(a netip.Addr)) {
	for index := range s.held {
		f(s.geo.addr(index))
	}
}

// EachFreed calls f for the freed addresses, oldest first, with the time they were freed at.
func (s *Space) EachFreed(f func(a netip.Addr, at int64)) {
	for _, e := range s.queue {
		if s.valid(e) {
			f(s.geo.addr(e.index), e.at)
		}
	}
}

// Recut is an equal space under another geometry of the same CIDR, which is only possible while nothing is held: freed
// addresses that are still this node's keep cooling.
func (s *Space) Recut(g Geometry) *Space {
	out := NewSpace(g)
	var tx Tx
	s.EachFreed(func(a netip.Addr, at int64) {
		if g.owns(a) {
			tx.Cool(out, a, at)
		}
	})
	return out
}

// Settle forgets void queue entries and, beyond a bound, the oldest addresses freed at or before ready. It must not be
// called while a Tx is open, which may want to take the entries back.
func (s *Space) Settle(ready int64) {
	n := 0
	for ; n < len(s.queue); n++ {
		e := s.queue[n]
		if !s.valid(e) {
			continue
		}
		if len(s.freed) <= keepFreed || e.at > ready {
			break
		}
		delete(s.freed, e.index)
		s.used.remove(e.index)
	}
	s.queue = s.queue[n:]
	if len(s.queue) > 2*len(s.freed)+spareQueue {
		s.compact(ready)
	}
	if len(s.queue) == 0 {
		s.queue = nil
	}
}

// spareQueue is how many void entries stand in the queue before it is worth while to close the gaps.
const spareQueue = 64

// compact drops void entries that stand behind a valid one, which nobody may choose for long: an address of another network, or of a
// block that was given back. The latter are forgotten once they are cool.
func (s *Space) compact(ready int64) {
	rest := make([]freedEntry, 0, len(s.freed))
	for _, e := range s.queue {
		switch {
		case !s.valid(e):
		case s.geo.Claimed && e.at <= ready && !inSpans(s.usable, e.index):
			delete(s.freed, e.index)
			s.used.remove(e.index)
		default:
			rest = append(rest, e)
		}
	}
	s.queue = rest
}

// valid says whether a queue entry still speaks for its address.
func (s *Space) valid(e freedEntry) bool {
	num, ok := s.freed[e.index]
	return ok && num == e.num
}

func (g Geometry) owns(a netip.Addr) bool {
	return g.CIDR.Contains(a) && g.Owner(a) == g.Slot
}

// Tx is a sequence of changes to spaces that can be taken back, wholly or down to a mark. The zero value is ready.
type Tx struct{ log []change }

type change struct {
	space  *Space
	index  U128
	cursor U128   // before the change
	num    uint64 // of the queue entry that was freed before, or made
	holder uint32
	kind   changeKind
}

type changeKind uint8

const (
	tookFresh changeKind = iota
	tookFreed
	freedHeld
)

// Take gives a to holder. The address must be the space's own and not held.
func (t *Tx) Take(s *Space, a netip.Addr, holder uint32) {
	c := change{space: s, index: s.geo.index(a), cursor: s.cursor, kind: tookFresh}
	if num, ok := s.freed[c.index]; ok {
		c.kind, c.num = tookFreed, num
		delete(s.freed, c.index)
	} else {
		s.used.insert(c.index)
	}
	s.held[c.index] = holder
	t.log = append(t.log, c)
}

// Free puts a held address at the end of the queue of freed ones. at is in the unit Dynamic is asked in.
func (t *Tx) Free(s *Space, a netip.Addr, at int64) {
	c := change{space: s, index: s.geo.index(a), cursor: s.cursor, kind: freedHeld}
	c.holder = s.held[c.index]
	delete(s.held, c.index)
	s.enqueue(c.index, at)
	t.log = append(t.log, c)
}

// Cool puts a fresh or freed address at the end of the queue: what a journal remembers of an address freed earlier.
func (t *Tx) Cool(s *Space, a netip.Addr, at int64) {
	t.Take(s, a, 0)
	t.Free(s, a, at)
}

func (s *Space) enqueue(index U128, at int64) {
	s.lastAt = max(s.lastAt, at)
	s.queue = append(s.queue, freedEntry{index, s.lastAt, s.next})
	s.freed[index] = s.next
	s.next++
}

// Mark is a point to roll back to.
func (t *Tx) Mark() int { return len(t.log) }

// Rollback takes back every change after the mark.
func (t *Tx) Rollback(mark int) {
	for i := len(t.log) - 1; i >= mark; i-- {
		t.log[i].undo()
	}
	t.log = t.log[:mark]
}

// Commit keeps the changes: they can no longer be taken back.
func (t *Tx) Commit() { clear(t.log); t.log = t.log[:0] }

func (c change) undo() {
	s := c.space
	s.cursor = c.cursor
	switch c.kind {
	case tookFresh:
		delete(s.held, c.index)
		s.used.remove(c.index)
	case tookFreed:
		delete(s.held, c.index)
		s.freed[c.index] = c.num
	case freedHeld: // changes are undone last first, so the entry is the last one
		s.queue = s.queue[:len(s.queue)-1]
		delete(s.freed, c.index)
		s.held[c.index] = c.holder
	}
}
