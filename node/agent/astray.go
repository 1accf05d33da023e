package agent

import (
	"errors"
	"maps"
	"time"

	"danm.io/danm/node/plan"
	"danm.io/danm/node/podresources"
)

// astrayAfter is how long a function may be away with nobody known to have it: one that is on its way to a Pod, or back, is so for moments.
const astrayAfter = 2 * time.Minute

// astray are virtual functions whose interface is in a network namespace of nobody that the kubelet or a record knows. A Pod that got one
// could not be attached. One goroutine looks.
type astray struct {
	since  map[string]time.Time // by PCI address, when it was first seen so, without a round in which it was not
	looked map[string]bool      // in this round
	blind  bool                 // who has devices is not known
}

// asked notes whether the kubelet has answered. Pods that other plugins attach are known to it alone.
func (a *astray) asked(err error) { a.blind = err != nil && !errors.Is(err, podresources.ErrNone) }

// look says what is wrong with a function, "" for nothing: what is away for a moment is not.
func (a *astray) look(vf plan.ObservedVF, had bool) string {
	if !vf.Away || had || a.blind {
		return ""
	}
	if a.since == nil {
		a.since, a.looked = map[string]time.Time{}, map[string]bool{}
	}
	a.looked[vf.PCI] = true
	if _, seen := a.since[vf.PCI]; !seen {
		a.since[vf.PCI] = time.Now()
	}
	if time.Since(a.since[vf.PCI]) < astrayAfter {
		return ""
	}
	return "it is in another network namespace, and no Pod known here has it: end what holds it there, or move it back"
}

// forget ends a round: what was not looked at in it, or was well, begins anew.
func (a *astray) forget() {
	maps.DeleteFunc(a.since, func(pci string, _ time.Time) bool { return !a.looked[pci] })
	clear(a.looked)
}
