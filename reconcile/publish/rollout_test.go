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

func TestWavesReachEveryNodeWithinTheBound(t *testing.T) {
	c := newCluster(11)
	c.commit("r1", "d1")
	if d := c.run(t); d.Phase != Complete || d.Confirmed != 11 || c.most > 2 || c.status.Wave != 6 {
		t.Fatalf("%+v, at most %d at once, %d waves", d, c.most, c.status.Wave)
	}
	writes := c.status
	if d := c.decide(); len(d.Writes) != 0 || d.Rollout.Number != writes.Number {
		t.Errorf("a second look writes: %+v", d)
	}
	c.commit("r2", "d1") // no node is concerned
	if d := c.run(t); d.Rollout.Revision != "r2" || d.Rollout.Number != 1 || c.plans["n00"].Spec.Layers.Bundle.Revision != "r1" {
		t.Errorf("a commit that changes nothing: %+v", d)
	}
}

func TestCanariesAndSoak(t *testing.T) {
	c := newCluster(9)
	c.rollout = model.Rollout{CanarySelector: map[string]string{"zone": "1"}, CanaryCount: 2, MaxUnavailable: model.IntOrPercent{Percent: 100}, Soak: time.Minute}
	c.commit("r1", "d1")
	d := c.decide()
	if len(d.Writes) != 2 || d.Writes[0].Node != "n01" || d.Writes[1].Node != "n04" {
		t.Fatalf("canaries: %+v", d.Writes)
	}
	c.act(d, 2)
	if d = c.decide(); len(d.Writes) != 0 || d.Phase != Rolling {
		t.Fatalf("went on before the canaries said anything: %+v", d)
	}
	c.report("n01")
	if d = c.decide(); len(d.Writes) != 0 {
		t.Fatalf("went on with one canary of two: %+v", d)
	}
	c.report("n04")
	d = c.decide()
	c.act(d, 0)
	if d.Phase != Soaking || d.After != time.Minute {
		t.Fatalf("no soak: %+v", d)
	}
	c.now = c.now.Add(59 * time.Second)
	if d = c.decide(); d.Phase != Soaking || d.After != time.Second {
		t.Fatalf("soak ended early: %+v", d)
	}
	c.now = c.now.Add(time.Second)
	if d = c.decide(); len(d.Writes) != 7 {
		t.Fatalf("after the soak: %+v", d)
	}
	c.act(d, 3) // killed
	if d = c.decide(); len(d.Writes) != 0 {
		t.Fatalf("a restart tells more nodes than the wave has: %+v", d)
	}
	if d = c.run(t); d.Phase != Complete || d.Confirmed != 9 {
		t.Fatalf("%+v", d)
	}
}

func TestACutHaltsOrReverts(t *testing.T) {
	for _, revert := range []bool{false, true} {
		c := newCluster(8)
		c.rollout.RevertOnFailure = revert
		c.commit("r1", "d1")
		c.run(t)
		c.commit("r2", "d2")
		c.wanted["n05"], c.bad["cut"] = "cut", true
		d := c.run(t)
		if d.Phase != Quarantined || d.Culprit == nil || d.Culprit.Node != "n05" || d.Culprit.Digest != "cut" || d.Culprit.Revision != "r2" {
			t.Fatalf("revert %v: %+v", revert, d)
		}
		if got := c.digests(); revert && got["d1"] != 8 || !revert && (got["cut"] != 1 || got["d1"] != 2) {
			t.Fatalf("revert %v: %v", revert, got)
		}
		if got := c.plans["n07"].Spec.Layers.Bundle; got.Revision != "r1" {
			t.Errorf("a later wave was told: %+v", got)
		}
		c.commit("r3", "d2") // another commit, the same for that node
		c.wanted["n05"] = "cut"
		if d = c.run(t); d.Phase != Quarantined {
			t.Fatalf("the quarantine is of the plan, not of the commit: %+v", d)
		}
		c.commit("r4", "d4")
		if d = c.run(t); d.Phase != Complete || d.Confirmed != 8 {
			t.Fatalf("a mended commit: %+v", d)
		}
		c.commit("r5", "d5")
		c.wanted["n05"] = "cut"
		if d = c.run(t); d.Phase != Quarantined || c.digests()["cut"] != 0 {
			t.Fatalf("tried again though quarantined: %+v", d)
		}
		c.bad["cut"], c.quarant = false, nil // people said retry
		if d = c.run(t); d.Phase != Complete {
			t.Fatalf("after retry: %+v", d)
		}
	}
}

