package mirror

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"danm.io/danm/node/guard"
	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/spec/model"
	"danm.io/danm/spec/nodeplan"
)

func TestReport(t *testing.T) {
	now := time.Unix(1e9, 0)
	state := func(revision, layer, plan string) *model.NodeState {
		return &model.NodeState{Digest: plan, Layers: []model.LayerRef{{Name: nodeplan.LayerBundle, Revision: revision, Digest: layer}}}
	}
	good, bad := state("main@sha1:3f2c9d1000", "l1", "p1"), state("main@sha1:8ab01c2000", "l2", "p2")
	confirmed := &guard.Transaction{Digest: "p1", T0: now}
	undone := &guard.Undone{Digest: "p2", At: now.Add(time.Minute), Verdict: guard.Guilty, Probe: "gateway"}
	guilty := map[string]guard.Refusal{"p2": {Guilty: true, Attempts: 1, Reason: "gateway 10.0.0.1 silent"}}
	kept := &v1alpha1.RefusedPlan{Digest: "l2", Plan: "p2", Revision: "main@sha1:8ab01c2000", Guilty: true, Attempts: 1, Reason: "gateway 10.0.0.1 silent"}
	for _, r := range []struct {
		name    string
		view    View
		old     *v1alpha1.RefusedPlan
		err     error
		phase   string
		reason  string
		refused *v1alpha1.RefusedPlan
	}{
		{"applied", View{Wanted: good, Confirmed: good, Guard: guard.Status{Confirmed: confirmed}}, nil, nil, "Applied", "", nil},
		{"in the window", View{Wanted: bad, Confirmed: good, Guard: guard.Status{Phase: guard.Waiting, Confirmed: confirmed}}, nil, nil, "Applying", "", nil},
		{"undone", View{Wanted: bad, Confirmed: good, Guard: guard.Status{Confirmed: confirmed, Undone: undone, Refusals: guilty}}, nil, nil, "RolledBack", "8ab01c2: gateway 10.0.0.1 silent", kept},
		{"the controller went back", View{Wanted: good, Confirmed: good, Guard: guard.Status{Confirmed: confirmed, Undone: undone, Refusals: guilty}}, kept, nil, "RolledBack", "8ab01c2: gateway 10.0.0.1 silent", kept},
		{"a later plan is confirmed", View{Wanted: good, Confirmed: good, Guard: guard.Status{Confirmed: &guard.Transaction{Digest: "p1", T0: now.Add(time.Hour)}, Undone: undone, Refusals: guilty}}, kept, nil, "Applied", "", nil},
		{"forgiven", View{Wanted: good, Confirmed: good, Guard: guard.Status{Confirmed: confirmed, Undone: undone}}, kept, nil, "Applied", "", nil},
		{"no guard", View{Wanted: good, Confirmed: good, GuardErr: errors.New("refused")}, kept, nil, "Degraded", "GuardAway: refused", kept},
		{"segments missing", View{Wanted: good, Confirmed: good, Guard: guard.Status{Confirmed: confirmed}}, nil, nodeplan.ErrSegments, "Refused", "SegmentMissing", nil},
		{"a problem", View{Wanted: good, Confirmed: good, Problem: "disk full", Guard: guard.Status{Confirmed: confirmed}}, nil, nil, "Degraded", "disk full", nil},
	} {
		p := &v1alpha1.NodePlan{Status: v1alpha1.NodePlanStatus{Refused: r.old}}
		st := report(p, r.view, r.err)
		if st.Phase != r.phase || st.Reason != r.reason || !reflect.DeepEqual(st.Refused, r.refused) {
			t.Errorf("%s: %s %q %+v", r.name, st.Phase, st.Reason, st.Refused)
		}
		if st.Applied.Digest != "l1" || st.Applied.Short != "3f2c9d1" {
			t.Errorf("%s: applied %+v", r.name, st.Applied)
		}
	}
}

func TestEndpoint(t *testing.T) {
	for host, want := range map[string]string{"https://10.0.0.1:6443": "10.0.0.1:6443", "https://api.example.org": "api.example.org:443", "10.0.0.1": "10.0.0.1:443", "https://[2001:db8::1]:6443/x": "[2001:db8::1]:6443"} {
		if got := endpointOf(host); got != want {
			t.Errorf("%s: %s", host, got)
		}
	}
}

// TestARefusedPlanIsPast: a node that has gone on to another revision speaks no more of the one that it undid, though its kernel did
// not change and the guard still knows; one that was sent back to where it was does.
func TestARefusedPlanIsPast(t *testing.T) {
	at := func(revision, digest string) *v1alpha1.AppliedPlan {
		return &v1alpha1.AppliedPlan{Revision: revision, Digest: digest}
	}
	r := &v1alpha1.RefusedPlan{Revision: "bad", Digest: "l2"}
	for _, c := range []struct {
		name        string
		before, now *v1alpha1.AppliedPlan
		past        bool
	}{
		{"sent back", at("good", "l1"), at("good", "l1"), false},
		{"the next commit, the same plan", at("good", "l1"), at("next", "l1"), true},
		{"the bad one again, by its name", at("good", "l1"), at("bad", "l1"), false},
		{"the bad one again, under another name", at("good", "l1"), at("next", "l2"), false},
		{"nothing applied before", nil, at("good", "l1"), false},
		{"nothing applied", at("good", "l1"), nil, false},
	} {
		if past(c.before, c.now, r) != c.past {
			t.Errorf("%s: past is %v", c.name, !c.past)
		}
	}
	if past(at("a", "l1"), at("b", "l1"), nil) {
		t.Error("nothing was refused")
	}
}
