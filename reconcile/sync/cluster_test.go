package sync_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"k8s.io/apimachinery/pkg/runtime"

	"danm.io/danm/reconcile/blocks"
	"danm.io/danm/reconcile/controller"
	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/test/cluster/bed"
)

func TestMain(m *testing.M) { bed.Main(m) }

const namespace = "danm-system"

// site is a cluster with a controller in it and nodes that are played by the test.
type site struct {
	t      *testing.T
	c      client.Client
	config *rest.Config
	stop   func()
	dying  *atomic.Bool // set while a controller runs that is to die

	mu      sync.Mutex
	verdict func(node string, l v1alpha1.Layer) string // "", or why the layer cut the node off; "silent" says nothing
}

func newSite(t *testing.T, nodes int) *site {
	t.Helper()
	api := bed.Shared(t)
	scheme, err := controller.Scheme()
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, config: api.Config(bed.AdminToken), verdict: func(string, v1alpha1.Layer) string { return "" }}
	if s.c, err = client.New(s.config, client.Options{Scheme: scheme}); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{namespace, "acme", "globex"} {
		s.must(client.IgnoreAlreadyExists(s.c.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: n}})))
	}
	for i := range nodes {
		s.must(client.IgnoreAlreadyExists(s.c.Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("n%d", i+1), Labels: map[string]string{"role": "edge"}}})))
	}
	t.Cleanup(s.sweep)
	ctx, end := context.WithCancel(context.Background())
	t.Cleanup(end)
	go s.play(ctx)
	s.start()
	return s
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// start runs a controller until stop.
func (s *site) start() {
	s.t.Helper()
	s.stop = s.run(s.config, func(*controller.Options) {})
	s.t.Cleanup(func() { s.stop() })
}

// run runs a controller with a configuration and options of its own, and returns what ends it.
func (s *site) run(config *rest.Config, change func(*controller.Options)) (stop func()) {
	s.t.Helper()
	level := slog.LevelError
	if os.Getenv("DANM_TEST_LOG") != "" {
		level = slog.LevelInfo
	}
	o := controller.Options{Namespace: namespace, CacheDir: s.t.TempDir(), MetricsAddr: "0", HealthAddr: "0", Patience: 3 * time.Second, Addresses: blocks.Options{Linger: 100 * time.Millisecond, Look: time.Second},
		Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))}
	change(&o)
	m, err := controller.New(config, o)
	s.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { _ = m.Start(ctx); close(done) }()
	return func() { cancel(); <-done }
}

// sweep leaves nothing behind for the next test.
func (s *site) sweep() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if s.stop != nil {
		s.stop()
	}
	var bundles v1alpha1.NetworkBundleList
	_ = s.c.List(ctx, &bundles)
	for i := range bundles.Items {
		b := &bundles.Items[i]
		b.Finalizers = nil
		_ = s.c.Update(ctx, b)
		_ = s.c.Delete(ctx, b)
	}
	bed.ReleaseNetworks(s.t)
	for _, o := range []client.Object{&v1alpha1.NodePlan{}, &v1alpha1.PlanSegment{}, &v1alpha1.FabricPeers{}, &danmv1.ClusterNetwork{}, &danmv1.TenantConfig{}, &corev1.Node{}} {
		_ = s.c.DeleteAllOf(ctx, o)
	}
	for _, n := range []string{"acme", "globex", namespace} {
		_ = s.c.DeleteAllOf(ctx, &danmv1.TenantNetwork{}, client.InNamespace(n))
		_ = s.c.DeleteAllOf(ctx, &corev1.ConfigMap{}, client.InNamespace(n))
	}
}

