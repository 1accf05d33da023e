package model

// keepCeded emits what the owner of a block does for others: it journals a cession, then lists it (R10), and has it back
// when the Single is gone (R11).
func (x *explorer) keepCeded(s *State, n, p uint8) {
	j := &s.Node[n].J
	b, o := j.Block[p], s.API.Block[p]
	for a := range uint8(addrs) {
		if !x.sc.coveredBy(p, a) {
			continue
		}
		if x.cedable(s, n, p, a) {
			x.do(s, Step{Kind: cedes, N: n, X: a}, func(t *State) { x.cede(t, n, p, a) })
		}
		if b.Ceded[a] != 0 && x.returned(s, b.Ceded[a], a) {
			x.takeBack(s, n, p, a)
		}
	}
	if b.Told == 0 && o.There == 1 && o.UID == b.UID {
		m := message{Kind: msgUpdateBlock, From: n + 1, At: p, Was: o, Is: o}
		m.Is.Ceded = b.Ceded
		x.write(s, Step{Kind: lists, N: n, X: p}, m, func(*State) {}, func(t *State, ok bool) { t.Node[n].J.Block[p].Told = bit(ok) })
	}
}

// takeBack ends a cession whose Single is gone. A Single of the same node in its place goes on with it: that node knows what
// it does with the address.
func (x *explorer) takeBack(s *State, n, p, a uint8) {
	c := s.Node[n].J.Block[p].Ceded[a]
	one := s.API.Single[a]
	goesOn := one.There == 1 && one.UID != cededUID(c) && one.Owner == cededTo(c) && !x.held(s, n, 1<<a) && s.Node[n].J.Cool[a] == 0
	if !goesOn && s.Node[n].J.Suspect == 1 && !x.r.NoR18TakeBack {
		return
	}
	x.do(s, Step{Kind: takesBack, N: n, X: a}, func(t *State) {
		b := &t.Node[n].J.Block[p]
		if b.Ceded[a], b.Told = 0, 0; goesOn {
			b.Ceded[a] = cession(&one)
			return
		}
		t.Node[n].J.Cool[a] = bit(!x.r.NoR11Cool)
	})
}

// cedable says whether a Single asks for an address that the owner can spare.
func (x *explorer) cedable(s *State, n, p, a uint8) bool {
	one, j := &s.API.Single[a], &s.Node[n].J
	if one.There == 0 || one.Asked != p+1 || j.Block[p].Ceded[a] != 0 || x.r.NoR4 {
		return false
	}
	return !x.held(s, n, 1<<a) && j.Cool[a] == 0
}

func (x *explorer) cede(t *State, n, p, a uint8) {
	b, o := &t.Node[n].J.Block[p], &t.API.Block[p]
	if x.r.NoR10Journal && o.There == 1 && o.UID == b.UID && o.Ceded[a] != cession(&t.API.Single[a]) {
		o.Ceded[a] = cession(&t.API.Single[a]) // listed; the journal comes next
		return
	}
	b.Ceded[a] = cession(&t.API.Single[a])
	b.Told = bit(b.Ceded == o.Ceded)
}

// returned says whether the Single of a cession is gone.
func (x *explorer) returned(s *State, c, a uint8) bool {
	one := &s.API.Single[a]
	if x.r.NoR11Gone && cededTo(c) > 0 && s.Node[cededTo(c)-1].Cut == 1 {
		return true
	}
	return one.There == 0 || one.UID != cededUID(c)
}

// keepSingle emits what an asker does.
func (x *explorer) keepSingle(s *State, n, a uint8) {
	j, o := &s.Node[n].J, s.API.Single[a]
	b := j.Single[a]
	switch b.State {
	case none:
		x.ask(s, n, a)
	case claiming:
		if !s.comes(n, msgCreateSingle, a) && !s.comes(n, msgUpdateSingle, a) {
			x.do(s, Step{Kind: settles, N: n, X: a, Y: answered}, func(t *State) { t.Node[n].J.settle(&t.Node[n].J.Single[a], &o, n, true) })
		}
	case asked:
		c := s.API.Block[x.sc.around(a)].Ceded[a]
		if cededUID(c) == b.UID || x.r.NoR10UID && c != 0 {
			x.do(s, Step{Kind: seesListed, N: n, X: a}, func(t *State) { t.Node[n].J.Single[a].State = owned })
		}
		x.do(s, Step{Kind: givesUp, N: n, X: a}, func(t *State) { t.Node[n].J.Single[a].State = releasing })
	case owned:
		x.letGo(s, n, a)
	case releasing:
		x.finishSingle(s, n, a)
	case parking:
		x.park(s, n, a)
	}
}

