// Package blocks holds the tests of the controller's part of the cluster-wide IPAM against a real API server: with the credentials
// that deploy/base gives, with two controllers at once, and with nodes that write at the same time.
package blocks

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"danm.io/danm/reconcile/blocks"
	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
)

// before is a network as DANM left it: addresses in its bitmap and an endpoint of a Pod that lives.
func (s *site) before() {
	s.t.Helper()
	bitmap := make([]byte, 32)
	for _, p := range []int{0, 5, 9, 200, 255} {
		bitmap[p/8] |= 0x80 >> (p % 8)
	}
	n := &danmv1.DanmNet{ObjectMeta: metav1.ObjectMeta{Namespace: "acme", Name: "voice"}}
	n.Spec = danmv1.NetworkSpec{NetworkID: "voice", NetworkType: "macvlan", Options: danmv1.NetworkOptions{Device: "eth8", Vlan: 10, Cidr: s.space.CIDR, Alloc: base64.StdEncoding.EncodeToString(bitmap)}}
	s.must(s.c.Create(s.t.Context(), n))
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "acme", Name: "old"}, Spec: corev1.PodSpec{AutomountServiceAccountToken: new(bool), Containers: []corev1.Container{{Name: "c", Image: "x"}}}}
	s.must(s.c.Create(s.t.Context(), p))
	e := &danmv1.DanmEp{ObjectMeta: metav1.ObjectMeta{Namespace: "acme", Name: "ep-old"}}
	e.Spec = danmv1.DanmEpSpec{NetworkName: "voice", ApiType: danmv1.KindDanmNet, Pod: "old", PodUID: string(p.UID), Host: "h", Iface: danmv1.DanmEpIface{Name: "eth1", Address: "10.0.0.9/24", AddressIPv6: "none"}}
	s.must(s.c.Create(s.t.Context(), e))
	s.t.Cleanup(func() {
		_, _ = s.api.Kubectl(nil, "delete", "-n", "acme", "--force", "pod,danmep", "--all")
		_, _ = s.api.Kubectl(nil, "delete", "node,nodeplan", "n1", "n2", "--ignore-not-found")
	})
}

