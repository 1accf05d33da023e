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
