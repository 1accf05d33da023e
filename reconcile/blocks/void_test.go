package blocks

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/diag"
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
	held := func(b *v1alpha1.IPBlock) {
		b.Spec.Held = []v1alpha1.IPHolder{{Address: "10.0.0.5", Pod: "p", UID: "u"}}
	}
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

// A bitmap is a tenant's word: one that is all ones costs no memory, and opens no space.
func TestABitmapIsBounded(t *testing.T) {
	s := newSite(t, "n1")
	s.network("huge", "10.0.0.0/8", func(_ *model.Network, o *danmv1.TenantNetwork) {
		o.Spec.Options.Cidr, o.Spec.Options.Alloc = "10.0.0.0/8", base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{0xff}, maxBits/8))
	})
	s.network("small", "10.200.0.0/24", nil)
	s.settle()
	k := meta.FindStatusCondition(s.w.Networks[0].Status.Conditions, ConditionAddresses)
	s.want("it is told", k != nil && k.Reason == string(diag.ImportTooLarge))
	id := edge
	id.CIDR = "10.0.0.0/8"
	s.want("not opened", s.find(id.RootName()) == nil && len(s.w.Blocks) == 1)
	id.CIDR = "10.200.0.0/24"
	s.want("others are", s.find(id.RootName()) != nil)
	seen := 0
	for range inUse(danmv1.NetworkOptions{Cidr: "10.0.0.0/8", Alloc: strings.Repeat("/", 2<<20), Net6: "fd00::/64", Alloc6: "4AE="}) {
		seen++
	}
	if seen != 2 {
		t.Errorf("%d addresses of a bitmap that nobody wrote, and of one with three bits besides the last", seen)
	}
}
