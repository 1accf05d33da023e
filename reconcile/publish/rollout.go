package publish

import (
	"cmp"
	"maps"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/spec/model"
)

// Phase is where a rollout stands.
type Phase string

// The phases; the ones that do not go on by themselves are condition reasons too.
const (
	Complete    Phase = "RolledOut"           // every node has what it should have, or was passed over
	Rolling     Phase = "RollingOut"          // a wave is under way
	Soaking     Phase = "Soaking"             // a wave is done and watched
	Quarantined Phase = "RevisionQuarantined" // a plan cut its node off: nothing goes on
	Reverting   Phase = "Reverting"           // the same, and nodes go back to the last good revision
)

// Node is one node with what it has and what it should have.
type Node struct {
	Name   string
	Labels map[string]string
	Plan   *v1alpha1.NodePlan // nil: none yet
	Wanted v1alpha1.Layer

	free bool // the plan is of no bundle, or of one that is no more: it is told anew, even what it has
}

// Input of Decide: what the API says now.
type Input struct {
	Bundle      string
	Ended       map[string]bool // bundles that are no more: their nodes are anybody's
	Revision    string
	Rollout     model.Rollout
	Nodes       []Node
	Previous    *v1alpha1.RolloutStatus
	Quarantined []v1alpha1.QuarantinedPlan
	Now         time.Time
	Patience    time.Duration // how long a node may take to confirm before it is passed over
}

// Decision is what to do now, and when to look again if nothing happens (0: no need).
type Decision struct {
	Phase       Phase
	Writes      []Write // sorted by node
	Rollout     v1alpha1.RolloutStatus
	Quarantined []v1alpha1.QuarantinedPlan
	Culprit     *v1alpha1.QuarantinedPlan // why the phase is Quarantined or Reverting
	Others      []string                  // nodes that belong to another bundle
	Confirmed   int                       // nodes that have what their plan says
	Planned     int                       // nodes of this bundle
	After       time.Duration
}

// Write is a new spec of a node's plan; only the bundle's layer and the last good one differ from what is there.
type Write struct {
	Node     string
	Layer    v1alpha1.Layer
	LastGood *v1alpha1.Layer
}

// Decide is one step of a rollout. It is pure, and level-triggered: called again with what it asked for done, it goes on.
func Decide(in Input) Decision {
	r := newRollout(in)
	d := Decision{Others: r.others, Planned: len(r.mine)}
	for _, n := range r.mine {
		if n.confirmed(n.layer()) {
			d.Confirmed++
		}
	}
	d.Culprit = r.culprit()
	d.Quarantined = r.quarantined
	if d.Culprit != nil {
		d.Phase = Quarantined
		if in.Rollout.RevertOnFailure {
			if d.Writes = r.reverts(); len(d.Writes) > 0 {
				d.Phase = Reverting
			}
		}
		d.Rollout = r.status
		return d
	}
	d.Phase, d.Writes, d.After = r.advance()
	d.Rollout = r.status
	return d
}

type rollout struct {
	in          Input
	mine        []node // sorted by name
	others      []string
	status      v1alpha1.RolloutStatus
	quarantined []v1alpha1.QuarantinedPlan
	late        map[string]bool // passed over already, by an earlier rollout too
}

type node struct{ Node }

func newRollout(in Input) *rollout {
	r := &rollout{in: in, quarantined: slices.Clone(in.Quarantined), late: map[string]bool{}}
	if in.Previous != nil {
		in.Previous.DeepCopyInto(&r.status)
	}
	for _, name := range r.status.Late {
		r.late[name] = true
	}
	for _, n := range in.Nodes {
		if n.Plan != nil && n.Plan.Spec.Bundle != "" && n.Plan.Spec.Bundle != in.Bundle && !in.Ended[n.Plan.Spec.Bundle] {
			r.others = append(r.others, n.Name)
			continue
		}
		n.free = n.Plan != nil && n.Plan.Spec.Bundle != in.Bundle
		r.mine = append(r.mine, node{Node: n})
		if n.Plan != nil && n.Plan.Spec.Layers.Bundle != nil { // a status that was lost must not make untested layers good
			r.status.Number = max(r.status.Number, n.Plan.Spec.Layers.Bundle.Rollout)
		}
	}
	slices.Sort(r.others)
	slices.SortFunc(r.mine, func(a, b node) int { return cmp.Compare(a.Name, b.Name) })
	return r
}

// layer is the bundle's layer that the node's plan has, nil if there is none.
func (n Node) layer() *v1alpha1.Layer {
	if n.Plan == nil || n.free {
		return nil
	}
	return n.Plan.Spec.Layers.Bundle
}

