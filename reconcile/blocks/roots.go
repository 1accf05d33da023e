package blocks

import (
	"fmt"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"danm.io/danm/ipam/alloc"
	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/spec/diag"
)

// atOnce is how many blocks one decision makes for the import: the next one goes on from what is there.
const atOnce = 500

// open makes the root of a space that networks are on, after the blocks of addresses that Pods have from before (R16, R19).
func (x *decider) open(s *space) {
	bits, ok := s.bits(len(x.w.Nodes))
	if !ok {
		s.unclear = true
		x.d.Report.Unclear++
		return
	}
	if !x.w.Fresh || x.w.Endpoints == nil {
		x.d.Needs.Fresh, x.d.Needs.Endpoints = true, true
		return
	}
	held, ok := s.imported(x.before())
	if !ok {
		s.crowded = true
		return
	}
	missing, added := 0, 0
	for _, o := range s.orphans(bits, held) {
		p := s.prefixOf(o)
		if have := s.cover(p.Addr()); have != nil {
			if next := more(have, o); next != nil {
				missing++
				x.act(Action{Verb: Update, Block: next, Why: "import"})
			}
			continue
		}
		if missing++; added < atOnce {
			added++
			x.act(Action{Verb: Create, Block: o, Why: "import"})
		}
	}
	if missing > 0 {
		return
	}
	root := s.make(v1alpha1.RoleRoot, s.id.RootName(), s.cidr.String())
	root.Spec.BlockBits = int32(bits)
	a := Action{Verb: Create, Block: root, Why: "root", Prompt: true}
	if held := s.held(); held > 0 {
		a.Events = []Event{{Reason: string(diag.AddressesImported), Text: fmt.Sprintf("%d addresses of %s are kept for Pods from before", held, s.id)}}
	}
	x.act(a)
}

// more is an orphan with the holders that it lacks, nil if it lacks none, or is a node's.
func more(have *block, want *v1alpha1.IPBlock) *v1alpha1.IPBlock {
	if have.Spec.Owner != "" {
		return nil
	}
	next := have.DeepCopy()
	for _, h := range want.Spec.Held {
		known := slices.ContainsFunc(next.Spec.Held, func(o v1alpha1.IPHolder) bool { return o.Address == h.Address }) ||
			slices.ContainsFunc(next.Spec.Ceded, func(c v1alpha1.IPCession) bool { return c.Address == h.Address })
		if !known {
			next.Spec.Held = append(next.Spec.Held, h)
		}
	}
	if len(next.Spec.Held) == len(have.Spec.Held) {
		return nil
	}
	return next
}

// closeAfter is how long a root that was deleted stays in an empty space, so that nobody claims by it who has read it before: who owns
// no block of the space reads the root for each claim, and no request lasts longer.
const closeAfter = 5 * time.Minute

// close removes a root that somebody deleted, as somebody does to have the space cut anew (R16).
func (x *decider) close(s *space) {
	since, err := time.Parse(time.RFC3339, s.root.Annotations[v1alpha1.AnnotationClosing])
	if err != nil || since.After(x.w.Now) {
		next := s.root.DeepCopy()
		if next.Annotations == nil {
			next.Annotations = map[string]string{}
		}
		next.Annotations[v1alpha1.AnnotationClosing] = x.w.Now.UTC().Format(time.RFC3339)
		x.act(Action{Verb: Update, Block: next, Why: "mark"})
		return
	}
	if at := since.Add(closeAfter); at.After(x.w.Now) {
		x.wake(at)
		return
	}
	x.act(Action{Verb: Remove, Block: s.root, Why: "deleted"})
}