// play is every node's agent: it reports what it was told, as verdict says.
func (s *site) play(ctx context.Context) {
	for ctx.Err() == nil {
		var plans v1alpha1.NodePlanList
		_ = s.c.List(ctx, &plans)
		for i := range plans.Items {
			p := &plans.Items[i]
			l := p.Spec.Layers.Bundle
			if l == nil {
				continue
			}
			s.mu.Lock()
			say := s.verdict(p.Name, *l)
			s.mu.Unlock()
			old := p.DeepCopy()
			if retry := p.Annotations[v1alpha1.AnnotationRetry]; retry != p.Status.HandledRetry {
				p.Status.HandledRetry, p.Status.Refused = retry, nil
			}
			p.Status.ObservedGeneration = p.Generation
			switch say {
			case "silent":
				continue
			case "":
				p.Status.Applied, p.Status.Phase = &v1alpha1.AppliedPlan{Revision: l.Revision, Short: l.Short, Digest: l.Digest, Segments: l.Segments}, "Applied"
			default:
				p.Status.Phase, p.Status.Reason = "RolledBack", say
				p.Status.Refused = &v1alpha1.RefusedPlan{Digest: l.Digest, Plan: l.Digest, Revision: l.Revision, Guilty: true, Reason: say}
			}
			_ = s.c.Status().Patch(ctx, p, client.MergeFrom(old))
		}
		select {
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (s *site) judge(f func(string, v1alpha1.Layer) string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.verdict = f
}

// files is a bundle: key → document.
func files(mtu int, extra ...string) map[string]string {
	out := map[string]string{
		"bundle.yaml": "apiVersion: bundle.danm.io/v1\nkind: Bundle\nmetadata: {name: site}\nspec: {version: 1.0.0, confirmTimeout: 5s, rollout: {soak: 0s, maxUnavailable: 2, onFailure: Revert, canary: {count: 1}}}\n",
		"topology.yaml": fmt.Sprintf("apiVersion: bundle.danm.io/v1\nkind: Topology\nmetadata: {name: site}\nspec:\n  groups:\n  - name: all\n    selector: {role: edge}\n"+
			"    interfaces: [{name: eth9, mtu: %d}]\n  fabrics:\n  - {name: f, groups: [all], device: eth9, vlanRanges: [\"100-199\"]}\n", mtu),
		"net__voice.yaml": "apiVersion: bundle.danm.io/v1\nkind: Network\nmetadata: {name: voice, namespace: acme}\nspec: {type: macvlan, fabric: f, vlan: auto}\n",
		"net__data.yaml":  "apiVersion: bundle.danm.io/v1\nkind: Network\nmetadata: {name: data}\nspec: {type: macvlan, fabric: f, vlan: 110}\n",
		"tenant.yaml":     "apiVersion: bundle.danm.io/v1\nkind: Tenant\nmetadata: {name: acme}\nspec: {namespaces: [acme]}\n",
	}
	for i := 0; i < len(extra); i += 2 {
		if out[extra[i]] = extra[i+1]; extra[i+1] == "" {
			delete(out, extra[i])
		}
	}
	return out
}

// commit makes the ConfigMap hold exactly the files.
func (s *site) commit(name string, data map[string]string) {
	s.t.Helper()
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace, Labels: map[string]string{"bundle": name}}, Data: data}
	err := s.c.Update(s.t.Context(), m)
	if apierrors.IsNotFound(err) {
		err = s.c.Create(s.t.Context(), m)
	}
	s.must(err)
}

func (s *site) bundle(name string, change ...func(*v1alpha1.NetworkBundle)) {
	s.t.Helper()
	b := &v1alpha1.NetworkBundle{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.NetworkBundleSpec{Interval: &metav1.Duration{Duration: 5 * time.Second},
		ConfigMaps: &v1alpha1.ConfigMapSource{Namespace: namespace, Selector: map[string]string{"bundle": name}}}}
	for _, f := range change {
		f(b)
	}
	s.must(s.c.Create(s.t.Context(), b))
}

// until waits for a bundle to be as wanted; the last state is in the failure.
func (s *site) until(name, what string, ok func(*v1alpha1.NetworkBundle) bool) *v1alpha1.NetworkBundle {
	s.t.Helper()
	b := &v1alpha1.NetworkBundle{}
	for deadline := time.Now().Add(40 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if err := s.c.Get(s.t.Context(), client.ObjectKey{Name: name}, b); err == nil && ok(b) {
			return b
		}
	}
	text, _ := bed.Shared(s.t).Kubectl(nil, "get", "networkbundles", "-o", "jsonpath={range .items[*]}{.metadata.name} {.status.rollout} {.status.conditions}{\"\\n\"}{end}")
	plans, _ := bed.Shared(s.t).Kubectl(nil, "get", "nodeplans")
	s.t.Fatalf("%s: not %s:\n%s\n%s", name, what, text, plans)
	return nil
}

func ready(b *v1alpha1.NetworkBundle) (is bool, reason string) {
	c := meta.FindStatusCondition(b.Status.Conditions, "Ready")
	if c == nil || b.Status.ObservedGeneration != b.Generation {
		return false, ""
	}
	return c.Status == metav1.ConditionTrue, c.Reason
}

func because(reason string) func(*v1alpha1.NetworkBundle) bool {
	return func(b *v1alpha1.NetworkBundle) bool { _, r := ready(b); return r == reason }
}

// done: Ready, of the content that is committed now.
func (s *site) done(name string, content map[string]string) *v1alpha1.NetworkBundle {
	s.t.Helper()
	want := digest(content)
	return s.until(name, "rolled out", func(b *v1alpha1.NetworkBundle) bool {
		is, _ := ready(b)
		return is && b.Status.RolledOut != nil && b.Status.RolledOut.Name == want && s.judgedTenants() && s.toldReady()
	})
}

// judgedTenants: the tenancy loop has said what it has to say of every TenantConfig, and writes no more.
func (s *site) judgedTenants() bool {
	var list danmv1.TenantConfigList
	s.must(s.c.List(s.t.Context(), &list))
	return !slices.ContainsFunc(list.Items, func(c danmv1.TenantConfig) bool {
		r := meta.FindStatusCondition(c.Status.Conditions, "Ready")
		return r == nil || r.ObservedGeneration != c.Generation
	})
}

// toldReady: the other loops have said of each network that it is Ready, and hold it while Pods may be attached, so that nothing
// more is written.
func (s *site) toldReady() bool {
	var tenants danmv1.TenantNetworkList
	var clusters danmv1.ClusterNetworkList
	s.must(s.c.List(s.t.Context(), &tenants))
	s.must(s.c.List(s.t.Context(), &clusters))
	for i := range tenants.Items {
		if c := meta.FindStatusCondition(tenants.Items[i].Status.Conditions, "Ready"); c == nil || c.ObservedGeneration != tenants.Items[i].Generation || !slices.Contains(tenants.Items[i].Finalizers, blocks.Finalizer) {
			return false
		}
	}
	for i := range clusters.Items {
		if c := meta.FindStatusCondition(clusters.Items[i].Status.Conditions, "Ready"); c == nil || c.ObservedGeneration != clusters.Items[i].Generation || !slices.Contains(clusters.Items[i].Finalizers, blocks.Finalizer) {
			return false
		}
	}
	return true
}

// versions are the resourceVersions of everything that the controller writes but NetworkBundles; status writes of nodes count,
// too, so they must be at rest.
func (s *site) versions() map[string]string {
	s.t.Helper()
	out := map[string]string{}
	for _, gvk := range []string{"NodePlan", "PlanSegment", "FabricPeers"} {
		s.list(v1alpha1.APIVersion, gvk, out)
	}
	for _, gvk := range []string{"TenantNetwork", "ClusterNetwork", "TenantConfig"} {
		s.list(danmv1.APIVersion, gvk, out)
	}
	return out
}

func (s *site) list(version, kind string, into map[string]string) {
	s.t.Helper()
	l := &unstructured.UnstructuredList{}
	l.SetAPIVersion(version)
	l.SetKind(kind + "List")
	s.must(s.c.List(s.t.Context(), l))
	for _, o := range l.Items {
		into[kind+" "+o.GetNamespace()+"/"+o.GetName()] = o.GetResourceVersion()
	}
}

// same compares versions and names what differs.
func changed(a, b map[string]string) []string {
	var out []string
	for k, v := range a {
		if b[k] != v {
			out = append(out, k)
		}
	}
	for k := range b {
		if a[k] == "" {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return out
}

// judged is what kstatus says of the bundle: a library that shares no code with us.
func (s *site) judged(name string) string {
	s.t.Helper()
	b := &v1alpha1.NetworkBundle{}
	s.must(s.c.Get(s.t.Context(), client.ObjectKey{Name: name}, b))
	raw, err := runtime.DefaultUnstructuredConverter.ToUnstructured(b)
	s.must(err)
	result, err := status.Compute(&unstructured.Unstructured{Object: raw})
	s.must(err)
	return result.Status.String()
}

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

func (s *site) annotate(name, key, value string) {
	s.t.Helper()
	b := &v1alpha1.NetworkBundle{}
	s.must(s.c.Get(s.t.Context(), client.ObjectKey{Name: name}, b))
	p := client.MergeFrom(b.DeepCopy())
	if b.Annotations == nil {
		b.Annotations = map[string]string{}
	}
	b.Annotations[key] = value
	s.must(s.c.Patch(s.t.Context(), b, p))
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

func TestClusterControllerKilledMidWave(t *testing.T) {
	s := newSite(t, 6)
	s.judge(func(string, v1alpha1.Layer) string { return "silent" })
	content := files(1500)
	s.commit("edge", content)
	s.bundle("edge")
	s.until("edge", "in the first wave", func(b *v1alpha1.NetworkBundle) bool { return b.Status.Rollout != nil && b.Status.Rollout.Wave == 1 })
	s.stop()
	s.judge(func(string, v1alpha1.Layer) string { return "" })
	s.start()
	if b := s.done("edge", content); b.Status.Nodes != "6/6" || len(b.Status.Rollout.Late) != 0 {
		t.Fatalf("%+v", b.Status)
	}
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
	s.until("edge", "3/3", func(b *v1alpha1.NetworkBundle) bool { return b.Status.Nodes == "3/3" })
	var n3, n4 v1alpha1.NodePlan
	s.must(s.c.Get(ctx, client.ObjectKey{Name: "n3"}, &n3))
	s.must(s.c.Get(ctx, client.ObjectKey{Name: "n4"}, &n4))
	if n3.Spec.Layers.Bundle.Digest == n4.Spec.Layers.Bundle.Digest {
		t.Error("the node that left the group has the group's plan")
	}

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
	data.Spec.Options.Vlan = 150
	s.must(s.c.Update(ctx, data, client.FieldOwner("somebody")))
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
	s.until("other", "refused", because("NodeOwnedByOther"))
	s.must(s.c.Get(ctx, client.ObjectKey{Name: "n1"}, p))
	if p.Spec.Bundle != "edge" {
		t.Error("the node was taken over")
	}
	s.must(s.c.Delete(ctx, &v1alpha1.NetworkBundle{ObjectMeta: metav1.ObjectMeta{Name: "other"}}))

	// Suspended: a commit waits.
	s.edit("edge", func(b *v1alpha1.NetworkBundle) { b.Spec.Suspend = true })
	s.until("edge", "suspended", because("Suspended"))
	before := s.versions()
	s.eventually("at rest", func() bool { // other loops have their own words on tenants and networks
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
	if err := s.c.Get(ctx, client.ObjectKey{Namespace: "later", Name: "late"}, &danmv1.TenantNetwork{}); !apierrors.IsNotFound(err) {
		t.Errorf("what the bundle no longer has was not pruned: %v", err)
	}
}

func (s *site) edit(name string, f func(*v1alpha1.NetworkBundle)) {
	s.t.Helper()
	b := &v1alpha1.NetworkBundle{}
	s.must(s.c.Get(s.t.Context(), client.ObjectKey{Name: name}, b))
	p := client.MergeFrom(b.DeepCopy())
	f(b)
	s.must(s.c.Patch(s.t.Context(), b, p))
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

// event says whether one was made for "Kind name" with a reason and a text.
func (s *site) event(regarding, reason, text string) bool {
	s.t.Helper()
	var list eventsv1.EventList
	s.must(s.c.List(s.t.Context(), &list))
	return slices.ContainsFunc(list.Items, func(e eventsv1.Event) bool {
		return e.Regarding.Kind+" "+e.Regarding.Name == regarding && e.Reason == reason && strings.Contains(e.Note, text)
	})
}

func (s *site) eventually(what string, ok func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatal("not ", what)
		}
	}
}
