package model

import "slices"

// write makes an API call of a node: it is answered; or done, and the answer lost; or it lands later; or the caller dies
// before it is sent. after is what the caller does with an answer; ok says whether the call was done.
func (x *explorer) write(s *State, st Step, m message, before func(*State), after func(t *State, ok bool)) {
	st.Y = answered
	x.do(s, st, func(t *State) { before(t); after(t, x.land(t, m)) })
	if s.Left.Lost > 0 {
		st.Y = unanswered
		x.do(s, st, func(t *State) { t.Left.Lost--; before(t); x.land(t, m) })
	}
	if s.Left.Late > 0 && s.Net[0].Kind == noMessage { // a sorted net has room if its first place is empty
		st.Y = late
		x.do(s, st, func(t *State) { t.Left.Late--; before(t); t.Net[0] = m })
	}
	if s.Left.Crash > 0 {
		st.Y = unsent
		x.do(s, st, func(t *State) { t.Left.Crash--; before(t); t.agentDies(m.From - 1) })
	}
}

// land is the API server: it does a call, or refuses it.
func (x *explorer) land(t *State, m message) bool {
	o := &t.API.Block[min(m.At, places-1)]
	if m.Kind == msgCreateSingle || m.Kind == msgDeleteSingle || m.Kind == msgUpdateSingle {
		o = &t.API.Single[m.At]
	}
	switch m.Kind {
	case msgCreateBlock, msgCreateSingle:
		if o.There == 1 && !(x.r.NoR5Decides && m.Kind == msgCreateBlock) {
			return false
		}
		if o.There == 1 { // under a name of its own: the space has two such blocks now, of which the model keeps the first
			return true
		}
		*o = m.Is
		o.There, o.UID = 1, t.uid()
	case msgDeleteBlock, msgDeleteSingle:
		if o.There == 0 || o.UID != m.UID && !x.r.NoR8UID {
			return false
		}
		*o = object{}
	case msgUpdateBlock, msgUpdateSingle:
		if *o != m.Was && !(x.r.NoR20CAS && m.Kind == msgUpdateSingle && o.There == 1 && o.UID == m.Is.UID) { // resourceVersion
			return false
		}
		*o = m.Is
	}
	return true
}

// uid is one that nothing refers to any more.
func (t *State) uid() uint8 {
	var used [64]bool
	see := func(os ...object) {
		for i := range os {
			used[os[i].UID] = true
			for _, u := range os[i].Ceded {
				used[cededUID(u)] = true
			}
		}
	}
	for _, a := range []*api{&t.API, &t.Saved} {
		see(a.Block[:]...)
		see(a.Single[:]...)
	}
	for n := range t.Node {
		for _, j := range []*journal{&t.Node[n].J, &t.Node[n].Snap} {
			for _, bs := range [][]jblock{j.Block[:], j.Single[:]} {
				for i := range bs {
					used[bs[i].UID] = true
					for _, u := range bs[i].Ceded {
						used[cededUID(u)] = true
					}
				}
			}
		}
	}
	for i := range t.Net {
		used[t.Net[i].UID] = true
		see(t.Net[i].Was, t.Net[i].Is)
	}
	return uint8(slices.Index(used[1:], false) + 1)
}
