package ipam

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"danm.io/danm/ipam/alloc"
)

// A frame's body is a list of entries, each a tag and its fields: uvarints, and strings behind their uvarint length.
// Entries state facts (this record exists, that one is gone since then), so a record may be stated again.
const (
	tagHead   = 'H' // version, 1 if records of the segment before are needed
	tagSpace  = 'S' // id, the space, its geometry; again when the geometry changes
	tagRecord = 'R' // length of the rest; sandbox, pod UID, namespace, pod, holds, data; CRC-32C
	tagDelete = 'D' // sandbox, time: its addresses are free since then
	tagCool   = 'C' // space id, address, time: freed earlier
	tagBlock  = 'B' // space id, a block of addresses in its newest state
	tagGone   = 'G' // space id, prefix: a block that is not this node's any more
	tagMeta   = 'M' // what is known of the node
	tagWhole  = 'W' // every record of the segment before stands in this one
	tagEnd    = 0xa5

	formatVersion = 2 // 1 knew no blocks
	oldestVersion = 1
)

func appendString[T string | []byte](b []byte, s T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendSpace(b []byte, id uint32, sp Space, g alloc.Geometry) []byte {
	b = binary.AppendUvarint(append(b, tagSpace), uint64(id))
	b = appendString(b, sp.Domain)
	b = binary.AppendUvarint(b, uint64(sp.ID))
	b = append(b, bit(sp.VXLAN))
	b = appendString(b, sp.CIDR.Addr().AsSlice())
	slots := uint64(g.Slots)
	if g.Claimed {
		slots = 0
	}
	for _, n := range []uint64{uint64(sp.CIDR.Bits()), g.Block, uint64(g.Slot), slots} {
		b = binary.AppendUvarint(b, n)
	}
	return b
}

func bit(v bool) byte {
	if v {
		return 1
	}
	return 0
}

// appendRecord returns where the record's payload starts in b, to be found again by readRecord.
func appendRecord(b []byte, r Record, spaceID func(Space) uint32) (out []byte, start int) {
	p := appendString(nil, r.Sandbox)
	p = appendString(p, r.PodUID)
	p = appendString(p, r.Namespace)
	p = appendString(p, r.Pod)
	p = binary.AppendUvarint(p, uint64(len(r.Holds)))
	for _, h := range r.Holds {
		p = binary.AppendUvarint(p, uint64(spaceID(h.Space)))
		p = appendString(p, h.IfName)
		p = appendString(p, h.Addr.AsSlice())
	}
	p = appendString(p, r.Data)
	p = binary.LittleEndian.AppendUint32(p, checksum(p))
	return appendPayload(b, p)
}

func appendPayload(b, payload []byte) (out []byte, start int) {
	b = binary.AppendUvarint(append(b, tagRecord), uint64(len(payload)))
	return append(b, payload...), len(b)
}

func appendDelete(b []byte, sandbox string, at int64) []byte {
	return binary.AppendVarint(appendString(append(b, tagDelete), sandbox), at)
}

func appendCool(b []byte, id uint32, a netip.Addr, at int64) []byte {
	b = binary.AppendUvarint(append(b, tagCool), uint64(id))
	return binary.AppendVarint(appendString(b, a.AsSlice()), at)
}

func appendPrefix(b []byte, p netip.Prefix) []byte {
	return binary.AppendUvarint(appendString(b, p.Addr().AsSlice()), uint64(p.Bits()))
}

func appendBlock(b []byte, id uint32, x Block) []byte {
	b = binary.AppendUvarint(append(b, tagBlock), uint64(id))
	b = appendPrefix(b, x.CIDR)
	b = append(b, byte(x.State), bit(x.Single), bit(x.Borrowed), bit(x.Foreign))
	b = appendString(b, x.Reservation)
	b = appendString(b, x.UID)
	b = binary.AppendVarint(b, x.Since)
	b = binary.AppendUvarint(b, uint64(len(x.Ceded)))
	for _, c := range x.Ceded {
		b = appendString(b, c.Addr.AsSlice())
		b = appendString(b, c.UID)
		b = appendString(b, c.Node)
	}
	return b
}

func appendBlockGone(b []byte, id uint32, p netip.Prefix) []byte {
	return appendPrefix(binary.AppendUvarint(append(b, tagGone), uint64(id)), p)
}

func appendMeta(b []byte, m Meta) []byte {
	b = appendString(append(b, tagMeta), m.Node)
	b = appendString(b, m.Identity)
	for _, n := range []int64{m.Epoch, m.Raising, m.Renewed, m.Renewing, m.LostSince} {
		b = binary.AppendVarint(b, n)
	}
	b = binary.AppendUvarint(b, m.Version)
	b = appendString(b, m.Suspect)
	b = binary.AppendUvarint(b, uint64(len(m.Lost)))
	for _, s := range m.Lost {
		b = appendString(b, s)
	}
	return b
}

// decoder reads entries; the first error sticks.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *decoder) byte() byte {
	if len(d.b) == 0 {
		d.fail()
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

func (d *decoder) bytes() []byte {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.fail()
		return nil
	}
	out := d.b[:n]
	d.b = d.b[n:]
	return out
}

func (d *decoder) addr() netip.Addr {
	a, ok := netip.AddrFromSlice(d.bytes())
	if !ok {
		d.fail()
	}
	return a
}

func (d *decoder) fail() { d.b, d.bad = nil, true }

func (d *decoder) space() (id uint32, sp Space, g alloc.Geometry) {
	id = uint32(d.uvarint())
	sp = Space{Domain: string(d.bytes()), ID: uint32(d.uvarint()), VXLAN: d.byte() == 1}
	sp.CIDR = netip.PrefixFrom(d.addr(), int(d.uvarint()))
	g = alloc.Geometry{CIDR: sp.CIDR, Block: d.uvarint(), Slot: int(d.uvarint()), Slots: int(d.uvarint())}
	if g.Slots == 0 {
		g.Slots, g.Claimed = 1, true
	}
	if !sp.CIDR.IsValid() || g.Block == 0 || g.Slots < 1 || g.Slot < 0 || g.Slot >= g.Slots {
		d.fail()
	}
	return id, sp, g
}

func (d *decoder) prefix() netip.Prefix {
	a, bits := d.addr(), int(d.uvarint())
	p := netip.PrefixFrom(a, bits)
	if !p.IsValid() || p.Masked() != p {
		d.fail()
	}
	return p
}

func (d *decoder) block() (id uint32, x Block) {
	id = uint32(d.uvarint())
	x.CIDR = d.prefix()
	x.State, x.Single, x.Borrowed, x.Foreign = BlockState(d.byte()), d.byte() == 1, d.byte() == 1, d.byte() == 1
	x.Reservation, x.UID, x.Since = string(d.bytes()), string(d.bytes()), d.varint()
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		x.Ceded = append(x.Ceded, Cession{Addr: d.addr(), UID: string(d.bytes()), Node: string(d.bytes())})
	}
	if stateNames[x.State] == "" {
		d.fail()
	}
	return id, x
}

