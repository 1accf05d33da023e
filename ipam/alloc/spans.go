package alloc

import "slices"

// span is the inclusive run lo..hi.
type span struct{ lo, hi U128 }

// chunkLen bounds a chunk of a spanSet: inserting moves at most this many spans.
const chunkLen = 256

// spanSet is a set of numbers kept as disjoint spans that do not touch, in order, in chunks of at most chunkLen: full
// pools cost one span, and finding a gap costs two binary searches.
type spanSet struct{ chunks [][]span }

// find returns the chunk and place of the first span whose end is not before v; ok is false if there is none.
func (s *spanSet) find(v U128) (c, i int, ok bool) {
	c, _ = slices.BinarySearchFunc(s.chunks, v, func(chunk []span, v U128) int { return chunk[len(chunk)-1].hi.cmp(v) })
	if c == len(s.chunks) {
		return c, 0, false
	}
	i, _ = slices.BinarySearchFunc(s.chunks[c], v, func(x span, v U128) int { return x.hi.cmp(v) })
	return c, i, true
}

func (s *spanSet) contains(v U128) bool {
	c, i, ok := s.find(v)
	return ok && !v.less(s.chunks[c][i].lo)
}

// gap returns the first number in lo..hi that is not in the set.
func (s *spanSet) gap(lo, hi U128) (U128, bool) {
	c, i, ok := s.find(lo)
	if !ok || lo.less(s.chunks[c][i].lo) {
		return lo, true
	}
	end := s.chunks[c][i].hi
	if !end.less(hi) {
		return U128{}, false
	}
	return end.inc(), true
}

// gaps calls f for the runs of lo..hi that are not in the set, in order.
func (s *spanSet) gaps(lo, hi U128, f func(span)) {
	for {
		first, ok := s.gap(lo, hi)
		if !ok {
			return
		}
		end := hi
		if c, i, ok := s.find(first); ok && !hi.less(s.chunks[c][i].lo) {
			end = s.chunks[c][i].lo.dec()
		}
		f(span{first, end})
		if !end.less(hi) {
			return
		}
		lo = end.inc()
	}
}

// insert adds v, which is not in the set.
func (s *spanSet) insert(v U128) {
	c, i, ok := s.find(v)
	if !ok {
		s.append(v)
		return
	}
	next := &s.chunks[c][i]
	joinsNext := !v.isMax() && next.lo == v.inc()
	prev := s.before(c, i)
	joinsPrev := prev != nil && prev.hi.inc() == v
	switch {
	case joinsNext && joinsPrev:
		next.lo = prev.lo
		s.removeBefore(c, i)
	case joinsNext:
		next.lo = v
	case joinsPrev:
		prev.hi = v
	default:
		s.place(c, i, span{v, v})
	}
}

// append adds v behind every span.
func (s *spanSet) append(v U128) {
	if len(s.chunks) == 0 {
		s.chunks = append(s.chunks, []span{{v, v}})
		return
	}
	c := len(s.chunks) - 1
	i := len(s.chunks[c])
	if last := &s.chunks[c][i-1]; last.hi.inc() == v {
		last.hi = v
		return
	}
	s.place(c, i, span{v, v})
}

// remove takes v, which is in the set, out.
func (s *spanSet) remove(v U128) {
	c, i, _ := s.find(v)
	x := &s.chunks[c][i]
	switch {
	case x.lo == x.hi:
		s.drop(c, i)
	case x.lo == v:
		x.lo = v.inc()
	case x.hi == v:
		x.hi = v.dec()
	default:
		left := span{x.lo, v.dec()}
		x.lo = v.inc()
		s.place(c, i, left)
	}
}

func (s *spanSet) before(c, i int) *span {
	if i > 0 {
		return &s.chunks[c][i-1]
	}
	if c > 0 {
		return &s.chunks[c-1][len(s.chunks[c-1])-1]
	}
	return nil
}

func (s *spanSet) removeBefore(c, i int) {
	if i > 0 {
		s.drop(c, i-1)
		return
	}
	s.drop(c-1, len(s.chunks[c-1])-1)
}

func (s *spanSet) drop(c, i int) {
	s.chunks[c] = slices.Delete(s.chunks[c], i, i+1)
	if len(s.chunks[c]) == 0 {
		s.chunks = slices.Delete(s.chunks, c, c+1)
	}
}

func (s *spanSet) place(c, i int, x span) {
	s.chunks[c] = slices.Insert(s.chunks[c], i, x)
	if len(s.chunks[c]) <= chunkLen {
		return
	}
	half := slices.Clone(s.chunks[c][chunkLen/2:])
	s.chunks[c] = slices.Clip(s.chunks[c][:chunkLen/2])
	s.chunks = slices.Insert(s.chunks, c+1, half)
}

// subtract returns a without b; both are sorted and disjoint.
func subtract(a, b []span) []span {
	var out []span
	for _, x := range a {
		for _, y := range b {
			if y.hi.less(x.lo) {
				continue
			}
			if x.hi.less(y.lo) {
				break
			}
			if x.lo.less(y.lo) {
				out = append(out, span{x.lo, y.lo.dec()})
			}
			if !y.hi.less(x.hi) {
				x = span{u64(1), u64(0)} // nothing left
				break
			}
			x.lo = y.hi.inc()
		}
		if !x.hi.less(x.lo) {
			out = append(out, x)
		}
	}
	return out
}
