package sync

import (
	"fmt"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
)

func TestContested(t *testing.T) {
	mine := &v1alpha1.NetworkBundle{ObjectMeta: metav1.ObjectMeta{Name: "edge"}}
	mine.Status.Assignments = []v1alpha1.Assignment{{Network: "acme/a", ID: 100}, {Network: "acme/b", ID: 101}, {Network: "c", ID: 102}, {Network: "d", ID: 103}}
	other := *mine.DeepCopy()
	other.Name, other.Status.Assignments = "core", []v1alpha1.Assignment{{Network: "acme/a", ID: 102}}
	tenant := danmv1.TenantConfig{Status: danmv1.TenantStatus{Reserved: []danmv1.ReservedNumber{{Network: "acme/x", ID: 101}, {Network: "acme/y", ID: 103}, {Network: "acme/z"}}}}
	made := danmv1.ClusterNetwork{ObjectMeta: metav1.ObjectMeta{Name: "d", Labels: map[string]string{v1alpha1.LabelBundle: "edge"}}, Spec: danmv1.NetworkSpec{Options: danmv1.NetworkOptions{Vxlan: 103}}}
	foreign := danmv1.TenantNetwork{ObjectMeta: metav1.ObjectMeta{Namespace: "acme", Name: "b"}, Spec: danmv1.NetworkSpec{Options: danmv1.NetworkOptions{Vlan: 101}}}
	got := contested(mine, []v1alpha1.NetworkBundle{*mine, other}, []danmv1.TenantConfig{tenant}, inUse([]danmv1.ClusterNetwork{made}, []danmv1.TenantNetwork{foreign}))
	if want := "[{acme/b 101} {c 102}]"; fmt.Sprint(got) != want {
		t.Errorf("%v, want %s: 100 is nobody else's, 103 is in use", got, want)
	}
	if got := contested(mine, []v1alpha1.NetworkBundle{*mine}, nil, nil); len(got) != 0 {
		t.Errorf("alone, and %v is contested", got)
	}
}
