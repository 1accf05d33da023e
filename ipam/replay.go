package ipam

import (
	"bytes"
	"fmt"
)

// skip steps over one entry and returns its tag.
func (d *decoder) skip() byte {
	tag := d.byte()
	switch tag {
	case tagHead:
		d.byte()
		d.byte()
	case tagSpace:
		d.space()
	case tagRecord:
		d.bytes()
	case tagDelete:
		d.bytes()
		d.varint()
	case tagCool:
		d.uvarint()
		d.bytes()
		d.varint()
	case tagBlock:
		d.block()
	case tagGone:
		d.uvarint()
		d.prefix()
	case tagMeta:
		d.meta()
	case tagWhole, tagEnd:
	default:
		d.fail()
	}
	return tag
}

// replay applies a segment to the state. Whatever does not follow from what was said before is ErrCorrupt: two holders
// of one address, an address outside its node's blocks, a record deleted that was never made.
func (s *Service) replay(seg *segment, first uint64) (scanned, error) {
	now := s.opts.Clock().UnixNano()
	ready := now - int64(s.opts.Cooldown)
	return scan(seg.f, seg.gen, first, func(body []byte, off int64) error {
		d := decoder{b: body}
		for len(d.b) > 0 {
			if err := s.apply(&d, seg.gen, off+int64(len(body)), now); err != nil {
				return err
			}
			if d.bad {
				return fmt.Errorf("%w: entry cut short", ErrCorrupt)
			}
		}
		s.st.commit(ready)
		return nil
	})
}

func checkHead(body []byte) error {
	switch {
	case len(body) < 3 || body[0] != tagHead:
		return fmt.Errorf("%w: no head", ErrCorrupt)
	case body[1] < oldestVersion || body[1] > formatVersion:
		return fmt.Errorf("%w: version %d, this program knows %d", ErrVersion, body[1], formatVersion)
	}
	return nil
}

// apply reads one entry. end is where the body ends in the file. A time in the future, as after a clock was set back, is
// now: an address must not cool for ever.
func (s *Service) apply(d *decoder, gen uint64, end, now int64) error {
	switch tag := d.byte(); tag {
	case tagHead:
		d.byte()
		d.byte()
		s.st.forgetUnused() // as when this segment was begun; what still cools follows
	case tagSpace:
		return s.applySpace(d)
	case tagRecord:
		p := d.bytes()
		return s.applyRecord(p, rec{off: end - int64(len(d.b)) - int64(len(p)), gen: uint32(gen), n: uint32(len(p))})
	case tagDelete:
		sandbox, told := string(d.bytes()), d.varint()
		s.latest = max(s.latest, told)
		at := min(told, now)
		ri, ok := s.st.bySandbox[s.st.digest(sandbox)]
		if !ok {
			return fmt.Errorf("%w: sandbox %s deleted, but never made", ErrCorrupt, sandbox)
		}
		r, err := s.readRecord(ri)
		if err != nil {
			return err
		}
		s.st.remove(ri, r, at)
	case tagCool:
		ss, a, told := s.st.byID[uint32(d.uvarint())], d.addr(), d.varint()
		s.latest = max(s.latest, told)
		at := min(told, now)
		if ss == nil || d.bad || !ss.space.Geometry().CIDR.Contains(a) || !ss.space.Geometry().Claimed && !ss.space.Owns(a) {
			return fmt.Errorf("%w: freed address of no space", ErrCorrupt)
		}
		if _, held := ss.space.Holder(a); held {
			return fmt.Errorf("%w: freed address %s is held", ErrCorrupt, a)
		}
		s.st.touched = append(s.st.touched, ss)
		s.st.tx.Cool(ss.space, a, at)
	case tagBlock:
		return s.applyBlock(d)
	case tagGone:
		ss, p := s.st.byID[uint32(d.uvarint())], d.prefix()
		if ss == nil || d.bad {
			return fmt.Errorf("%w: block of no space", ErrCorrupt)
		}
		s.st.removeBlock(ss.key, p)
	case tagMeta:
		m := d.meta()
		s.latest = max(s.latest, m.Renewed, m.Renewing, m.LostSince)
		s.st.setMeta(m)
	case tagWhole, tagEnd:
	default:
		return fmt.Errorf("%w: entry of unknown kind %#x", ErrCorrupt, tag)
	}
	return nil
}

func (s *Service) applyBlock(d *decoder) error {
	id, b := d.block()
	s.latest = max(s.latest, b.Since)
	ss := s.st.byID[id]
	if d.bad || ss == nil || !ss.space.Geometry().Claimed || !ss.key.CIDR.Overlaps(b.CIDR) || b.CIDR.Bits() < ss.key.CIDR.Bits() {
		return fmt.Errorf("%w: block %s of no space", ErrCorrupt, b.CIDR)
	}
	b.Space = ss.key
	_, _, err := s.st.setBlock(b)
	return err
}

func (s *Service) applySpace(d *decoder) error {
	id, key, g := d.space()
	if d.bad {
		return fmt.Errorf("%w: space", ErrCorrupt)
	}
	ss, ok := s.st.byID[id]
	other := s.st.spaces[key]
	switch {
	case !ok && other == nil:
		s.st.addSpace(id, key, g)
	case !ok && other.space.Held() == 0: // forgotten for a segment that could not be begun, and made again
		delete(s.st.byID, other.id)
		s.st.addSpace(id, key, g)
	case !ok || ss.key != key:
		return fmt.Errorf("%w: space %d has two meanings", ErrCorrupt, id)
	case ss.space.Geometry() != g:
		if ss.space.Held() > 0 {
			return fmt.Errorf("%w: space %s was cut anew while in use", ErrCorrupt, key.CIDR)
		}
		ss.space = ss.space.Recut(g)
	}
	return nil
}

// applyRecord adds a record, or notes the new place of one that was carried over.
func (s *Service) applyRecord(p []byte, at rec) error {
	r, err := decodeRecord(p, s.st.spaceByID)
	if err != nil {
		return err
	}
	if ri, ok := s.st.bySandbox[s.st.digest(r.Sandbox)]; ok {
		old, err := s.payload(s.st.recs[ri])
		if err != nil {
			return err
		}
		if !bytes.Equal(old, p) {
			return fmt.Errorf("%w: sandbox %s has two records", ErrCorrupt, r.Sandbox)
		}
		at.serial = s.st.recs[ri].serial
		s.st.recs[ri] = at
		return nil
	}
	if _, ok := s.st.byPod[s.st.digest(r.PodUID)]; ok {
		return fmt.Errorf("%w: Pod %s/%s has two records", ErrCorrupt, r.Namespace, r.Pod)
	}
	ri := s.st.reserve()
	for _, h := range r.Holds {
		ss := s.st.spaces[h.Space]
		if !ss.covers(h.Addr) {
			return fmt.Errorf("%w: address %s of sandbox %s is not this node's", ErrCorrupt, h.Addr, r.Sandbox)
		}
		if _, held := ss.space.Holder(h.Addr); held {
			return fmt.Errorf("%w: address %s has two holders", ErrCorrupt, h.Addr)
		}
		s.st.touched = append(s.st.touched, ss)
		s.st.tx.Take(ss.space, h.Addr, ri)
	}
	s.st.put(ri, r.Sandbox, r.PodUID, at)
	return nil
}
