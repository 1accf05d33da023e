package publish

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/spec/model"
)

// cluster is nodes in memory: what the API would hold, and how each node takes a plan.
type cluster struct {
	plans    map[string]*v1alpha1.NodePlan
	labels   map[string]map[string]string
	wanted   map[string]string // node → digest
	revision string
	bad      map[string]bool // digests that cut a node off
	dead     map[string]bool // nodes that never report
	ended    map[string]bool
	status   v1alpha1.RolloutStatus
	quarant  []v1alpha1.QuarantinedPlan
	rollout  model.Rollout
	now      time.Time
	rand     *rand.Rand      // all that is random comes from here: a seed repeats
	passed   map[string]bool // nodes that nobody waits for: late, and told nothing since. A new rollout forgets who was late
	most     int             // nodes seen unconfirmed at once after new ones were told, those and dead ones apart
}

func newCluster(n int) *cluster {
	c := &cluster{rand: rand.New(rand.NewPCG(1, 7)), plans: map[string]*v1alpha1.NodePlan{}, labels: map[string]map[string]string{}, wanted: map[string]string{}, bad: map[string]bool{}, dead: map[string]bool{}, passed: map[string]bool{},
		rollout: model.Rollout{MaxUnavailable: model.IntOrPercent{Int: 2}}, now: time.Unix(1e9, 0)}
	for i := range n {
		c.labels[fmt.Sprintf("n%02d", i)] = map[string]string{"zone": fmt.Sprint(i % 3)}
	}
	return c
}

func (c *cluster) commit(revision, digest string) {
	c.revision = revision
	for n := range c.labels {
		c.wanted[n] = digest
	}
}

func (c *cluster) decide() Decision {
	in := Input{Bundle: "b", Ended: c.ended, Revision: c.revision, Rollout: c.rollout, Previous: &c.status, Quarantined: c.quarant, Now: c.now, Patience: time.Minute}
	for _, n := range slices.Sorted(maps.Keys(c.labels)) {
		in.Nodes = append(in.Nodes, Node{Name: n, Labels: c.labels[n], Plan: c.plans[n].DeepCopy(), Wanted: v1alpha1.Layer{Revision: c.revision, Digest: c.wanted[n]}})
	}
	c.rand.Shuffle(len(in.Nodes), func(i, j int) { in.Nodes[i], in.Nodes[j] = in.Nodes[j], in.Nodes[i] })
	return Decide(in)
}

// act carries a decision out, up to upTo writes: less is a process that was killed.
func (c *cluster) act(d Decision, upTo int) {
	d.Rollout.DeepCopyInto(&c.status)
	c.quarant = d.Quarantined
	for _, n := range c.status.Late {
		c.passed[n] = true
	}
	before := c.inAir(func(n string) bool { return !c.dead[n] })
	for _, w := range d.Writes[:upTo] {
		p := c.plans[w.Node]
		if p == nil {
			p = &v1alpha1.NodePlan{ObjectMeta: metav1.ObjectMeta{Name: w.Node}, Spec: v1alpha1.NodePlanSpec{Bundle: "b"}}
			c.plans[w.Node] = p
		}
		p.Spec.Bundle, p.Spec.Layers.Bundle, p.Spec.LastGood = "b", w.Layer.DeepCopy(), w.LastGood
		delete(c.passed, w.Node)
	}
	now := c.inAir(func(n string) bool { return !c.dead[n] && !c.passed[n] })
	if now > before { // a late node that is told again may be one too many, which disturbs nobody
		c.most = max(c.most, now)
	}
}

func (c *cluster) inAir(which func(string) bool) int {
	out := 0
	for n, p := range c.plans {
		if which(n) {
			out += Node{Plan: p}.inAir()
		}
	}
	return out
}

// report lets one node say what became of its plan.
func (c *cluster) report(n string) {
	p := c.plans[n]
	if p == nil || c.dead[n] {
		return
	}
	l := p.Spec.Layers.Bundle
	if c.bad[l.Digest] {
		p.Status.Refused = &v1alpha1.RefusedPlan{Digest: l.Digest, Revision: l.Revision, Guilty: true, Reason: "gateway 10.0.0.1 silent"}
		return
	}
	p.Status.Applied = &v1alpha1.AppliedPlan{Revision: l.Revision, Digest: l.Digest, Segments: l.Segments}
}

// someReport lets about half of the nodes report.
func (c *cluster) someReport() {
	for _, n := range slices.Sorted(maps.Keys(c.plans)) {
		if c.rand.IntN(2) == 0 {
			c.report(n)
		}
	}
}

// run goes on until nothing changes any more, and returns the last decision.
func (c *cluster) run(t *testing.T) Decision {
	t.Helper()
	for range 1000 {
		d := c.decide()
		if len(d.Writes) == 0 && (d.Phase == Complete || d.Phase == Quarantined) {
			c.act(d, 0)
			return d
		}
		c.act(d, len(d.Writes))
		c.someReport()
		c.now = c.now.Add(time.Second)
	}
	t.Fatalf("no end: %+v", c.status)
	return Decision{}
}

func (c *cluster) digests() map[string]int {
	out := map[string]int{}
	for _, p := range c.plans {
		out[p.Spec.Layers.Bundle.Digest]++
	}
	return out
}
