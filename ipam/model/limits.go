package model

// Limits are worlds that do more than the rules promise to bear. The search finds what then happens, and docs/ipam.md says
// it: a promise that is not made should be known.
func Limits() []Scenario {
	one := [places]uint8{0b01, 0}
	any2 := make([]want, 2)
	return []Scenario{
		{
			Name: "cut off and deleted", Short: "the Node object of a machine that runs Pods and cannot be reached is deleted, and stays so for a whole block lease",
			Want: any2, Home: [pods][]uint8{onA, onC}, Cover: one,
			Left: budget{Cut: 1, NodeGone: 1, DeleteLive: 1}, Days: true,
		},
		{
			Name: "off, it was said", Short: "a person says that a node is powered off, and it boots where it does not reach the API",
			Want: make([]want, 3), Home: [pods][]uint8{onA, onC, onA}, Cover: one,
			Left: budget{Off: 1, Cut: 1, PoweredOff: 1},
		},
		{
			Name: "old journal, alone", Short: "a disk is put back from a snapshot younger than half a block lease, on a machine that does not reach the API",
			Want: make([]want, 3), Home: [pods][]uint8{onA, onC, onA}, Cover: one,
			Left: budget{Snap: 1, Off: 1, Cut: 1, End: 1},
		},
		{
			Name: "old journal, Pods live", Short: "an agent's state directory is put back from a copy of the same life, under Pods that began since",
			Want: any2, Home: [pods][]uint8{onA, onA}, Cover: one,
			Left: budget{Snap: 1, RestoreSame: 1}, Begin: func(s *State) { s.own(0, 0, 1) },
		},
	}
}
