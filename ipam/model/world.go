package model

// world emits what the world does: Pods, machines, people, the network, time.
func (x *explorer) world(s *State) {
	x.podsMove(s)
	for n := range uint8(nodes) {
		x.machine(s, n)
		x.nodeObject(s, n)
	}
	x.time(s)
	x.calls(s)
	x.etcd(s)
	if s.Left.NetworkGone > 0 {
		x.do(s, Step{Kind: networkDeleted}, func(t *State) {
			t.Left.NetworkGone--
			if x.r.NoR17 {
				t.API.Block, t.API.Single = [places]object{}, [addrs]object{}
				for n := range t.Node {
					t.Node[n].J.Block, t.Node[n].J.Single = [places]jblock{}, [addrs]jblock{}
				}
			}
		})
	}
}

func (x *explorer) podsMove(s *State) {
	for p := range uint8(len(x.sc.Want)) {
		q := s.Pod[p]
		if q.Node == 0 && q.Ended == 0 {
			for _, n := range x.sc.Home[p] {
				if s.Node[n].On == 1 && (!x.sc.like[p] || s.Pod[p-1].Node != 0 || s.Pod[p-1].Ended == 1) { // those alike in order
					x.do(s, Step{Kind: podStarts, N: p, X: n}, func(t *State) { t.Pod[p].Node, t.Pod[p].Boxes = n+1, 1 })
				}
			}
			continue
		}
		if q.Node == 0 {
			continue
		}
		on := s.Node[q.Node-1].On == 1
		if on && q.Ended == 0 && q.Boxes == 1 && q.Adding == 0 && s.Left.NewBox > 0 {
			x.do(s, Step{Kind: newSandbox, N: p}, func(t *State) {
				t.Left.NewBox--
				t.Pod[p].Boxes, t.Pod[p].Del[0] = 2, 1
			})
		}
		if q.Ended == 0 && s.Left.End > 0 && s.Ctl.Imported == 1 {
			x.do(s, Step{Kind: podEnds, N: p}, func(t *State) { t.Left.End--; t.Pod[p].end() })
		}
	}
}

func (q *pod) end() {
	q.Ended = 1
	for i := range q.Boxes {
		q.Del[i] = max(q.Del[i], 1)
	}
}

// die is a machine that loses its power, or its kernel.
func (t *State) die(n uint8) {
	for p := range t.Pod {
		q := &t.Pod[p]
		if q.Node != n+1 {
			continue
		}
		for i := range q.Link {
			t.down(q, uint8(i))
		}
		q.Adding = 0
		q.end()
	}
	t.agentDies(n)
}

// down takes a sandbox's links down.
func (t *State) down(q *pod, box uint8) {
	if a := q.Link[box]; a != 0 {
		q.Link[box], t.Warm[a-1] = 0, 1
	}
}

// agentDies is kill -9: a call under way is not finished.
func (t *State) agentDies(n uint8) {
	d := &t.Node[n]
	d.Started, d.Tried, d.Stopped, d.Starting, d.Halted, d.Fenced = 0, 0, 0, 0, 0, 0
	for p := range t.Pod {
		if t.Pod[p].Node == n+1 {
			t.Pod[p].Adding = 0
		}
	}
}

// blank is a journal that was just made.
func blank() journal { return journal{Renewed: never, Renewing: never} }

// never is an age beyond all others.
const never = wholeLease + 1

