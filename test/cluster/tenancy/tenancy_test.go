// Package tenancy holds the tests of numbers given out by several controllers against a real API server.
package tenancy

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"danm.io/danm/reconcile/controller"
	"danm.io/danm/reconcile/tenancy"
	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/model"
	"danm.io/danm/spec/segment"
	"danm.io/danm/test/cluster/bed"
)

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
	another := &v1alpha1.NetworkBundle{ObjectMeta: metav1.ObjectMeta{Name: "another"}, Spec: v1alpha1.NetworkBundleSpec{Suspend: true, // no node has left that it had
		ConfigMaps: &v1alpha1.ConfigMapSource{Namespace: system, Selector: map[string]string{"bundle": "another"}}}}
	s.must(s.c.Create(t.Context(), another))
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
	var n *danmv1.TenantNetwork
	s.must(retry.RetryOnConflict(retry.DefaultBackoff, func() error { // other loops write beside it
		n = s.until("acme", "new", "True Assigned")
		old := n.DeepCopy()
		meta.SetStatusCondition(&n.Status.Conditions, metav1.Condition{Type: "Watched", Status: "True", Reason: "Elsewhere"})
		return s.c.Status().Patch(t.Context(), n, client.MergeFromWithOptions(old, client.MergeFromWithOptimisticLock{}), client.FieldOwner("danm-controller"))
	}))
	before := n.DeepCopy()
	n.Spec.Options.Vlan = 109
	s.must(s.c.Patch(t.Context(), n, client.MergeFrom(before)))
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
