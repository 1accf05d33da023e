package sync_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/test/cluster/bed"
)

func TestClusterCommitToNodes(t *testing.T) {
	s := newSite(t, 5)
	first := files(1500)
	s.commit("edge", first)
	s.bundle("edge")
	b := s.done("edge", first)
	if b.Status.Nodes != "5/5" || b.Status.Rollout.Wave != 3 || s.judged("edge") != "Current" {
		t.Fatalf("%+v, kstatus %s", b.Status, s.judged("edge"))
	}
	var voice danmv1.TenantNetwork
	s.must(s.c.Get(t.Context(), client.ObjectKey{Namespace: "acme", Name: "voice"}, &voice))
	if voice.Spec.Options.Vlan != 100 || voice.Annotations[v1alpha1.AnnotationOrigin] != "net/voice.yaml:1" || len(b.Status.Assignments) != 1 || b.Status.Assignments[0].ID != 100 {
		t.Errorf("%+v %+v", voice.Spec, b.Status.Assignments)
	}
	if len(b.Status.Inventory) != 3 {
		t.Errorf("inventory %v", b.Status.Inventory)
	}
	before := s.versions()
	s.annotate("edge", v1alpha1.AnnotationRequestedAt, "now")
	s.until("edge", "asked", func(b *v1alpha1.NetworkBundle) bool { return b.Status.HandledRequest == "now" })
	if c := changed(before, s.versions()); len(c) != 0 {
		t.Errorf("a round that changes nothing wrote %v", c)
	}

	second := files(1500, "net__data.yaml", strings.Replace(first["net__data.yaml"], "110", "111", 1))
	s.commit("edge", second)
	s.done("edge", second)
	for _, c := range changed(before, s.versions()) {
		if !strings.HasPrefix(c, "NodePlan") && !strings.HasPrefix(c, "PlanSegment") && c != "ClusterNetwork /data" {
			t.Errorf("one changed network wrote %s", c)
		}
	}
	before = s.versions()
	third := files(1500, "net__data.yaml", second["net__data.yaml"], "README.json", `{}`)
	delete(third, "README.json")
	third["bundle.yaml"] += "# a remark\n"
	s.commit("edge", third)
	s.done("edge", third)
	if c := changed(before, s.versions()); len(c) != 0 {
		t.Errorf("a remark wrote %v", c)
	}
	out, err := bed.Shared(t).Kubectl(nil, "get", "networkbundles,nodeplans")
	t.Logf("%s", out)
	if err != nil || !strings.Contains(string(out), "RolledOut") {
		t.Error(err)
	}
}

func TestClusterABadBundleChangesNothing(t *testing.T) {
	s := newSite(t, 2)
	good := files(1500)
	s.commit("edge", good)
	s.bundle("edge")
	s.done("edge", good)
	before := s.versions()
	for _, r := range []struct {
		name, reason, message string
		content               map[string]string
	}{
		{"misspelt", "BundleInvalid", "net/data.yaml:4", files(1500, "net__data.yaml", strings.Replace(good["net__data.yaml"], "vlan:", "vlna:", 1))},
		{"no such fabric", "BundleInvalid", "", files(1500, "net__data.yaml", strings.Replace(good["net__data.yaml"], "fabric: f", "fabric: g", 1))},
		{"nothing left", "RepositoryEmpty", "", map[string]string{"README.md": "x"}},
		{"empty render", "EmptyRender", "", map[string]string{"bundle.yaml": good["bundle.yaml"]}},
		{"too much goes", "PruneLimit", "", files(1500, "net__data.yaml", "", "bundle.yaml", strings.Replace(good["bundle.yaml"], "rollout:", "prune: {maxNetworks: 0}, rollout:", 1))},
		{"way out", "PathEscape", "", map[string]string{"a__..__b.yaml": "x: y"}},
		{"older version", "VersionWentBack", "", files(1500, "bundle.yaml", strings.Replace(good["bundle.yaml"], "version: 1.0.0", "version: 0.9.0, versionPolicy: Monotonic", 1))},
	} {
		s.commit("edge", r.content)
		b := s.until("edge", r.name+": "+r.reason, because(r.reason))
		if r.message != "" && !strings.Contains(strings.Join(b.Status.Diagnostics, "\n"), r.message) {
			t.Errorf("%s: diagnostics %q", r.name, b.Status.Diagnostics)
		}
		if got := s.judged("edge"); r.reason != "RepositoryEmpty" && r.reason != "PathEscape" && got != "Failed" {
			t.Errorf("%s: kstatus says %s", r.name, got)
		}
		if c := changed(before, s.versions()); len(c) != 0 {
			t.Errorf("%s changed %v", r.name, c)
		}
		if b.Status.RolledOut == nil || b.Status.RolledOut.Name != digest(good) {
			t.Errorf("%s: the last good revision is %+v", r.name, b.Status.RolledOut)
		}
	}
	s.commit("edge", good)
	s.done("edge", good)
	if c := changed(before, s.versions()); len(c) != 0 {
		t.Errorf("back again: %v", c)
	}
}

