package sync_test

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
)

// TestClusterNumbersInUse: a number that stands in a network is not given to another, and a network that outlived its NetworkBundle
// keeps its own under the next one.
func TestClusterNumbersInUse(t *testing.T) {
	s := newSite(t, 1)
	theirs := &danmv1.ClusterNetwork{ObjectMeta: metav1.ObjectMeta{Name: "theirs"},
		Spec: danmv1.NetworkSpec{NetworkID: "theirs", NetworkType: "macvlan", Options: danmv1.NetworkOptions{Device: "eth9", Vlan: 100}}}
	s.must(s.c.Create(t.Context(), theirs))
	content := files(1500)
	s.commit("edge", content)
	s.bundle("edge", func(b *v1alpha1.NetworkBundle) { b.Spec.Prune = ptr.To(false) })
	s.done("edge", content)
	number := func(when string) {
		t.Helper()
		var voice danmv1.TenantNetwork
		s.must(s.c.Get(t.Context(), client.ObjectKey{Namespace: "acme", Name: "voice"}, &voice))
		if voice.Spec.Options.Vlan != 101 {
			t.Errorf("%s voice has %d", when, voice.Spec.Options.Vlan)
		}
	}
	number("beside one with 100")

	s.must(s.c.Delete(t.Context(), theirs))
	s.must(s.c.Delete(t.Context(), &v1alpha1.NetworkBundle{ObjectMeta: metav1.ObjectMeta{Name: "edge"}}))
	s.gone("edge")
	s.bundle("edge")
	if b := s.done("edge", content); len(b.Status.Assignments) != 1 || b.Status.Assignments[0].ID != 101 {
		t.Errorf("made again, it records %v", b.Status.Assignments)
	}
	number("under the next NetworkBundle,")
}
