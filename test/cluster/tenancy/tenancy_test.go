// Package tenancy holds the tests of numbers given out by several controllers against a real API server.
package tenancy

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"danm.io/danm/reconcile/blocks"
	"danm.io/danm/reconcile/controller"
	"danm.io/danm/reconcile/tenancy"
	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/model"
	"danm.io/danm/spec/segment"
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

// watch is the oracle: it sees every version of every network, and remembers who was ever told to have a number. An API server ends
// watches now and then, also when definitions were just applied: the next one goes on from the version that was seen last.
type watch struct {
	mu     sync.Mutex
	owners map[string]map[string]bool // number → networks by UID
	seen   int
}

func (s *site) watch() *watch {
	s.t.Helper()
	o := &watch{owners: map[string]map[string]bool{}}
	var list danmv1.TenantNetworkList
	s.must(s.c.List(s.t.Context(), &list))
	last, ctx := list.ResourceVersion, s.t.Context()
	next := func() apiwatch.Interface {
		w, err := s.c.Watch(ctx, &danmv1.TenantNetworkList{}, &client.ListOptions{Raw: &metav1.ListOptions{ResourceVersion: last}})
		if err != nil && ctx.Err() == nil {
			s.t.Errorf("watch again from %s: %v", last, err)
		}
		return w
	}
	w := next()
	events := func(yield func(apiwatch.Event) bool) {
		for ; w != nil && ctx.Err() == nil; w = next() {
			for e := range w.ResultChan() {
				if !yield(e) {
					return
				}
			}
		}
	}
	go func() {
		for e := range events {
			n, ok := e.Object.(*danmv1.TenantNetwork)
			if !ok {
				continue
			}
			last = n.ResourceVersion
			o.mu.Lock()
			o.seen++
			told := meta.IsStatusConditionTrue(n.Status.Conditions, "Assigned") || n.Labels[v1alpha1.LabelBundle] != ""
			if v := n.Spec.Options; told && v.Vlan != 0 {
				at := fmt.Sprint(v.Device, " ", v.Vlan)
				if o.owners[at] == nil {
					o.owners[at] = map[string]bool{}
				}
				o.owners[at][n.Namespace+"/"+n.Name+" "+string(n.UID)] = true
			}
			o.mu.Unlock()
		}
	}()
	return o
}

