package blocks

import (
	"maps"
	"slices"
	"time"
)

// decider is one decision under way.
type decider struct {
	w        World
	o        Options
	d        *Decision
	all      []*space
	void     []block             // IPBlocks that mean nothing
	blind    bool                // a plan names a segment that is not known
	served   map[string]bool     // networks that nodes are told of, by key
	spacesOf map[string][]*space // by network
	owners   map[string]int      // IPBlocks by node
	lost     map[string]bool     // nodes whose blocks wait
	freed    map[freed]int
	acted    map[string]bool     // IPBlocks that there is an action for
	waiting  bool                // nodes wait for a check since the API went back in time
	used     map[string]int64    // addresses held on nodes, by space
	offered  map[string][]offer  // by space
	attached map[string][]string // nodes with Pods on a network, by its key
	old      *before             // see before
}

// Decide says what to do, and what has to be read before more can be said. It is pure: equal worlds, equal decisions.
func Decide(w World) Decision {
	x := &decider{w: w, o: w.Options.withDefaults(), d: &Decision{Report: Report{Blocks: map[string]int{}}}, lost: map[string]bool{}, freed: map[freed]int{}, acted: map[string]bool{}}
	x.all, x.void, x.served, x.blind = spaces(w)
	x.index()
	x.waiting = waiting(w)
	x.reported()
	for _, s := range x.all {
		x.space(s)
	}
	for _, b := range x.void {
		if b.Spec.Owner != "" {
			x.owned(&space{}, b)
			continue
		}
		x.act(Action{Verb: Remove, Block: b.IPBlock, Why: "void"})
	}
	x.tellFreed()
	x.leases()
	for i := range w.Networks {
		x.network(&w.Networks[i])
	}
	x.d.Report.Lost = len(x.lost)
	slices.Sort(x.d.Needs.Nodes)
	x.d.Needs.Nodes = slices.Compact(x.d.Needs.Nodes)
	return *x.d
}

// waiting says whether a node waits for a check since the API went back in time (R18). What the API says of others' addresses is not
// true then: nothing is freed, ceded or taken back.
func waiting(w World) bool {
	for node, l := range w.Leases {
		if w.Nodes[node] && l.Annotations[AnnotationSuspect] != l.Annotations[AnnotationChecked] && l.Annotations[AnnotationSuspect] != "" {
			return true
		}
	}
	return false
}

func (x *decider) index() {
	x.spacesOf, x.owners = map[string][]*space{}, map[string]int{}
	for _, s := range x.all {
		for _, key := range s.keys {
			x.spacesOf[key] = append(x.spacesOf[key], s)
		}
	}
	for i := range x.w.Blocks {
		if owner := x.w.Blocks[i].Spec.Owner; owner != "" {
			x.owners[owner]++
		}
	}
}

// space decides one space. Answers go first: somebody waits for them.
func (x *decider) space(s *space) {
	count := x.d.Report.Blocks
	for _, b := range slices.Concat(s.blocks, s.strays) {
		if b.Spec.Owner != "" {
			count["node"]++
			x.owned(s, b)
			continue
		}
		count["controller"]++
		x.orphan(s, b)
	}
	for _, b := range s.singles {
		if b.Spec.Owner == "" {
			count["parked"]++
			x.parked(b)
			continue
		}
		count["single"]++
		x.owned(s, b)
		x.unheard(s, b)
	}
	switch {
	case s.root != nil && !s.root.DeletionTimestamp.IsZero() && s.empty():
		x.close(s)
	case s.root != nil:
		count["root"]++
		x.rooted(s)
	case s.used():
		x.open(s)
	}
}

// act adds an action, but for an IPBlock that has one already: that one changes its version, and wakes the loop.
func (x *decider) act(a Action) bool {
	if a.Block != nil {
		if x.acted[a.Block.Name] {
			return false
		}
		x.acted[a.Block.Name] = true
	}
	x.d.Actions = append(x.d.Actions, a)
	return true
}

func (x *decider) wake(at time.Time) {
	if x.d.Next.IsZero() || at.Before(x.d.Next) {
		x.d.Next = at
	}
}

func (x *decider) needNode(name string) {
	if n := len(x.d.Needs.Nodes); n == 0 || x.d.Needs.Nodes[n-1] != name {
		x.d.Needs.Nodes = append(x.d.Needs.Nodes, name)
	}
}

// before is made when it is asked for first: almost no decision opens a space.
func (x *decider) before() *before {
	if x.old == nil {
		x.old = newBefore(x.w.Networks, x.w.Endpoints, x.served)
	}
	return x.old
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
