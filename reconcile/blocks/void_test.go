package blocks

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/model"
)

// IPBlocks that mean nothing take a name, and nothing more: they cut no space, answer nobody, hold up nothing, and go with their owner.
func TestWhatMeansNothingIsNotBelieved(t *testing.T) {
	s := newSite(t, "n1", "evil")
	void := func(name, role, cidr, owner string, change func(*v1alpha1.IPBlock)) {
		s.put(role, "10.0.0.192/26", owner, func(b *v1alpha1.IPBlock) {
			b.Spec.Identity = "id-" + owner
			b.Name, b.Spec.CIDR = name, cidr
			if change != nil {
				change(b)
			}
		})
	}
	held := func(b *v1alpha1.IPBlock) { b.Spec.Held = []v1alpha1.IPHolder{{Address: "10.0.0.5", Pod: "p", UID: "u"}} }
	void("x-xx-26", v1alpha1.RoleBlock, "::/26", "", held) // would be walked for ever
	void("x-10.0.0.0-26", v1alpha1.RoleBlock, "10.0.0.0/26", "", held)
	void("x-10.0.0.0-30", v1alpha1.RoleBlock, "10.0.0.0/30", "evil", nil)
	void(edge.Hash()+"-10.0.0.64-26", v1alpha1.RoleBlock, "10.0.0.64-26", "evil", nil) // takes a real block's name
	void("kept", v1alpha1.RoleSingle, "10.0.0.9/32", "evil", func(b *v1alpha1.IPBlock) {
		b.Spec.Reservation = &v1alpha1.IPReservation{Namespace: "acme", StatefulSet: "web", UID: "u"}
	})
	s.network("net", "10.0.0.0/24", func(n *model.Network, _ *danmv1.TenantNetwork) {})
	s.settle()
	root := s.find(edge.RootName())
	s.want("the root is cut as if they were not there", root != nil && root.Spec.BlockBits == 27)
	s.want("nobody's are gone", s.find("x-xx-26") == nil && s.find("x-10.0.0.0-26") == nil)
	s.want("a live node's stay", s.find("x-10.0.0.0-30") != nil && s.find("kept") != nil)
	single := s.put(v1alpha1.RoleSingle, "10.0.0.1/32", "n1", func(b *v1alpha1.IPBlock) { b.Spec.Identity, b.Spec.Asked = "id-n1", "evil" })
	s.settle()
	s.want("they answer nobody", !strings.Contains(s.find(single.Name).Status.Reason, "Pod"))
	delete(s.w.Nodes, "evil")
	s.later(13 * time.Hour)
	s.renew("n1", "id-n1", s.w.Now)
	s.settle()
	s.want("they go with their owner", s.find("x-10.0.0.0-30") == nil && s.find("kept") == nil && s.find(edge.Hash()+"-10.0.0.64-26") == nil)
}

// What a node says of itself counts for what it can be.
func TestCountsAreBounded(t *testing.T) {
	s := newSite(t, "n1", "n2")
	s.network("net", "10.0.0.0/24", func(n *model.Network, _ *danmv1.TenantNetwork) {})
	for node, held := range map[string]int64{"n1": 1 << 62, "n2": 1<<62 + 1, "n3": -5} {
		s.w.Plans = append(s.w.Plans, v1alpha1.NodePlan{ObjectMeta: metav1.ObjectMeta{Name: node},
			Status: v1alpha1.NodePlanStatus{Addresses: []v1alpha1.AddressUse{{Space: edge.Hash(), Held: held}}}})
	}
	s.settle()
	s.want("a sum that is one", s.find(edge.RootName()).Status.Used == maxUsed)
}

// A lease's last sign is the API server's word where it has one: what a node writes as its own time lengthens nothing.
func TestLastSignIsTheServers(t *testing.T) {
	s := newSite(t, "n1")
	l := s.w.Leases["n1"].DeepCopy()
	future, wrote := metav1.NewMicroTime(noon.AddDate(7000, 0, 0)), metav1.NewTime(noon.Add(time.Hour))
	l.Spec.RenewTime = &future
	if got := lastSign(l); !got.Equal(future.Time) {
		t.Errorf("nothing else is known: %s", got)
	}
	l.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "danm-node", Time: &wrote}}
	if got := lastSign(l); !got.Equal(wrote.Time) {
		t.Errorf("the server took it at %s: %s", wrote, got)
	}
}
