package tenancy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
)

// watch is the oracle: it sees every version of every network, and remembers who was ever told to have a number. An API server ends
// watches now and then, also when definitions were just applied: the next one goes on from the version that was seen last.
type watch struct {
	mu     sync.Mutex
	owners map[string]map[string]bool // number → networks by UID
	latest map[string]string          // UID → the version that was seen last
	seen   int
}

// upTo says whether the newest versions of networks have been seen.
func (o *watch) upTo(networks []danmv1.TenantNetwork) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return !slices.ContainsFunc(networks, func(n danmv1.TenantNetwork) bool { return o.latest[string(n.UID)] != n.ResourceVersion })
}

func (s *site) watch() *watch {
	s.t.Helper()
	o := &watch{owners: map[string]map[string]bool{}, latest: map[string]string{}}
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
			o.latest[string(n.UID)] = last
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
	for deadline := time.Now().Add(40 * time.Second); ; time.Sleep(100 * time.Millisecond) { // events come in a moment after the writes
		s.must(s.c.List(t.Context(), &all))
		if oracle.upTo(all.Items) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the oracle does not see what is there")
		}
	}
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
