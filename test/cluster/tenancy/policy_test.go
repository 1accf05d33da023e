package tenancy

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/test/cluster/bed"
)

// TestClusterPolicyKeepsWhatWasGiven: with the policy of deploy nobody changes what a network was given; everything else goes on.
func TestClusterPolicyKeepsWhatWasGiven(t *testing.T) {
	s := newSite(t)
	api, policy := bed.Shared(t), bed.Root()+"/deploy/base/tenant-policy.yaml"
	s.tenant("a", "acme", profile("eth9", "vlan", "100-110"))
	s.network("acme", "x", danmv1.NetworkOptions{})
	s.network("acme", "refused", danmv1.NetworkOptions{Device: "eth9", Vlan: 200})
	s.rest()
	s.until("acme", "x", "True Assigned")
	s.until("acme", "refused", "False NumberNotAllowed")
	bundled := &danmv1.TenantNetwork{ObjectMeta: metav1.ObjectMeta{Namespace: "globex", Name: "b", Labels: map[string]string{v1alpha1.LabelBundle: "site"}},
		Spec: danmv1.NetworkSpec{Options: danmv1.NetworkOptions{Device: "eth9", Vlan: 7}}}
	s.must(s.c.Create(t.Context(), bundled))
	if out, err := api.Kubectl(nil, "apply", "--server-side", "-f", policy); err != nil {
		t.Fatalf("%s", out)
	}
	t.Cleanup(func() { _, _ = api.Kubectl(nil, "delete", "-f", policy) })
	try := func(namespace, name string, change func(*danmv1.NetworkOptions)) error {
		n := &danmv1.TenantNetwork{}
		s.must(s.c.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, n))
		change(&n.Spec.Options)
		return s.c.Update(t.Context(), n, client.DryRunAll)
	}
	other := func(o *danmv1.NetworkOptions) { o.Vlan = 105 }
	for deadline := time.Now().Add(30 * time.Second); try("acme", "x", other) == nil; time.Sleep(200 * time.Millisecond) { // enforced a moment later
		if time.Now().After(deadline) {
			t.Fatal("the policy is not enforced")
		}
	}
	for _, r := range []struct {
		what, namespace, name string
		change                func(*danmv1.NetworkOptions)
		says                  string
	}{
		{"another number", "acme", "x", other, "vlan was assigned"},
		{"another device", "acme", "x", func(o *danmv1.NetworkOptions) { o.Device = "eth8" }, "host_device was assigned"},
		{"something else", "acme", "x", func(o *danmv1.NetworkOptions) { o.MTU = 1400 }, ""},
		{"taken out", "acme", "x", func(o *danmv1.NetworkOptions) { o.Device, o.Vlan = "", 0 }, ""},
		{"one that was refused", "acme", "refused", other, ""},
		{"one of a bundle", "globex", "b", other, ""},
	} {
		if err := try(r.namespace, r.name, r.change); (err == nil) != (r.says == "") || err != nil && !strings.Contains(err.Error(), r.says) {
			t.Errorf("%s: %v, want %q", r.what, err, r.says)
		}
	}
}
