package model

// life emits how an agent begins, renews its lease, and compares its journal with the API.
func (x *explorer) life(s *State, n uint8) {
	d := &s.Node[n]
	if d.On != 1 || d.Stopped == 1 {
		return
	}
	if d.Tried == 0 && d.Started == 0 && d.Cut == 1 {
		x.do(s, Step{Kind: goesOnAlone, N: n}, func(t *State) { t.Node[n].Tried = 1 })
	}
	if d.Cut == 1 || s.API.Node[n] == 0 {
		return
	}
	switch {
	case d.Started == 0 && d.Starting == 0:
		x.do(s, Step{Kind: startReads, N: n}, func(t *State) { x.startReads(t, n) })
	case d.Started == 0:
		x.startWrites(s, n)
	case d.J.Renewed > 0 || d.J.Ident != s.identity(n) || s.Restored == 1 && d.J.Seen == 1 && d.J.Suspect == 0 || s.API.Lease[n].Epoch != d.J.Epoch:
		x.renews(s, n)
	}
}

// startReads compares journal and lease (R12, R18), and journals what is about to be written.
func (x *explorer) startReads(t *State, n uint8) {
	d, l := &t.Node[n], t.API.Lease[n]
	j := &d.J
	again := j.Ident != 0 && j.Ident != t.identity(n)
	lost, suspect := false, false
	switch {
	case l.There == 0:
		suspect = j.Epoch > 0 && !again
		d.Fenced = bit(!suspect)
	case x.r.NoR12:
	case l.Epoch > j.Epoch && l.Epoch != j.Raising:
		lost = true
	case l.Epoch < j.Epoch:
		suspect = true
	case l.Age < min(j.Renewed, j.Renewing):
		lost = true
	}
	if again || l.Off != 0 && l.Off == j.Ident {
		d.Fenced = 1
	}
	if lost {
		x.freezeAll(t, n)
	}
	if suspect && !x.r.NoR18 {
		j.Suspect = 1
	}
	j.Raising = max(j.Epoch, j.Raising, l.Epoch) + 1
	j.Ident, j.Renewing = t.identity(n), 0
	d.Starting = 1
}

