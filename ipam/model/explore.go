package model

import (
	"cmp"
	"hash/maphash"
	"slices"
)

// Violation is an invariant that a state breaks.
type Violation string

// What can be broken.
const (
	Double Violation = "an address has two live holders"
	Warm   Violation = "an address is given out while neighbours still send to its former holder"
	Leak   Violation = "an address never becomes free again"
	Frozen Violation = "a block is frozen although no journal was lost"
)

// Result is what a search found. Without a Violation every reachable state was visited.
type Result struct {
	States, Steps, Depth int
	Violation            Violation // "" = none
	Story                []Step    // the shortest that breaks it
	Last                 State
	Truncated            bool // there are more states than the search was allowed
}

// Options of a search.
type Options struct {
	Rules Rules
	// Most states to visit; 0 = no bound.
	Most int
	// Only look for these violations; nil = all.
	Only []Violation
}

type explorer struct {
	sc   *Scenario
	r    Rules
	emit func(Step, State)
	skip func(Step) bool // steps not to be looked at; nil = none
}

// do emits a step with what it makes of the state.
func (x *explorer) do(s *State, st Step, f func(*State)) {
	if x.skip != nil && x.skip(st) {
		return
	}
	t := *s
	f(&t)
	t.version(s)
	t.tidy()
	x.emit(st, t)
}

// version gives what was written a resourceVersion that no call in flight has read.
func (t *State) version(before *State) {
	for i := range t.API.Block {
		t.versionOne(&t.API.Block[i], before.API.Block[i], msgUpdateBlock, uint8(i))
	}
	for i := range t.API.Single {
		t.versionOne(&t.API.Single[i], before.API.Single[i], msgUpdateSingle, uint8(i))
	}
}

func (t *State) versionOne(o *object, was object, kind, at uint8) {
	read := [inFlight + 2]bool{}
	some := false
	for _, m := range t.Net {
		if m.Kind == kind && m.At == at && m.Was.UID == o.UID {
			read[m.Was.Version], some = true, true
		}
	}
	switch was.Version = o.Version; {
	case !some:
		o.Version = 0
	case *o != was:
		for o.Version = 0; read[o.Version]; o.Version++ {
		}
	}
}

// next emits every step that a state allows.
func (x *explorer) next(s *State) {
	x.world(s)
	for p := range uint8(len(x.sc.Want)) {
		x.attach(s, p)
	}
	for n := range uint8(nodes) {
		x.life(s, n)
		x.keep(s, n)
	}
	x.control(s)
}

// tidy makes states the same that differ in nothing that can matter later.
func (t *State) tidy() {
	slices.SortFunc(t.Net[:], compareMessages)
	t.rankEpochs()
	for p := range t.Pod {
		if q := &t.Pod[p]; q.Ended == 1 && q.Adding == 0 && q.Link == [boxes]uint8{} && q.Del == [boxes]uint8{} && !t.recorded(p) {
			*q = pod{Ended: 1}
		}
	}
}

// sortAlike puts Pods that differ in nothing but their number into an order.
func (sc *Scenario) sortAlike(t *State) {
	for range sc.Want {
		for p := 1; p < len(sc.Want); p++ {
			if sc.like[p] && comparePods(t, p-1, p) > 0 {
				t.swapPods(p-1, p)
			}
		}
	}
}

func comparePods(t *State, a, b int) int {
	p, q := &t.Pod[a], &t.Pod[b]
	c := cmp.Or(cmp.Compare(p.Node, q.Node), cmp.Compare(p.Boxes, q.Boxes), cmp.Compare(p.Ended, q.Ended), cmp.Compare(p.Adding, q.Adding),
		slices.Compare(p.Link[:], q.Link[:]), slices.Compare(p.Del[:], q.Del[:]))
	for n := range t.Node {
		for _, j := range []*journal{&t.Node[n].J, &t.Node[n].Snap} {
			c = cmp.Or(c, cmp.Compare(j.Rec[a].Addr, j.Rec[b].Addr), cmp.Compare(j.Rec[a].Box, j.Rec[b].Box), cmp.Compare(j.lostOf(a), j.lostOf(b)))
		}
	}
	return c
}

func (j *journal) lostOf(p int) uint8 { return j.Lost >> (p * boxes) & (1<<boxes - 1) }

func (t *State) swapPods(a, b int) {
	t.Pod[a], t.Pod[b] = t.Pod[b], t.Pod[a]
	for n := range t.Node {
		for _, j := range []*journal{&t.Node[n].J, &t.Node[n].Snap} {
			j.Rec[a], j.Rec[b] = j.Rec[b], j.Rec[a]
			d := j.lostOf(a) ^ j.lostOf(b)
			j.Lost ^= d<<(a*boxes) | d<<(b*boxes)
		}
	}
}

func (t *State) recorded(p int) bool {
	for n := range t.Node {
		if t.Node[n].J.Rec[p].Addr != 0 || t.Node[n].Snap.Rec[p].Addr != 0 {
			return true
		}
	}
	return false
}

