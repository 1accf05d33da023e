package tenancy

import (
	"fmt"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
)

func named(name, tenant string, namespaces ...string) danmv1.TenantConfig {
	c := danmv1.TenantConfig{ObjectMeta: metav1.ObjectMeta{Name: name}}
	if tenant != "" {
		c.Labels = map[string]string{danmv1.LabelTenant: tenant}
	}
	if namespaces != nil {
		c.Extension = &danmv1.TenantExtension{Namespaces: namespaces}
	}
	return c
}

func TestFor(t *testing.T) {
	all := []danmv1.TenantConfig{
		named("z-common", ""), named("common", ""), named("lists", "", "acme", "initech"), named("lists-too", "other", "acme"),
		named("label", "globex"), named("label-with-list", "globex", "umbrella"),
	}
	for namespace, want := range map[string]string{
		"acme": "[lists lists-too]", "initech": "[lists]", "globex": "[label]", "umbrella": "[label-with-list]", "other": "[common z-common]", "nobody": "[common z-common]",
	} {
		var got []string
		for _, c := range For(all, namespace) {
			got = append(got, c.Name)
		}
		if fmt.Sprint(got) != want {
			t.Errorf("%s: %v, want %s", namespace, got, want)
		}
	}
	if got := For(all[2:], "nobody"); len(got) != 0 {
		t.Errorf("nobody's: %v", got)
	}
}

func TestEffectiveNetworkID(t *testing.T) {
	a, b := named("a", "", "acme"), named("b", "", "acme")
	a.NetworkIds, b.NetworkIds = map[string]string{"IPVLAN": "phys", "flannel": "fl"}, map[string]string{"ipvlan": "other", "macvlan": "mac", "sriov": ""}
	for kind, want := range map[string]string{"": "phys", "ipvlan": "phys", "Flannel": "fl", "macvlan": "mac", "sriov": "own", "calico": "own"} {
		n := &danmv1.TenantNetwork{ObjectMeta: metav1.ObjectMeta{Namespace: "acme"}, Spec: danmv1.NetworkSpec{NetworkID: "own", NetworkType: kind}}
		if got := EffectiveNetworkID([]danmv1.TenantConfig{b, a}, n); got != want {
			t.Errorf("%q: %s, want %s", kind, got, want)
		}
		if n.Namespace = "globex"; EffectiveNetworkID([]danmv1.TenantConfig{b, a}, n) != "own" {
			t.Errorf("%q: another tenant's word counts", kind)
		}
	}
}

func TestRanges(t *testing.T) {
	for _, r := range []struct{ kind, text, want string }{
		{"vlan", "2000-2500,2601", "[2000-2500 2601]"}, {"vlan", "7,5-6,6-9,20", "[5-9 20]"}, {"vxlan", "1-16777215", "[1-16777215]"},
		{"", "", "[]"}, {"vlan", "4094", "[4094]"}, {"vlan", "4095", ""}, {"vlan", "0-5", ""}, {"vlan", "9-5", ""}, {"vxlan", "16777216", ""},
		{"vlan", "1,,2", ""}, {"vlan", "a", ""}, {"vlan", "1-2-3", ""}, {"vni", "1", ""}, {"", "1", ""}, {"vlan", "99999999999999999999", ""},
	} {
		got, err := Ranges(danmv1.IfaceProfile{Name: "e", VniType: r.kind, VniRange: r.text})
		if (err != nil) != (r.want == "") || err == nil && fmt.Sprint(got) != r.want {
			t.Errorf("%s %q: %v %v, want %s", r.kind, r.text, got, err, r.want)
		}
	}
}

// TestBitmap: wAE= is what DANM stores for bits 0, 1 and 15.
func TestBitmap(t *testing.T) {
	if got, err := Bitmap("wAE="); err != nil || fmt.Sprint(got) != "[0 1 15]" {
		t.Error(got, err)
	}
	if _, err := Bitmap("wAE"); err == nil {
		t.Error("half a bitmap is read")
	}
}

func TestMadeBy(t *testing.T) {
	b := v1alpha1.NetworkBundle{ObjectMeta: metav1.ObjectMeta{Name: "edge"}}
	b.Status.Inventory = []v1alpha1.ObjectReference{{Kind: "TenantNetwork", Namespace: "acme", Name: "voice"}, {Kind: "ClusterNetwork", Namespace: "acme", Name: "x"}}
	for _, r := range []struct {
		label, namespace, name string
		want                   bool
	}{{"edge", "acme", "voice", true}, {"edge", "acme", "other", false}, {"edge", "globex", "voice", false}, {"", "acme", "voice", false}, {"core", "acme", "voice", false}, {"edge", "acme", "x", false}} {
		n := &danmv1.TenantNetwork{ObjectMeta: metav1.ObjectMeta{Namespace: r.namespace, Name: r.name, Labels: map[string]string{v1alpha1.LabelBundle: r.label}}}
		if got := MadeBy([]v1alpha1.NetworkBundle{b}).Has(n); got != r.want {
			t.Errorf("%+v: %v", r, got)
		}
	}
}

func TestReserved(t *testing.T) {
	c := named("a", "")
	c.Status.Reserved = []danmv1.ReservedNumber{{Network: "acme/x", UID: "1", Device: "e", VniType: "vlan", ID: 5}}
	all := []danmv1.TenantConfig{named("b", ""), c}
	n := &danmv1.TenantNetwork{ObjectMeta: metav1.ObjectMeta{Namespace: "acme", Name: "x", UID: "1"}}
	if r, ok := Reserved([]danmv1.TenantConfig{c}, n); !ok || r.ID != 5 {
		t.Error(r, ok)
	}
	for _, c := range []struct {
		status metav1.ConditionStatus
		reason string
		want   bool
	}{{"True", "Assigned", true}, {"Unknown", "Assigned", false}, {"False", "AssignmentChanged", true}, {"False", "NumberTaken", false}} {
		n.Status.Conditions = []metav1.Condition{{Type: "Ready", Status: "True"}, {Type: "Assigned", Status: c.status, Reason: c.reason}}
		if _, ok := Usable(all, n); ok != c.want {
			t.Errorf("%+v: usable %v", c, ok)
		}
	}
	if n.UID = "2"; true {
		if r, ok := Reserved([]danmv1.TenantConfig{c}, n); ok {
			t.Error("another of that name has", r)
		}
	}
}
