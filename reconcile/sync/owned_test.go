package sync_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
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

	// The younger ends before the older one has written it as its own.
	record(append(slices.Clone(had), b.Status.Inventory...))
	s.must(s.c.Delete(t.Context(), &v1alpha1.NetworkBundle{ObjectMeta: metav1.ObjectMeta{Name: "other"}}))
	s.gone("other")
	if err := s.c.Get(t.Context(), client.ObjectKeyFromObject(gone), gone); err != nil || gone.DeletionTimestamp != nil {
		t.Errorf("the older one's network went with the younger: %v", err)
	}
}

// TestClusterASuccessor: a NetworkBundle that ends leaves to nodes what others have in their plans, and the next one has them.
func TestClusterASuccessor(t *testing.T) {
	s := newSite(t, 4)
	content := files(1500)
	s.commit("edge", content)
	s.bundle("edge", func(b *v1alpha1.NetworkBundle) { b.Spec.Prune = new(bool) })
	s.done("edge", content)
	s.must(s.c.Delete(t.Context(), &v1alpha1.NetworkBundle{ObjectMeta: metav1.ObjectMeta{Name: "edge"}}))
	s.gone("edge")
	s.must(s.c.Delete(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n4"}}))
	s.eventually("rid of the plan of a node that left", func() bool {
		return apierrors.IsNotFound(s.c.Get(t.Context(), client.ObjectKey{Name: "n4"}, &v1alpha1.NodePlan{}))
	})
	var was, is v1alpha1.NodePlanList
	s.must(s.c.List(t.Context(), &was))
	if len(was.Items) != 3 || was.Items[0].Spec.Bundle != "edge" {
		t.Fatalf("without prune plans stay: %+v", was.Items)
	}

	s.commit("next", content)
	s.bundle("next")
	if b := s.done("next", content); b.Status.Nodes != "3/3" {
		t.Errorf("%+v", b.Status)
	}
	s.must(s.c.List(t.Context(), &is))
	for i := range is.Items {
		a, b := was.Items[i].Spec.Layers.Bundle, is.Items[i].Spec.Layers.Bundle
		if is.Items[i].Spec.Bundle != "next" || is.Items[i].UID != was.Items[i].UID || a.Digest != b.Digest {
			t.Errorf("%+v, was %+v", is.Items[i].Spec, was.Items[i].Spec)
		}
	}
	var voice danmv1.TenantNetwork
	s.must(s.c.Get(t.Context(), client.ObjectKey{Namespace: "acme", Name: "voice"}, &voice))
	if voice.Labels[v1alpha1.LabelBundle] != "next" || voice.Spec.Options.Vlan != 100 {
		t.Errorf("%+v", voice)
	}

	// Pods are attached on one node, as its plan alone says.
	p := &v1alpha1.NodePlan{}
	s.must(s.c.Get(t.Context(), client.ObjectKey{Name: "n2"}, p))
	old := p.DeepCopy()
	p.Status.Attached = map[string]int32{"ClusterNetwork/data": 1}
	s.must(s.c.Status().Patch(t.Context(), p, client.MergeFrom(old)))
	s.must(s.c.Delete(t.Context(), &v1alpha1.NetworkBundle{ObjectMeta: metav1.ObjectMeta{Name: "next"}}))
	s.gone("next")
	s.must(s.c.List(t.Context(), &is))
	if len(is.Items) != 1 || is.Items[0].Name != "n2" || is.Items[0].Spec.Bundle != "" || is.Items[0].Labels[v1alpha1.LabelBundle] != "" ||
		is.Items[0].Spec.Layers.Bundle == nil || is.Items[0].Status.Attached["ClusterNetwork/data"] != 1 {
		t.Errorf("a plan stays: %+v", is.Items)
	}
	for _, name := range is.Items[0].Spec.Layers.Bundle.Segments {
		s.must(s.c.Get(t.Context(), client.ObjectKey{Name: name}, &v1alpha1.PlanSegment{}))
	}
	data := &danmv1.ClusterNetwork{}
	time.Sleep(time.Second) // many times what a network waits for here
	s.must(s.c.Get(t.Context(), client.ObjectKey{Name: "data"}, data))
	if data.DeletionTimestamp == nil {
		t.Error("the network does not wait to go")
	}

	left := is.Items[0].Spec.Layers.Bundle.Segments
	p = &is.Items[0]
	old = p.DeepCopy()
	p.Status.Attached = nil
	s.must(s.c.Status().Patch(t.Context(), p, client.MergeFrom(old)))
	third := files(1400)
	s.commit("third", third)
	s.bundle("third")
	if b := s.done("third", third); b.Status.Nodes != "3/3" {
		t.Errorf("once more: %+v", b.Status)
	}
	s.eventually("rid of the segments of the one before", func() bool {
		return !slices.ContainsFunc(left, func(name string) bool {
			return !apierrors.IsNotFound(s.c.Get(t.Context(), client.ObjectKey{Name: name}, &v1alpha1.PlanSegment{}))
		})
	})
}

// TestClusterWhatOthersMadeIsNotReplaced: a network made with kubectl keeps its name, on nodes too, until it is given up.
func TestClusterWhatOthersMadeIsNotReplaced(t *testing.T) {
	s := newSite(t, 2)
	data := &danmv1.ClusterNetwork{ObjectMeta: metav1.ObjectMeta{Name: "data", Labels: map[string]string{v1alpha1.LabelBundle: "edge"}}, // whoever makes it may say so
		Spec: danmv1.NetworkSpec{NetworkID: "data", NetworkType: "macvlan", Options: danmv1.NetworkOptions{Device: "eth9", Vlan: 150}}}
	s.must(s.c.Create(t.Context(), data, client.FieldOwner("kubectl-create")))
	content := files(1500)
	s.commit("edge", content)
	s.bundle("edge")
	b := s.until("edge", "in conflict", because("FieldConflict"))
	if len(b.Status.Inventory)+len(b.Status.Assignments) != 0 || b.Status.RolledOut != nil {
		t.Errorf("refused, it has %+v", b.Status)
	}
	var plans v1alpha1.NodePlanList
	s.must(s.c.List(t.Context(), &plans))
	for i := range plans.Items {
		if plans.Items[i].Spec.Layers.Bundle != nil {
			t.Errorf("%s was told of it", plans.Items[i].Name)
		}
	}
	s.must(s.c.Get(t.Context(), client.ObjectKeyFromObject(data), data))
	if data.Spec.Options.Vlan != 150 || data.Annotations[v1alpha1.AnnotationOrigin] != "" {
		t.Errorf("it was taken over: %+v", data)
	}

	// One that says the same is taken over.
	old := data.DeepCopy()
	data.Spec.Options.Vlan = 110
	s.must(s.c.Patch(t.Context(), data, client.MergeFrom(old), client.FieldOwner("kubectl-create")))
	same := files(1500)
	s.commit("edge", same)
	s.annotate("edge", v1alpha1.AnnotationRequestedAt, "1")
	s.done("edge", same)
	s.must(s.c.Get(t.Context(), client.ObjectKeyFromObject(data), data))
	if data.Annotations[v1alpha1.AnnotationOrigin] == "" {
		t.Errorf("it was not: %+v", data)
	}
}
