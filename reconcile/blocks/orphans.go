package blocks

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"danm.io/danm/spec/api/v1alpha1"
)

// maxListed is how many ceded addresses an IPBlock can list.
const maxListed = 256

// orphan answers for a block that is nobody's, as its owner would: it cedes what is free, takes back what is not used any more,
// and lets the block go when nothing of it is.
func (x *decider) orphan(s *space, b block) {
	if x.waiting {
		x.hold(s, b)
		return
	}
	m := marksOf(b.IPBlock, x.w.Now)
	next := *b.IPBlock // lists are not changed in place, and copied only where they change
	next.Spec.Ceded = without(b.Spec.Ceded, func(c v1alpha1.IPCession) bool { return x.returned(s, m, c) })
	next.Spec.Held = without(b.Spec.Held, func(h v1alpha1.IPHolder) bool { return x.left(b, m, h) })
	if !b.stray {
		x.answers(s, b, &next)
	}
	if len(next.Spec.Ceded) == 0 && len(next.Spec.Held) == 0 {
		x.act(Action{Verb: Remove, Block: b.IPBlock, Why: "empty"})
		return
	}
	lists := !slices.Equal(next.Spec.Ceded, b.Spec.Ceded) || len(next.Spec.Held) != len(b.Spec.Held)
	if !lists && !m.changed(b.IPBlock) {
		return
	}
	made := next.DeepCopy()
	m.write(made)
	why := "mark"
	if lists {
		why = "cession"
	}
	x.act(Action{Verb: Update, Block: made, Why: why})
}

// hold lists who relies on an address of an orphan while nodes wait for a check, and changes nothing else of it.
func (x *decider) hold(s *space, b block) {
	next := *b.IPBlock
	if !b.stray {
		x.answers(s, b, &next)
	}
	if !slices.Equal(next.Spec.Ceded, b.Spec.Ceded) {
		x.act(Action{Verb: Update, Block: next.DeepCopy(), Why: "cession"})
	}
}

// without is a list without some items: itself if there are none of them.
func without[T any](list []T, drop func(T) bool) []T {
	for i, item := range list {
		if drop(item) {
			return append(slices.Clone(list[:i]), without(list[i+1:], drop)...)
		}
	}
	return slices.Clip(list)
}

// returned is R11: the Single with that UID is gone, and has been for the cooldown.
func (x *decider) returned(s *space, m *marks, c v1alpha1.IPCession) bool {
	if s.byUID[c.UID] {
		return false
	}
	at := m.since("returned " + c.Address).Add(x.o.Cooldown)
	if at.After(x.w.Now) {
		x.wake(at)
		return false
	}
	delete(m.has, "returned "+c.Address)
	return true
}

// left says whether an imported address is nobody's any more: its Pod has been gone for the grace; or nobody knows a Pod, and a
// whole block lease has passed.
func (x *decider) left(b block, m *marks, h v1alpha1.IPHolder) bool {
	if h.UID == "" && h.Pod == "" {
		at := b.CreationTimestamp.Add(x.o.BlockLease)
		if at.After(x.w.Now) {
			x.wake(at)
			return false
		}
		return true
	}
	mark := "left " + h.Address
	if x.w.Pods == nil {
		x.d.Needs.Pods = true
		m.keep(mark)
		return false
	}
	if x.w.Pods.UIDs[h.UID] || h.UID == "" && x.w.Pods.Names[h.Namespace+"/"+h.Pod] {
		return false
	}
	at := m.since(mark).Add(x.o.Grace)
	if at.After(x.w.Now) {
		x.wake(at)
		return false
	}
	delete(m.has, mark)
	return true
}

// answers cedes the addresses that Singles ask of an orphan. A Single that is ceded is told when the list that says so is in
// the API, since the list is what counts (R10).
func (x *decider) answers(s *space, b block, next *v1alpha1.IPBlock) {
	for _, single := range s.asking(b.prefix) {
		if !single.DeletionTimestamp.IsZero() {
			continue
		}
		address := single.prefix.Addr().String()
		listed := func(c v1alpha1.IPCession) bool { return c.Address == address }
		if i := slices.IndexFunc(b.Spec.Ceded, listed); i >= 0 && b.Spec.Ceded[i].UID == string(single.UID) {
			x.answer(single, v1alpha1.AnswerCeded, "")
			continue
		}
		if single.Status.Answer == v1alpha1.AnswerRefused && !single.used() {
			continue // who asked deletes it
		}
		reason := occupied(next, address)
		switch {
		case reason != "" || single.used():
		case x.waiting:
			reason = "nodes wait for danmctl ipam check --accept since the API server was restored from a backup"
		default:
			reason = unheardOf(b.IPBlock, x.w.Now)
		}
		switch {
		case reason != "":
			x.answer(single, v1alpha1.AnswerRefused, reason)
		case len(next.Spec.Ceded) >= maxListed:
			x.answer(single, v1alpha1.AnswerRefused, "the block around it lists as many ceded addresses as it can")
		default:
			next.Spec.Ceded = append(next.Spec.Ceded, v1alpha1.IPCession{Address: address, UID: string(single.UID), Node: single.Spec.Owner})
		}
	}
}

