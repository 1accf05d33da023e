package agent

import (
	"maps"
	"slices"
	"time"

	"danm.io/danm/node/plan"
)

// A fight is more than maxRepairs repairs of one object within fightWindow; it is then left alone for fightPause.
const (
	maxRepairs  = 10
	fightWindow = time.Minute
	fightPause  = time.Minute
)

// fights counts repairs by object. Not safe for concurrent use: the loop owns it.
type fights struct {
	seen  map[plan.ObjectID][]time.Time
	until map[plan.ObjectID]time.Time
}

func newFights() fights {
	return fights{seen: map[plan.ObjectID][]time.Time{}, until: map[plan.ObjectID]time.Time{}}
}

// note counts one repair and says whether a fight begins with it.
func (f fights) note(id plan.ObjectID, now time.Time) bool {
	recent := slices.DeleteFunc(f.seen[id], func(t time.Time) bool { return now.Sub(t) >= fightWindow })
	recent = append(recent, now)
	if len(recent) <= maxRepairs {
		f.seen[id] = recent
		return false
	}
	delete(f.seen, id)
	f.until[id] = now.Add(fightPause)
	return true
}

// skip lists the objects to be left alone now, sorted, and forgets what is long over.
func (f fights) skip(now time.Time) []plan.ObjectID {
	maps.DeleteFunc(f.until, func(_ plan.ObjectID, t time.Time) bool { return !now.Before(t) })
	maps.DeleteFunc(f.seen, func(_ plan.ObjectID, ts []time.Time) bool { return now.Sub(ts[len(ts)-1]) >= fightWindow })
	return slices.Sorted(maps.Keys(f.until))
}
