package model

// keep emits what an agent does with blocks: claim, give back, thaw. It needs the API for all of it.
func (x *explorer) keep(s *State, n uint8) {
	d := &s.Node[n]
	if d.On != 1 || d.Cut == 1 || d.Started == 0 || d.Stopped == 1 {
		return
	}
	if !x.r.NoR18 && s.Restored == 1 && d.J.Seen == 1 && d.J.Suspect == 0 {
		return // any answer tells the API's version: it compares first
	}
	for p := range uint8(places) {
		if x.sc.Cover[p] != 0 {
			x.keepBlock(s, n, p)
		}
	}
	for a := range uint8(addrs) {
		if x.sc.has(a) {
			x.keepSingle(s, n, a)
		}
	}
	x.thaw(s, n)
}

// needs says whether a Pod of the node waits for an address of the mask.
func (x *explorer) needs(s *State, n, mask uint8, kept bool) bool {
	for p := range x.sc.Want {
		q, w := s.Pod[p], x.sc.Want[p]
		if q.Node != n+1 || q.Ended == 1 || s.Node[n].J.Rec[p].Addr != 0 || w.Kept != kept || w.At != 0 && mask>>(w.At-1)&1 == 0 {
			continue
		}
		some := false
		for a := range uint8(addrs) {
			some = some || (w.At == 0 || w.At == a+1) && x.mine(s, n, a, w)
		}
		if !some {
			return true
		}
	}
	return false
}

func (x *explorer) mayClaim(s *State, n uint8) bool {
	return x.mayGive(s, n) && s.API.Root == 1 && s.Node[n].J.Suspect == 0
}

func (x *explorer) keepBlock(s *State, n, p uint8) {
	j, o := &s.Node[n].J, s.API.Block[p]
	b := j.Block[p]
	switch b.State {
	case none:
		if x.mayClaim(s, n) && x.cuts(n, p) && x.needs(s, n, x.sc.Cover[p], false) {
			x.claim(s, n, p)
		}
	case claiming:
		if x.r.NoR5Settle || !s.comes(n, msgCreateBlock, p) { // no creation can land any more
			x.do(s, Step{Kind: settles, N: n, X: p}, func(t *State) { t.Node[n].J.settle(&t.Node[n].J.Block[p], &o, n, false) })
		}
	case owned:
		x.keepCeded(s, n, p)
		mask := x.sc.Cover[p]
		if (x.r.NoR9Held || !x.held(s, n, mask)) && (x.r.NoR9Ceded || b.Ceded == [addrs]uint8{}) && (x.r.NoR9Cooling || !x.cooling(s, n, mask)) && !x.needsOwn(s, n, p) {
			x.do(s, Step{Kind: givesBack, N: n, X: p}, func(t *State) { t.Node[n].J.Block[p].State = releasing })
		}
	case releasing:
		x.finish(s, n, p)
	}
}

// cuts says whether a place is a block of the space as the node knows it (R16).
func (x *explorer) cuts(n, p uint8) bool {
	if x.r.NoR16 {
		return x.sc.Cut[n]>>p&1 == 1
	}
	return x.sc.around(uint8(lowest(x.sc.Cover[p]))) == p
}

func lowest(mask uint8) (i int) {
	for mask>>i&1 == 0 {
		i++
	}
	return i
}

// needsOwn keeps a block that was just claimed for a Pod from going back before the Pod has it.
func (x *explorer) needsOwn(s *State, n, p uint8) bool {
	for i, w := range x.sc.Want {
		q := s.Pod[i]
		if q.Node == n+1 && q.Ended == 0 && s.Node[n].J.Rec[i].Addr == 0 && !w.Kept && (w.At == 0 || x.sc.coveredBy(p, w.At-1)) {
			return true
		}
	}
	return false
}

// comes says whether a call of a node may land yet.
func (s *State) comes(n, kind, at uint8) bool {
	for _, m := range s.Net {
		if m.Kind == kind && m.From == n+1 && m.At == at {
			return true
		}
	}
	return false
}