func TestARevertKnowsWhereLateNodesAre(t *testing.T) {
	c := newCluster(4)
	c.rollout.RevertOnFailure = true
	c.commit("r1", "d1")
	c.run(t)
	c.dead["n03"] = true
	c.commit("r2", "d2")
	if d := c.run(t); d.Phase != Complete || !slices.Equal(c.status.Late, []string{"n03"}) {
		t.Fatalf("%+v", d)
	}
	for _, revision := range []string{"r3", "r4"} { // the second finds nodes that have not confirmed where they were sent back to
		c.commit(revision, revision)
		c.wanted["n00"], c.bad["bad "+revision] = "bad "+revision, true
		d := c.decide()
		c.act(d, len(d.Writes))
		c.report("n00")
		c.report("n01")
		if d = c.decide(); d.Phase != Reverting {
			t.Fatalf("%s: %+v", revision, d)
		}
		c.act(d, len(d.Writes))
		if got := c.digests(); got["d2"] != 4 {
			t.Fatalf("%s: %v, though r2 was complete and n03 just late with it", revision, got)
		}
	}
}

func TestAVerdictToForgetIsNone(t *testing.T) {
	c := newCluster(1)
	c.commit("r1", "cut")
	c.bad["cut"] = true
	c.run(t)
	c.quarant = nil
	p := c.plans["n00"]
	p.Annotations = map[string]string{v1alpha1.AnnotationRetry: "cut"}
	if d := c.decide(); d.Phase != Rolling || len(d.Quarantined) != 0 {
		t.Fatalf("%+v", d)
	}
	p.Status.HandledRetry = "cut"
	if d := c.decide(); d.Phase != Quarantined {
		t.Fatalf("handled, and still guilty: %+v", d)
	}
}

func TestASilentNodeHoldsNobodyUp(t *testing.T) {
	c := newCluster(5)
	c.rollout.CanaryCount = 1
	c.dead["n00"] = true
	c.commit("r1", "d1")
	d := c.decide()
	c.act(d, len(d.Writes))
	c.now = c.now.Add(time.Minute - time.Second)
	if d = c.decide(); len(d.Writes) != 0 || d.After != time.Second {
		t.Fatalf("passed over before its time: %+v", d)
	}
	d = c.run(t)
	if d.Phase != Complete || d.Confirmed != 4 || !slices.Equal(c.status.Late, []string{"n00"}) {
		t.Fatalf("%+v", d)
	}
	number := c.status.Number
	for range 3 {
		c.run(t)
	}
	if c.status.Number != number {
		t.Error("a silent node begins rollouts")
	}
	c.dead["n00"] = false
	c.report("n00")
	if d = c.run(t); d.Confirmed != 5 || len(c.status.Late) != 0 {
		t.Errorf("it came back: %+v", d)
	}
}

func TestSilentNodesComeLastAndTogether(t *testing.T) {
	c := newCluster(6)
	for _, n := range []string{"n00", "n01", "n02"} {
		c.dead[n] = true
	}
	c.rollout.MaxUnavailable.Int = 1
	c.commit("r1", "d1")
	c.run(t)
	start := c.now
	c.commit("r2", "d2")
	d := c.decide()
	if len(d.Writes) != 1 || d.Writes[0].Node != "n03" || !slices.Equal(d.Rollout.Late, []string{"n00", "n01", "n02"}) {
		t.Fatalf("%+v", d)
	}
	if d = c.run(t); d.Phase != Complete || c.digests()["d2"] != 6 || !slices.Equal(c.status.Late, []string{"n00", "n01", "n02"}) {
		t.Fatalf("%+v", d)
	}
	if took := c.now.Sub(start); took > 2*time.Minute {
		t.Errorf("three silent nodes held everybody up for %s", took)
	}
	c.commit("r3", "d3")
	c.dead["n00"] = false
	c.report("n00")
	if d = c.decide(); len(d.Writes) != 1 || d.Writes[0].Node != "n00" {
		t.Errorf("n00 is back: %+v", d)
	}
}

func TestNodesOfAnotherBundleAreLeftAlone(t *testing.T) {
	c := newCluster(3)
	c.plans["n01"] = &v1alpha1.NodePlan{Spec: v1alpha1.NodePlanSpec{Bundle: "other", Layers: v1alpha1.Layers{Bundle: &v1alpha1.Layer{Digest: "theirs"}}}}
	c.commit("r1", "d1")
	if d := c.run(t); d.Planned != 2 || !slices.Equal(d.Others, []string{"n01"}) || c.digests()["theirs"] != 1 {
		t.Fatalf("%+v", d)
	}
}

