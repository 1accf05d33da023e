package model

// Kind is what happens in one step.
type Kind uint8

// The world.
const (
	podStarts Kind = iota
	newSandbox
	podEnds
	crash
	powerOff
	powerOn
	wipe
	snapshot
	restore
	restoreLive
	cutOff
	reconnect
	nodeDeleted
	nodeRemade
	replaced
	clockBehind
	tick
	longTick
	lands
	isLost
	backup
	etcdRestore
	accept
	saysOff
	networkDeleted

	// A node.
	goesOnAlone
	startReads
	startWrites
	renews
	acquires
	linksUp
	delLinks
	delRecord
	sweeps
	claims
	settles
	givesBack
	finishes
	asks
	cedes
	lists
	seesListed
	givesUp
	takesBack
	letsGo
	finishesSingle
	parks
	takes
	rechecks
	thaws
	writesForeign

	// The controller.
	imports
	makesRoot
	freesBlock
	freesSingle
	orphanCedes
	orphanTakesBack
	orphanEnds
	heldEnds
	keptEnds
)

// Step is one step of a story. N is a node, or a Pod for what happens to Pods; X a place, an address, a sandbox or a
// message; Y the fate of an API call.
type Step struct {
	Kind    Kind
	N, X, Y uint8
}

// What becomes of an API call.
const (
	answered uint8 = iota
	unanswered
	late
	unsent // the caller dies before
)

// healing says of a step whether it belongs to a world in which nothing more goes wrong and no Pod comes.
func (st Step) healing() bool {
	switch st.Kind {
	case podStarts, newSandbox, crash, powerOff, wipe, snapshot, restore, restoreLive, cutOff, nodeDeleted, nodeRemade, replaced, clockBehind, backup, etcdRestore, saysOff,
		networkDeleted, goesOnAlone, acquires, claims, asks, cedes, writesForeign, takes, tick, longTick:
		return false
	default:
		return st.Y == answered
	}
}
