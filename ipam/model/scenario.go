package model

import "slices"

// A want is what a Pod asks for: any address, or a given one (At is its number + 1), which may be kept for it and the Pods
// that follow it.
type want struct {
	At   uint8
	Kept bool
}

// Scenario is a world to be searched: who may do what, how often, from which state on.
type Scenario struct {
	Name  string
	Short string // for the table in docs/ipam.md
	Want  []want // one a Pod
	// Home lists the nodes that a Pod may start on.
	Home [pods][]uint8
	// Cover are the addresses of each place, as bits. Cut are the places that each node claims in by the network it knows.
	Cover [places]uint8
	Cut   [nodes]uint8
	Left  budget
	// Begin changes the state in which both nodes run, know the API and own nothing.
	Begin func(*State)
	// Borrow lets nodes ask for any address when all blocks are claimed.
	Borrow bool
	// Days lets time pass by half block leases, not by cooldowns.
	Days bool
	// Healthy says that no journal is ever lost or old here: then no block is frozen.
	Healthy bool

	like [pods]bool // Pod p is like the one before it
}

func (sc *Scenario) findAlike() {
	for p := 1; p < len(sc.Want); p++ {
		sc.like[p] = slices.Equal(sc.Home[p-1], sc.Home[p]) && sc.Want[p-1] == sc.Want[p]
	}
}

// firstIdentity is machine 1 with a Node object of UID 1.
const firstIdentity = 1<<4 | 1

func (sc *Scenario) first() State {
	var s State
	sc.findAlike()
	s.API.Root = 1
	s.Ctl.Imported = 1
	for n := range s.Node {
		s.API.Node[n] = 1
		s.API.Lease[n] = lease{There: 1, Epoch: 1, Ident: firstIdentity}
		s.Node[n] = node{On: 1, Machine: 1, Started: 1, Tried: 1, J: journal{Epoch: 1, Raising: 1, Ident: firstIdentity}}
	}
	s.Left = sc.Left
	if sc.Begin != nil {
		sc.Begin(&s)
	}
	return s
}

// own gives a node a block in API and journal.
func (s *State) own(n, place, uid uint8) {
	s.API.Block[place] = object{There: 1, UID: uid, Owner: n + 1, Ident: firstIdentity}
	s.Node[n].J.Block[place] = jblock{State: owned, UID: uid, Told: 1}
}

// cede makes an address of node from's first block a Single of node to, with nothing in it.
func (s *State) cede(sc *Scenario, from, to, a uint8) {
	p := sc.around(a)
	s.API.Single[a] = object{There: 1, UID: 2, Owner: to + 1, Ident: firstIdentity, Asked: p + 1}
	c := cession(&s.API.Single[a])
	s.API.Block[p].Ceded[a], s.Node[from].J.Block[p].Ceded[a] = c, c
	s.Node[to].J.Single[a] = jblock{State: owned, UID: 2, Told: 1}
}

// live is a Pod that has an address.
func (s *State) live(p, n, a uint8) {
	s.Pod[p] = pod{Node: n + 1, Boxes: 1, Link: [boxes]uint8{a + 1}}
	s.Node[n].J.Rec[p] = record{Addr: a + 1}
}

// around is the place of the space's grid that an address lies in: the first that covers it.
func (sc *Scenario) around(a uint8) uint8 {
	for p := range sc.Cover {
		if sc.Cover[p]>>a&1 == 1 {
			return uint8(p)
		}
	}
	panic("an address outside every place")
}

// coveredBy says whether an address lies in a place.
func (sc *Scenario) coveredBy(p, a uint8) bool { return sc.Cover[p]>>a&1 == 1 }

// has says whether an address is in the space at all.
func (sc *Scenario) has(a uint8) bool { return (sc.Cover[0]|sc.Cover[1])>>a&1 == 1 }
