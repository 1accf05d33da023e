package tenancy

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"danm.io/danm/reconcile/blocks"
	"danm.io/danm/reconcile/controller"
	"danm.io/danm/reconcile/tenancy"
	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/test/cluster/bed"
)

func TestMain(m *testing.M) {
	ctrl.SetLogger(logr.Discard())
	bed.Main(m)
}

const system = "danm-system"

type site struct {
	t      *testing.T
	c      client.WithWatch
	config *rest.Config
}

func newSite(t *testing.T) *site {
	t.Helper()
	api := bed.Shared(t)
	scheme, err := controller.Scheme()
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, config: api.Config(bed.AdminToken)}
	if s.c, err = client.NewWithWatch(s.config, client.Options{Scheme: scheme}); err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{system, "acme", "globex"} {
		s.must(client.IgnoreAlreadyExists(s.c.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: n}})))
	}
	t.Cleanup(s.sweep)
	return s
}

func (s *site) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

// sweep leaves nothing behind for the next test; controllers have ended by then.
func (s *site) sweep() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var bundles v1alpha1.NetworkBundleList
	_ = s.c.List(ctx, &bundles)
	for i := range bundles.Items {
		bundles.Items[i].Finalizers = nil
		_ = s.c.Update(ctx, &bundles.Items[i])
		_ = s.c.Delete(ctx, &bundles.Items[i])
	}
	bed.ReleaseNetworks(s.t)
	for _, o := range []client.Object{&danmv1.TenantConfig{}, &danmv1.ClusterNetwork{}, &v1alpha1.NodePlan{}, &v1alpha1.PlanSegment{}, &v1alpha1.FabricPeers{}, &corev1.Node{}} {
		_ = s.c.DeleteAllOf(ctx, o)
	}
	for _, n := range []string{"acme", "globex", system} {
		for _, o := range []client.Object{&danmv1.TenantNetwork{}, &danmv1.DanmNet{}, &corev1.ConfigMap{}} {
			_ = s.c.DeleteAllOf(ctx, o, client.InNamespace(n))
		}
	}
}

// control runs a whole controller, without a leader.
func (s *site) control() {
	s.t.Helper()
	m, err := controller.New(s.config, controller.Options{Namespace: system, CacheDir: s.t.TempDir(), MetricsAddr: "0", HealthAddr: "0", Patience: time.Second, Addresses: blocks.Options{Linger: 100 * time.Millisecond, Look: time.Second}})
	s.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { _ = m.Start(ctx); close(done) }()
	s.t.Cleanup(func() { cancel(); <-done })
}

func (s *site) tenant(name, namespace string, profiles ...danmv1.IfaceProfile) *danmv1.TenantConfig {
	s.t.Helper()
	c := &danmv1.TenantConfig{ObjectMeta: metav1.ObjectMeta{Name: name}, HostDevices: profiles, Extension: &danmv1.TenantExtension{Namespaces: []string{namespace}}}
	s.must(s.c.Create(s.t.Context(), c))
	return c
}

func profile(device, kind, ids string) danmv1.IfaceProfile {
	return danmv1.IfaceProfile{Name: device, VniType: kind, VniRange: ids}
}

func (s *site) network(namespace, name string, o danmv1.NetworkOptions) *danmv1.TenantNetwork {
	s.t.Helper()
	n := &danmv1.TenantNetwork{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: danmv1.NetworkSpec{NetworkID: name, Options: o}}
	s.must(s.c.Create(s.t.Context(), n))
	return n
}

func assigned(n *danmv1.TenantNetwork) (metav1.ConditionStatus, string) {
	c := meta.FindStatusCondition(n.Status.Conditions, "Assigned")
	if c == nil || c.ObservedGeneration != n.Generation {
		return "", ""
	}
	return c.Status, c.Reason
}

// until waits for a network to be told something.
func (s *site) until(namespace, name, what string) *danmv1.TenantNetwork {
	s.t.Helper()
	n := &danmv1.TenantNetwork{}
	for deadline := time.Now().Add(40 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if err := s.c.Get(s.t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, n); err != nil {
			continue
		}
		if status, reason := assigned(n); fmt.Sprint(status, " ", reason) == what {
			return n
		}
	}
	s.t.Fatalf("%s/%s: not %s: %+v %+v", namespace, name, what, n.Spec.Options, n.Status.Conditions)
	return nil
}

var errKilled = errors.New("killed")

// loop is the loop alone, called by hand; after nth writes it is killed: the next one, and all after it, fail; lost says that the
// nth itself reached the server and its answer was lost.
func (s *site) loop(nth int, lost bool) (*tenancy.Reconciler, *int) {
	count := 0
	gate := func(do func() error) error {
		if count++; nth >= 0 && count > nth {
			if lost && count == nth+1 {
				_ = do()
			}
			return errKilled
		}
		return do()
	}
	c := interceptor.NewClient(s.c, interceptor.Funcs{
		Patch: func(ctx context.Context, c client.WithWatch, o client.Object, p client.Patch, opts ...client.PatchOption) error {
			return gate(func() error { return c.Patch(ctx, o, p, opts...) })
		},
		SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, o client.Object, opts ...client.SubResourceUpdateOption) error {
			return gate(func() error { return c.SubResource(sub).Update(ctx, o, opts...) })
		},
		SubResourceApply: func(ctx context.Context, c client.Client, sub string, o runtime.ApplyConfiguration, opts ...client.SubResourceApplyOption) error {
			return gate(func() error { return c.SubResource(sub).Apply(ctx, o, opts...) })
		},
	})
	return &tenancy.Reconciler{Client: c, APIReader: s.c, Numbers: &sync.Mutex{}}, &count
}

func (s *site) rest() {
	s.t.Helper()
	for range 20 {
		r, count := s.loop(-1, false)
		if _, err := r.Reconcile(s.t.Context(), ctrl.Request{}); err != nil {
			s.t.Fatal(err)
		}
		if *count == 0 {
			return
		}
	}
	s.t.Fatal("never at rest")
}