func (x *explorer) claim(s *State, n, p uint8) {
	m := message{Kind: msgCreateBlock, From: n + 1, At: p, Is: object{Owner: n + 1, Ident: s.Node[n].J.Ident}}
	x.write(s, Step{Kind: claims, N: n, X: p}, m, func(t *State) {
		b := &t.Node[n].J.Block[p]
		switch {
		case x.r.NoR5Decides:
			*b = jblock{State: owned, Told: 1, UID: t.API.Block[p].UID}
		case !x.r.NoR5Journal:
			*b = jblock{State: claiming}
		}
		x.contact(t, n)
	}, func(t *State, ok bool) {
		b := &t.Node[n].J.Block[p]
		switch {
		case ok || t.API.Block[p].Owner == n+1:
			*b = jblock{State: owned, Told: 1, UID: t.API.Block[p].UID}
		default:
			*b = jblock{}
		}
	})
}

// settle finds out what became of a claim without an answer.
func (j *journal) settle(b *jblock, o *object, n uint8, single bool) {
	if o.There == 0 || o.Owner != n+1 {
		*b = jblock{}
		return
	}
	b.adopt(o, single, j.Suspect == 1)
}

// finish deletes what is being released, until it is seen gone (R8).
func (x *explorer) finish(s *State, n, p uint8) {
	o, b := s.API.Block[p], s.Node[n].J.Block[p]
	if o.There == 0 || o.UID != b.UID || o.Owner != n+1 {
		x.do(s, Step{Kind: finishes, N: n, X: p}, func(t *State) { t.Node[n].J.Block[p] = jblock{} })
		return
	}
	m := message{Kind: msgDeleteBlock, From: n + 1, At: p, UID: b.UID}
	x.write(s, Step{Kind: finishes, N: n, X: p}, m, func(*State) {}, func(t *State, _ bool) { t.Node[n].J.Block[p] = jblock{} })
	if x.r.NoR8 {
		x.do(s, Step{Kind: settles, N: n, X: p}, func(t *State) { t.Node[n].J.Block[p].State = owned })
	}
}

// thaw waits until everything is gone that was seen when the journal was found lost, and has been for a cooldown (R7).
func (x *explorer) thaw(s *State, n uint8) {
	j := &s.Node[n].J
	switch {
	case j.Suspect == 1 && !x.r.NoR18Thaw:
	case j.Thawing == 3 && (s.alive(n)&j.Lost == 0 || x.r.NoR7):
		x.do(s, Step{Kind: rechecks, N: n}, func(t *State) { t.Node[n].J.Lost, t.Node[n].J.Thawing = 0, 2 })
	case j.Thawing == 1 || j.Thawing == 0 && s.thawable(n):
		x.do(s, Step{Kind: thaws, N: n}, func(t *State) {
			j := &t.Node[n].J
			j.Thawing = 0
			for i := range j.Block {
				x.thawOne(t, n, &t.API.Block[i], &j.Block[i])
			}
			for i := range j.Single {
				b, o := &j.Single[i], &t.API.Single[i]
				if !x.sc.has(uint8(i)) {
					continue
				}
				x.thawOne(t, n, o, b)
				if b.State == owned && b.Kept == 0 && cededUID(t.API.Block[x.sc.around(uint8(i))].Ceded[i]) != b.UID {
					if b.State = releasing; t.heldIn(x.sc, n, b, true) { // it may never have been ceded; but while a Pod has it, it stays
						b.State = frozen
					}
				}
			}
		})
	}
}

// thawable says whether a block waits for nothing more.
func (s *State) thawable(n uint8) bool {
	can := func(b *jblock, o *object) bool {
		return b.State == frozen && b.UID != 0 && (o.There == 0 || o.UID != b.UID || machineOf(o.Ident) == machineOf(s.Node[n].J.Ident))
	}
	j := &s.Node[n].J
	for i := range j.Block {
		if can(&j.Block[i], &s.API.Block[i]) {
			return true
		}
	}
	for i := range j.Single {
		if can(&j.Single[i], &s.API.Single[i]) {
			return true
		}
	}
	return false
}

func (x *explorer) thawOne(t *State, n uint8, o *object, b *jblock) {
	switch {
	case b.State != frozen || b.UID == 0:
	case o.There == 0 || o.Owner != n+1 || o.UID != b.UID:
		*b = jblock{}
	case machineOf(o.Ident) != machineOf(t.Node[n].J.Ident): // what lives there cannot be seen from here: the controller frees it
	default:
		b.State, o.Ident = owned, t.Node[n].J.Ident
	}
}