// TestClusterAddresses is the life of a space: opened with what was there before, claimed, asked, lost, full, and given up; under two
// controllers at once and a writer that is always faster than they are.
func TestClusterAddresses(t *testing.T) {
	s := newSite(t)
	s.before()
	n1, n2 := s.node("n1"), s.node("n2")
	s.start(lease)
	s.start(lease)
	for _, n := range []string{"n1", "n2"} {
		s.report(n, func(st *v1alpha1.NodePlanStatus) { st.Hardware = []v1alpha1.NIC{{Name: "eth8"}} })
	}

	// Import, then the root: two nodes get blocks of 32.
	took := s.until("a root", 30*time.Second, func() bool { return s.read(s.space.RootName()) != nil })
	root := s.read(s.space.RootName())
	first, last := s.block("10.0.0.0/27"), s.block("10.0.0.192/27")
	if root.Spec.BlockBits != 27 || first == nil || last == nil || len(first.Spec.Held) != 2 || first.Spec.Held[1].Pod != "old" || root.CreationTimestamp.Before(&first.CreationTimestamp) {
		t.Fatalf("%+v %+v %+v", root, first, last)
	}
	t.Logf("the root is there %s after the nodes' cards", took)
	s.until("hints", 10*time.Second, func() bool {
		st := s.read(s.space.RootName()).Status
		return st.FreeBlocks == 6 && st.Used == 3 && st.Capacity == 254
	})
	s.until("the network's counts and finalizer", 10*time.Second, func() bool {
		n := s.network()
		c := meta.FindStatusCondition(n.Status.Conditions, blocks.ConditionAddresses)
		return len(n.Finalizers) == 1 && n.Status.Addresses != nil && n.Status.Addresses.IPv4.Used == 3 && c != nil && c.Status == metav1.ConditionTrue && meta.IsStatusConditionTrue(n.Status.Conditions, "Ready")
	})

	// A bit that is no Pod's goes after a block lease; the Pod's stays.
	s.until("the end of what nobody has", 3*lease, func() bool {
		b := s.block("10.0.0.0/27")
		return s.block("10.0.0.192/27") == nil && len(b.Spec.Held) == 1
	})
	s.idle("the import", 3*time.Second)

	// Answers, with a writer that is faster than the controllers half of the time.
	stop := s.meddle(first.Name)
	free := s.make(n1, v1alpha1.RoleSingle, "10.0.0.4/32", "n1", nil)
	taken := s.make(n1, v1alpha1.RoleSingle, "10.0.0.9/32", "n1", nil)
	answered := func(name, answer string) func() bool {
		return func() bool { return s.read(name).Status.Answer == answer }
	}
	took = s.until("an answer", 30*time.Second, answered(free.Name, v1alpha1.AnswerCeded))
	s.until("a refusal", 30*time.Second, answered(taken.Name, v1alpha1.AnswerRefused))
	t.Logf("answered within %s, with %d writes of another writer", took, stop())
	if c := s.block("10.0.0.0/27").Spec.Ceded; len(c) != 1 || c[0].UID != string(free.UID) || !strings.Contains(s.read(taken.Name).Status.Reason, "acme/old") {
		t.Errorf("ceded %+v, refused with %q", c, s.read(taken.Name).Status.Reason)
	}

	// A node that is lost: not before its lease has passed; what others have stays.
	s.renew(n2, "n2")
	s.make(n2, v1alpha1.RoleBlock, "10.0.0.32/27", "n2", nil)
	single := s.make(n1, v1alpha1.RoleSingle, "10.0.0.70/32", "n1", func(b *v1alpha1.IPBlock) {
		b.Spec.Asked, b.Labels[v1alpha1.LabelAsked] = "n2", "n2"
	})
	s.make(n2, v1alpha1.RoleBlock, "10.0.0.64/27", "n2", func(b *v1alpha1.IPBlock) {
		b.Spec.Ceded = []v1alpha1.IPCession{{Address: "10.0.0.70", UID: string(single.UID), Node: "n1"}}
	})
	renewed := time.Now() // its answer may take long
	s.renew(n2, "n2")
	s.must(s.c.Delete(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n2"}}))
	s.until("n2's block is free", 4*lease, func() bool { return s.block("10.0.0.32/27") == nil })
	if took = time.Since(renewed); took < lease-time.Second {
		t.Errorf("freed after %s", took)
	}
	t.Logf("freed %s after the last renewal, with a lease of %s", took, lease)
	s.until("an orphan for n1's address", lease, func() bool {
		b := s.block("10.0.0.64/27")
		return b.Spec.Owner == "" && len(b.Spec.Ceded) == 1 && s.read(single.Name).Status.Answer == v1alpha1.AnswerCeded
	})
	s.until("n2's lease is gone", lease, func() bool {
		return apierrors.IsNotFound(s.c.Get(t.Context(), client.ObjectKey{Namespace: system, Name: "danm-node-n2"}, &coordinationv1.Lease{}))
	})
	s.event("AddressesFreed", "n2")
	s.giveBack(n1, single.Name)
	s.until("the orphan goes with its last address", 2*lease, func() bool { return s.block("10.0.0.64/27") == nil })

	s.keptForASet(n1)

	// Full: people are told.
	s.report("n1", func(st *v1alpha1.NodePlanStatus) {
		st.Addresses, st.Attached = []v1alpha1.AddressUse{{Space: s.space.Hash(), Held: 245}}, map[string]int32{"DanmNet/acme/voice": 1}
	})
	s.until("AddressesScarce", 10*time.Second, func() bool {
		c := meta.FindStatusCondition(s.network().Status.Conditions, blocks.ConditionAddresses)
		return c.Reason == "AddressesScarce"
	})
	s.event("AddressesScarce", "voice")

	// The network is deleted with a Pod on it: its link stays, nobody is told of it any more, and it goes with the Pod.
	s.must(s.c.Delete(t.Context(), s.network()))
	s.until("it waits", 10*time.Second, func() bool {
		c := meta.FindStatusCondition(s.network().Status.Conditions, blocks.ConditionAttached)
		return c != nil && strings.Contains(c.Message, "n1")
	})
	s.until("the root is unused", 10*time.Second, func() bool { return s.read(s.space.RootName()).Status.UnusedSince != nil })
	time.Sleep(2 * time.Second)
	if s.network() == nil {
		t.Fatal("the network is gone with a Pod attached")
	}
	s.report("n1", func(st *v1alpha1.NodePlanStatus) { st.Attached = nil })
	s.until("an endpoint keeps it", 10*time.Second, func() bool {
		c := meta.FindStatusCondition(s.network().Status.Conditions, blocks.ConditionAttached)
		return strings.Contains(c.Message, "acme/old")
	})
	s.kubectl("delete", "-n", "acme", "--force", "danmep,pod", "--all")
	s.until("it is gone", 15*time.Second, func() bool { return s.network() == nil })
	s.giveBack(n1, free.Name)
	s.giveBack(n1, taken.Name)
	s.until("nothing is left of the space", 6*lease, func() bool {
		var list v1alpha1.IPBlockList
		s.must(s.c.List(t.Context(), &list))
		return len(list.Items) == 0
	})
}

// keptForASet: an address stays parked while its StatefulSet has that ordinal, and no longer.
func (s *site) keptForASet(node client.Client) {
	s.t.Helper()
	one := int32(1)
	set := &appsv1.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: "acme", Name: "web"}}
	set.Spec = appsv1.StatefulSetSpec{Replicas: &one, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}}}
	set.Spec.Template = corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "x"}}}}
	s.must(s.c.Create(s.t.Context(), set))
	park := func(cidr, name string, ordinal int32) *v1alpha1.IPBlock {
		b := s.make(node, v1alpha1.RoleSingle, cidr, "n1", func(b *v1alpha1.IPBlock) {
			b.Spec.Reservation = &v1alpha1.IPReservation{Namespace: "acme", StatefulSet: name, UID: string(set.UID), Ordinal: ordinal, IfName: "eth1"}
			b.Labels[v1alpha1.LabelReservation] = b.Spec.Reservation.Hash(s.space)
		})
		s.until(cidr+" is ceded", 30*time.Second, func() bool { return s.block(cidr).Status.Answer == v1alpha1.AnswerCeded })
		return s.change(node, b.Name, func(b *v1alpha1.IPBlock) { b.Spec.Owner, b.Labels[v1alpha1.LabelOwner] = "", "" })
	}
	kept := park("10.0.0.12/32", "web", 0)
	beyond, forged := park("10.0.0.13/32", "web", 1), park("10.0.0.14/32", "other", 0)
	for _, b := range []*v1alpha1.IPBlock{beyond, forged} {
		s.until(b.Name+" goes", 15*time.Second, func() bool { return s.read(b.Name) == nil })
	}
	time.Sleep(2 * time.Second)
	if s.read(kept.Name) == nil {
		s.t.Fatal("what is kept for web-0 is gone")
	}
	s.must(s.c.Delete(s.t.Context(), set))
	s.until("it goes with the set", 15*time.Second, func() bool { return s.read(kept.Name) == nil })
}