// TestClusterTwoControllersAndABundle: 50 networks at once under two TenantConfigs whose ranges overlap, by two controllers
// without a leader, while both sync a bundle with networks of its own on the same device.
func TestClusterTwoControllersAndABundle(t *testing.T) {
	s := newSite(t)
	s.must(s.c.Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"role": "edge"}}}))
	oracle := s.watch()
	s.control()
	s.control()
	s.tenant("a", "acme", profile("eth9", "vlan", "100-160"))
	s.tenant("b", "globex", profile("eth9", "vlan", "110-170"))
	files := map[string]string{
		"bundle.yaml":   "apiVersion: bundle.danm.io/v1\nkind: Bundle\nmetadata: {name: site}\nspec: {version: 1.0.0, confirmTimeout: 5s, rollout: {soak: 0s}}\n",
		"topology.yaml": "apiVersion: bundle.danm.io/v1\nkind: Topology\nmetadata: {name: site}\nspec:\n  groups:\n  - name: all\n    selector: {role: edge}\n    interfaces: [{name: eth9}]\n  fabrics:\n  - {name: f, groups: [all], device: eth9, vlanRanges: [\"100-199\"]}\n",
	}
	for i := range 6 {
		files[fmt.Sprintf("net%d.yaml", i)] = fmt.Sprintf("apiVersion: bundle.danm.io/v1\nkind: Network\nmetadata: {name: bundled%d, namespace: acme}\nspec: {type: macvlan, fabric: f, vlan: auto}\n", i)
	}
	s.must(s.c.Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "site", Namespace: system, Labels: map[string]string{"bundle": "site"}}, Data: files}))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go s.confirm(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = s.c.Create(t.Context(), &v1alpha1.NetworkBundle{ObjectMeta: metav1.ObjectMeta{Name: "site"}, Spec: v1alpha1.NetworkBundleSpec{Interval: &metav1.Duration{Duration: 5 * time.Second},
			ConfigMaps: &v1alpha1.ConfigMapSource{Namespace: system, Selector: map[string]string{"bundle": "site"}}}})
	})
	start := time.Now()
	errs := make([]error, 50)
	for i := range 50 {
		wg.Go(func() {
			errs[i] = s.c.Create(t.Context(), &danmv1.TenantNetwork{ObjectMeta: metav1.ObjectMeta{Namespace: []string{"acme", "globex"}[i%2], Name: fmt.Sprintf("n%d", i)}})
		})
	}
	wg.Wait()
	s.must(errors.Join(errs...))
	for i := range 50 {
		s.until([]string{"acme", "globex"}[i%2], fmt.Sprintf("n%d", i), "True Assigned")
	}
	took := time.Since(start)
	for i := range 6 {
		for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(100 * time.Millisecond) {
			n := &danmv1.TenantNetwork{}
			if err := s.c.Get(t.Context(), client.ObjectKey{Namespace: "acme", Name: fmt.Sprintf("bundled%d", i)}, n); err == nil && n.Spec.Options.Vlan != 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("bundled%d never came", i)
			}
		}
	}
	time.Sleep(time.Second) // whoever would still yield has done it
	var all danmv1.TenantNetworkList
	s.must(s.c.List(t.Context(), &all))
	now := map[string]string{}
	for _, n := range all.Items {
		at := fmt.Sprint(n.Spec.Options.Device, " ", n.Spec.Options.Vlan)
		if now[at] != "" || n.Spec.Options.Vlan == 0 {
			t.Errorf("%s: %s and %s", at, now[at], n.Name)
		}
		now[at] = n.Name
	}
	oracle.mu.Lock()
	defer oracle.mu.Unlock()
	for at, who := range oracle.owners {
		if len(who) > 1 {
			t.Errorf("%s had several owners: %v", at, who)
		}
	}
	if len(now) != 56 || len(oracle.owners) != 56 {
		t.Errorf("%d numbers now, %d ever, of 56 networks", len(now), len(oracle.owners))
	}
	yields := 0
	var events corev1.EventList
	s.must(s.c.List(t.Context(), &events))
	for _, e := range events.Items {
		if e.Reason == "NumberTaken" {
			yields++
		}
	}
	t.Logf("50 networks assigned in %s, %d versions seen, %d yields told", took.Round(time.Millisecond), oracle.seen, yields)
}