func TestClusterACutIsRevertedAndQuarantined(t *testing.T) {
	s := newSite(t, 4)
	good := files(1500)
	s.commit("edge", good)
	s.bundle("edge")
	s.done("edge", good)
	networks := func() map[string]string {
		out := s.versions()
		for k := range out {
			if strings.HasPrefix(k, "NodePlan") || strings.HasPrefix(k, "PlanSegment") {
				delete(out, k)
			}
		}
		return out
	}
	before := networks()
	s.judge(func(node string, l v1alpha1.Layer) string {
		if l.Revision != digest(good) && node == "n3" {
			return "gateway 10.0.0.1 silent"
		}
		return ""
	})
	bad := files(1400)
	s.commit("edge", bad)
	b := s.until("edge", "quarantined", because("RevisionQuarantined"))
	if len(b.Status.Quarantined) != 1 || b.Status.Quarantined[0].Node != "n3" || !strings.Contains(b.Status.Quarantined[0].Reason, "10.0.0.1") ||
		b.Status.RolledOut.Name != digest(good) || b.Status.Fetched.Name != digest(bad) || s.judged("edge") != "Failed" {
		t.Fatalf("%+v", b.Status)
	}
	for _, on := range []string{"NodePlan n3", "Node n3"} {
		s.eventually("an event on "+on, func() bool { return s.event(on, "RolledBack", "10.0.0.1") })
	}
	s.until("edge", "all back", func(b *v1alpha1.NetworkBundle) bool { return b.Status.Nodes == "4/4" })
	var plans v1alpha1.NodePlanList
	s.must(s.c.List(t.Context(), &plans))
	for _, p := range plans.Items {
		if p.Spec.Layers.Bundle.Revision != digest(good) {
			t.Errorf("%s has %s", p.Name, p.Spec.Layers.Bundle.Revision)
		}
	}
	if c := changed(before, networks()); len(c) != 0 {
		t.Errorf("objects changed: %v", c)
	}
	s.judge(func(string, v1alpha1.Layer) string { return "" })
	another := &v1alpha1.NodePlan{} // of the same wave, and cut off by the same plan
	s.must(s.c.Get(t.Context(), client.ObjectKey{Name: "n2"}, another))
	old := another.DeepCopy()
	another.Status.Refused = &v1alpha1.RefusedPlan{Digest: b.Status.Quarantined[0].Digest, Revision: digest(bad), Guilty: true, Reason: "gateway 10.0.0.1 silent"}
	s.must(s.c.Status().Patch(t.Context(), another, client.MergeFrom(old)))
	s.annotate("edge", v1alpha1.AnnotationRetry, b.Status.Quarantined[0].Digest)
	s.done("edge", bad)
}

func TestClusterASilentNode(t *testing.T) {
	s := newSite(t, 3)
	s.judge(func(node string, _ v1alpha1.Layer) string {
		if node == "n2" {
			return "silent"
		}
		return ""
	})
	content := files(1500)
	s.commit("edge", content)
	s.bundle("edge")
	b := s.until("edge", "late", because("NodesLate"))
	if b.Status.Nodes != "2/3" || !slices.Equal(b.Status.Rollout.Late, []string{"n2"}) || b.Status.RolledOut == nil {
		t.Fatalf("%+v", b.Status)
	}
	s.judge(func(string, v1alpha1.Layer) string { return "" })
	s.until("edge", "complete", func(b *v1alpha1.NetworkBundle) bool { return b.Status.Nodes == "3/3" && because("RolledOut")(b) })
}