// idle holds that nothing is written while nothing happens.
func (s *site) idle(after string, d time.Duration) {
	s.t.Helper()
	versions := func() string {
		var list v1alpha1.IPBlockList
		s.must(s.c.List(s.t.Context(), &list))
		text := s.network().ResourceVersion
		for _, b := range list.Items {
			text += " " + b.Name + " " + b.ResourceVersion
		}
		return text
	}
	before := versions()
	s.until("at rest after "+after, 30*time.Second, func() bool { // counts follow a moment later
		last := before
		time.Sleep(time.Second)
		before = versions()
		return before == last
	})
	time.Sleep(d)
	if now := versions(); now != before {
		s.t.Errorf("after %s:\n%s\nbecame\n%s", after, before, now)
	}
}

// meddle writes to a block as fast as it can, as a second leader or a person might, until it is stopped.
func (s *site) meddle(name string) (stop func() int) {
	ctx, cancel := context.WithCancel(s.t.Context())
	done := make(chan int)
	go func() {
		n := 0
		for ; ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
			b := &v1alpha1.IPBlock{}
			if s.c.Get(ctx, client.ObjectKey{Name: name}, b) != nil {
				continue
			}
			metav1.SetMetaDataAnnotation(&b.ObjectMeta, "meddler", fmt.Sprint(n))
			if s.c.Update(ctx, b) == nil {
				n++
			}
		}
		done <- n
	}()
	return func() int { cancel(); return <-done }
}
