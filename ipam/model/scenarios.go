package model

var (
	either = []uint8{0, 1}
	onA    = []uint8{0}
	onC    = []uint8{1}
)

// Scenarios are the worlds in which the rules must hold. Each is searched to its last state.
func Scenarios() []Scenario {
	one := [places]uint8{0b01, 0}
	two := [places]uint8{0b11, 0}
	any2, any3 := make([]want, 2), make([]want, 3)
	return []Scenario{
		{
			Healthy: true, Name: "sandboxes", Short: "three Pods on one node, a block of two; a sandbox restarts, DELs come late and twice, the agent is killed",
			Want: any3, Home: [pods][]uint8{onA, onA, onA}, Cover: two,
			Left: budget{NewBox: 1, Repeat: 1, End: 2, Crash: 1},
		},
		{
			Healthy: true, Name: "claims", Short: "two nodes, one block of one; calls land late, answers are lost, an agent is killed",
			Want: any2, Home: [pods][]uint8{either, either}, Cover: one,
			Left: budget{Late: 1, Lost: 1, Crash: 1, End: 2},
		},
		{
			Healthy: true, Name: "giving back", Short: "three Pods on two nodes, one block of one; two calls land late",
			Want: any3, Home: [pods][]uint8{onA, onA, onC}, Cover: one,
			Left: budget{Late: 2, End: 3},
		},
		{
			Healthy: true, Name: "ceding", Short: "A owns a block of two, a Pod of C asks for .5, one of A for any; a call lands late",
			Want: []want{{}, {At: 1}}, Home: [pods][]uint8{onA, onC}, Cover: two,
			Left: budget{Late: 1, End: 1}, Begin: func(s *State) { s.own(0, 0, 1) },
		},
		{
			Healthy: true, Name: "ceding, killed", Short: "the same; an answer is lost, an agent is killed",
			Want: []want{{}, {At: 1}}, Home: [pods][]uint8{onA, onC}, Cover: two,
			Left: budget{Lost: 1, Crash: 1, End: 1}, Begin: func(s *State) { s.own(0, 0, 1) },
		},
		{
			Healthy: true, Name: "asking again", Short: "two Pods of C ask for .5 one after the other, one of A for any",
			Want: []want{{At: 1}, {At: 1}, {}}, Home: [pods][]uint8{onC, onC, onA}, Cover: two,
			Left: budget{End: 2}, Begin: func(s *State) { s.own(0, 0, 1) },
		},
		{
			Healthy: true, Name: "borrowing", Short: "A owns the only block, of one address; Pods of C and A ask for any; C is cut off for a time",
			Want: any3, Home: [pods][]uint8{onC, onC, onA}, Cover: one, Borrow: true,
			Left: budget{End: 2, Cut: 1}, Begin: func(s *State) { s.own(0, 0, 1) },
		},
		{
			Name: "lost journal", Short: "three Pods on two nodes; A's journal is wiped while Pods live, its agent is killed",
			Want: any3, Home: [pods][]uint8{onA, onA, onC}, Cover: two,
			Left: budget{Wipe: 1, Crash: 1, End: 2},
		},
		{
			Name: "old journal", Short: "A's disk is put back from a snapshot taken any time before; C claims meanwhile",
			Want: any3, Home: [pods][]uint8{onA, onC, onA}, Cover: one,
			Left: budget{Snap: 1, Off: 1, End: 1},
		},
		{
			Name: "old journal, days", Short: "the same, by half block leases",
			Want: any2, Home: [pods][]uint8{onA, onC}, Cover: one,
			Left: budget{Snap: 1, Off: 1}, Days: true,
		},
		{
			Name: "old directory", Short: "A's agent starts again, then its state directory is put back from its life before, under live Pods",
			Want: any2, Home: [pods][]uint8{onA, onA}, Cover: two,
			Left: budget{Snap: 1, Crash: 1, RestoreLive: 1}, Begin: func(s *State) { s.own(0, 0, 1) },
		},
		{
			Name: "lost node", Short: "A goes off, its Node is deleted and made anew, C claims its block after the lease",
			Want: any2, Home: [pods][]uint8{onA, onC}, Cover: one,
			Left: budget{Off: 1, NodeGone: 1, NodeBack: 1}, Days: true,
		},
		{
			Name: "lost node, alone", Short: "A goes off, its Node is deleted; A boots without the API, its clock behind",
			Want: any2, Home: [pods][]uint8{onA, onC}, Cover: one,
			Left: budget{Off: 1, Cut: 1, NodeGone: 1, Clock: 1}, Days: true, Begin: func(s *State) { s.own(0, 0, 1) },
		},
		{
			Name: "lost node, soon", Short: "the same within a lease: nothing is freed",
			Want: any3, Home: [pods][]uint8{onA, onC, onA}, Cover: one,
			Left: budget{Off: 1, Cut: 1, NodeGone: 1},
		},
		{
			Name: "replaced node", Short: "A's machine fails and another takes its name",
			Want: any2, Home: [pods][]uint8{onA, onC}, Cover: one,
			Left: budget{Off: 1, Replace: 1}, Days: true,
		},
		{
			Healthy: true, Name: "cut off", Short: "A with a Pod is cut off for as long as it likes, its Node object stays; C wants the block",
			Want: any2, Home: [pods][]uint8{onA, onC}, Cover: one,
			Left: budget{Cut: 1, Lost: 1, Late: 1, End: 1}, Days: true,
		},
		{
			Name: "new identity", Short: "A's Node object is made anew under live Pods, an answer is lost",
			Want: any2, Home: [pods][]uint8{onA, onC}, Cover: one,
			Left: budget{NodeBack: 1, Lost: 1}, Days: true,
		},
		{
			Name: "new identity, wiped", Short: "the same, and A's journal is wiped",
			Want: any2, Home: [pods][]uint8{onA, onC}, Cover: one,
			Left: budget{NodeBack: 1, Wipe: 1}, Days: true,
		},
		{
			Name: "orphans", Short: "A has ceded .5 to C, fails, and is replaced by another machine; C's Pod lives on",
			Want: []want{{At: 1}, {}}, Home: [pods][]uint8{onC, onA}, Cover: two,
			Left: budget{Off: 1, Replace: 1}, Days: true, Begin: func(s *State) { s.own(0, 0, 1); s.cede(&Scenario{Cover: two}, 0, 1, 0); s.live(0, 1, 0) },
		},
		{
			Name: "restored etcd", Short: "etcd is put back from a backup taken any time before; both nodes own and claim",
			Want: any3, Home: [pods][]uint8{onA, onC, onA}, Cover: one,
			Left: budget{Backup: 1, End: 1, Crash: 1},
		},
		{
			Name: "restored etcd, ceded", Short: "the same where A has ceded an address to C",
			Want: []want{{At: 1}, {}}, Home: [pods][]uint8{onC, onA}, Cover: two,
			Left: budget{Backup: 1}, Begin: func(s *State) { s.own(0, 0, 1) },
		},
		{
			Healthy: true, Name: "import", Short: "a Pod of old has .5 when the first root is made",
			Want: any3, Home: [pods][]uint8{onA, onA, onC}, Cover: two,
			Left: budget{End: 2}, Begin: func(s *State) {
				s.API.Root, s.Ctl.Imported = 0, 0
				s.Pod[0] = pod{Node: 1, Boxes: 1, Link: [boxes]uint8{1}}
			},
		},
		{
			Healthy: true, Name: "sticky", Short: "an address is kept for a Pod that moves between nodes, deleted by force while it runs; calls land late",
			Want: []want{{1, true}, {1, true}, {1, true}}, Home: [pods][]uint8{either, either, either}, Cover: two,
			Left: budget{Late: 1, Lost: 1, End: 2, Crash: 1}, Begin: func(s *State) {
				s.own(0, 0, 1)
				s.API.Single[0] = object{There: 1, UID: 2, Asked: 1, Kept: 1}
				c := uint8(2 | 1<<6)
				s.API.Block[0].Ceded[0], s.Node[0].J.Block[0].Ceded[0] = c, c
			},
		},
		{
			Healthy: true, Name: "two cuts", Short: "A knows a block of two, C a block of one inside it; one root",
			Want: any2, Home: [pods][]uint8{onA, onC}, Cover: [places]uint8{0b11, 0b01}, Cut: [nodes]uint8{0b01, 0b10},
			Left: budget{End: 2},
		},
		{
			Healthy: true, Name: "network deleted", Short: "the network goes while Pods live",
			Want: any2, Home: [pods][]uint8{onA, onC}, Cover: one,
			Left: budget{End: 2, NetworkGone: 1},
		},
	}
}