// rooted keeps a root's hints and counts, and lets it go when nothing has been on its space for a whole block lease.
func (x *decider) rooted(s *space) {
	x.d.Report.Unclear += min(1, len(s.strays))
	if x.blind { // networks may be missing
		return
	}
	if _, closing := s.root.Annotations[v1alpha1.AnnotationClosing]; closing { // somebody was faster
		next := s.root.DeepCopy()
		delete(next.Annotations, v1alpha1.AnnotationClosing)
		x.act(Action{Verb: Update, Block: next, Why: "mark"})
		return
	}
	if _, held := s.root.Annotations[v1alpha1.AnnotationWaiting]; held != x.waiting {
		next := s.root.DeepCopy()
		if delete(next.Annotations, v1alpha1.AnnotationWaiting); x.waiting {
			if next.Annotations == nil {
				next.Annotations = map[string]string{}
			}
			next.Annotations[v1alpha1.AnnotationWaiting] = x.w.Now.UTC().Format(time.RFC3339)
		}
		x.act(Action{Verb: Update, Block: next, Why: "mark"})
		return
	}
	m := marksOf(s.root, x.w.Now)
	if !s.used() && s.root.Status.UnusedSince != nil && s.empty() {
		at := m.since("empty")
		if s.root.Status.UnusedSince.After(at) {
			at = s.root.Status.UnusedSince.Time
		}
		if at = at.Add(x.o.BlockLease); !at.After(x.w.Now) {
			if !x.w.Fresh {
				x.d.Needs.Fresh = true // a node may just be told of a network on it
				return
			}
			x.act(Action{Verb: Remove, Block: s.root, Why: "unused", Prompt: true})
			return
		}
		x.wake(at)
	}
	if x.mark(m, s.root) {
		return // the status follows, upon the new version
	}
	want := x.rootStatus(s)
	s.status = &want
	x.d.Report.Spaces = append(x.d.Report.Spaces, SpaceReport{Space: s.id, Used: want.Used, Capacity: want.Capacity, Free: want.FreeBlocks})
	if sameStatus(s.root.Status, want) {
		return
	}
	key := "root " + s.root.Name
	if !x.due(key, x.o.HintEvery) {
		return
	}
	next := s.root.DeepCopy()
	next.Status = want
	x.act(Action{Verb: UpdateStatus, Block: next, Why: "hints", Key: key})
}

// due says whether something may be written again, and wakes the loop when it may.
func (x *decider) due(key string, every time.Duration) bool {
	at := x.w.Wrote[key].Add(every)
	if at.After(x.w.Now) {
		x.wake(at)
		return false
	}
	return true
}

func sameStatus(a, b v1alpha1.IPBlockStatus) bool {
	return a.FreeBlocks == b.FreeBlocks && a.Used == b.Used && a.Capacity == b.Capacity && slices.Equal(a.Free, b.Free) &&
		slices.Equal(a.Offers, b.Offers) && a.UnusedSince.Equal(b.UnusedSince)
}

const (
	maxRuns   = 16
	maxOffers = 64
)

// rootStatus is what the root should say.
func (x *decider) rootStatus(s *space) v1alpha1.IPBlockStatus {
	grid := alloc.NewGrid(s.cidr, int(s.root.Spec.BlockBits), s.subnets)
	st := v1alpha1.IPBlockStatus{Capacity: grid.Capacity(), Used: x.used[s.id.Hash()] + s.held() + s.parked()}
	if st.UnusedSince = s.root.Status.UnusedSince; s.used() {
		st.UnusedSince = nil
	} else if st.UnusedSince == nil {
		now := metav1.NewTime(x.w.Now.Truncate(time.Second))
		st.UnusedSince = &now
	}
	free, runs := grid.Unclaimed(s.prefixes(), maxRuns)
	st.FreeBlocks = free
	for _, r := range runs {
		st.Free = append(st.Free, r.First.String()+"-"+r.Last.String())
	}
	if free < int64(len(x.w.Nodes)) && s.used() {
		st.Offers = x.offers(s, grid)
	}
	return st
}

// held are imported addresses, which no node counts.
func (s *space) held() (n int64) {
	for _, b := range s.blocks {
		if b.Spec.Owner == "" {
			n += int64(len(b.Spec.Held))
		}
	}
	return n
}

// parked are reservations that no Pod has now. Those that one has are counted by its node, as every address of a Single.
func (s *space) parked() (n int64) {
	for _, b := range s.singles {
		if b.Spec.Owner == "" {
			n++
		}
	}
	return n
}