func (x *explorer) machine(s *State, n uint8) {
	d := &s.Node[n]
	if d.On == 1 {
		if s.Left.Crash > 0 {
			x.do(s, Step{Kind: crash, N: n}, func(t *State) { t.Left.Crash--; t.agentDies(n) })
		}
		if s.Left.Off > 0 {
			x.do(s, Step{Kind: powerOff, N: n}, func(t *State) { t.Left.Off--; t.die(n); t.Node[n].On = 2 })
		}
		if s.Left.Wipe > 0 {
			x.do(s, Step{Kind: wipe, N: n}, func(t *State) { t.Left.Wipe--; t.agentDies(n); t.Node[n].J = blank() })
		}
		if s.Left.Snap > 0 && d.HasSnap == 0 {
			x.do(s, Step{Kind: snapshot, N: n}, func(t *State) { t.Left.Snap--; t.Node[n].Snap, t.Node[n].HasSnap = d.J, 1 })
		}
		if d.HasSnap == 1 && (s.Left.RestoreLive > 0 && d.Snap.Epoch != d.J.Epoch && d.Snap.Raising != d.J.Epoch || s.Left.RestoreSame > 0) {
			x.do(s, Step{Kind: restoreLive, N: n}, func(t *State) {
				t.Left.RestoreLive, t.Left.RestoreSame = 0, 0
				t.agentDies(n)
				t.back(n)
			})
		}
	} else {
		x.do(s, Step{Kind: powerOn, N: n}, func(t *State) { t.Node[n].On = 1 })
		if d.On == 0 && d.HasSnap == 1 {
			x.do(s, Step{Kind: restore, N: n}, func(t *State) { t.back(n) })
		}
		if d.ClockBehind == 0 && s.Left.Clock > 0 {
			x.do(s, Step{Kind: clockBehind, N: n}, func(t *State) { t.Left.Clock--; t.Node[n].ClockBehind = 1 })
		}
	}
	switch {
	case d.Cut == 1:
		x.do(s, Step{Kind: reconnect, N: n}, func(t *State) { t.Node[n].Cut = 0 })
	case s.Left.Cut > 0:
		x.do(s, Step{Kind: cutOff, N: n}, func(t *State) { t.Left.Cut--; t.Node[n].Cut = 1 })
	}
}

// back puts the snapshot on the disk.
func (t *State) back(n uint8) {
	t.Node[n].J, t.Node[n].Snap, t.Node[n].HasSnap = t.Node[n].Snap, journal{}, 0
}

// nodeObject is what people and kubelets do to a Node object. Nobody deletes that of a machine that runs Pods and cannot
// be told to stop them: Kubernetes says so, and Limits shows what comes of it.
func (x *explorer) nodeObject(s *State, n uint8) {
	d := &s.Node[n]
	gone := s.API.Node[n] == 0
	if !gone && s.Left.NodeGone > 0 && (d.On == 0 || s.Left.DeleteLive > 0) {
		x.do(s, Step{Kind: nodeDeleted, N: n}, func(t *State) { t.Left.NodeGone--; t.API.Node[n] = 0 })
	}
	if d.On == 0 && s.Left.Replace > 0 { // by a machine of the same name
		x.do(s, Step{Kind: replaced, N: n}, func(t *State) {
			t.Left.Replace--
			t.Node[n] = node{On: 1, Machine: 2, J: blank()}
			t.API.Node[n] = 2
			for p := range t.Pod {
				if t.Pod[p].Node == n+1 { // went with the old machine
					t.Pod[p] = pod{Ended: 1}
				}
			}
		})
	}
	if d.On == 1 && d.Cut == 0 && s.Left.NodeBack > 0 {
		x.do(s, Step{Kind: nodeRemade, N: n}, func(t *State) { t.Left.NodeBack--; t.API.Node[n] = 2 })
	}
	if d.On != 1 && s.Left.PoweredOff > 0 && s.API.Lease[n].There == 1 && s.API.Lease[n].Off == 0 {
		x.do(s, Step{Kind: saysOff, N: n}, func(t *State) { t.Left.PoweredOff--; t.API.Lease[n].Off = t.API.Lease[n].Ident })
	}
}

