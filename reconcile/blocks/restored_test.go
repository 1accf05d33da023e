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
	"danm.io/danm/spec/model"
)

// After a restore of etcd a node makes its Single again. Where the block around it is nobody's, the controller makes that, so that
// nobody claims it and gives the address out once more: at once if who had it is gone, else when it had time to make it again.
func TestWhatNodesRelyOnIsNotLeftOpen(t *testing.T) {
	again := func(asked string) func(*v1alpha1.IPBlock) {
		return func(b *v1alpha1.IPBlock) { b.Spec.Asked, b.Spec.Before = asked, "uid-of-before" }
	}
	s := newSite(t, "n1", "n2")
	s.network("voice", "10.0.0.0/24", nil)
	s.root(28)
	s.put(v1alpha1.RoleSingle, "10.0.0.5/32", "n1", again("n9"))
	s.put(v1alpha1.RoleSingle, "10.0.0.6/32", "n2", again(""))
	s.put(v1alpha1.RoleSingle, "10.0.0.7/32", "n2", func(b *v1alpha1.IPBlock) { b.Spec.Asked = "n9" }) // just asks
	s.put(v1alpha1.RoleSingle, "10.0.0.70/32", "n1", again("n2"))
	s.put(v1alpha1.RoleSingle, "10.0.0.71/32", "n1", again(""))
	s.settle()
	b := s.block("10.0.0.0/28")
	s.want("the block of who is gone", b != nil && b.Spec.Owner == "")
	listed := func(cidr string) bool {
		single := s.block(cidr)
		for _, c := range s.block("10.0.0.0/28").Spec.Ceded {
			if c.Address+"/32" == cidr && c.UID == string(single.UID) && c.Node == single.Spec.Owner {
				return single.Status.Answer == v1alpha1.AnswerCeded
			}
		}
		return false
	}
	s.want(fmt.Sprintf("lists who relies on it: %+v", b.Spec.Ceded), listed("10.0.0.5/32") && listed("10.0.0.6/32"))
	s.want("who may make its own again has time", s.block("10.0.0.64/28") == nil)
	s.later(aroundAfter - time.Second)
	s.settle()
	s.want("all of it", s.block("10.0.0.64/28") == nil)
	s.later(time.Second)
	s.settle()
	b = s.block("10.0.0.64/28")
	s.want("and no more", b != nil && b.Spec.Owner == "" && len(b.Spec.Ceded) == 2)
	asks := func(address string) string {
		s.put(v1alpha1.RoleSingle, address+"/32", "n1", nil)
		s.settle()
		answer := s.block(address + "/32").Status
		s.carry(&Action{Verb: Remove, Block: s.block(address + "/32")})
		return answer.Answer + " " + answer.Reason
	}
	s.want("nothing else of it is ceded: "+asks("10.0.0.72"), strings.HasPrefix(asks("10.0.0.72"), v1alpha1.AnswerRefused+" the block around it was made again"))
	s.want("nor offered", len(s.find(edge.RootName()).Status.Offers) == 0)
	s.later(heardAfter)
	s.want("later it is", strings.HasPrefix(asks("10.0.0.72"), v1alpha1.AnswerCeded))
	s.later(time.Minute)
	for _, cidr := range []string{"10.0.0.70/32", "10.0.0.71/32"} { // they go with who relies on them
		s.carry(&Action{Verb: Remove, Block: s.block(cidr)})
	}
	s.settle()
	s.later(31 * time.Second)
	s.settle()
	s.want("it is free again", s.block("10.0.0.64/28") == nil)

	// In a space of single addresses a Single has the place of its block.
	s = newSite(t, "n1")
	s.network("voice", "10.0.0.0/24", nil)
	s.root(32)
	s.put(v1alpha1.RoleSingle, "10.0.0.5/32", "n1", again("n9"))
	s.settle()
	s.later(time.Hour)
	s.settle()
	s.want("nothing is made", len(s.w.Blocks) == 2)
}

