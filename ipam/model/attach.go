package model

// mayGive says whether a node gives out addresses that nobody has: it has asked the API since it started, or could not, and
// has renewed its lease within half a lease (R13).
func (x *explorer) mayGive(s *State, n uint8) bool {
	d := &s.Node[n]
	young := d.J.Renewed < halfLease
	if d.ClockBehind == 1 {
		young = x.r.NoR13Clock && d.J.Renewed < never
	}
	return d.On == 1 && d.Stopped == 0 && d.Halted == 0 && (d.Tried == 1 || x.r.NoR12Ask) && (young || x.r.NoR13)
}

// attach emits the ADDs and DELs of a Pod.
func (x *explorer) attach(s *State, p uint8) {
	q := s.Pod[p]
	if q.Node == 0 {
		return
	}
	n := q.Node - 1
	if s.Node[n].On != 1 {
		return
	}
	r := s.Node[n].J.Rec[p]
	switch {
	case q.Adding == 1:
		x.do(s, Step{Kind: linksUp, N: p, X: q.Boxes - 1}, func(t *State) { t.Pod[p].Adding, t.Pod[p].Link[q.Boxes-1] = 0, r.Addr })
		return // the sandbox's lock: no DEL meanwhile
	case q.Ended == 0 && r.Addr == 0:
		x.add(s, p, n)
	case q.Ended == 0 && r.Box != q.Boxes-1 && x.mayGive(s, n):
		x.do(s, Step{Kind: acquires, N: p, X: r.Addr - 1}, func(t *State) { // the record moves (R2)
			if !x.r.NoR2 {
				t.Pod[p].Link[r.Box] = 0
			}
			t.Node[n].J.Rec[p].Box, t.Pod[p].Adding = q.Boxes-1, 1
		})
	}
	x.del(s, p, n)
}

// add chooses an address, and journals it with the record before a link is made.
func (x *explorer) add(s *State, p, n uint8) {
	if !x.mayGive(s, n) || s.Pod[p].Link[s.Pod[p].Boxes-1] != 0 {
		return
	}
	w := x.sc.Want[p]
	for a := range uint8(addrs) {
		if w.At != 0 && w.At != a+1 || !x.mine(s, n, a, w) {
			continue
		}
		dynamic := w.At == 0
		if dynamic && s.Node[n].J.Cool[a] != 0 {
			continue
		}
		x.do(s, Step{Kind: acquires, N: p, X: a}, func(t *State) {
			t.Node[n].J.Rec[p] = record{Addr: a + 1, Box: t.Pod[p].Boxes - 1}
			t.Pod[p].Adding = 1
			t.Bad |= bit(dynamic) & t.Warm[a]
		})
	}
}

// mine says whether a node may give an address to a Pod with such a want, as its journal has it.
func (x *explorer) mine(s *State, n, a uint8, w want) bool {
	j := &s.Node[n].J
	for _, r := range j.Rec {
		if r.Addr == a+1 {
			return false
		}
	}
	if b := j.Single[a]; b.State == owned && (b.Kept == 1) == w.Kept {
		return true
	}
	if w.Kept {
		return false
	}
	for p := range j.Block {
		if j.Block[p].State == owned && x.sc.coveredBy(uint8(p), a) && j.Block[p].Ceded[a] == 0 {
			return true
		}
	}
	return false
}

// del takes links down, and then the record away, for one sandbox (R1).
func (x *explorer) del(s *State, p, n uint8) {
	q := s.Pod[p]
	for i := range q.Boxes {
		if q.Del[i] == 0 {
			continue
		}
		if q.Link[i] != 0 {
			x.do(s, Step{Kind: delLinks, N: p, X: i}, func(t *State) { t.down(&t.Pod[p], i) })
			continue
		}
		release := func(t *State) {
			r := t.Node[n].J.Rec[p]
			if r.Addr != 0 && (r.Box == i || x.r.NoR1) {
				x.release(t, p, n)
			}
			t.Pod[p].Del[i] = 0
		}
		x.do(s, Step{Kind: delRecord, N: p, X: i}, release)
		if s.Left.Repeat > 0 {
			x.do(s, Step{Kind: delRecord, N: p, X: i, Y: unanswered}, func(t *State) {
				t.Left.Repeat--
				release(t)
				t.Pod[p].Del[i] = 1
			})
		}
	}
	if q.Ended == 1 && q.Link == [boxes]uint8{} && q.Del == [boxes]uint8{} && s.Node[n].J.Rec[p].Addr != 0 {
		x.do(s, Step{Kind: sweeps, N: p}, func(t *State) { x.release(t, p, n) })
	}
}

// release frees what a record has.
func (x *explorer) release(t *State, p, n uint8) {
	j := &t.Node[n].J
	if !x.r.NoR3 {
		j.Cool[j.Rec[p].Addr-1] = 1
	}
	j.Rec[p] = record{}
}

// held says whether an address of a place, or the one of a Single, is in a record.
func (x *explorer) held(s *State, n uint8, mask uint8) bool {
	for _, r := range s.Node[n].J.Rec {
		if r.Addr != 0 && mask>>(r.Addr-1)&1 == 1 {
			return true
		}
	}
	return false
}

func (x *explorer) cooling(s *State, n uint8, mask uint8) bool {
	for a := range uint8(addrs) {
		if mask>>a&1 == 1 && s.Node[n].J.Cool[a] != 0 {
			return true
		}
	}
	return false
}
