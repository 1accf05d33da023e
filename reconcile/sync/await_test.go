package sync_test

import (
	"slices"
	"strings"
	"time"

	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"k8s.io/apimachinery/pkg/runtime"

	"danm.io/danm/reconcile/blocks"
	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/test/cluster/bed"
)

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

// versions tell the states of everything that the controller writes but NetworkBundles apart. Plans, segments and peers count
// with every write, so that what nodes report must be at rest; networks and tenants, which other loops of the same program write
// to whenever they get to it, count with what a bundle says of them.
func (s *site) versions() map[string]string {
	s.t.Helper()
	out := map[string]string{}
	for _, kind := range []string{"NodePlan", "PlanSegment", "FabricPeers"} {
		s.list(v1alpha1.APIVersion, kind, out, (*unstructured.Unstructured).GetResourceVersion)
	}
	for _, kind := range []string{"TenantNetwork", "ClusterNetwork", "TenantConfig"} {
		s.list(danmv1.APIVersion, kind, out, s.said)
	}
	return out
}

func (s *site) list(version, kind string, into map[string]string, state func(*unstructured.Unstructured) string) {
	s.t.Helper()
	l := &unstructured.UnstructuredList{}
	l.SetAPIVersion(version)
	l.SetKind(kind + "List")
	s.must(s.c.List(s.t.Context(), l))
	for i := range l.Items {
		o := &l.Items[i]
		into[kind+" "+o.GetNamespace()+"/"+o.GetName()] = state(o)
	}
}

// said is an object without its status, its finalizers, and the API server's own words.
func (s *site) said(o *unstructured.Unstructured) string {
	o = o.DeepCopy()
	delete(o.Object, "status")
	o.SetFinalizers(nil)
	o.SetResourceVersion("")
	o.SetManagedFields(nil)
	raw, err := o.MarshalJSON()
	s.must(err)
	return string(raw)
}

// changed compares versions and names what differs.
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

func (s *site) gone(name string) {
	s.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if err := s.c.Get(s.t.Context(), client.ObjectKey{Name: name}, &v1alpha1.NetworkBundle{}); err != nil && client.IgnoreNotFound(err) == nil {
			return
		}
	}
	s.t.Fatalf("%s does not go", name)
}
