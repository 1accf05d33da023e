package ipam

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"danm.io/danm/ipam/alloc"
)

// BlockState is how far a node is with a block of addresses. Each state is on disk before the API call that it is about.
type BlockState byte

const (
	// Claiming: the object may be there or not, and may be this node's.
	Claiming BlockState = 'c'
	// Asked: a Single that is there; the owner of the block around it has not listed it yet.
	Asked BlockState = 'a'
	// Owned: its addresses may be given out.
	Owned BlockState = 'o'
	// Frozen: the API says that it is this node's, and the journal does not know what was given out of it.
	Frozen BlockState = 'f'
	// Releasing: it is being deleted, or nobody knows whether it is. There is no way back from here.
	Releasing BlockState = 'r'
	// Parking: a Single with a reservation is being handed to nobody, for the next node to take.
	Parking BlockState = 'p'
)

var stateNames = map[BlockState]string{Claiming: "claiming", Asked: "asked", Owned: "owned", Frozen: "frozen", Releasing: "releasing", Parking: "parking"}

func (s BlockState) String() string { return stateNames[s] }

// Block is a block of addresses, or a single one, as the journal has it.
type Block struct {
	Space       Space
	CIDR        netip.Prefix
	State       BlockState
	Single      bool
	Borrowed    bool      // a Single for whoever wants any address; others wait for who asked for this one
	Foreign     bool      // Frozen, and claimed by another machine of this node's name: what lives there is not seen from here
	Reservation string    // hash: a Single kept for one Pod of a StatefulSet
	UID         string    // of the object, "" while claiming
	Since       int64     // of the state: Unix time in nanoseconds
	Ceded       []Cession // by address
}

// Cession is an address of a block that has become a Single.
type Cession struct {
	Addr      netip.Addr
	UID, Node string // of the Single
}

// Meta is what the journal knows of its node beside blocks and records.
type Meta struct {
	Node      string   // by name
	Identity  string   // of the machine and its Node object, "" = never had one
	Epoch     int64    // of the newest start that API and journal agree on
	Raising   int64    // that was about to be written
	Renewed   int64    // when the lease was renewed last, by this node's clock: Unix time in nanoseconds
	Renewing  int64    // when a renewal was about to be written
	Version   uint64   // the highest version of the API's objects seen
	Suspect   string   // not "": the API went back in time; claims wait until somebody has checked
	Lost      []string // sandboxes and namespaces seen when the journal was found lost, as long as one of them is there
	LostSince int64    // 0 = not lost
}

func (m Meta) clone() Meta {
	m.Lost = slices.Clone(m.Lost)
	return m
}

