package sync_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"danm.io/danm/reconcile/blocks"
	"danm.io/danm/reconcile/controller"
	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	npwgv1 "danm.io/danm/spec/npwg/v1"
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
	definition := &unstructured.Unstructured{}
	definition.SetAPIVersion(npwgv1.APIVersion)
	definition.SetKind(npwgv1.Kind)
	for _, n := range []string{"acme", "globex", namespace} {
		_ = s.c.DeleteAllOf(ctx, &danmv1.TenantNetwork{}, client.InNamespace(n))
		_ = s.c.DeleteAllOf(ctx, definition, client.InNamespace(n)) // nodes would have plans for it
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

func (s *site) edit(name string, f func(*v1alpha1.NetworkBundle)) {
	s.t.Helper()
	b := &v1alpha1.NetworkBundle{}
	s.must(s.c.Get(s.t.Context(), client.ObjectKey{Name: name}, b))
	p := client.MergeFrom(b.DeepCopy())
	f(b)
	s.must(s.c.Patch(s.t.Context(), b, p))
}