// TestNodesOfNobodyAreTakenOver: those of a bundle that is no more, and those that were let go, in waves as all, even if they have
// already what they should have.
func TestNodesOfNobodyAreTakenOver(t *testing.T) {
	for _, owner := range []string{"ended", ""} {
		for _, had := range []string{"d1", "theirs"} {
			c := newCluster(3)
			layer := &v1alpha1.Layer{Revision: "r1", Digest: had, Rollout: 7}
			for _, n := range []string{"n00", "n01", "n02"} {
				c.plans[n] = &v1alpha1.NodePlan{ObjectMeta: metav1.ObjectMeta{Name: n},
					Spec:   v1alpha1.NodePlanSpec{Bundle: owner, Layers: v1alpha1.Layers{Bundle: layer.DeepCopy()}, LastGood: &v1alpha1.Layer{Digest: "long ago"}},
					Status: v1alpha1.NodePlanStatus{Applied: &v1alpha1.AppliedPlan{Revision: "r1", Digest: had}}}
			}
			c.ended = map[string]bool{"ended": true}
			c.commit("r1", "d1")
			if d := c.run(t); d.Planned != 3 || d.Confirmed != 3 || len(d.Others) != 0 || d.Rollout.Number <= 7 || d.Rollout.Wave < 2 {
				t.Errorf("of %q, with %s: %+v", owner, had, d)
			}
			for n, p := range c.plans {
				if p.Spec.Bundle != "b" || p.Spec.Layers.Bundle.Digest != "d1" || p.Spec.LastGood != nil {
					t.Errorf("of %q, with %s: %s has %+v", owner, had, n, p.Spec)
				}
			}
		}
	}
}

// TestRandomCommitsAndKills: whatever comes when, no more nodes than allowed are in the air, a bad plan reaches one wave at
// most, and what is last wanted and good is what all have in the end.
func TestRandomCommitsAndKills(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 7))
		c := newCluster(1 + r.IntN(12))
		c.rand = r
		most := 1 + r.IntN(4)
		c.rollout.MaxUnavailable = model.IntOrPercent{Int: most}
		c.rollout.RevertOnFailure = r.IntN(2) == 0
		c.rollout.CanaryCount = r.IntN(2)
		c.rollout.CanarySelector = map[string]string{"zone": "0"}
		for step := range 60 {
			switch r.IntN(6) {
			case 0:
				digest := fmt.Sprintf("d%d", r.IntN(4))
				c.commit(fmt.Sprintf("r%d", step), digest)
				c.bad[digest] = c.bad[digest] || r.IntN(4) == 0
			case 1:
				n := slices.Sorted(maps.Keys(c.labels))[r.IntN(len(c.labels))]
				if c.revision != "" {
					c.wanted[n] = fmt.Sprintf("d%d", r.IntN(4)) // its label changed
				}
			}
			if c.revision == "" {
				continue
			}
			d := c.decide()
			if len(d.Writes) > most && d.Phase == Rolling {
				t.Fatalf("seed %d: %d nodes in one wave of %d", seed, len(d.Writes), most)
			}
			for _, w := range d.Writes {
				if slices.ContainsFunc(d.Quarantined, func(q v1alpha1.QuarantinedPlan) bool { return q.Digest == w.Layer.Digest }) {
					t.Fatalf("seed %d: a quarantined plan is handed out: %+v", seed, w)
				}
			}
			c.act(d, r.IntN(len(d.Writes)+1))
			c.someReport()
			c.now = c.now.Add(time.Duration(r.IntN(20)) * time.Second)
		}
		c.commit("end", "good")
		if d := c.run(t); d.Phase != Complete || d.Confirmed != len(c.labels) || c.digests()["good"] != len(c.labels) {
			t.Fatalf("seed %d: %+v %v", seed, d, c.digests())
		}
		if !c.rollout.RevertOnFailure && c.most > most+c.rollout.CanaryCount { // all go back at once; a canary of a new commit beside a wave of the one before
			t.Fatalf("seed %d: %d nodes in the air, %d allowed", seed, c.most, most)
		}
	}
}

// TestANodeIsToldThatItHasGoneOn: after a revert a commit that asks for what the node has is written to that node alone, by its name.
func TestANodeIsToldThatItHasGoneOn(t *testing.T) {
	l := v1alpha1.Layer{Revision: "good", Digest: "d1", Rollout: 1}
	plan := func(refused *v1alpha1.RefusedPlan) *v1alpha1.NodePlan {
		own := l
		return &v1alpha1.NodePlan{Spec: v1alpha1.NodePlanSpec{Bundle: "b", Layers: v1alpha1.Layers{Bundle: &own}},
			Status: v1alpha1.NodePlanStatus{Applied: &v1alpha1.AppliedPlan{Revision: "good", Digest: "d1"}, Refused: refused}}
	}
	wanted := v1alpha1.Layer{Revision: "back", Digest: "d1"}
	in := Input{Bundle: "b", Revision: "back", Now: time.Unix(1e9, 0), Patience: time.Minute, Rollout: model.Rollout{MaxUnavailable: model.IntOrPercent{Int: 1}},
		Previous: &v1alpha1.RolloutStatus{Number: 2, Revision: "bad", LastComplete: 1},
		Nodes:    []Node{{Name: "n1", Plan: plan(&v1alpha1.RefusedPlan{Digest: "d2", Revision: "bad", Guilty: true}), Wanted: wanted}, {Name: "n2", Plan: plan(nil), Wanted: wanted}}}
	d := Decide(in)
	if len(d.Writes) != 1 || d.Writes[0].Node != "n1" || d.Writes[0].Layer.Revision != "back" || d.Culprit != nil {
		t.Errorf("%+v", d)
	}
}