// occupied says who has an address of an orphan, "" if nobody.
func occupied(b *v1alpha1.IPBlock, address string) string {
	for _, c := range b.Spec.Ceded {
		if c.Address == address {
			return fmt.Sprintf("%s is ceded to node %s, or was until a moment ago", address, c.Node)
		}
	}
	for _, h := range b.Spec.Held {
		switch {
		case h.Address != address:
		case h.Pod == "":
			return fmt.Sprintf("%s was in use when addresses were imported, and no Pod is known", address)
		default:
			return fmt.Sprintf("%s is Pod %s/%s's, from before addresses were imported", address, h.Namespace, h.Pod)
		}
	}
	return ""
}

// asking are the Singles in a range.
func (s *space) asking(p netip.Prefix) []block {
	from, _ := slices.BinarySearchFunc(s.singles, p.Addr(), func(b block, a netip.Addr) int { return b.prefix.Addr().Compare(a) })
	to := from
	for to < len(s.singles) && p.Contains(s.singles[to].prefix.Addr()) {
		to++
	}
	return s.singles[from:to]
}

// answer is written only where it is news.
func (x *decider) answer(single block, answer, reason string) {
	if len(reason) > 512 {
		reason = reason[:512]
	}
	if single.Status.Answer == answer && single.Status.Reason == reason {
		return
	}
	next := single.DeepCopy()
	next.Status.Answer, next.Status.Reason = answer, reason
	x.act(Action{Verb: UpdateStatus, Block: next, Why: answer})
}

// used says of a Single whether a node relies on it: it was ceded, or made again after the API had forgotten it.
func (b block) used() bool {
	return b.Spec.Role == v1alpha1.RoleSingle && b.Spec.Owner != "" && (b.Spec.Before != "" || b.Status.Answer == v1alpha1.AnswerCeded)
}

const (
	// aroundAfter is how long the owner of a block has to make it again, of which a node has made a Single again: nodes try to reach
	// the API every ten seconds.
	aroundAfter = 30 * time.Second
	// heardAfter is how long after that nothing else of the block is ceded: who had it, or an address of it, may be cut off.
	heardAfter = 15 * time.Minute
)

// unheardOf says why nothing more of an orphan is ceded yet, "" if it may be.
func unheardOf(b *v1alpha1.IPBlock, now time.Time) string {
	at, err := time.Parse(time.RFC3339, b.Annotations[AnnotationAgain])
	if err != nil || !at.Add(heardAfter).After(now) {
		return ""
	}
	return "the block around it was made again after the API had forgotten it, and who had it may not have been heard of yet"
}

// around makes the block that is missing around Singles that nodes rely on, so that nobody claims it and gives their addresses out:
// an API from a backup knows neither the block nor that it had ceded something (R15, R18).
func (x *decider) around(s *space, single block) {
	p, err := single.prefix.Addr().Prefix(int(s.root.Spec.BlockBits))
	if err != nil {
		return
	}
	o := s.make(v1alpha1.RoleBlock, s.id.BlockName(p), p.String())
	for _, other := range s.asking(p) {
		if other.used() && len(o.Spec.Ceded) < maxListed {
			o.Spec.Ceded = append(o.Spec.Ceded, v1alpha1.IPCession{Address: other.prefix.Addr().String(), UID: string(other.UID), Node: other.Spec.Owner})
		}
	}
	o.Annotations = map[string]string{AnnotationAgain: x.w.Now.UTC().Format(time.RFC3339)}
	x.act(Action{Verb: Create, Block: o, Why: "ceded"})
}

// unheard refuses Singles whose question reaches nobody: the owner that was asked has not the block any more, and does not exist.
func (x *decider) unheard(s *space, single block) {
	cover, asked := s.cover(single.prefix.Addr()), single.Spec.Asked
	if cover == nil && single.used() && s.root != nil && int(s.root.Spec.BlockBits) < single.prefix.Bits() {
		at := single.CreationTimestamp.Add(aroundAfter)
		if asked != "" && !x.w.Nodes[asked] || !at.After(x.w.Now) {
			x.around(s, single)
			return
		}
		x.wake(at)
	}
	if single.Status.Answer != "" || !single.DeletionTimestamp.IsZero() {
		return
	}
	if asked != "" && x.w.Nodes[asked] {
		return
	}
	switch {
	case cover == nil:
		x.answer(single, v1alpha1.AnswerRefused, "nobody has the block around it any more: claim it, or ask again")
	case cover.Spec.Owner != "" && cover.Spec.Owner != asked:
		x.answer(single, v1alpha1.AnswerRefused, fmt.Sprintf("node %s has the block around it now: ask again", cover.Spec.Owner))
	}
}

// parked ends a reservation that nobody can come back for.
func (x *decider) parked(b block) {
	r := b.Spec.Reservation
	if r == nil {
		x.act(Action{Verb: Remove, Block: b.IPBlock, Why: "nobody's"})
		return
	}
	if !b.DeletionTimestamp.IsZero() { // nobody takes it over any more
		x.act(Action{Verb: Remove, Block: b.IPBlock, Why: "reservation"})
		return
	}
	if x.w.Sets == nil {
		x.d.Needs.Sets = true
		return // its mark stays
	}
	m := marksOf(b.IPBlock, x.w.Now)
	if !x.w.Sets[r.UID].has(r) {
		at := m.since("no Pod").Add(x.o.Grace)
		if !at.After(x.w.Now) {
			x.act(Action{Verb: Remove, Block: b.IPBlock, Why: "reservation"})
			return
		}
		x.wake(at)
	}
	x.mark(m, b.IPBlock)
}