func (d *decoder) meta() (m Meta) {
	m.Node, m.Identity = string(d.bytes()), string(d.bytes())
	for _, n := range []*int64{&m.Epoch, &m.Raising, &m.Renewed, &m.Renewing, &m.LostSince} {
		*n = d.varint()
	}
	m.Version, m.Suspect = d.uvarint(), string(d.bytes())
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		m.Lost = append(m.Lost, string(d.bytes()))
	}
	return m
}

// decodeRecord is the inverse of appendRecord for one payload.
func decodeRecord(p []byte, space func(uint32) (Space, bool)) (Record, error) {
	if len(p) < 4 || checksum(p[:len(p)-4]) != binary.LittleEndian.Uint32(p[len(p)-4:]) {
		return Record{}, fmt.Errorf("%w: checksum of a record", ErrCorrupt)
	}
	d := decoder{b: p[:len(p)-4]}
	r := Record{Sandbox: string(d.bytes()), PodUID: string(d.bytes()), Namespace: string(d.bytes()), Pod: string(d.bytes())}
	for n := d.uvarint(); n > 0 && !d.bad; n-- {
		sp, ok := space(uint32(d.uvarint()))
		if !ok {
			return Record{}, fmt.Errorf("%w: record of sandbox %s names an unknown space", ErrCorrupt, r.Sandbox)
		}
		r.Holds = append(r.Holds, Hold{Space: sp, IfName: string(d.bytes()), Addr: d.addr()})
	}
	if data := d.bytes(); len(data) > 0 {
		r.Data = append([]byte(nil), data...)
	}
	if d.bad || len(d.b) > 0 {
		return Record{}, fmt.Errorf("%w: record of sandbox %s", ErrCorrupt, r.Sandbox)
	}
	return r, nil
}