func TestClusterHandsOnObjects(t *testing.T) {
	s := newSite(t, 3)
	content := files(1500)
	s.commit("edge", content)
	s.bundle("edge")
	s.done("edge", content)
	ctx := t.Context()

	p := &v1alpha1.NodePlan{ObjectMeta: metav1.ObjectMeta{Name: "n2"}}
	s.must(s.c.Delete(ctx, p))
	s.until("edge", "whole again", func(b *v1alpha1.NetworkBundle) bool {
		return b.Status.Nodes == "3/3" && s.c.Get(ctx, client.ObjectKeyFromObject(p), p) == nil && because("RolledOut")(b)
	})

	// So does a segment, though no plan has to be written for it.
	s.must(s.c.Get(ctx, client.ObjectKeyFromObject(p), p))
	gone := &v1alpha1.PlanSegment{ObjectMeta: metav1.ObjectMeta{Name: p.Spec.Layers.Bundle.Segments[0]}}
	s.must(s.c.Delete(ctx, gone))
	s.annotate("edge", v1alpha1.AnnotationRequestedAt, "a segment is gone")
	s.eventually("the segment again", func() bool { return s.c.Get(ctx, client.ObjectKeyFromObject(gone), gone) == nil })

	// A label changes in the middle of a rollout: the node leaves the group, another comes.
	s.judge(func(node string, l v1alpha1.Layer) string {
		if node == "n1" && l.Revision != digest(content) {
			return "silent"
		}
		return ""
	})
	next := files(1450)
	s.commit("edge", next)
	s.until("edge", "under way", func(b *v1alpha1.NetworkBundle) bool {
		return b.Status.Rollout.Revision == digest(next) && !b.Status.Rollout.Complete
	})
	n := &corev1.Node{}
	s.must(s.c.Get(ctx, client.ObjectKey{Name: "n3"}, n))
	n.Labels["role"] = "core"
	s.must(s.c.Update(ctx, n))
	s.must(s.c.Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n4", Labels: map[string]string{"role": "edge"}}}))
	s.judge(func(string, v1alpha1.Layer) string { return "" })
	s.done("edge", next)
	var n3, n4 v1alpha1.NodePlan
	s.until("edge", "3/3, one of them new", func(b *v1alpha1.NetworkBundle) bool {
		return b.Status.Nodes == "3/3" && s.c.Get(ctx, client.ObjectKey{Name: "n4"}, &n4) == nil
	})
	s.eventually("another plan than the group's on the node that left", func() bool { // its label may be seen later than what nodes report
		s.must(s.c.Get(ctx, client.ObjectKey{Name: "n3"}, &n3))
		return n3.Spec.Layers.Bundle.Digest != n4.Spec.Layers.Bundle.Digest
	})

	// It is another bundle's now.
	core := files(1400)
	for k, v := range core {
		core[k] = strings.NewReplacer("role: edge", "role: core", "name: data", "name: coredata", "name: voice, namespace: acme", "name: voice, namespace: globex", "name: acme", "name: globex", "[acme]", "[globex]", "100-199", "300-399", "vlan: 110", "vlan: 310").Replace(v)
	}
	s.commit("core", core)
	s.bundle("core")
	if b := s.done("core", core); b.Status.Nodes != "1/1" {
		t.Errorf("%+v", b.Status)
	}
	s.must(s.c.Get(ctx, client.ObjectKey{Name: "n3"}, &n3))
	if n3.Spec.Bundle != "core" {
		t.Errorf("n3 is of %q", n3.Spec.Bundle)
	}
	s.must(s.c.Delete(ctx, &v1alpha1.NetworkBundle{ObjectMeta: metav1.ObjectMeta{Name: "core"}}))
	s.gone("core")

	// A node leaves the cluster.
	s.must(s.c.Delete(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n4"}}))
	s.until("edge", "2/2", func(b *v1alpha1.NetworkBundle) bool { return b.Status.Nodes == "2/2" })

	// A foreign manager takes a field over.
	data := &danmv1.ClusterNetwork{}
	s.must(s.c.Get(ctx, client.ObjectKey{Name: "data"}, data))
	was := data.DeepCopy()
	data.Spec.Options.Vlan = 150
	s.must(s.c.Patch(ctx, data, client.MergeFrom(was), client.FieldOwner("somebody"))) // other loops write beside it
	s.annotate("edge", v1alpha1.AnnotationRequestedAt, "1")
	s.until("edge", "in conflict", because("FieldConflict"))
	s.must(s.c.Get(ctx, client.ObjectKey{Name: "data"}, data))
	if data.Spec.Options.Vlan != 150 {
		t.Error("the field was taken by force")
	}
	s.must(s.c.Delete(ctx, data))
	s.annotate("edge", v1alpha1.AnnotationRequestedAt, "2")
	s.until("edge", "mended", because("RolledOut"))

	// A namespace that is not there, and then is.
	lost := files(1450, "tenant.yaml", "apiVersion: bundle.danm.io/v1\nkind: Tenant\nmetadata: {name: acme}\nspec: {namespaces: [acme, later]}\n",
		"net__late.yaml", "apiVersion: bundle.danm.io/v1\nkind: Network\nmetadata: {name: late, namespace: later}\nspec: {type: macvlan, fabric: f, vlan: 120}\n")
	s.commit("edge", lost)
	s.until("edge", "without a namespace", because("NamespaceMissing"))
	s.must(s.c.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "later"}}))
	s.done("edge", lost)

	// Another bundle wants the same nodes.
	s.commit("other", files(1300))
	s.bundle("other")
	held := s.versions()
	b := s.until("other", "refused", because("NodeOwnedByOther"))
	if len(b.Status.Inventory)+len(b.Status.Assignments) != 0 {
		t.Errorf("refused, it has %v and %v", b.Status.Inventory, b.Status.Assignments)
	}
	for _, name := range []string{"node n1", "ClusterNetwork data", "TenantNetwork acme/voice", "TenantConfig acme", "(edge)"} {
		if c := meta.FindStatusCondition(b.Status.Conditions, "Ready"); !strings.Contains(c.Message, name) {
			t.Errorf("%s is not in %q", name, c.Message)
		}
	}
	if c := changed(held, s.versions()); len(c) != 0 {
		t.Errorf("refused, it changed %v", c)
	}

	// Nodes without any of its networks: it has nothing to say there, and the networks that are its own alone.
	own := files(1300, "net__voice.yaml", "", "tenant.yaml", "", "net__data.yaml", "apiVersion: bundle.danm.io/v1\nkind: Network\nmetadata: {name: own}\nspec: {type: macvlan, fabric: f, vlan: 130}\n")
	s.commit("other", own)
	s.until("other", "of the nodes alone", func(b *v1alpha1.NetworkBundle) bool {
		return because("NodeOwnedByOther")(b) && len(b.Status.Inventory) == 1
	})

	// Networks without any of its nodes.
	elsewhere := strings.NewReplacer("role: edge", "role: nowhere").Replace(own["topology.yaml"])
	s.commit("other", files(1300, "topology.yaml", elsewhere))
	s.until("other", "refused for what it names", func(b *v1alpha1.NetworkBundle) bool { // the revision before still wants the nodes
		c := meta.FindStatusCondition(b.Status.Conditions, "Rendered")
		return c.Status == metav1.ConditionFalse && c.Reason == "ObjectOwnedByOther" && because("NodeOwnedByOther")(b)
	})
	s.must(s.c.Get(ctx, client.ObjectKey{Name: "n1"}, p))
	if p.Spec.Bundle != "edge" {
		t.Error("the node was taken over")
	}
	s.must(s.c.Delete(ctx, &v1alpha1.NetworkBundle{ObjectMeta: metav1.ObjectMeta{Name: "other"}}))
	s.gone("other")
	s.eventually("rid of what the other had", func() bool {
		return apierrors.IsNotFound(s.c.Get(ctx, client.ObjectKey{Name: "own"}, &danmv1.ClusterNetwork{}))
	})
	if c := changed(held, s.versions()); len(c) != 0 {
		t.Errorf("deleted, the other bundle changed %v", c)
	}

	// Suspended: a commit waits.
	s.edit("edge", func(b *v1alpha1.NetworkBundle) { b.Spec.Suspend = true })
	s.until("edge", "suspended", because("Suspended"))
	before := s.versions()
	s.eventually("at rest", func() bool { // nodes may still report
		last := before
		time.Sleep(500 * time.Millisecond)
		before = s.versions()
		return len(changed(last, before)) == 0
	})
	s.commit("edge", next)
	time.Sleep(time.Second)
	if c := changed(before, s.versions()); len(c) != 0 {
		t.Errorf("suspended, and %v changed", c)
	}
	s.edit("edge", func(b *v1alpha1.NetworkBundle) { b.Spec.Suspend = false })
	s.done("edge", next)
	s.eventually("rid of what the bundle no longer has", func() bool { // a finalizer may hold it for a moment
		return apierrors.IsNotFound(s.c.Get(ctx, client.ObjectKey{Namespace: "later", Name: "late"}, &danmv1.TenantNetwork{}))
	})
}

func TestClusterDeletingABundle(t *testing.T) {
	for _, prune := range []bool{true, false} {
		t.Run(fmt.Sprint(prune), func(t *testing.T) {
			s := newSite(t, 2)
			content := files(1500)
			s.commit("edge", content)
			s.bundle("edge", func(b *v1alpha1.NetworkBundle) { b.Spec.Prune = &prune })
			s.done("edge", content)
			before := s.versions()
			s.must(s.c.Delete(t.Context(), &v1alpha1.NetworkBundle{ObjectMeta: metav1.ObjectMeta{Name: "edge"}}))
			for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
				if err := s.c.Get(t.Context(), client.ObjectKey{Name: "edge"}, &v1alpha1.NetworkBundle{}); apierrors.IsNotFound(err) {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("the bundle does not go")
				}
			}
			if prune { // a network's finalizer may hold it until the controller of addresses has looked
				s.eventually("all that the bundle made gone", func() bool { return len(s.versions()) == 0 })
				return
			}
			after := s.versions()
			for _, c := range changed(before, after) { // tenancy takes the tenant's networks over, in its own words
				if after[c] == "" || !strings.HasPrefix(c, "Tenant") {
					t.Errorf("changed: %v", c)
				}
			}
		})
	}
}
