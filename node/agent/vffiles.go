package agent

import (
	"maps"
	"time"

	"danm.io/danm/node/plan"
	"danm.io/danm/node/sriov"
)

// believed is how long what sysfs told of a function first is believed: what stands beside its interface comes a moment later, and udev gives
// it another name. What could not be read is read again as often.
const believed = 10 * time.Second

// vfFiles are virtual functions as sysfs tells of them. What does not change is read twice, and again when the function looks another; that
// of one whose interface is in a Pod is not to be seen, so what was known is. One goroutine looks.
type vfFiles struct {
	sys   sriov.Sys
	known map[string]known // by PCI address
	round int
}

type known struct {
	vf    plan.ObservedVF
	at    time.Time
	last  bool // it was read again
	round int  // in which it was looked at
	is    sriov.Function
	err   error
}

func (f *vfFiles) look(vf plan.ObservedVF) (sriov.Function, error) {
	k, found := f.known[vf.PCI]
	hidden := vf.Away || vf.Driver == plan.DriverBusy
	another := !found || k.vf != vf && !hidden
	if another || (k.err != nil || !k.last && !hidden) && time.Since(k.at) > believed {
		k = known{vf: vf, at: time.Now(), last: !another}
		k.is, k.err = f.sys.Function(vf.PCI)
	}
	k.round = f.round
	if f.known == nil {
		f.known = map[string]known{}
	}
	f.known[vf.PCI] = k
	return k.is, k.err
}

// forget ends a round: functions that nobody looked at in it are gone.
func (f *vfFiles) forget() {
	maps.DeleteFunc(f.known, func(_ string, k known) bool { return k.round != f.round })
	f.round++
}