// confirm is the node's agent.
func (s *site) confirm(ctx context.Context) {
	for ; ctx.Err() == nil; time.Sleep(50 * time.Millisecond) {
		var plans v1alpha1.NodePlanList
		_ = s.c.List(ctx, &plans)
		for i := range plans.Items {
			p := &plans.Items[i]
			if l := p.Spec.Layers.Bundle; l != nil {
				old := p.DeepCopy()
				p.Status.ObservedGeneration = p.Generation
				p.Status.Applied = &v1alpha1.AppliedPlan{Revision: l.Revision, Digest: l.Digest, Segments: l.Segments}
				_ = s.c.Status().Patch(ctx, p, client.MergeFrom(old))
			}
		}
	}
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

// TestClusterKilledAtEveryWrite: whatever write is the last one, before or after it reached the server, the end is the same.
func TestClusterKilledAtEveryWrite(t *testing.T) {
	s := newSite(t)
	make := func() {
		s.tenant("a", "acme", profile("eth9", "vlan", "100-110"))
		s.tenant("b", "globex", profile("eth9", "vlan", "100-110"))
		s.network("acme", "old", danmv1.NetworkOptions{Device: "eth9", Vlan: 103})
		for _, namespace := range []string{"acme", "globex"} { // in the order of names, which decides between those of one second
			for i := range 2 {
				s.network(namespace, fmt.Sprint("n", i), danmv1.NetworkOptions{})
			}
		}
	}
	state := func() string {
		var all danmv1.TenantNetworkList
		s.must(s.c.List(t.Context(), &all))
		var out []string
		for _, n := range all.Items {
			status, reason := assigned(&n)
			out = append(out, fmt.Sprint(n.Namespace, "/", n.Name, " ", status, " ", reason, " ", n.Spec.Options.Device, " ", n.Spec.Options.Vlan))
		}
		var configs danmv1.TenantConfigList
		s.must(s.c.List(t.Context(), &configs))
		for _, c := range configs.Items {
			for _, r := range c.Status.Reserved {
				out = append(out, fmt.Sprint(c.Name, " ", r.Network, " ", r.Device, " ", r.ID))
			}
		}
		return strings.Join(out, "\n")
	}
	make()
	r, count := s.loop(-1, false)
	_, err := r.Reconcile(t.Context(), ctrl.Request{})
	s.must(err)
	total := *count
	s.rest()
	want := state()
	if !strings.Contains(want, "acme/old True Assigned eth9 103") || strings.Count(want, "True Assigned") != 5 {
		t.Fatalf("%s", want)
	}
	runs := 0
	for nth := range total {
		for _, lost := range []bool{false, true} {
			s.sweep()
			make()
			r, _ := s.loop(nth, lost)
			if _, err := r.Reconcile(t.Context(), ctrl.Request{}); !errors.Is(err, errKilled) {
				t.Fatalf("write %d: %v", nth, err)
			}
			s.rest()
			if got := state(); got != want {
				t.Errorf("killed at write %d (answer lost: %v):\n%s\nwant\n%s", nth, lost, got, want)
			}
			runs++
		}
	}
	t.Logf("%d writes, %d kills, always\n%s", total, runs, want)
}

// TestClusterDelete: a number is free when its network is gone and no node plan has its link; not before, and not for one of the
// same name.
func TestClusterDelete(t *testing.T) {
	s := newSite(t)
	s.control()
	s.tenant("a", "acme", profile("eth9", "vlan", "100-110"))
	first := s.network("acme", "x", danmv1.NetworkOptions{})
	if n := s.until("acme", "x", "True Assigned"); n.Spec.Options.Vlan != 100 || n.Spec.Options.Device != "eth9" {
		t.Fatalf("%+v", n.Spec.Options)
	}
	name, data := segment.Encode(model.Segment{Links: []model.SharedLink{{Link: model.Link{Name: "x.100", Kind: model.VLAN, Parent: "eth9", VLANID: 100}}}})
	s.must(s.c.Create(t.Context(), &v1alpha1.PlanSegment{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: string(data)}))
	plan := &v1alpha1.NodePlan{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Spec: v1alpha1.NodePlanSpec{Bundle: "another", Teardown: true /* so that no other loop has a say */, Layers: v1alpha1.Layers{API: &v1alpha1.Layer{Revision: "api", Digest: "sha256:" + strings.Repeat("0", 64), Segments: []string{name}}}}}
	s.must(s.c.Create(t.Context(), plan))
	s.must(s.c.Delete(t.Context(), first))
	s.network("acme", "x", danmv1.NetworkOptions{})
	s.network("acme", "y", danmv1.NetworkOptions{})
	if n := s.until("acme", "y", "True Assigned"); n.Spec.Options.Vlan != 101 {
		t.Errorf("%+v", n.Spec.Options)
	}
	s.until("acme", "x", "Unknown NumberTaken")
	plan.Spec.Layers.API = nil
	s.must(s.c.Update(t.Context(), plan))
	second := s.until("acme", "x", "True Assigned")
	c := &danmv1.TenantConfig{}
	s.must(s.c.Get(t.Context(), client.ObjectKey{Name: "a"}, c))
	if len(c.Status.Reserved) != 2 || c.Status.Reserved[0].UID != string(second.UID) || second.Spec.Options.Vlan != 100 {
		t.Errorf("%+v %+v", c.Status.Reserved, second.Spec.Options)
	}
	before := second.DeepCopy()
	second.Spec.Options.Vlan = 105
	s.must(s.c.Patch(t.Context(), second, client.MergeFrom(before))) // other loops write beside it
	s.until("acme", "x", "False AssignmentChanged")
	s.must(s.c.Get(t.Context(), client.ObjectKey{Name: "a"}, c))
	if c.Status.Reserved[0].ID != 100 {
		t.Errorf("%+v", c.Status.Reserved)
	}
}

// TestClusterImport: a TenantConfig of DANM with its bitmap, its networks with and without their number, and what others say.
func TestClusterImport(t *testing.T) {
	s := newSite(t)
	bitmap := make([]byte, 626)
	for _, id := range []int{100, 101, 103} {
		bitmap[id/8] |= 0x80 >> (id % 8)
	}
	p := profile("eth9", "vlan", "100-110")
	p.Alloc = base64.StdEncoding.EncodeToString(bitmap)
	s.tenant("a", "acme", p)
	s.network("acme", "old", danmv1.NetworkOptions{Device: "eth9", Vlan: 101})
	s.network("acme", "outside", danmv1.NetworkOptions{Device: "eth9", Vlan: 111})
	s.network("acme", "elsewhere", danmv1.NetworkOptions{Device: "eth0"})
	s.network("globex", "nobody", danmv1.NetworkOptions{})
	s.control()
	s.until("acme", "old", "True Assigned")
	s.until("acme", "outside", "False NumberNotAllowed")
	s.until("acme", "elsewhere", "False DeviceNotAllowed")
	s.until("globex", "nobody", "False NoProfile")
	s.network("acme", "thief", danmv1.NetworkOptions{Device: "eth9", Vlan: 101})
	s.until("acme", "thief", "False NumberTaken")
	s.network("acme", "new", danmv1.NetworkOptions{})
	if n := s.until("acme", "new", "True Assigned"); n.Spec.Options.Vlan != 102 {
		t.Errorf("new has %+v", n.Spec.Options)
	}
	if out, err := bed.Shared(t).KubectlInput(nil, "apiVersion: danm.io/v1\nkind: TenantNetwork\nmetadata: {name: dry, namespace: acme}\nspec: {NetworkID: dry}\n", "apply", "--dry-run=server", "-f", "-"); err != nil {
		t.Errorf("%s", out)
	}
	time.Sleep(300 * time.Millisecond)
	c := &danmv1.TenantConfig{}
	s.must(s.c.Get(t.Context(), client.ObjectKey{Name: "a"}, c))
	if len(c.Status.Reserved) != 2 || c.HostDevices[0].Alloc != p.Alloc {
		t.Errorf("%+v", c.Status.Reserved)
	}
	// Another loop's condition and ours leave each other alone.
	n := s.until("acme", "new", "True Assigned")
	old := n.DeepCopy()
	meta.SetStatusCondition(&n.Status.Conditions, metav1.Condition{Type: "Watched", Status: "True", Reason: "Elsewhere"})
	s.must(s.c.Status().Patch(t.Context(), n, client.MergeFromWithOptions(old, client.MergeFromWithOptimisticLock{}), client.FieldOwner("danm-controller")))
	n.Spec.Options.Vlan = 109
	s.must(s.c.Update(t.Context(), n))
	if n = s.until("acme", "new", "False AssignmentChanged"); !meta.IsStatusConditionTrue(n.Status.Conditions, "Watched") {
		t.Errorf("%+v", n.Status.Conditions)
	}
	if out, err := bed.Shared(t).Kubectl(nil, "get", "tenantconfigs,tenantnetworks", "-A"); err != nil || os.Getenv("DANM_TEST_LOG") != "" {
		t.Logf("%s %v", out, err)
	}
}

// TestClusterLeastRights: the loop can do its work, and no more, with the rights that deploy gives the controller.
func TestClusterLeastRights(t *testing.T) {
	s := newSite(t)
	api := bed.Shared(t)
	if out, err := api.Kubectl(nil, "apply", "--server-side", "--force-conflicts", "-f", bed.Root()+"/deploy/base/controller-rbac.yaml"); err != nil {
		t.Fatalf("%s", out)
	}
	out, err := api.Kubectl(nil, "create", "token", "-n", system, "danm-controller")
	if err != nil {
		t.Fatalf("%s", out)
	}
	s.tenant("a", "acme", profile("eth9", "vlan", "100-110"))
	s.network("acme", "x", danmv1.NetworkOptions{})
	scheme, err := controller.Scheme()
	s.must(err)
	c, err := client.New(api.Config(strings.TrimSpace(string(out))), client.Options{Scheme: scheme})
	s.must(err)
	r := &tenancy.Reconciler{Client: c, APIReader: c, Numbers: &sync.Mutex{}}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(200 * time.Millisecond) { // rights are known a moment later
		_, err = r.Reconcile(t.Context(), ctrl.Request{})
		if err == nil || !apierrors.IsForbidden(err) || time.Now().After(deadline) {
			break
		}
	}
	s.must(err)
	s.until("acme", "x", "True Assigned")
}
