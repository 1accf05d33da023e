package model

// settles1 says whether everything becomes free again once nothing more goes wrong: all Pods end, machines whose Node
// object exists run and reach the API, what is under way lands or is lost, and time passes. It is one run, of the steps
// that agents and controller would do next; if that one ends well, the state is not stuck.
func settles1(sc *Scenario, r Rules, s *State, fine map[key]struct{}, keyOf func(*State) key) bool {
	t := *s
	t.heal()
	t.tidy()
	var path []key
	known := func() bool {
		k := keyOf(&t)
		if _, ok := fine[k]; ok {
			return true
		}
		path = append(path, k)
		return false
	}
	ok := false
	for range 12 { // long ticks; a whole lease is two
		if known() {
			ok = true
			break
		}
		x := explorer{sc: sc, r: r}
		for range 3 {
			x.rest(&t)
			t.cool()
			t.tidy()
		}
		x.rest(&t)
		if ok = t.free(); ok {
			break
		}
		t.cool()
		t.age()
		t.tidy()
	}
	if ok {
		for _, k := range path {
			fine[k] = struct{}{}
		}
	}
	return ok
}

// heal is the moment from which on nothing goes wrong.
func (t *State) heal() {
	for p := range t.Pod {
		q := &t.Pod[p]
		if q.Node == 0 {
			q.Ended = 1
		} else if q.Ended == 0 {
			q.end()
		}
	}
	t.Left = budget{}
	t.Saved, t.HasSaved = api{}, 0
	for n := range t.Node {
		d := &t.Node[n]
		d.Snap, d.HasSnap, d.Cut = journal{}, 0, 0
		if t.API.Node[n] != 0 {
			d.On = 1
			if d.Stopped == 1 { // its supervisor starts it again
				t.agentDies(uint8(n))
			}
		} else if d.On == 1 { // the kubelet registers again
			t.API.Node[n] = 2
		}
	}
}

// rest does what can be done without the world's help, until nothing is left.
func (x *explorer) rest(t *State) {
	var then State
	found := false
	x.skip = func(st Step) bool { return found || !st.healing() }
	x.emit = func(_ Step, u State) {
		if !found && u != *t {
			found, then = true, u
		}
	}
	for range 200 {
		found = false
		x.next(t)
		if !found {
			return
		}
		*t = then
	}
}

// free says whether nothing is used, kept or reserved anywhere. The disks of machines that will not come back do not count.
func (t *State) free() bool {
	for i := range t.API.Block {
		if t.API.Block[i].There == 1 {
			return false
		}
	}
	for i := range t.API.Single {
		if t.API.Single[i].There == 1 {
			return false
		}
	}
	for n := range t.Node {
		d := &t.Node[n]
		if t.API.Node[n] == 0 {
			continue
		}
		if d.J.Suspect != 0 || d.J.Thawing != 0 || d.J.Block != [places]jblock{} || d.J.Single != [addrs]jblock{} || d.J.Rec != [pods]record{} {
			return false
		}
	}
	return true
}
