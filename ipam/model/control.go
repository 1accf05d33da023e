package model

// control emits what the controller does, each write under the condition that nobody wrote between.
func (x *explorer) control(s *State) {
	switch {
	case s.Ctl.Imported == 0:
		x.do(s, Step{Kind: imports}, func(t *State) { x.importOld(t) })
		if x.r.NoR19 && s.API.Root == 0 {
			x.do(s, Step{Kind: makesRoot}, func(t *State) { t.API.Root = 1 })
		}
	case s.API.Root == 0:
		x.do(s, Step{Kind: makesRoot}, func(t *State) { t.API.Root = 1 })
	}
	for p := range uint8(places) {
		o := s.API.Block[p]
		if o.There == 0 {
			continue
		}
		if o.Owner == 0 {
			x.orphan(s, p)
		} else if x.fenced(s, &o) {
			x.do(s, Step{Kind: freesBlock, X: p}, func(t *State) {
				if b := &t.API.Block[p]; b.Ceded == [addrs]uint8{} || x.r.NoR15 {
					*b = object{}
				} else {
					b.Owner, b.Ident = 0, 0
				}
			})
		}
	}
	for a := range uint8(addrs) {
		o := s.API.Single[a]
		switch {
		case o.There == 0:
		case o.Owner == 0 && x.keptFor(s) == 0:
			x.do(s, Step{Kind: keptEnds, X: a}, func(t *State) { t.API.Single[a] = object{} })
		case o.Owner != 0 && x.fenced(s, &o):
			x.do(s, Step{Kind: freesSingle, X: a}, func(t *State) {
				if b := &t.API.Single[a]; b.Kept == 1 {
					b.Owner, b.Ident = 0, 0
				} else {
					*b = object{}
				}
			})
		}
	}
}

// keptFor counts the Pods for which an address is kept and that are there or will be.
func (x *explorer) keptFor(s *State) (n int) {
	for p, w := range x.sc.Want {
		if w.Kept && s.Pod[p].Ended == 0 {
			n++
		}
	}
	return n
}

// fenced says whether what a node had is nobody's any more (R14).
func (x *explorer) fenced(s *State, o *object) bool {
	n := o.Owner - 1
	l := s.API.Lease[n]
	if l.There == 1 && l.Off != 0 && l.Off == o.Ident {
		return true
	}
	if x.r.NoR14Ready && (s.Node[n].Cut == 1 || s.Node[n].On != 1) {
		return true
	}
	switch {
	case s.API.Node[n] == 0:
		return x.r.NoR14Lease || l.Age >= wholeLease
	case machineOf(l.Ident) != machineOf(o.Ident) || x.r.NoR14Machine && l.Ident != o.Ident:
		return x.r.NoR14Lease || l.Acquired >= wholeLease
	}
	return false
}

// importOld makes orphans of what Pods have from before (R19).
func (x *explorer) importOld(t *State) {
	t.Ctl.Imported = 1
	for p := range t.Pod {
		q := &t.Pod[p]
		if a := q.Link[0]; a != 0 && t.Node[q.Node-1].J.Rec[p].Addr == 0 {
			o := &t.API.Block[x.sc.around(a-1)]
			if o.There == 0 {
				*o = object{There: 1, UID: t.uid()}
			}
			o.Held[a-1] = 1
		}
	}
}

// orphan answers as an owner does.
func (x *explorer) orphan(s *State, p uint8) {
	o := s.API.Block[p]
	for a := range uint8(addrs) {
		one := s.API.Single[a]
		switch {
		case o.Held[a] == 1:
			if s.users(a) == 0 && s.Warm[a] == 0 {
				x.do(s, Step{Kind: heldEnds, X: a}, func(t *State) { t.API.Block[p].Held[a] = 0 })
			}
		case o.Ceded[a] != 0 && x.returned(s, o.Ceded[a], a):
			x.do(s, Step{Kind: orphanTakesBack, X: a}, func(t *State) { t.API.Block[p].Ceded[a], t.Ctl.Cool[a] = 0, 1 })
		case o.Ceded[a] == 0 && one.There == 1 && one.Asked == p+1 && s.Ctl.Cool[a] == 0:
			x.do(s, Step{Kind: orphanCedes, X: a}, func(t *State) { t.API.Block[p].Ceded[a] = cession(&t.API.Single[a]) })
		}
	}
	if o.Ceded == [addrs]uint8{} && o.Held == [addrs]uint8{} && s.Ctl.Cool == [addrs]uint8{} {
		x.do(s, Step{Kind: orphanEnds, X: p}, func(t *State) { t.API.Block[p] = object{} })
	}
}

// users counts the live holders of an address.
func (s *State) users(a uint8) (n int) {
	for p := range s.Pod {
		for _, l := range s.Pod[p].Link {
			if l == a+1 {
				n++
			}
		}
	}
	return n
}
