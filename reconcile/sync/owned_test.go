package sync_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
)

// TestClusterTwoOfOneNetwork: two that recorded one network at the same moment do not both go on with what they had.
func TestClusterTwoOfOneNetwork(t *testing.T) {
	s := newSite(t, 2)
	content := files(1500)
	s.commit("edge", content)
	s.bundle("edge")
	s.done("edge", content)
	own := files(1500, "net__voice.yaml", "", "tenant.yaml", "", "net__data.yaml", "apiVersion: bundle.danm.io/v1\nkind: Network\nmetadata: {name: own}\nspec: {type: macvlan, fabric: f, vlan: 130}\n")
	own["topology.yaml"] = strings.Replace(own["topology.yaml"], "role: edge", "role: nowhere", 1)
	time.Sleep(time.Second) // the two differ in age
	s.commit("other", own)
	s.bundle("other")
	b := s.until("other", "rolled out", because("RolledOut"))
	s.edit("edge", func(b *v1alpha1.NetworkBundle) { b.Spec.Suspend = true }) // it writes its inventory no more
	edge := s.until("edge", "suspended", because("Suspended"))
	record := func(list []v1alpha1.ObjectReference) {
		old := edge.DeepCopy()
		edge.Status.Inventory = list
		s.must(s.c.Status().Patch(t.Context(), edge, client.MergeFrom(old)))
	}
	had := edge.Status.Inventory
	record(append(slices.Clone(had), b.Status.Inventory...))
	s.annotate("other", v1alpha1.AnnotationRequestedAt, "1")
	s.until("other", "refused", because("ObjectOwnedByOther"))
	gone := &danmv1.ClusterNetwork{ObjectMeta: metav1.ObjectMeta{Name: "own"}} // if it were applied once more, that would be seen
	s.must(s.c.Delete(t.Context(), gone))
	s.eventually("rid of the network", func() bool {
		return apierrors.IsNotFound(s.c.Get(t.Context(), client.ObjectKeyFromObject(gone), gone))
	})
	before := s.versions()
	s.annotate("other", v1alpha1.AnnotationRequestedAt, "2")
	s.until("other", "refused again", func(b *v1alpha1.NetworkBundle) bool {
		return b.Status.HandledRequest == "2" && because("ObjectOwnedByOther")(b)
	})
	if c := changed(before, s.versions()); len(c) != 0 {
		t.Errorf("the younger one wrote %v", c)
	}
	record(had)
	s.annotate("other", v1alpha1.AnnotationRequestedAt, "3")
	s.until("other", "rolled out again", because("RolledOut"))
	if c := changed(before, s.versions()); !slices.Equal(c, []string{"ClusterNetwork /own"}) {
		t.Errorf("its own again, it wrote %v", c)
	}
}