func singlePrefix(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// giveable says whether addresses of the block are chosen dynamically.
func (b Block) giveable() bool { return b.State == Owned && (!b.Single || b.Borrowed) }

func (b Block) ceded(a netip.Addr) (Cession, bool) {
	i := slices.IndexFunc(b.Ceded, func(c Cession) bool { return c.Addr == a })
	if i < 0 {
		return Cession{}, false
	}
	return b.Ceded[i], true
}

// setBlock adds or replaces a block. isNew says whether its space was not there.
func (st *state) setBlock(b Block) (ss *spaceState, isNew bool, err error) {
	g, err := alloc.ClaimedGeometry(b.Space.CIDR)
	if err != nil {
		return nil, false, err
	}
	ss, isNew, err = st.space(b.Space, g)
	if err != nil {
		return nil, false, err
	}
	old, was := ss.blocks[b.CIDR]
	ss.putBlock(b)
	before := ss.space.Owned()
	ss.space.Own(ss.ownedWith(b))
	st.undo = append(st.undo, func() {
		ss.space.Own(before)
		if was {
			ss.putBlock(old)
		} else {
			ss.dropBlock(b.CIDR)
		}
	})
	return ss, isNew, nil
}

// removeBlock forgets a block.
func (st *state) removeBlock(key Space, p netip.Prefix) {
	ss, ok := st.spaces[key]
	if !ok {
		return
	}
	old, was := ss.blocks[p]
	if !was {
		return
	}
	before := ss.space.Owned()
	gone := old
	gone.State = Releasing
	ss.space.Own(ss.ownedWith(gone))
	ss.dropBlock(p)
	if around, ok := ss.around(p.Addr()); ok && old.Single && around.giveable() {
		if _, ceded := around.ceded(p.Addr()); !ceded { // it is the block's again
			ss.space.Own(ss.space.Owned().With(p))
		}
	}
	st.undo = append(st.undo, func() {
		ss.putBlock(old)
		ss.space.Own(before)
	})
}

func (st *state) setMeta(m Meta) {
	before := st.meta
	st.meta = m
	st.undo = append(st.undo, func() { st.meta = before })
}

func (ss *spaceState) putBlock(b Block) {
	if ss.blocks == nil {
		ss.blocks, ss.reserved, ss.lengths = map[netip.Prefix]Block{}, map[string]netip.Prefix{}, map[int]int{}
	}
	if old, was := ss.blocks[b.CIDR]; was {
		ss.unreserve(old)
	} else {
		ss.lengths[b.CIDR.Bits()]++
	}
	ss.blocks[b.CIDR] = b
	if b.Reservation != "" {
		ss.reserved[b.Reservation] = b.CIDR
	}
}

// unreserve forgets for whom a Single is kept, if it is this one that is: two may have been made for one Pod.
func (ss *spaceState) unreserve(b Block) {
	if ss.reserved[b.Reservation] == b.CIDR {
		delete(ss.reserved, b.Reservation)
	}
}

func (ss *spaceState) dropBlock(p netip.Prefix) {
	ss.unreserve(ss.blocks[p])
	delete(ss.blocks, p)
	if ss.lengths[p.Bits()]--; ss.lengths[p.Bits()] == 0 {
		delete(ss.lengths, p.Bits())
	}
}

// ownedWith is the set of addresses for dynamic choice once b is as it is now.
func (ss *spaceState) ownedWith(b Block) alloc.Set {
	set := ss.space.Owned().Without(b.CIDR)
	if b.giveable() {
		set = set.With(b.CIDR)
	}
	for _, c := range b.Ceded {
		set = set.Without(singlePrefix(c.Addr))
		if own, ok := ss.blocks[singlePrefix(c.Addr)]; ok && own.Single && own.giveable() {
			set = set.With(own.CIDR)
		}
	}
	return set
}

// covers says whether an address lies in a block that the journal knows, in whatever state.
func (ss *spaceState) covers(a netip.Addr) bool {
	if !ss.space.Geometry().Claimed {
		return ss.space.Owns(a)
	}
	_, ok := ss.around(a)
	return ok
}

// around is the smallest known block that an address lies in.
func (ss *spaceState) around(a netip.Addr) (found Block, ok bool) {
	for bits := range ss.lengths {
		p, err := a.Prefix(bits)
		if err != nil {
			continue
		}
		if b, is := ss.blocks[p]; is && (!ok || bits > found.CIDR.Bits()) {
			found, ok = b, true
		}
	}
	return found, ok
}

// edit is a change of blocks and meta inside a transaction.
type edit struct {
	s          *Service
	now, ready int64
}

// change makes f's edits durable in one transaction, or, if f fails, none of them.
func (s *Service) change(f func(e *edit) error) error {
	return s.submit(&request{ctx: context.Background(), change: f}).err
}

func (e *edit) block(key Space, p netip.Prefix) (Block, bool) {
	ss, ok := e.s.st.spaces[key]
	if !ok {
		return Block{}, false
	}
	b, ok := ss.blocks[p]
	return b, ok
}

func (e *edit) set(b Block) error {
	if old, ok := e.block(b.Space, b.CIDR); !ok || old.State != b.State {
		b.Since = e.now
	}
	ss, isNew, err := e.s.st.setBlock(b)
	if err != nil {
		return fmt.Errorf("block %s: %w", b.CIDR, err)
	}
	if isNew {
		e.s.framed = appendSpace(e.s.framed, ss.id, ss.key, ss.space.Geometry())
	}
	e.s.framed = appendBlock(e.s.framed, ss.id, b)
	return nil
}

func (e *edit) drop(key Space, p netip.Prefix) {
	if _, ok := e.block(key, p); !ok {
		return
	}
	e.s.framed = appendBlockGone(e.s.framed, e.s.st.spaces[key].id, p)
	e.s.st.removeBlock(key, p)
}

func (e *edit) meta(f func(m *Meta)) {
	m := e.s.st.meta.clone()
	f(&m)
	e.s.st.setMeta(m)
	e.s.framed = appendMeta(e.s.framed, m)
}

// cool puts an address that came back among those freed just now.
func (e *edit) cool(key Space, a netip.Addr) {
	ss, ok := e.s.st.spaces[key]
	if !ok {
		return
	}
	if _, held := ss.space.Holder(a); held {
		return
	}
	e.s.st.tx.Cool(ss.space, a, e.now)
	e.s.framed = appendCool(e.s.framed, ss.id, a, e.now)
}
