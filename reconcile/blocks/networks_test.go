package blocks

import (
	"fmt"
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

func TestSticky(t *testing.T) {
	web := func(replicas int32) StatefulSet {
		return StatefulSet{Namespace: "acme", Name: "web", Start: 2, Replicas: replicas}
	}
	park := func(ordinal int32, uid string) (*site, func() bool) {
		s := newSite(t, "n1")
		s.root(28)
		s.put(v1alpha1.RoleBlock, "10.0.0.0/28", "n1", nil)
		s.put(v1alpha1.RoleSingle, "10.0.0.4/32", "", func(b *v1alpha1.IPBlock) {
			b.Spec.Reservation = &v1alpha1.IPReservation{Namespace: "acme", StatefulSet: "web", UID: uid, Ordinal: ordinal, IfName: "eth1"}
		})
		s.w.Sets = map[string]StatefulSet{"set": web(3), "other": {Namespace: "acme", Name: "other", Start: 2, Replicas: 3}, "elsewhere": {Namespace: "beta", Name: "web", Start: 2, Replicas: 3}}
		return s, func() bool { return s.block("10.0.0.4/32") != nil }
	}
	for _, c := range []struct {
		ordinal int32
		uid     string
		stays   bool
	}{{2, "set", true}, {4, "set", true}, {1, "set", false}, {5, "set", false}, {2, "gone", false}, {2, "other", false}, {2, "elsewhere", false}} {
		s, there := park(c.ordinal, c.uid)
		s.settle()
		s.later(9 * time.Minute)
		s.settle()
		s.want("within the grace", there())
		s.later(2 * time.Minute)
		s.settle()
		s.want(fmt.Sprintf("%+v", c), there() == c.stays)
	}
	s, there := park(5, "set") // scaled down, and up again in time
	s.settle()
	s.later(8 * time.Minute)
	s.w.Sets["set"] = web(9)
	s.settle()
	s.w.Sets["set"] = web(1)
	s.settle()
	s.later(8 * time.Minute)
	s.settle()
	s.want("the grace began anew", there())
	if d := Decide(func() World { w := s.w; w.Sets = nil; w.Now = w.Now.Add(24 * time.Hour); return w }()); len(d.Actions) != 0 || !d.Needs.Sets {
		t.Errorf("without looking: %s", summary(d))
	}
}

// TestNetworkFinalizer: a network that Pods are attached to stays.
func TestNetworkFinalizer(t *testing.T) {
	s := newSite(t, "n1")
	s.network("l2", "10.0.0.0/24", func(n *model.Network, o *danmv1.TenantNetwork) { n.IPv4, o.Finalizers = nil, nil })
	there := func() *danmv1.TenantNetwork {
		if len(s.w.Networks) == 0 {
			return nil
		}
		return s.w.Networks[0].Object.(*danmv1.TenantNetwork)
	}
	s.settle()
	s.want("it is kept", len(there().Finalizers) == 1)
	deleted := metav1.NewTime(s.w.Now)
	o := there().DeepCopy()
	o.DeletionTimestamp = &deleted
	s.w.Networks = nil
	s.object(o)
	s.w.Segments["segment"] = model.Segment{}
	s.w.Plans[0].Status.Attached = map[string]int32{"TenantNetwork/acme/l2": 2}
	s.later(time.Hour)
	s.settle()
	c := meta.FindStatusCondition(there().Status.Conditions, ConditionAttached)
	s.want("Pods are attached", c != nil && strings.Contains(c.Message, "plan"))
	s.w.Plans[0].Status.Attached = map[string]int32{"TenantNetwork/acme/l2": 0, "TenantNetwork/acme/other": 1}
	s.w.Endpoints = []danmv1.DanmEp{ep("l2", "none", "p", "u")}
	s.settle()
	s.want("an endpoint is left", there() != nil && len(there().Finalizers) == 1)
	s.w.Endpoints = []danmv1.DanmEp{ep("l3", "none", "p", "u")}
	s.settle()
	s.want("it goes", there() == nil)

	s = newSite(t, "n1")
	o.DeletionTimestamp = &metav1.Time{Time: s.w.Now.Add(-59 * time.Second)}
	s.object(o)
	s.settle()
	s.want("what nodes report is waited for", len(s.w.Networks) == 1)
	s.later(time.Second)
	s.settle()
	s.want("for a minute", len(s.w.Networks) == 0)

	s = newSite(t, "n1")
	o.DeletionTimestamp = &metav1.Time{Time: s.w.Now.Add(-time.Hour)}
	s.object(o)
	s.w.Lost = s.w.Now.Add(-59 * time.Second)
	s.settle()
	s.want("a node that lost its plan reports anew", len(s.w.Networks) == 1)
	s.later(time.Second)
	s.settle()
	s.want("for a minute, too", len(s.w.Networks) == 0)
}

// TestCrossings: people are told once when a network fills up, and once when it empties.
func TestCrossings(t *testing.T) {
	s := newSite(t, "n1")
	s.network("voice", "10.0.0.0/24", func(n *model.Network, _ *danmv1.TenantNetwork) {
		n.IPv4.Pools = []model.AddrRange{{First: netipAddr("10.0.0.1"), Last: netipAddr("10.0.0.100")}}
	})
	s.settle()
	for _, step := range []struct {
		used   int64
		reason diag.Code
		news   bool
	}{
		{79, diag.AddressesEnough, false}, {80, diag.AddressesLow, true}, {79, diag.AddressesLow, false}, {81, diag.AddressesLow, false}, {76, diag.AddressesLow, false},
		{95, diag.AddressesScarce, true}, {91, diag.AddressesScarce, false}, {100, diag.AddressesExhausted, true}, {99, diag.AddressesExhausted, false}, {97, diag.AddressesScarce, true},
		{89, diag.AddressesLow, true}, {74, diag.AddressesEnough, true}, {0, diag.AddressesEnough, false}, {100, diag.AddressesExhausted, true},
	} {
		s.events = nil
		s.w.Plans[0].Status.Addresses = []v1alpha1.AddressUse{{Space: edge.Hash(), Held: step.used}, {Space: "other", Held: 1000}}
		s.later(time.Minute)
		s.settle()
		n := s.w.Networks[0]
		c := meta.FindStatusCondition(n.Status.Conditions, ConditionAddresses)
		if c == nil || c.Reason != string(step.reason) || (len(s.events) == 1) != step.news || n.Status.Addresses.IPv4.Used != step.used || n.Status.Addresses.IPv4.Capacity != 100 {
			t.Errorf("at %d: %+v %+v events %v", step.used, c, n.Status.Addresses.IPv4, s.events)
		}
	}
}

// TestHintsArePaced: a root's status is written at most every five seconds, and not without news.
func TestHintsArePaced(t *testing.T) {
	s := newSite(t, "n1")
	s.network("voice", "10.0.0.0/24", nil)
	s.settle()
	s.put(v1alpha1.RoleBlock, "10.0.0.0/26", "n1", nil)
	d := s.decide()
	if len(d.Actions) != 0 || !d.Next.Equal(noon.Add(5*time.Second)) {
		t.Fatalf("%s, next %s", summary(d), d.Next)
	}
	s.later(5 * time.Second)
	s.settle()
	root := s.find(edge.RootName())
	s.want("hints", root.Status.FreeBlocks == 3 && fmt.Sprint(root.Status.Free) == "[10.0.0.64-10.0.0.255]" && root.Status.Offers == nil)
	for i := range 3 {
		s.put(v1alpha1.RoleBlock, fmt.Sprintf("10.0.0.%d/26", 64*(i+1)), "n1", nil)
	}
	s.block("10.0.0.192/26").Spec.Owner = ""
	s.block("10.0.0.192/26").Spec.Held = []v1alpha1.IPHolder{{Address: "10.0.0.192", Pod: "x", UID: "x"}}
	s.w.Pods.UIDs = map[string]bool{"x": true}
	s.w.Plans = append(s.w.Plans, v1alpha1.NodePlan{ObjectMeta: metav1.ObjectMeta{Name: "n1"}})
	s.w.Plans[1].Status.Addresses = []v1alpha1.AddressUse{{Space: edge.Hash(), Held: 1, Offers: []string{"10.0.0.7", "10.0.0.200", "10.0.0.0", "bad", "10.0.0.8"}}}
	s.later(5 * time.Second)
	s.settle()
	root = s.find(edge.RootName())
	s.want("offers of orphans", root.Status.FreeBlocks == 0 && root.Status.Offers[0] == v1alpha1.IPOffer{Address: "10.0.0.193"} && len(root.Status.Offers) == 34)
	s.want("offers of nodes, of their own blocks only", root.Status.Offers[32] == v1alpha1.IPOffer{Address: "10.0.0.7", Owner: "n1"} && root.Status.Offers[33].Address == "10.0.0.8")
}

// TestUnusedRoot: a root goes when nothing was on its space for a block lease, and a network that comes back in time keeps it.
func TestUnusedRoot(t *testing.T) {
	s := newSite(t, "n1")
	s.network("voice", "10.0.0.0/24", nil)
	s.settle()
	served := s.w.Segments["segment"]
	s.put(v1alpha1.RoleBlock, "10.0.0.0/26", "n1", nil)
	s.w.Segments["segment"] = model.Segment{}
	s.later(time.Minute)
	s.settle()
	s.want("it is unused", s.find(edge.RootName()).Status.UnusedSince != nil)
	s.later(20 * time.Hour)
	s.settle()
	s.want("a block keeps it (R17)", s.find(edge.RootName()) != nil && s.block("10.0.0.0/26") != nil)
	s.carry(&Action{Verb: Remove, Block: s.block("10.0.0.0/26")})
	s.settle()
	s.later(11 * time.Hour)
	s.settle()
	s.want("it stays for a lease after the last block", s.find(edge.RootName()) != nil)
	s.w.Segments["segment"] = served
	s.settle()
	s.want("a network is back", s.find(edge.RootName()).Status.UnusedSince == nil)
	s.w.Segments["segment"] = model.Segment{}
	s.later(time.Minute)
	s.settle()
	s.later(12*time.Hour - time.Second)
	s.settle()
	s.want("the time began anew", s.find(edge.RootName()) != nil)
	s.later(time.Second)
	w := s.w
	if d := Decide(w); len(d.Actions) != 0 || !d.Needs.Fresh {
		t.Errorf("decided upon a cache: %s", summary(d))
	}
	w.Plans = append(w.Plans, v1alpha1.NodePlan{Spec: v1alpha1.NodePlanSpec{Layers: v1alpha1.Layers{Bundle: &v1alpha1.Layer{Segments: []string{"unknown"}}}}})
	w.Fresh = true
	if d := Decide(w); len(d.Actions) != 0 {
		t.Errorf("with a segment that is not known: %s", summary(d))
	}
	s.settle()
	s.want("it is gone", s.find(edge.RootName()) == nil)
}

func TestLateImportIsSaid(t *testing.T) {
	s := newSite(t, "n1")
	s.network("voice", "10.0.0.0/24", nil)
	s.settle()
	s.network("late", "10.0.0.0/24", func(_ *model.Network, o *danmv1.TenantNetwork) {
		o.CreationTimestamp = metav1.NewTime(s.w.Now.Add(time.Minute))
		o.Spec.Options.Alloc = bitmap(256, 9)
	})
	s.settle()
	for i, want := range []bool{false, true} {
		c := meta.FindStatusCondition(s.w.Networks[i].Status.Conditions, ConditionImported)
		s.want("said of the late one only", (c != nil && c.Reason == string(diag.AddressesNotImported)) == want)
	}
}

func TestMarksThatCannotBeRead(t *testing.T) {
	b := &v1alpha1.IPBlock{}
	b.Annotations = map[string]string{AnnotationSince: `{"a":"` + noon.Add(time.Hour).Format(time.RFC3339) + `"`}
	m := marksOf(b, noon)
	if !m.since("a").Equal(noon) || !m.changed(b) {
		t.Error("what cannot be read begins anew")
	}
	b.Annotations[AnnotationSince] += "}"
	if m := marksOf(b, noon); !m.since("a").Equal(noon) {
		t.Error("a time to come begins now")
	}
}