// rankEpochs renumbers each node's epochs: only their order and distance of one to the next counts, and a raise makes one
// that is higher than all.
func (t *State) rankEpochs() {
	for n := range t.Node {
		all := [...]*uint8{&t.API.Lease[n].Epoch, &t.Saved.Lease[n].Epoch, &t.Node[n].J.Epoch, &t.Node[n].J.Raising, &t.Node[n].Snap.Epoch, &t.Node[n].Snap.Raising}
		var has [16]bool
		for _, e := range all {
			has[*e] = true
		}
		has[0] = true
		var rank [16]uint8
		k := uint8(0)
		for v := range has {
			if has[v] {
				rank[v] = k
				k++
			}
		}
		for _, e := range all {
			*e = rank[*e]
		}
	}
}

func compareMessages(a, b message) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.From, b.From), cmp.Compare(a.At, b.At), cmp.Compare(a.UID, b.UID),
		compareObjects(&a.Was, &b.Was), compareObjects(&a.Is, &b.Is))
}

func compareObjects(a, b *object) int {
	return cmp.Or(cmp.Compare(a.There, b.There), cmp.Compare(a.UID, b.UID), cmp.Compare(a.Version, b.Version), cmp.Compare(a.Owner, b.Owner), cmp.Compare(a.Ident, b.Ident),
		cmp.Compare(a.Asked, b.Asked), cmp.Compare(a.Kept, b.Kept), slices.Compare(a.Ceded[:], b.Ceded[:]), slices.Compare(a.Held[:], b.Held[:]))
}

// broken is the invariant that a state breaks by itself.
func (s *State) broken() Violation {
	for a := range uint8(addrs) {
		if s.users(a) > 1 {
			return Double
		}
	}
	if s.Bad != 0 {
		return Warm
	}
	return ""
}

func (s *State) frozen() bool {
	for n := range s.Node {
		if s.Node[n].J.Thawing != 0 {
			return true
		}
	}
	return false
}

// key stands for a state among those visited. With 128 bits from two random seeds, two states with one key are not to be
// expected in the lifetime of this project.
type key [2]uint64

type visited struct {
	parent int32
	step   Step
}

// Explore visits every state that the scenario can reach.
func Explore(sc *Scenario, o Options) Result {
	sum := [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}
	keyOf := func(s *State) key {
		t := *s
		sc.sortAlike(&t)
		return key{maphash.Comparable(sum[0], t), maphash.Comparable(sum[1], t)}
	}
	var (
		res   Result
		log   []visited
		seen  = map[key]struct{}{}
		fine  = map[key]struct{}{} // from here on everything becomes free
		level []State
		ids   []int32
		stop  bool
	)
	watch := func(v Violation) bool { return v != "" && (o.Only == nil || slices.Contains(o.Only, v)) }
	add := func(s *State, parent int32, st Step, into *[]State, num *[]int32) {
		k := keyOf(s)
		if _, ok := seen[k]; ok || stop {
			return
		}
		seen[k] = struct{}{}
		log = append(log, visited{parent, st})
		id := int32(len(log) - 1) //nolint:gosec // bounded by memory
		*into, *num = append(*into, *s), append(*num, id)
		v := s.broken()
		if v == "" && sc.Healthy && s.frozen() {
			v = Frozen
		}
		if v == "" && watch(Leak) && !settles1(sc, o.Rules, s, fine, keyOf) {
			v = Leak
		}
		if watch(v) {
			res.Violation, res.Last, res.Story, stop = v, *s, storyOf(log, id), true
		}
	}
	first := sc.first()
	first.tidy()
	add(&first, -1, Step{}, &level, &ids)
	for len(level) > 0 && !stop {
		var below []State
		var num []int32
		for i := range level {
			x := explorer{sc: sc, r: o.Rules}
			x.emit = func(st Step, t State) { res.Steps++; add(&t, ids[i], st, &below, &num) }
			x.next(&level[i])
			if o.Most > 0 && len(log) > o.Most {
				res.Truncated, stop = true, true
			}
			if stop {
				break
			}
		}
		if level, ids = below, num; len(level) > 0 {
			res.Depth++
		}
	}
	res.States = len(log)
	return res
}

func storyOf(log []visited, id int32) (out []Step) {
	for ; log[id].parent >= 0; id = log[id].parent {
		out = append(out, log[id].step)
	}
	slices.Reverse(out)
	return out
}

// Replay goes through a story again, and says where it ends. ok is false if a step is not to be had.
func Replay(sc *Scenario, r Rules, story []Step) (s State, ok bool) {
	s = sc.first()
	s.tidy()
	for _, want := range story {
		found := false
		x := explorer{sc: sc, r: r}
		var then State
		x.emit = func(st Step, t State) {
			if st == want && !found {
				found, then = true, t
			}
		}
		x.next(&s)
		if !found {
			return s, false
		}
		s = then
	}
	return s, true
}