// What a lost node owned stays the controller's where another node relies on an address of it, also if the block, which comes from a
// backup, does not list it (R15).
func TestFreeingAsksWhoReliesOnIt(t *testing.T) {
	s := newSite(t, "n1", "n2")
	s.network("voice", "10.0.0.0/24", nil)
	s.root(28)
	s.put(v1alpha1.RoleBlock, "10.0.0.0/28", "n1", nil)
	s.put(v1alpha1.RoleSingle, "10.0.0.5/32", "n2", func(b *v1alpha1.IPBlock) {
		b.Spec.Asked, b.Spec.Before, b.Status.Answer, b.Status.Reason = "n1", "uid-of-before", v1alpha1.AnswerRefused, "n1 knows nothing of it"
	})
	uid := s.block("10.0.0.0/28").UID
	off(s, "id-n1")
	delete(s.w.Nodes, "n1")
	s.settle()
	b := s.block("10.0.0.0/28")
	s.want("it is an orphan that cedes it", b != nil && b.UID == uid && b.Spec.Owner == "" && len(b.Spec.Ceded) == 1 && b.Spec.Ceded[0].Address == "10.0.0.5")
	s.want("nothing else is ceded", b.Annotations[AnnotationAgain] != "")
	s.want("who relies on it is told", s.block("10.0.0.5/32").Status.Answer == v1alpha1.AnswerCeded)
}

// A root that somebody deletes to have the space cut anew goes when the space is empty and nobody can claim by it any more (R16).
func TestADeletedRootIsClosedFirst(t *testing.T) {
	s := newSite(t, "n1", "n2")
	s.network("voice", "10.0.0.0/24", func(n *model.Network, _ *danmv1.TenantNetwork) { n.BlockSize = 16 })
	s.put(v1alpha1.RoleRoot, edge.CIDR, "", func(b *v1alpha1.IPBlock) {
		b.Spec.BlockBits, b.DeletionTimestamp = 26, &metav1.Time{Time: s.w.Now}
	})
	root := func() *v1alpha1.IPBlock { return s.find(edge.RootName()) }
	closing := func() string { return root().Annotations[v1alpha1.AnnotationClosing] }
	s.put(v1alpha1.RoleBlock, "10.0.0.0/26", "n1", nil)
	s.settle()
	s.later(time.Hour)
	s.settle()
	s.want("it stays while a block does", root().Spec.BlockBits == 26 && closing() == "" && root().Status.FreeBlocks == 3)
	s.carry(&Action{Verb: Remove, Block: s.block("10.0.0.0/26")})
	s.settle()
	s.want("it closes", closing() != "")
	s.later(closeAfter - time.Second)
	s.put(v1alpha1.RoleBlock, "10.0.0.64/26", "n2", nil) // a request that was on its way
	s.settle()
	s.want("somebody was faster: open again", closing() == "" && root() != nil)
	s.carry(&Action{Verb: Remove, Block: s.block("10.0.0.64/26")})
	s.settle()
	s.later(closeAfter - time.Second)
	s.settle()
	s.want("closed for as long as requests last", root().Spec.BlockBits == 26)
	s.later(time.Second)
	s.settle()
	s.want("cut anew", root() != nil && root().Spec.BlockBits == 28 && root().DeletionTimestamp == nil && closing() == "")
}

// What holds a deleted network is not unsaid because nobody has looked this time.
func TestWhatHoldsANetworkIsSaidOnce(t *testing.T) {
	s := newSite(t, "n1")
	deleted := metav1.NewTime(s.w.Now.Add(-time.Hour))
	s.network("l2", "10.0.0.0/24", func(n *model.Network, o *danmv1.TenantNetwork) {
		n.IPv4, o.DeletionTimestamp = nil, &deleted
	})
	s.w.Segments["segment"] = model.Segment{}
	s.w.Endpoints = []danmv1.DanmEp{ep("l2", "none", "p", "u")}
	s.settle()
	said := func() *metav1.Condition {
		return meta.FindStatusCondition(s.w.Networks[0].Status.Conditions, ConditionAttached)
	}
	s.want("an endpoint holds it", said() != nil && strings.Contains(said().Message, "acme/p"))
	s.w.Endpoints = nil
	d := Decide(s.w)
	s.want("nobody has looked: "+summary(d), len(d.Actions) == 0 && d.Needs.Users && !d.Needs.Endpoints && said() != nil)
}