// time passes: a short tick is a cooldown, and no call to the API lasts as long as a long one, half a block lease.
func (x *explorer) time(s *State) {
	if !x.sc.Days {
		x.do(s, Step{Kind: tick}, func(t *State) { t.cool() })
		return
	}
	if s.Net != [inFlight]message{} {
		return
	}
	for p := range s.Pod {
		q := &s.Pod[p]
		// The Pods of a Node that is gone are gone soon after, unless their machine cannot be told.
		if q.Node != 0 && s.API.Node[q.Node-1] == 0 && q.Link != [boxes]uint8{} && x.sc.Left.DeleteLive == 0 {
			return
		}
	}
	x.do(s, Step{Kind: longTick}, func(t *State) { t.cool(); t.age() })
}

func (t *State) cool() {
	t.Warm, t.Ctl.Cool = [addrs]uint8{}, [addrs]uint8{}
	for n := range t.Node {
		d := &t.Node[n]
		if d.J.Cool = [addrs]uint8{}; d.J.Thawing == 2 {
			d.J.Thawing = 1
		}
		d.Snap.Cool = [addrs]uint8{}
		if d.On == 2 {
			d.On = 0
		}
	}
}

func (t *State) age() {
	older := func(a *uint8) { *a = min(*a+1, never) }
	for n := range t.Node {
		for _, l := range []*lease{&t.API.Lease[n], &t.Saved.Lease[n]} {
			older(&l.Age)
			older(&l.Acquired)
		}
		for _, j := range []*journal{&t.Node[n].J, &t.Node[n].Snap} {
			older(&j.Renewed)
			older(&j.Renewing)
		}
	}
}

// calls are those without an answer: they land, or they do not.
func (x *explorer) calls(s *State) {
	for i, m := range s.Net {
		if m.Kind == noMessage || i > 0 && m == s.Net[i-1] {
			continue
		}
		x.do(s, Step{Kind: lands, X: uint8(i)}, func(t *State) { t.Net[i] = message{}; x.land(t, m) })
		x.do(s, Step{Kind: isLost, X: uint8(i)}, func(t *State) { t.Net[i] = message{} })
	}
}

// etcd is saved, and put back; then a person checks.
func (x *explorer) etcd(s *State) {
	if s.Left.Backup > 0 {
		x.do(s, Step{Kind: backup}, func(t *State) {
			t.Left.Backup--
			t.Saved, t.HasSaved = t.API, 1
		})
	}
	if s.HasSaved == 1 {
		x.do(s, Step{Kind: etcdRestore}, func(t *State) {
			t.API, t.Saved, t.HasSaved, t.Restored = t.Saved, api{}, 0, 1
			t.Net = [inFlight]message{}
			for n := range t.Node { // a backup is older than a renewal
				t.Node[n].J.Seen = 1
			}
		})
	}
	for n := range uint8(nodes) {
		if s.Node[n].J.Suspect == 1 && s.Node[n].On == 1 && x.checkable(s) {
			x.do(s, Step{Kind: accept, N: n}, func(t *State) { t.Node[n].J.Suspect, t.Node[n].J.Seen = 0, 0 })
		}
	}
}

// checkable says whether a person's check is clean: every node that runs has looked at the restored API, and what Pods have
// is their node's.
func (x *explorer) checkable(s *State) bool {
	for n := range s.Node {
		if d := &s.Node[n]; d.On == 1 && d.J.Seen == 1 && (d.J.Suspect == 0 || d.Started == 0) {
			return false
		}
	}
	for n := range s.Node {
		for _, r := range s.Node[n].J.Rec {
			if r.Addr != 0 && !x.theirs(s, uint8(n)+1, r.Addr-1) {
				return false
			}
		}
	}
	return true
}

// theirs says whether the API has an address as an owner's.
func (x *explorer) theirs(s *State, owner, a uint8) bool {
	b := &s.API.Block[x.sc.around(a)]
	if o := &s.API.Single[a]; o.There == 1 {
		return o.Owner == owner && b.There == 1 && cededUID(b.Ceded[a]) == o.UID
	}
	return b.There == 1 && b.Owner == owner
}