// same says whether two layers ask the same of a node, whatever commit said so.
func same(a, b v1alpha1.Layer) bool {
	return a.Digest == b.Digest && a.Source == b.Source && a.ConfirmTimeout == b.ConfirmTimeout && a.Disruptive == b.Disruptive &&
		slices.Equal(a.Segments, b.Segments) && maps.Equal(a.Underlays, b.Underlays) && maps.EqualFunc(a.Addresses, b.Addresses, slices.Equal)
}

func (n Node) current() bool {
	return n.layer() != nil && same(*n.layer(), n.Wanted) && !n.haunted()
}

// haunted says whether the node still speaks of a plan it undid, though a revision has come that asks for what it has: told so by
// the revision's name, it has gone on.
func (n Node) haunted() bool {
	r := n.Plan.Status.Refused
	return r != nil && r.Digest != n.Wanted.Digest && n.layer().Revision != n.Wanted.Revision
}

// confirmed says whether the node reports to have a layer.
func (n Node) confirmed(l *v1alpha1.Layer) bool {
	if l == nil || n.Plan == nil || n.Plan.Status.Applied == nil {
		return false
	}
	a := n.Plan.Status.Applied
	return a.Revision == l.Revision && a.Digest == l.Digest && slices.Equal(a.Segments, l.Segments)
}

// guilty says whether the node undid the layer it is told to have, because it cut the node off. A verdict that people asked
// to forget, and the node has not forgotten yet, is none.
func (n Node) guilty() bool {
	l := n.layer()
	if l == nil || n.Plan.Status.Refused == nil || n.Plan.Annotations[v1alpha1.AnnotationRetry] != n.Plan.Status.HandledRetry {
		return false
	}
	refused := n.Plan.Status.Refused
	return refused.Guilty && refused.Digest == l.Digest && refused.Revision == l.Revision
}

// culprit is the plan that forbids to go on: one that a node found guilty now, which is then remembered, or one that is
// remembered and wanted again.
func (r *rollout) culprit() *v1alpha1.QuarantinedPlan {
	for _, n := range r.mine {
		if !n.guilty() || r.find(n.layer().Digest) != nil {
			continue
		}
		r.quarantined = append(r.quarantined, v1alpha1.QuarantinedPlan{Digest: n.layer().Digest, Revision: n.layer().Revision, Node: n.Name,
			Reason: n.Plan.Status.Refused.Reason, At: metav1.NewTime(r.in.Now)})
	}
	const kept = 100
	if over := len(r.quarantined) - kept; over > 0 {
		r.quarantined = r.quarantined[over:]
	}
	for _, n := range r.mine {
		if q := r.find(n.Wanted.Digest); q != nil {
			return q
		}
	}
	return nil
}

func (r *rollout) find(digest string) *v1alpha1.QuarantinedPlan {
	i := slices.IndexFunc(r.quarantined, func(q v1alpha1.QuarantinedPlan) bool { return q.Digest == digest })
	if i < 0 {
		return nil
	}
	q := r.quarantined[i]
	return &q
}

// tested says whether a node has confirmed its layer and the rollout of it was complete: where one can go back to.
func (r *rollout) tested(n node) bool {
	l := n.layer()
	return l != nil && l.Rollout <= r.status.LastComplete && n.confirmed(l)
}

// reverts sends every node that has a layer of an unfinished rollout, or one that is quarantined, back to its last good one.
// Who is late with a finished one keeps it: the others have it, too.
func (r *rollout) reverts() []Write {
	var out []Write
	for _, n := range r.mine {
		l := n.layer()
		if l == nil || r.tested(n) || l.Rollout <= r.status.LastComplete && r.find(l.Digest) == nil {
			continue
		}
		if good := n.Plan.Spec.LastGood; good != nil && !same(*l, *good) && r.find(good.Digest) == nil {
			out = append(out, Write{Node: n.Name, Layer: *good, LastGood: good}) // which it still is until the node confirms it
		}
	}
	return out
}

// advance goes on with the present wave, or begins the next one.
func (r *rollout) advance() (Phase, []Write, time.Duration) {
	var pending, inFlight []*node
	for i := range r.mine {
		switch n := &r.mine[i]; {
		case !n.current():
			pending = append(pending, n)
		case !n.confirmed(n.layer()):
			inFlight = append(inFlight, n)
		}
	}
	if len(pending) == 0 && (r.status.Complete || r.status.Number == 0) {
		r.status.Revision = r.in.Revision // a commit that changes no node is rolled out by looking
		r.status.Complete, r.status.LastComplete, r.status.Late = true, r.status.Number, names(inFlight)
		return Complete, nil, 0
	}
	r.begin(len(pending))
	waiting, wait := r.waiting(inFlight, pending)
	if len(waiting) > 0 {
		return Rolling, nil, wait
	}
	if r.status.WaveDone.IsZero() && r.status.Wave > 0 {
		r.status.WaveDone = metav1.NewTime(r.in.Now)
	}
	r.status.Done = r.status.Total - len(pending)
	if len(pending) == 0 {
		r.status.Complete, r.status.LastComplete = true, r.status.Number
		return Complete, nil, 0
	}
	if left := r.in.Rollout.Soak - r.in.Now.Sub(r.status.WaveDone.Time); r.status.Wave > 0 && left > 0 && left <= r.in.Rollout.Soak {
		return Soaking, nil, left
	}
	return Rolling, r.wave(pending), r.in.Patience
}