// A kept address that somebody deletes is not kept any longer.
func TestADeletedReservationGoes(t *testing.T) {
	s := newSite(t, "n1")
	s.root(28)
	s.put(v1alpha1.RoleSingle, "10.0.0.4/32", "", func(b *v1alpha1.IPBlock) {
		b.Spec.Reservation = &v1alpha1.IPReservation{Namespace: "acme", StatefulSet: "web", UID: "set", IfName: "eth1"}
	})
	s.w.Sets = map[string]StatefulSet{"set": {Namespace: "acme", Name: "web", Replicas: 1}}
	s.settle()
	s.want("kept", s.block("10.0.0.4/32") != nil)
	s.block("10.0.0.4/32").DeletionTimestamp = &metav1.Time{Time: s.w.Now}
	s.settle()
	s.want("gone", s.block("10.0.0.4/32") == nil)
}

// While nodes wait for a check since etcd was restored, the controller frees nothing, cedes nothing, takes nothing back, and tells nodes
// that know nothing of it (R18); then it goes on.
func TestTheControllerWaitsToo(t *testing.T) {
	s := newSite(t, "n1", "n2", "n3")
	s.network("voice", "10.0.0.0/24", nil)
	s.root(28)
	s.put(v1alpha1.RoleBlock, "10.0.0.0/28", "", func(b *v1alpha1.IPBlock) {
		b.Spec.Ceded = []v1alpha1.IPCession{{Address: "10.0.0.2", UID: "uid-gone", Node: "n2"}}
	})
	s.put(v1alpha1.RoleBlock, "10.0.0.16/28", "n3", nil)
	s.put(v1alpha1.RoleBlock, "10.0.0.32/28", "", nil)
	s.put(v1alpha1.RoleSingle, "10.0.0.5/32", "n1", nil)
	s.put(v1alpha1.RoleSingle, "10.0.0.6/32", "n1", func(b *v1alpha1.IPBlock) { b.Spec.Before = "uid-of-before" })
	delete(s.w.Nodes, "n3") // by a lease that is from the backup, too
	s.later(40 * time.Hour)
	annotate := func(node string, a map[string]string) {
		l := s.w.Leases[node].DeepCopy()
		l.Annotations = a
		s.w.Leases[node] = l
	}
	annotate("n2", map[string]string{AnnotationSuspect: "x"})
	s.settle()
	s.later(time.Hour)
	s.settle()
	root := func() *v1alpha1.IPBlock { return s.find(edge.RootName()) }
	s.want("nodes are told", root().Annotations[v1alpha1.AnnotationWaiting] != "" && len(root().Status.Offers) == 0)
	s.want("nothing is freed", s.block("10.0.0.16/28").Spec.Owner == "n3" && s.block("10.0.0.32/28") != nil)
	orphan := s.block("10.0.0.0/28").Spec.Ceded
	s.want(fmt.Sprintf("nothing is taken back, what is relied on is listed: %+v", orphan), len(orphan) == 2 && orphan[0].Address == "10.0.0.2" && orphan[1].Address == "10.0.0.6")
	s.want("nothing is ceded", strings.Contains(s.block("10.0.0.5/32").Status.Reason, "check --accept"))
	annotate("n2", map[string]string{AnnotationSuspect: "x", AnnotationChecked: "x"})
	s.settle()
	s.later(time.Hour)
	s.settle()
	s.want("it goes on", root().Annotations[v1alpha1.AnnotationWaiting] == "" && s.block("10.0.0.16/28") == nil && s.block("10.0.0.32/28") == nil && len(s.block("10.0.0.0/28").Spec.Ceded) == 1)
	s.renew("n3", "id-n3", s.w.Now)
	annotate("n3", map[string]string{AnnotationSuspect: "y"}) // of a node that is gone
	s.settle()
	s.want("a node that is gone waits for nothing", root().Annotations[v1alpha1.AnnotationWaiting] == "")
}
