package sync_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/test/cluster/bed"
)

// TestClusterTheAPIServerIsAway: frozen in the middle of a rollout, then gone and back: the controller goes on where it was.
func TestClusterTheAPIServerIsAway(t *testing.T) {
	s := newSite(t, 4)
	api := bed.Shared(t)
	good := files(1500)
	s.commit("edge", good)
	s.bundle("edge")
	s.done("edge", good)
	s.judge(func(node string, l v1alpha1.Layer) string {
		if l.Revision != digest(good) {
			return "silent"
		}
		return ""
	})
	next := files(1400)
	s.commit("edge", next)
	s.until("edge", "under way", func(b *v1alpha1.NetworkBundle) bool {
		return b.Status.Rollout != nil && b.Status.Rollout.Revision == digest(next) && b.Status.Rollout.Wave == 1
	})
	s.must(api.Freeze())
	time.Sleep(8 * time.Second)
	s.must(api.Thaw())
	s.judge(func(string, v1alpha1.Layer) string { return "" })
	s.done("edge", next)

	last := files(1300)
	s.commit("edge", last)
	api.StopServer()
	s.must(api.Restart(nil))
	b := s.done("edge", last)
	if b.Status.Nodes != "4/4" || len(b.Status.Quarantined) != 0 {
		t.Errorf("%+v", b.Status)
	}
}

// TestClusterADefinitionIsMissing: what the API server does not know yet stops nothing else, and comes when it is known.
func TestClusterADefinitionIsMissing(t *testing.T) {
	s := newSite(t, 2)
	api := bed.Shared(t)
	kubectl := func(args ...string) {
		t.Helper()
		if out, err := api.Kubectl(nil, args...); err != nil {
			t.Fatalf("%s", out)
		}
	}
	manifest := filepath.Join(bed.Root(), "test", "cluster", "testdata", "crd", "nad.yaml")
	kubectl("delete", "--wait", "-f", manifest)
	t.Cleanup(func() { _ = api.InstallCRDs(nil) })
	content := files(1500, "net__nad.yaml", "apiVersion: bundle.danm.io/v1\nkind: Network\nmetadata: {name: multus, namespace: acme}\nspec: {type: macvlan, fabric: f, vlan: 150, render: nad}\n")
	s.commit("edge", content)
	s.bundle("edge")
	b := s.until("edge", "without the definition", because("DefinitionMissing"))
	if got := s.judged("edge"); got != "InProgress" {
		t.Errorf("kstatus says %s of %+v", got, b.Status.Conditions)
	}
	s.must(s.c.Get(t.Context(), client.ObjectKey{Namespace: "acme", Name: "voice"}, &danmv1.TenantNetwork{}))
	s.must(api.InstallCRDs(nil))
	s.done("edge", content)
}

// TestClusterTheSpecIsItsOwners: the controller marks a NetworkBundle without touching a field that somebody applies. An update wrote the
// interval as Go prints it, and the next apply of the very same file met a conflict.
func TestClusterTheSpecIsItsOwners(t *testing.T) {
	s := newSite(t, 0)
	const manifest = "apiVersion: danm.io/v1alpha1\nkind: NetworkBundle\nmetadata: {name: owned}\n" +
		"spec: {suspend: true, interval: 1m, configMaps: {namespace: danm-system, selector: {bundle: owned}}}\n"
	apply := func() {
		t.Helper()
		if out, err := bed.Shared(t).KubectlInput(nil, manifest, "apply", "--server-side", "-f", "-"); err != nil {
			t.Fatal(string(out))
		}
	}
	apply()
	s.until("owned", "seen", because("Suspended"))
	s.annotate("owned", v1alpha1.AnnotationRetry, "sha256:0")
	b := s.until("owned", "rid of its request", func(b *v1alpha1.NetworkBundle) bool { return b.Annotations[v1alpha1.AnnotationRetry] == "" })
	if b.Generation != 1 {
		t.Errorf("the spec was written %d times", b.Generation)
	}
	apply()
	s.must(s.c.Delete(t.Context(), b))
	s.gone("owned")
}

// TestClusterAnOldReadIsNoFailure: a NetworkBundle that somebody changes in the middle of a round is looked at again, and nobody hears of
// an API server that is away; and what was fetched in that round is told by the next one, though it fetches nothing.
func TestClusterAnOldReadIsNoFailure(t *testing.T) {
	s := newSite(t, 2)
	content := files(1500)
	s.commit("touched", content) // a name of its own: events of other tests are still there
	s.bundle("touched")
	s.done("touched", content)
	for i := range 4 {
		content = files(1400 + i)
		s.commit("touched", content)
		for j := range 40 {
			s.annotate("touched", "example.org/touched", fmt.Sprint(i, j))
			time.Sleep(5 * time.Millisecond)
		}
		if b := s.done("touched", content); b.Status.Fetched.Name != digest(content) {
			t.Errorf("told to be of %s", b.Status.Fetched.Name)
		}
	}
	if s.event("NetworkBundle touched", "APIUnavailable", "") {
		t.Error("told of an API server that is away")
	}
}
