package mirror

import (
	"errors"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"danm.io/danm/node/guard"
	"danm.io/danm/node/plan"
	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/spec/model"
	"danm.io/danm/spec/nodeplan"
	"danm.io/danm/test/argocd"
)

const healthScript = "../../deploy/argocd/health/nodeplan.lua"

// TestHealth: Argo CD's script and kstatus judge every phase that a node reports alike, and rightly.
func TestHealth(t *testing.T) {
	st := func(digest string) *model.NodeState {
		return &model.NodeState{Digest: digest, Layers: []model.LayerRef{{Name: nodeplan.LayerBundle, Revision: "main@sha1:8ab01c2", Digest: "sha256:" + digest}}}
	}
	confirmed := guard.Status{Confirmed: &guard.Transaction{Digest: "a"}}
	blocked := guard.Status{Confirmed: &guard.Transaction{Digest: "a", Blocked: []plan.Blocked{{ID: "br0", Reason: "not ours"}}}}
	refusal := guard.Status{Refusals: map[string]guard.Refusal{"b": {Guilty: true, Reason: "gateway 10.0.0.1 silent"}}}
	seen := map[string]string{}
	for _, c := range []struct {
		name   string
		view   View
		mirror error
		phase  string
		want   string
	}{
		{"applied", View{Guard: confirmed, Wanted: st("a"), Confirmed: st("a")}, nil, phaseApplied, "Healthy"},
		{"not read yet", View{}, nil, phaseApplying, "Progressing"},
		{"on its way", View{Guard: confirmed, Wanted: st("b"), Confirmed: st("a")}, nil, phaseApplying, "Progressing"},
		{"in the window", View{Guard: guard.Status{Phase: guard.Waiting}, Wanted: st("b"), Confirmed: st("a")}, nil, phaseApplying, "Progressing"},
		{"blocked", View{Guard: blocked, Wanted: st("a"), Confirmed: st("a")}, nil, phaseBlocked, "Degraded"},
		{"rolled back", View{Guard: refusal, Wanted: st("b"), Confirmed: st("a")}, nil, phaseRolledBack, "Degraded"},
		{"refused", View{Guard: confirmed, Wanted: st("a"), Confirmed: st("a")}, errors.New("segment s: SegmentMissing"), phaseRefused, "Degraded"},
		{"guard away", View{GuardErr: errors.New("no answer"), Wanted: st("a"), Confirmed: st("a")}, nil, phaseDegraded, "Progressing"},
		{"a round fails", View{Guard: confirmed, Wanted: st("a"), Confirmed: st("a"), Problem: "no netlink"}, nil, phaseDegraded, "Progressing"},
	} {
		p := &v1alpha1.NodePlan{TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindNodePlan}, ObjectMeta: metav1.ObjectMeta{Name: "n", Generation: 3}}
		p.Status = report(p, c.view, c.mirror)
		seen[p.Status.Phase] = c.name
		if p.Status.Phase != c.phase {
			t.Errorf("%s: the phase is %s", c.name, p.Status.Phase)
		}
		agree(t, c.name, p, c.want)
		if c.want != "Healthy" && p.Status.Reason != "" {
			if _, message, _ := argocd.Health(healthScript, p); message != c.phase+": "+p.Status.Reason {
				t.Errorf("%s: Argo CD shows %q, kubectl %q", c.name, message, p.Status.Reason)
			}
		}
		p.Generation = 4 // the controller wrote a newer plan, which the node has not seen
		agree(t, c.name+", an older generation", p, "Progressing")
		p.Generation, p.DeletionTimestamp = 3, &metav1.Time{Time: time.Unix(1, 0)}
		agree(t, c.name+", being deleted", p, "Progressing")
	}
	for _, phase := range []string{phaseApplied, phaseApplying, phaseRolledBack, phaseBlocked, phaseDegraded, phaseRefused} {
		if seen[phase] == "" {
			t.Errorf("no node was %s", phase)
		}
	}
}

func agree(t *testing.T, name string, p *v1alpha1.NodePlan, want string) {
	t.Helper()
	lua, message, err := argocd.Health(healthScript, p)
	if err != nil {
		t.Fatal(err)
	}
	judged, err := argocd.Judge(p)
	if err != nil {
		t.Fatal(err)
	}
	if lua != want || judged != want {
		t.Errorf("%s: want %s, Argo CD says %s (%s), kstatus %s", name, want, lua, message, judged)
	}
}

// TestHealthOfTheSilent: a plan that no node has reported on is not healthy yet. kstatus calls it current, since it has no
// conditions; that is why deploy/flux has expressions of its own.
func TestHealthOfTheSilent(t *testing.T) {
	p := &v1alpha1.NodePlan{TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindNodePlan}, ObjectMeta: metav1.ObjectMeta{Name: "n", Generation: 1}}
	lua, _, err := argocd.Health(healthScript, p)
	if err != nil || lua != "Progressing" {
		t.Errorf("%s %v", lua, err)
	}
}