func bit(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

func (x *explorer) startWrites(s *State, n uint8) {
	write := func(t *State) {
		d := &t.Node[n]
		t.putLease(n, d.J.Raising)
		d.Starting, d.J.Renewing = 0, 0
	}
	x.do(s, Step{Kind: startWrites, N: n}, func(t *State) {
		write(t)
		d := &t.Node[n]
		d.J.Epoch, d.J.Renewed = d.J.Raising, 0
		d.Started, d.Tried, d.ClockBehind, d.Halted = 1, 1, 0, 0
		x.resync(t, n)
		d.Fenced = 0
	})
	if s.Left.Lost > 0 {
		x.do(s, Step{Kind: startWrites, N: n, Y: unanswered}, func(t *State) {
			t.Left.Lost--
			write(t)
			t.Node[n].Tried, t.Node[n].Fenced = 1, 0
		})
	}
}

func (t *State) putLease(n, epoch uint8) {
	l := &t.API.Lease[n]
	if l.There == 0 || l.Ident != t.Node[n].J.Ident {
		l.Acquired = 0
	}
	if l.Epoch != epoch {
		l.Off = 0
	}
	l.There, l.Epoch, l.Ident, l.Age = 1, epoch, t.Node[n].J.Ident, 0
}

func (x *explorer) renews(s *State, n uint8) {
	l := s.API.Lease[n]
	switch j := &s.Node[n].J; {
	case j.Ident != s.identity(n), l.There == 0, l.Epoch < j.Epoch:
		x.do(s, Step{Kind: renews, N: n}, func(t *State) { t.Node[n].Started, t.Node[n].Halted = 0, 1 })
		return
	case l.Epoch > j.Epoch || l.Off == j.Ident:
		x.do(s, Step{Kind: renews, N: n}, func(t *State) { t.agentDies(n); t.Node[n].Stopped = 1 })
		return
	}
	x.do(s, Step{Kind: renews, N: n}, func(t *State) {
		t.putLease(n, t.Node[n].J.Epoch)
		t.Node[n].J.Renewing, t.Node[n].J.Renewed = 0, 0
		x.resync(t, n)
	})
	if s.Left.Lost > 0 {
		x.do(s, Step{Kind: renews, N: n, Y: unanswered}, func(t *State) {
			t.Left.Lost--
			t.Node[n].J.Renewing = 0
			t.putLease(n, t.Node[n].J.Epoch)
		})
	}
}

// alive are the sandboxes that a node can see on its machine.
func (t *State) alive(n uint8) (mask uint8) {
	for p := range t.Pod {
		for i := range t.Pod[p].Link {
			if t.Pod[p].Node == n+1 && t.Pod[p].Link[i] != 0 {
				mask |= 1 << (p*boxes + i)
			}
		}
	}
	return mask
}

func (x *explorer) freezeAll(t *State, n uint8) {
	j := &t.Node[n].J
	for _, bs := range [][]jblock{j.Block[:], j.Single[:]} {
		for i := range bs {
			if s := bs[i].State; s == claiming || s == asked || s == owned {
				bs[i].State = frozen
			}
		}
	}
	j.Lost, j.Thawing = j.Lost|t.alive(n), 3
}

// contact is what any answer of the API tells: whether it went back in time (R18).
func (x *explorer) contact(t *State, n uint8) {
	j := &t.Node[n].J
	switch {
	case t.Restored == 1 && j.Seen == 1 && !x.r.NoR18:
		j.Suspect = 1
	case t.HasSaved == 1:
		j.Seen = 1
	}
}

// resync brings the journal to what may be relied on.
func (x *explorer) resync(t *State, n uint8) {
	x.contact(t, n)
	j := &t.Node[n].J
	for i := range t.API.Block {
		x.resyncOne(t, n, &t.API.Block[i], &j.Block[i], false)
	}
	for i := range t.API.Single {
		x.resyncOne(t, n, &t.API.Single[i], &j.Single[i], true)
	}
}

func (x *explorer) resyncOne(t *State, n uint8, o *object, b *jblock, single bool) {
	j := &t.Node[n].J
	if o.There == 0 || o.Owner != n+1 {
		x.missing(t, n, o, b, single)
		return
	}
	if b.State == none || b.UID != 0 && b.UID != o.UID {
		*b = jblock{State: frozen, UID: o.UID, Kept: o.Kept, Ceded: b.Ceded} // what was ceded of another of that name may still be used
		j.Lost, j.Thawing = j.Lost|t.alive(n), 3
		if x.r.NoR6 {
			b.State, j.Thawing = owned, 0
		}
	}
	if b.State == frozen && b.UID == 0 { // a claim that was under way when the journal was found lost
		b.UID = o.UID
	}
	for a, u := range o.Ceded {
		if b.Ceded[a] == 0 && u != 0 {
			b.Ceded[a] = u
		}
	}
	b.Told = bit(b.Ceded == o.Ceded)
	if b.State == releasing && b.Ceded != [addrs]uint8{} && !x.r.NoR9Ceded { // of the time before the backup: it stays for them
		b.State = frozen
	}
	if b.State == claiming {
		b.adopt(o, single, j.Suspect == 1)
	}
	if b.State == owned {
		o.Ident = j.Ident
	}
	if single && b.State == owned && j.Suspect == 1 && !t.listed(x.sc, j, b) && !t.heldIn(x.sc, n, b, true) {
		b.State = releasing // the owner of the block around it may not know of it any more
	}
}

// listed says whether the block around a Single lists it.
func (t *State) listed(sc *Scenario, j *journal, b *jblock) bool {
	_, a := j.at(b)
	o := &t.API.Block[sc.around(uint8(a))]
	return o.There == 1 && cededUID(o.Ceded[a]) == b.UID
}

// adopt is a claim that is seen to have succeeded.
func (b *jblock) adopt(o *object, single, suspect bool) {
	b.State, b.UID, b.Told = owned, o.UID, 1
	switch {
	case suspect: // it may be of a life before the backup, and another's since
		b.State = frozen
	case single && o.Kept == 0:
		b.State = asked
	}
}

// missing is a block that the journal has, and the API's list of the node's does not.
func (x *explorer) missing(t *State, n uint8, o *object, b *jblock, single bool) {
	j := &t.Node[n].J
	switch {
	case b.State == none || b.State == claiming || b.State == releasing:
	case b.State == parking || b.State == asked || b.State == frozen && j.Suspect == 0 || t.Node[n].Fenced == 1 || o.There == 1 || b.UID == 0:
		if t.heldIn(x.sc, n, b, single) {
			b.State, b.UID = frozen, 0
			return
		}
		*b = jblock{}
	case single && !t.listed(x.sc, j, b) && !t.heldIn(x.sc, n, b, true): // the owner of the block around it may not know of it any more
		*b = jblock{}
	default: // the API is from a backup: whoever is first has it
		if !x.r.NoR18 {
			j.Suspect = 1
		}
		*o = object{There: 1, UID: t.uid(), Owner: n + 1, Ident: j.Ident, Kept: b.Kept, Ceded: b.Ceded}
		if single {
			_, a := j.at(b)
			o.Asked = x.sc.around(uint8(a)) + 1
		}
		b.UID = o.UID
	}
}

// at is where a journal's block is.
func (j *journal) at(b *jblock) (place, addr int) {
	for i := range j.Block {
		if &j.Block[i] == b {
			return i, -1
		}
	}
	for i := range j.Single {
		if &j.Single[i] == b {
			return -1, i
		}
	}
	panic("no block of this journal")
}

func (t *State) heldIn(sc *Scenario, n uint8, b *jblock, single bool) bool {
	place, addr := t.Node[n].J.at(b)
	for _, r := range t.Node[n].J.Rec {
		if r.Addr != 0 && (single && addr == int(r.Addr-1) || !single && sc.coveredBy(uint8(place), r.Addr-1)) {
			return true
		}
	}
	return false
}
