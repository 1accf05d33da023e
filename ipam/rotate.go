package ipam

import "net/netip"

// The journal stays bounded by copying: when the current segment has become much larger than what lives in it, a new one
// is begun, and each transaction takes some records of the old one along. When all have moved, the old one goes. There is
// no pause that grows with the number of records, and at every moment the two segments together say everything.

// moved is a record that the frame being filled states again.
type moved struct {
	ri  uint32
	off int64
}

// write makes the frame durable, if it says anything, and the state with it; or takes the state back.
func (s *Service) write(ready int64) error {
	if len(s.framed) == headerLen {
		s.st.commit(ready)
		return nil
	}
	err := s.carryOver()
	whole := false
	if err == nil {
		whole = s.j.old != nil && int(s.carry) >= len(s.st.recs)
		if whole && !s.whole {
			s.framed = append(s.framed, tagWhole)
		}
		s.framed = append(s.framed, tagEnd)
		err = s.j.append(s.framed)
	}
	s.framed = s.framed[:headerLen]
	if err != nil {
		s.st.rollback(mark{})
		s.st.touched = s.st.touched[:0]
		s.carried = s.carried[:0]
		s.carry = 0 // look again: what this frame would have carried is still in the old segment
		return err
	}
	if s.opts.HighWater != nil {
		s.opts.HighWater.Store(s.j.seq)
	}
	s.st.commit(ready)
	for _, m := range s.carried {
		s.st.recs[m.ri].off, s.st.recs[m.ri].gen = m.off, uint32(s.j.cur.gen)
	}
	s.carried = s.carried[:0]
	s.whole = whole
	s.tidy(ready)
	return nil
}

// carryOver adds records of the old segment to the frame: in proportion to what the frame holds, so that the work is
// done before the new segment has grown as large as the old one.
func (s *Service) carryOver() error {
	if s.j.old == nil {
		return nil
	}
	limit := len(s.framed) + max(carryStep, 4*len(s.framed))
	for ; int(s.carry) < len(s.st.recs) && len(s.framed) < limit; s.carry++ {
		at := s.st.recs[s.carry]
		if at.n == 0 || at.gen == uint32(s.j.cur.gen) {
			continue
		}
		p, err := s.payload(at)
		if err != nil {
			return err
		}
		var start int
		s.framed, start = appendPayload(s.framed, p)
		s.carried = append(s.carried, moved{s.carry, s.j.cur.end + int64(start)})
	}
	return nil
}

// tidy removes the old segment when it is not needed any more, or begins a new one when it is time. Neither can fail a
// request: what does not work now is tried again later.
func (s *Service) tidy(ready int64) {
	if s.j.old != nil {
		if !s.whole {
			return
		}
		if err := s.j.dropOld(); err != nil {
			s.opts.Log.Warn("old journal segment stays", "error", err)
			return
		}
		s.rotateAt = 0
	}
	if s.j.cur.end < max(s.opts.segmentMin, 4*s.st.live, s.rotateAt) {
		return
	}
	if err := s.j.rotate(s.preface(ready)); err != nil {
		s.rotateAt = s.j.cur.end + s.j.cur.end/4
		s.opts.Log.Warn("journal grows on", "error", err)
		return
	}
	if s.opts.HighWater != nil {
		s.opts.HighWater.Store(s.j.seq)
	}
	s.carry, s.whole = 0, false
}

// preface is what a new segment begins with: the spaces in use and the addresses that are cooling down. It forgets the
// spaces nobody needs.
func (s *Service) preface(ready int64) [][]byte {
	var out [][]byte
	b := append(make([]byte, headerLen), tagHead, formatVersion, 1)
	b = appendMeta(b, s.st.meta)
	for key, ss := range s.st.spaces {
		cooling := false
		ss.space.EachFreed(func(_ netip.Addr, at int64) { cooling = cooling || at > ready })
		if !cooling && ss.space.Held() == 0 && len(ss.blocks) == 0 {
			delete(s.st.spaces, key)
			delete(s.st.byID, ss.id)
			continue
		}
		b = appendSpace(b, ss.id, ss.key, ss.space.Geometry())
		for _, x := range ss.blocks {
			if len(b) > maxBatch {
				out = append(out, append(b, tagEnd))
				b = make([]byte, headerLen)
			}
			b = appendBlock(b, ss.id, x)
		}
		ss.space.EachFreed(func(a netip.Addr, at int64) {
			if at <= ready {
				return
			}
			if len(b) > maxBatch {
				out = append(out, append(b, tagEnd))
				b = make([]byte, headerLen)
			}
			b = appendCool(b, ss.id, a, at)
		})
	}
	return append(out, append(b, tagEnd))
}