// begin makes a rollout of its own of a revision that comes after a complete one, or instead of one under way.
func (r *rollout) begin(pending int) {
	if r.status.Number > 0 && !r.status.Complete && r.status.Revision == r.in.Revision {
		r.status.Total = max(r.status.Total, r.status.Done+pending)
		return
	}
	r.status = v1alpha1.RolloutStatus{Number: r.status.Number + 1, LastComplete: r.status.LastComplete, Revision: r.in.Revision, Total: pending}
}

// waiting are the told nodes that have not confirmed and still have time, and how long they have. The others are noted as
// late and hold nobody up: only a plan that cut a node off does.
func (r *rollout) waiting(inFlight, pending []*node) (out []*node, left time.Duration) {
	if r.status.Wave == 0 && len(inFlight) > 0 && len(r.status.Nodes) == 0 { // told by an earlier rollout
		r.status.Nodes, r.status.WaveStarted = names(inFlight), metav1.NewTime(r.in.Now)
	}
	left = r.in.Patience - r.in.Now.Sub(r.status.WaveStarted.Time)
	r.status.Late = nil
	for _, n := range inFlight {
		if left > 0 && left <= r.in.Patience && slices.Contains(r.status.Nodes, n.Name) { // beyond: the clock was set back
			out = append(out, n)
			continue
		}
		r.status.Late = append(r.status.Late, n.Name)
	}
	for _, n := range pending {
		if r.silent(n) {
			r.status.Late = append(r.status.Late, n.Name)
		}
	}
	slices.Sort(r.status.Late)
	return out, left
}

// silent says whether a node was passed over and has said nothing since.
func (r *rollout) silent(n *node) bool { return r.late[n.Name] && n.inAir() > 0 }

func names(nodes []*node) []string {
	var out []string
	for _, n := range nodes {
		out = append(out, n.Name)
	}
	return out
}

// wave tells the next nodes: canaries first, then as many as may be unavailable at once. Those that say nothing come last, all
// at once: they would cost each wave its patience, and are unavailable as it is.
func (r *rollout) wave(pending []*node) []Write {
	nodes := slices.DeleteFunc(slices.Clone(pending), r.silent)
	slices.SortStableFunc(nodes, func(a, b *node) int { // who is being changed already comes first: nobody else has to be
		return cmp.Compare(b.inAir(), a.inAir())
	})
	if len(nodes) == 0 {
		nodes = pending
	} else if missing := r.canariesMissing(nodes); len(missing) > 0 {
		nodes = missing
	} else if most := r.most(); len(nodes) > most {
		nodes = nodes[:most]
	}
	r.status.Wave++
	r.status.WaveStarted, r.status.WaveDone, r.status.Nodes = metav1.NewTime(r.in.Now), metav1.Time{}, nil
	var out []Write
	for _, n := range nodes {
		w := Write{Node: n.Name, Layer: *n.Wanted.DeepCopy()}
		w.Layer.Rollout = r.status.Number
		if r.tested(*n) {
			w.LastGood = n.layer().DeepCopy()
		} else if n.Plan != nil && !n.free {
			w.LastGood = n.Plan.Spec.LastGood.DeepCopy()
		}
		out = append(out, w)
		r.status.Nodes = append(r.status.Nodes, n.Name)
	}
	return out
}

// canariesMissing are the nodes to try first, as long as fewer than asked for have confirmed this rollout.
func (r *rollout) canariesMissing(pending []*node) []*node {
	missing := r.in.Rollout.CanaryCount
	for _, n := range r.mine {
		if l := n.layer(); l != nil && l.Rollout == r.status.Number && n.confirmed(l) && matches(r.in.Rollout.CanarySelector, n.Labels) {
			missing--
		}
	}
	var out []*node
	for _, n := range pending {
		if len(out) < missing && matches(r.in.Rollout.CanarySelector, n.Labels) {
			out = append(out, n)
		}
	}
	return out
}

func matches(selector, labels map[string]string) bool {
	for k, v := range selector {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// most is how many nodes a wave has, at least one.
func (r *rollout) most() int {
	m := r.in.Rollout.MaxUnavailable
	n := m.Int
	if m.Percent > 0 {
		n = len(r.mine) * m.Percent / 100
	}
	return max(n, 1)
}

// inAir is 1 if the node was told a layer and has neither confirmed nor undone it.
func (n Node) inAir() int {
	if l := n.layer(); l == nil || n.confirmed(l) || n.guilty() {
		return 0
	}
	return 1
}
