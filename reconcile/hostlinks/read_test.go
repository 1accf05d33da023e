package hostlinks

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"danm.io/danm/spec/api/v1alpha1"
)

// TestMaker: an object is a bundle's if the bundle has recorded it and the label says so; one of the two is not enough.
func TestMaker(t *testing.T) {
	voice := v1alpha1.ObjectReference{APIVersion: "danm.io/v1", Kind: "TenantNetwork", Namespace: "acme", Name: "voice"}
	with := func(name string, inventory ...v1alpha1.ObjectReference) v1alpha1.NetworkBundle {
		return v1alpha1.NetworkBundle{ObjectMeta: metav1.ObjectMeta{Name: name}, Status: v1alpha1.NetworkBundleStatus{Inventory: inventory}}
	}
	o := Object{Kind: voice.Kind, Namespace: voice.Namespace, Name: voice.Name}
	for _, r := range []struct {
		label string
		want  string
		all   []v1alpha1.NetworkBundle
	}{
		{"edge", "edge", []v1alpha1.NetworkBundle{with("edge", voice)}},
		{"edge", "", []v1alpha1.NetworkBundle{with("edge")}},
		{"", "", []v1alpha1.NetworkBundle{with("edge", voice)}},
		{"core", "", []v1alpha1.NetworkBundle{with("edge", voice)}},
		{"edge", "edge", []v1alpha1.NetworkBundle{with("edge", voice), with("other", voice)}},
		{"other", "other", []v1alpha1.NetworkBundle{with("edge", voice), with("other", voice)}},
	} {
		if got := maker(rendered(r.all)[o.Key()], r.label); got != r.want {
			t.Errorf("label %q: of %q, not %q", r.label, got, r.want)
		}
	}
}