// ask creates a Single for an address in a block of another, or takes a parked one (R20).
func (x *explorer) ask(s *State, n, a uint8) {
	p := x.sc.around(a)
	o := s.API.Single[a]
	if !x.mayClaim(s, n) {
		return
	}
	if x.needs(s, n, 1<<a, true) && o.There == 1 && o.Kept == 1 && o.Owner == 0 {
		m := message{Kind: msgUpdateSingle, From: n + 1, At: a, Was: o, Is: o}
		m.Is.Owner, m.Is.Ident = n+1, s.Node[n].J.Ident
		x.write(s, Step{Kind: takes, N: n, X: a}, m, func(t *State) { t.Node[n].J.Single[a] = jblock{State: claiming, Kept: 1} }, func(t *State, ok bool) {
			t.Node[n].J.Single[a] = jblock{}
			if ok {
				t.Node[n].J.Single[a] = jblock{State: owned, Kept: 1, UID: o.UID}
			}
		})
	}
	around := s.API.Block[p]
	others := around.There == 1 && around.Owner != n+1 && s.Node[n].J.Block[p].State == none
	if !others || !x.needs(s, n, 1<<a, false) || !x.wanted(s, n, a) {
		return
	}
	if x.r.NoR4 {
		x.do(s, Step{Kind: writesForeign, N: n, X: a}, func(t *State) {
			if o := &t.API.Single[a]; o.There == 0 && t.API.Block[p].Ceded[a] == 0 {
				*o = object{There: 1, UID: t.uid(), Owner: n + 1, Ident: s.Node[n].J.Ident, Asked: p + 1}
				t.API.Block[p].Ceded[a] = cession(o)
				t.Node[n].J.Single[a] = jblock{State: owned, UID: o.UID, Told: 1}
			}
		})
		return
	}
	m := message{Kind: msgCreateSingle, From: n + 1, At: a, Is: object{Owner: n + 1, Ident: s.Node[n].J.Ident, Asked: p + 1}}
	x.write(s, Step{Kind: asks, N: n, X: a}, m, func(t *State) { t.Node[n].J.Single[a] = jblock{State: claiming}; x.contact(t, n) }, func(t *State, ok bool) {
		b := &t.Node[n].J.Single[a]
		*b = jblock{}
		if ok {
			*b = jblock{State: asked, UID: t.API.Single[a].UID, Told: 1}
			if x.r.NoR10Listed {
				b.State = owned
			}
		}
	})
}

// wanted says whether an address of another's block is asked for: by a Pod that wants this one, or any where all are claimed.
func (x *explorer) wanted(s *State, n, a uint8) bool {
	for i, w := range x.sc.Want {
		if q := s.Pod[i]; q.Node == n+1 && q.Ended == 0 && s.Node[n].J.Rec[i].Addr == 0 && !w.Kept && (w.At == a+1 || w.At == 0 && x.sc.Borrow) {
			return true
		}
	}
	return false
}

// letGo gives back a Single that nobody has; one with a reservation is handed to nobody (R20).
func (x *explorer) letGo(s *State, n, a uint8) {
	b := s.Node[n].J.Single[a]
	for i, w := range x.sc.Want {
		if q := s.Pod[i]; q.Node == n+1 && q.Ended == 0 && s.Node[n].J.Rec[i].Addr == 0 && w.Kept == (b.Kept == 1) && (w.At == 0 || w.At == a+1) {
			return // it was had for this Pod
		}
	}
	unheld := !x.held(s, n, 1<<a) || x.r.NoR20Park && b.Kept == 1 && x.gone(s, n, a)
	if !unheld { // it need not cool here: its owner sees to that
		return
	}
	x.do(s, Step{Kind: letsGo, N: n, X: a}, func(t *State) {
		t.Node[n].J.Single[a].State = releasing
		if b.Kept == 1 {
			t.Node[n].J.Single[a].State = parking
		}
	})
}

// gone says whether the Pod that has an address is gone from the API.
func (x *explorer) gone(s *State, n, a uint8) bool {
	for p, r := range s.Node[n].J.Rec {
		if r.Addr == a+1 && s.Pod[p].Ended == 0 {
			return false
		}
	}
	return true
}

func (x *explorer) finishSingle(s *State, n, a uint8) {
	o, b := s.API.Single[a], s.Node[n].J.Single[a]
	if o.There == 0 || o.UID != b.UID || o.Owner != n+1 {
		x.do(s, Step{Kind: finishesSingle, N: n, X: a}, func(t *State) { t.Node[n].J.Single[a] = jblock{} })
		return
	}
	m := message{Kind: msgDeleteSingle, From: n + 1, At: a, UID: b.UID}
	x.write(s, Step{Kind: finishesSingle, N: n, X: a}, m, func(*State) {}, func(t *State, _ bool) { t.Node[n].J.Single[a] = jblock{} })
}

func (x *explorer) park(s *State, n, a uint8) {
	o, b := s.API.Single[a], s.Node[n].J.Single[a]
	if o.There == 0 || o.UID != b.UID || o.Owner != n+1 {
		x.do(s, Step{Kind: parks, N: n, X: a}, func(t *State) { t.Node[n].J.Single[a] = jblock{} })
		return
	}
	m := message{Kind: msgUpdateSingle, From: n + 1, At: a, Was: o, Is: o}
	m.Is.Owner = 0
	x.write(s, Step{Kind: parks, N: n, X: a}, m, func(*State) {}, func(t *State, ok bool) {
		if ok {
			t.Node[n].J.Single[a] = jblock{}
		}
	})
}
