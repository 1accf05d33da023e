package ipam

import (
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"net/netip"

	"danm.io/danm/ipam/alloc"
)

// state is what the journal says, as far as it is needed to decide: who holds which address, and where on disk each
// record stands. It keeps about a hundred bytes a record; the records themselves stay on disk.
// Every change can be taken back until commit.
type state struct {
	spaces    map[Space]*spaceState
	byID      map[uint32]*spaceState
	nextID    uint32
	recs      []rec    // a record's place here is its number, which addresses are held under
	free      []uint32 // unused places
	bySandbox map[digest]uint32
	byPod     map[digest]uint32 // a Pod has one record: a newer sandbox takes over from the older
	serial    uint32
	live      int64 // bytes of all payloads
	meta      Meta
	seeds     [2]maphash.Seed

	tx      alloc.Tx
	undo    []func()
	touched []*spaceState
}

type spaceState struct {
	id    uint32
	key   Space
	space *alloc.Space

	blocks   map[netip.Prefix]Block  // of a claimed geometry
	reserved map[string]netip.Prefix // Singles by the hash of their reservation
	lengths  map[int]int             // prefix lengths of blocks, and how many have each
}

// rec is where a record stands. serial tells a record from a later one of the same sandbox.
type rec struct {
	off    int64
	gen    uint32 // low bits of the segment's generation
	n      uint32 // bytes of the payload, 0 = unused place
	serial uint32
}

// digest stands for a string in a map at a fixed size. With two random seeds of 64 bits a collision is not a concern.
type digest [16]byte

func newState() *state {
	return &state{
		spaces: map[Space]*spaceState{}, byID: map[uint32]*spaceState{},
		bySandbox: map[digest]uint32{}, byPod: map[digest]uint32{},
		seeds: [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
	}
}

func (st *state) digest(s string) (d digest) {
	binary.LittleEndian.PutUint64(d[:8], maphash.String(st.seeds[0], s))
	binary.LittleEndian.PutUint64(d[8:], maphash.String(st.seeds[1], s))
	return d
}

func (st *state) spaceByID(id uint32) (Space, bool) {
	ss, ok := st.byID[id]
	if !ok {
		return Space{}, false
	}
	return ss.key, true
}

// mark and rollback bracket one request among several of a transaction.
type mark struct{ tx, undo int }

func (st *state) mark() mark { return mark{st.tx.Mark(), len(st.undo)} }

func (st *state) rollback(m mark) {
	st.tx.Rollback(m.tx)
	for i := len(st.undo) - 1; i >= m.undo; i-- {
		st.undo[i]()
	}
	clear(st.undo[m.undo:])
	st.undo = st.undo[:m.undo]
}

// commit keeps all changes. ready is the latest time of freeing at which an address has cooled down.
func (st *state) commit(ready int64) {
	st.tx.Commit()
	clear(st.undo)
	st.undo = st.undo[:0]
	for _, ss := range st.touched {
		ss.space.Settle(ready)
	}
	st.touched = st.touched[:0]
}

// space finds or makes a space cut as g says. changed means that the journal must be told. A space in which an address
// is held cannot be cut anew: ErrBlockGeometry.
func (st *state) space(key Space, g alloc.Geometry) (ss *spaceState, changed bool, err error) {
	ss, ok := st.spaces[key]
	switch {
	case ok && ss.space.Geometry() == g:
		st.touched = append(st.touched, ss)
		return ss, false, nil
	case ok && ss.space.Held() > 0:
		old := ss.space.Geometry()
		return nil, false, fmt.Errorf("space %s is in use with blocks of %d, slot %d of %d; blocks of %d, slot %d of %d must wait until no address is held: %w",
			key.CIDR, old.Block, old.Slot, old.Slots, g.Block, g.Slot, g.Slots, ErrBlockGeometry)
	case ok:
		before := ss.space
		ss.space = before.Recut(g)
		st.undo = append(st.undo, func() { ss.space = before })
	default:
		st.nextID++
		ss = st.addSpace(st.nextID, key, g)
		st.undo = append(st.undo, func() { delete(st.spaces, key); delete(st.byID, ss.id) })
	}
	st.touched = append(st.touched, ss)
	return ss, true, nil
}

func (st *state) addSpace(id uint32, key Space, g alloc.Geometry) *spaceState {
	ss := &spaceState{id: id, key: key, space: alloc.NewSpace(g)}
	st.spaces[key], st.byID[id] = ss, ss
	st.nextID = max(st.nextID, id)
	return ss
}

// forgetUnused drops the spaces in which nothing is held.
func (st *state) forgetUnused() {
	for key, ss := range st.spaces {
		if ss.space.Held() == 0 {
			delete(st.spaces, key)
			delete(st.byID, ss.id)
		}
	}
}

// reserve takes a place for a record whose addresses are being chosen.
func (st *state) reserve() uint32 {
	if n := len(st.free); n > 0 {
		ri := st.free[n-1]
		st.free = st.free[:n-1]
		st.undo = append(st.undo, func() { st.free = append(st.free, ri) })
		return ri
	}
	ri := uint32(len(st.recs))
	st.recs = append(st.recs, rec{})
	st.undo = append(st.undo, func() { st.recs = st.recs[:ri] })
	return ri
}

// put makes a reserved place a record. Its addresses are held under ri already.
func (st *state) put(ri uint32, sandbox, pod string, at rec) {
	st.serial++
	at.serial = st.serial
	st.recs[ri] = at
	st.live += int64(at.n)
	s, p := st.digest(sandbox), st.digest(pod)
	st.bySandbox[s], st.byPod[p] = ri, ri
	st.undo = append(st.undo, func() {
		delete(st.bySandbox, s)
		delete(st.byPod, p)
		st.live -= int64(at.n)
		st.recs[ri] = rec{}
	})
}

// remove takes a record away and frees its addresses.
func (st *state) remove(ri uint32, r Record, at int64) {
	for _, h := range r.Holds {
		ss := st.spaces[h.Space]
		st.touched = append(st.touched, ss)
		st.tx.Free(ss.space, h.Addr, at)
	}
	s, p, was := st.digest(r.Sandbox), st.digest(r.PodUID), st.recs[ri]
	delete(st.bySandbox, s)
	delete(st.byPod, p)
	st.live -= int64(was.n)
	st.recs[ri] = rec{}
	st.free = append(st.free, ri)
	st.undo = append(st.undo, func() {
		st.free = st.free[:len(st.free)-1]
		st.recs[ri] = was
		st.live += int64(was.n)
		st.bySandbox[s], st.byPod[p] = ri, ri
	})
}

// holder is the number of the record that holds an address.
func (st *state) holder(key Space, a netip.Addr) (uint32, bool) {
	ss, ok := st.spaces[key]
	if !ok {
		return 0, false
	}
	return ss.space.Holder(a)
}
