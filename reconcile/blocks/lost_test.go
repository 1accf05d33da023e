package blocks

import (
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"danm.io/danm/spec/api/v1alpha1"
)

// TestLost: with a plan goes what its node reported, and a new one says nothing at first.
func TestLost(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	plan := func(name string, age time.Duration) v1alpha1.NodePlan {
		return v1alpha1.NodePlan{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(now.Add(-age))}}
	}
	nodes := map[string]bool{"a": true, "b": true}
	for _, r := range []struct {
		name   string
		before map[string]bool
		plans  []v1alpha1.NodePlan
		want   time.Time
	}{
		{"none was ever there", nil, nil, time.Time{}},
		{"all are still there", map[string]bool{"a": true, "b": true}, []v1alpha1.NodePlan{plan("a", time.Hour), plan("b", 2*time.Hour)}, now.Add(-time.Hour)},
		{"one has gone", map[string]bool{"a": true, "b": true}, []v1alpha1.NodePlan{plan("a", time.Hour)}, now},
		{"its node has gone, too", map[string]bool{"a": true, "c": true}, []v1alpha1.NodePlan{plan("a", time.Hour)}, now.Add(-time.Hour)},
		{"it was made again", map[string]bool{"a": true}, []v1alpha1.NodePlan{plan("a", time.Hour), plan("b", time.Second)}, now.Add(-time.Second)},
	} {
		if got := lost(r.before, World{Now: now, Nodes: nodes, Plans: r.plans}); !got.Equal(r.want) {
			t.Errorf("%s: %s, not %s", r.name, got, r.want)
		}
	}
}
