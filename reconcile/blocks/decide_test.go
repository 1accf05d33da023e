package blocks

import (
	"encoding/base64"
	"fmt"
	"reflect"
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

func TestRootIsCutByNodesAndWishes(t *testing.T) {
	for _, c := range []struct {
		name  string
		nodes int
		size  []int
		want  int32
	}{
		{"by nodes", 3, []int{0}, 28},
		{"by one node", 1, []int{0}, 26},
		{"wish", 3, []int{16}, 28},
		{"no power of two", 3, []int{31}, 28},
		{"the smallest wish on the space", 3, []int{32, 0, 8}, 29},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t)
			for i := range c.nodes {
				s.node(fmt.Sprint("n", i))
			}
			for i, size := range c.size {
				s.network(fmt.Sprint("net", i), "10.0.0.0/24", func(n *model.Network, o *danmv1.TenantNetwork) {
					n.BlockSize, o.Spec.Extension = size, &danmv1.NetworkExtension{BlockSize: size}
				})
			}
			s.settle()
			root := s.find(edge.RootName())
			s.want("a root", root != nil && root.Spec.BlockBits == c.want && root.Spec.Owner == "" && root.Labels[v1alpha1.LabelSpace] == edge.Hash())
			s.want("counts", root.Status.FreeBlocks == 1<<(root.Spec.BlockBits-24) && root.Status.Capacity == 254 && root.Status.Free[0] == "10.0.0.0-10.0.0.255")
			for i := range 40 { // nodes that come later change nothing
				s.node(fmt.Sprint("late", i))
			}
			s.settle()
			s.want("the cut stays", s.find(edge.RootName()).Spec.BlockBits == c.want)
			for i, size := range c.size {
				k := meta.FindStatusCondition(s.w.Networks[i].Status.Conditions, ConditionBlockSize)
				if kept := size != 0 && size != 16 && size != 31 && size != 8; (k != nil) != kept || kept && k.Reason != string(diag.BlockSizeKept) {
					t.Errorf("blockSize %d: %v", size, k)
				}
			}
		})
	}
}

// TestSpaceIsTheNodes: the space that a root is made for is what package ipam makes of the network.
func TestSpaceIsTheNodes(t *testing.T) {
	s := newSite(t, "n1")
	s.network("both", "10.9.0.0/16", func(n *model.Network, _ *danmv1.TenantNetwork) {
		n.SpaceDomain, n.VLAN, n.VXLAN, n.VNI = "device-eth0", 0, true, 5001
		n.IPv6 = &model.Subnet{CIDR: n.IPv4.CIDR}
		n.IPv6.CIDR = netipPrefix("fd00::/64")
	})
	s.settle()
	for _, cidr := range []string{"10.9.0.0/16", "fd00::/64"} {
		root := s.find(v1alpha1.IPSpace{Domain: "device-eth0", ID: 5001, VXLAN: true, CIDR: cidr}.RootName())
		s.want("a root for "+cidr, root != nil && root.Spec.CIDR == cidr)
	}
}

func bitmap(bits int, set ...int) string {
	b := make([]byte, bits/8)
	for _, p := range append(set, 0, bits-1) {
		b[p/8] |= 0x80 >> (p % 8)
	}
	return base64.StdEncoding.EncodeToString(b)
}

func ep(network, address, pod, uid string) danmv1.DanmEp {
	e := danmv1.DanmEp{ObjectMeta: metav1.ObjectMeta{Namespace: "acme", Name: pod}}
	e.Spec = danmv1.DanmEpSpec{ApiType: danmv1.KindTenantNetwork, NetworkName: network, Pod: pod, PodUID: uid, Host: "h1", Iface: danmv1.DanmEpIface{Address: address, AddressIPv6: "none"}}
	return e
}

// TestImport is R19: what Pods have from before is the controller's before anybody may claim.
func TestImport(t *testing.T) {
	s := newSite(t, "n1", "n2")
	s.network("voice", "10.0.0.0/24", func(n *model.Network, o *danmv1.TenantNetwork) {
		n.IPv4.Gateway = netipAddr("10.0.0.1")
		o.Spec.Options.Alloc = bitmap(256, 1, 2, 5, 9, 200)
		o.Spec.Options.Routes = map[string]string{"0.0.0.0/0": "10.0.0.2"}
	})
	refused := &danmv1.TenantNetwork{ObjectMeta: metav1.ObjectMeta{Namespace: "acme", Name: "refused"}}
	refused.Spec.Options.Vlan, refused.Spec.Options.Cidr, refused.Spec.Options.Alloc = 10, "10.0.0.0/25", bitmap(128, 100)
	s.object(refused)
	elsewhere := refused.DeepCopy()
	elsewhere.Name, elsewhere.Spec.Options.Vlan, elsewhere.Spec.Options.Alloc = "elsewhere", 11, bitmap(128, 101)
	s.object(elsewhere)
	s.w.Endpoints = []danmv1.DanmEp{
		ep("voice", "10.0.0.9/24", "a", "uid-a"), ep("voice", "10.0.0.77/24", "b", "uid-b"), ep("voice", "10.1.0.1/24", "c", "uid-c"),
		ep("elsewhere", "10.0.0.120/25", "d", "uid-d"), ep("forgotten", "10.0.0.121/25", "e", "uid-e"), ep("voice", "none", "f", "uid-f"),
	}
	d := s.decide()
	for _, a := range d.Actions {
		if a.Verb == Create && a.Block.Spec.Role == v1alpha1.RoleRoot {
			t.Error("the root is made together with the orphans")
		}
	}
	s.carry(&d.Actions[0]) // cut off
	s.node("n3")           // another number of nodes: the cut stays what was begun
	s.settle()
	held := map[string]string{}
	for _, b := range s.w.Blocks {
		for _, h := range b.Spec.Held {
			held[h.Address] = h.Pod
			if !netipPrefix(b.Spec.CIDR).Contains(netipAddr(h.Address)) || b.Spec.Owner != "" || netipPrefix(b.Spec.CIDR).Bits() != 27 {
				t.Errorf("%s in %s of %q", h.Address, b.Spec.CIDR, b.Spec.Owner)
			}
		}
	}
	want := map[string]string{"10.0.0.5": "", "10.0.0.9": "a", "10.0.0.77": "b", "10.0.0.100": "", "10.0.0.121": "e", "10.0.0.200": ""}
	if !reflect.DeepEqual(held, want) {
		t.Errorf("held %v, want %v", held, want)
	}
	root := s.find(edge.RootName())
	s.want("the root", root != nil && root.Spec.BlockBits == 27 && root.Status.Used == 6)
	s.want("an event", strings.Contains(strings.Join(s.events, ";"), "6 addresses of"))

	// The end of what was imported.
	s.w.Pods = &Pods{UIDs: map[string]bool{"uid-a": true, "uid-e": true}}
	s.settle()
	s.want("b is still held", s.block("10.0.0.64/27") != nil)
	s.later(9 * time.Minute)
	s.settle()
	s.want("b is held within the grace", s.block("10.0.0.64/27") != nil)
	s.w.Pods.UIDs["uid-b"] = true // seen again: the grace begins anew
	s.settle()
	delete(s.w.Pods.UIDs, "uid-b")
	s.later(5 * time.Minute)
	s.settle()
	s.want("b is held in the new grace", s.block("10.0.0.64/27") != nil)
	s.later(11 * time.Minute)
	s.settle()
	s.want("b's block is gone", s.block("10.0.0.64/27") == nil)
	s.want("bits are held for a block lease", s.block("10.0.0.192/27") != nil && len(s.block("10.0.0.0/27").Spec.Held) == 2)
	s.later(12 * time.Hour)
	s.settle()
	s.want("bits without a Pod are gone", s.block("10.0.0.192/27") == nil && len(s.block("10.0.0.0/27").Spec.Held) == 1)
	s.want("and those with one are not", s.block("10.0.0.0/27").Spec.Held[0].Pod == "a")
}

func TestImportOfIPv6(t *testing.T) {
	s := newSite(t, "n1")
	s.network("six", "fd00:0:0:1::/64", func(n *model.Network, o *danmv1.TenantNetwork) {
		o.Spec.Options.Cidr, o.Spec.Options.Net6 = "", "fd00:0:0:1::/64"
		o.Spec.Options.PoolV6.Cidr = "fd00:0:0:1:8000::/112"
		o.Spec.Options.Alloc6 = bitmap(1<<16, 7, 300)
	})
	s.settle()
	var held []string
	for _, b := range s.w.Blocks {
		for _, h := range b.Spec.Held {
			held = append(held, h.Address)
		}
	}
	if fmt.Sprint(held) != "[fd00::1:8000:0:0:7 fd00::1:8000:0:0:12c]" {
		t.Error(held)
	}
}

// TestRootOfWhatStands: without its root a space keeps the cut that nodes rely on; if they disagree there is none.
func TestRootOfWhatStands(t *testing.T) {
	s := newSite(t, "n1")
	s.network("voice", "10.0.0.0/24", nil)
	s.put(v1alpha1.RoleBlock, "10.0.0.0/29", "n1", nil)
	s.settle()
	s.want("the root is as the block", s.find(edge.RootName()).Spec.BlockBits == 29)

	s = newSite(t, "n1")
	s.network("voice", "10.0.0.0/24", nil)
	s.put(v1alpha1.RoleBlock, "10.0.0.0/29", "n1", nil)
	s.put(v1alpha1.RoleBlock, "10.0.0.64/28", "n1", nil)
	s.settle()
	s.want("no root", s.find(edge.RootName()) == nil)
	c := meta.FindStatusCondition(s.w.Networks[0].Status.Conditions, ConditionAddresses)
	s.want("it is said", c != nil && c.Reason == string(diag.AddressGridUnclear) && s.decide().Report.Unclear == 1)
}

// TestFencing is R14 and R15.
func TestFencing(t *testing.T) {
	const lease = 12 * time.Hour
	type change func(s *site)
	gone := func(s *site) { delete(s.w.Nodes, "n1") }
	for _, c := range []struct {
		name   string
		first  change        // at noon
		wait   time.Duration // until which nothing may be freed
		second change
		more   time.Duration // after which it is
		never  bool
	}{
		{name: "alive but not heard of", wait: 40 * lease, never: true},
		{name: "node gone", first: gone, wait: lease - time.Second, more: time.Second},
		{name: "node gone late", wait: 40 * time.Hour, second: gone},
		{name: "node gone and back", first: gone, wait: 11 * time.Hour, second: func(s *site) { s.w.Nodes["n1"] = true }, more: 40 * lease, never: true},
		{name: "node gone, lease written later", first: func(s *site) {
			gone(s)
			at := metav1.NewTime(s.w.Now.Add(2 * time.Hour))
			l := s.w.Leases["n1"].DeepCopy()
			l.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "node", Time: &at}}
			s.w.Leases["n1"] = l
		}, wait: lease + 2*time.Hour - time.Second, more: time.Second},
		{name: "node and lease gone", first: func(s *site) { gone(s); delete(s.w.Leases, "n1") }, wait: lease - time.Second, more: time.Second},
		{name: "lease gone, node there", first: func(s *site) { delete(s.w.Leases, "n1") }, wait: 40 * lease, never: true},
		{name: "another identity", first: func(s *site) { s.renew("n1", "other", s.w.Now) }, wait: lease - time.Second, more: time.Second},
		{name: "another identity with a clock behind", first: func(s *site) { s.renew("n1", "other", s.w.Now.Add(-100*time.Hour)) }, wait: lease - time.Second, more: time.Second},
		{name: "another identity for a while", first: func(s *site) { s.renew("n1", "other", s.w.Now) }, wait: 11 * time.Hour, second: func(s *site) {
			s.renew("n1", "id-n1", s.w.Now)
			s.settle()
			s.renew("n1", "other", s.w.Now)
			s.settle()
		}, more: lease},
		{name: "powered off", first: func(s *site) { off(s, "id-n1") }},
		{name: "another machine powered off", first: func(s *site) { off(s, "id-n9") }, wait: 40 * lease, never: true},
		{name: "powered off, and on again", first: func(s *site) {
			off(s, "id-n1")
			l := s.w.Leases["n1"]
			said, heard := metav1.NewTime(s.w.Now), metav1.NewTime(s.w.Now.Add(time.Minute))
			l.ManagedFields = []metav1.ManagedFieldsEntry{
				{Manager: "danmctl", Time: &said, FieldsV1: &metav1.FieldsV1{Raw: []byte(`{"f:metadata":{"f:annotations":{"f:danm.io/powered-off":{}}}}`)}},
				{Manager: "node", Time: &heard, FieldsV1: &metav1.FieldsV1{Raw: []byte(`{"f:spec":{"f:renewTime":{}}}`)}},
			}
		}, wait: 40 * lease, never: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSite(t, "n1", "n2")
			s.root(28)
			s.put(v1alpha1.RoleBlock, "10.0.0.0/28", "n1", nil)
			s.put(v1alpha1.RoleBlock, "10.0.0.16/28", "n1", func(b *v1alpha1.IPBlock) {
				b.Spec.Ceded = []v1alpha1.IPCession{{Address: "10.0.0.17", UID: "uid-5", Node: "n2"}}
			})
			s.put(v1alpha1.RoleBlock, "10.0.0.32/28", "n2", nil)
			s.put(v1alpha1.RoleSingle, "10.0.0.17/32", "n2", func(b *v1alpha1.IPBlock) { b.Spec.Asked, b.UID = "n1", "uid-5" })
			s.put(v1alpha1.RoleSingle, "10.0.0.40/32", "n1", func(b *v1alpha1.IPBlock) { b.Spec.Asked = "n2" })
			s.put(v1alpha1.RoleSingle, "10.0.0.41/32", "n1", func(b *v1alpha1.IPBlock) {
				b.Spec.Asked, b.Spec.Reservation = "n2", &v1alpha1.IPReservation{Namespace: "acme", StatefulSet: "web", UID: "set", IfName: "eth1"}
			})
			s.w.Sets = map[string]StatefulSet{"set": {Namespace: "acme", Name: "web", Replicas: 1}}
			check := func(freed bool) {
				t.Helper()
				s.settle()
				s.want(fmt.Sprintf("freed: %v", freed), (s.block("10.0.0.0/28") == nil) == freed)
				ceded := s.block("10.0.0.16/28")
				s.want("R15", ceded != nil && (ceded.Spec.Owner == "") == freed && len(ceded.Spec.Ceded) == 1 && (ceded.Labels[v1alpha1.LabelOwner] == "") == freed)
				s.want("Singles", (s.block("10.0.0.40/32") == nil) == freed)
				parked := s.block("10.0.0.41/32")
				s.want("sticky", parked != nil && (parked.Spec.Owner == "") == freed && parked.Spec.Reservation != nil)
				s.want("n2's", s.block("10.0.0.32/28").Spec.Owner == "n2" && s.block("10.0.0.17/32").Spec.Owner == "n2")
			}
			if c.first != nil {
				c.first(s)
			}
			if c.wait > 0 {
				check(false)
				s.later(c.wait)
				check(false)
			}
			if c.second != nil {
				c.second(s)
			}
			s.later(c.more)
			check(!c.never)
			if !c.never && !s.w.Nodes["n1"] {
				s.want("the lease goes at last", s.w.Leases["n1"] == nil)
			}
			if s.w.Nodes["n1"] && !strings.Contains(c.name, "lease gone") {
				s.want("the lease of a node that is there stays", s.w.Leases["n1"] != nil)
			}
			events := 0
			for _, e := range s.events {
				if strings.HasPrefix(e, string(diag.AddressesFreed)) {
					events++
				}
			}
			if events > 1 || !c.never && events == 0 {
				t.Errorf("%d events: %v", events, s.events)
			}
		})
	}
}

func off(s *site, identity string) {
	l := s.w.Leases["n1"].DeepCopy()
	l.Annotations = map[string]string{AnnotationPoweredOff: identity}
	s.w.Leases["n1"] = l
}

// TestFencingAsksTheAPI: what a cache says frees nothing.
func TestFencingAsksTheAPI(t *testing.T) {
	s := newSite(t, "n1")
	s.root(28)
	s.put(v1alpha1.RoleBlock, "10.0.0.0/28", "n1", nil)
	s.settle()
	cached := s.w
	cached.Nodes, cached.Now = map[string]bool{}, noon.Add(24*time.Hour)
	d := Decide(cached)
	if len(d.Actions) != 0 || fmt.Sprint(d.Needs.Nodes) != "[n1]" {
		t.Fatalf("decided upon a cache: %s, needs %v", summary(d), d.Needs)
	}
	cached.Signs = map[string]Sign{"n1": {Node: true, Lease: s.w.Leases["n1"]}}
	if d := Decide(cached); len(d.Actions) != 0 {
		t.Errorf("against the API: %s", summary(d))
	}
	cached.Signs = map[string]Sign{"n1": {Lease: s.w.Leases["n1"]}}
	if d := Decide(cached); len(d.Actions) != 1 || !d.Actions[0].Prompt {
		t.Errorf("with the API: %s", summary(d))
	}
}

// TestOrphansAnswer is R10, R11 and R15 from the controller's side.
func TestOrphansAnswer(t *testing.T) {
	s := newSite(t, "n1", "n2")
	s.network("voice", "10.0.0.0/24", nil)
	s.root(28)
	s.put(v1alpha1.RoleBlock, "10.0.0.0/28", "", func(b *v1alpha1.IPBlock) {
		b.Spec.Held = []v1alpha1.IPHolder{{Address: "10.0.0.5", Namespace: "acme", Pod: "old", UID: "uid-old"}}
	})
	s.w.Pods = &Pods{UIDs: map[string]bool{"uid-old": true}}
	s.put(v1alpha1.RoleBlock, "10.0.0.16/28", "n2", nil)
	ask := func(address, asked string) string {
		s.put(v1alpha1.RoleSingle, address+"/32", "n1", func(b *v1alpha1.IPBlock) { b.Spec.Asked = asked })
		return address + "/32"
	}
	free, taken, lost := ask("10.0.0.4", ""), ask("10.0.0.5", ""), ask("10.0.0.6", "n9")
	other, moved, nobodys := ask("10.0.0.20", "n2"), ask("10.0.0.21", ""), ask("10.0.0.200", "n9")
	d := s.decide()
	for _, a := range d.Actions {
		if a.Verb == UpdateStatus && a.Block.Status.Answer == v1alpha1.AnswerCeded {
			t.Error("told before the list says so")
		}
	}
	s.settle()
	status := func(cidr string) v1alpha1.IPBlockStatus { return s.block(cidr).Status }
	s.want("the free one is ceded", status(free).Answer == v1alpha1.AnswerCeded)
	s.want("so is the one asked of a node that was lost", status(lost).Answer == v1alpha1.AnswerCeded)
	s.want("the list says so", fmt.Sprint(s.block("10.0.0.0/28").Spec.Ceded) == fmt.Sprintf("[{10.0.0.4 %s n1} {10.0.0.6 %s n1}]", s.block(free).UID, s.block(lost).UID))
	s.want("the taken one is refused", status(taken).Answer == v1alpha1.AnswerRefused && strings.Contains(status(taken).Reason, "acme/old"))
	s.want("a live node answers itself", status(other).Answer == "")
	s.want("the block is another node's", status(moved).Answer == v1alpha1.AnswerRefused && strings.Contains(status(moved).Reason, "n2"))
	s.want("nobody has the block", status(nobodys).Answer == v1alpha1.AnswerRefused)

	// The Single goes, another one asks: only after the cooldown (R11), and not by its name.
	s.carry(&Action{Verb: Remove, Block: s.block(free)})
	again := ask("10.0.0.4", "")
	s.settle()
	s.want("it cools", status(again).Answer == v1alpha1.AnswerRefused && len(s.block("10.0.0.0/28").Spec.Ceded) == 2)
	s.carry(&Action{Verb: Remove, Block: s.block(again)})
	s.later(31 * time.Second)
	s.settle()
	s.want("it came back", len(s.block("10.0.0.0/28").Spec.Ceded) == 1)
	ask("10.0.0.4", "")
	s.settle()
	s.want("and is had again", status(again).Answer == v1alpha1.AnswerCeded)

	// An orphan with something ceded stays whatever becomes of what was held; one with nothing goes.
	s.w.Pods.UIDs = nil
	s.settle()
	s.later(11 * time.Minute)
	s.settle()
	s.want("it stays", len(s.block("10.0.0.0/28").Spec.Ceded) == 2 && len(s.block("10.0.0.0/28").Spec.Held) == 0)
	for _, cidr := range []string{again, lost} {
		s.carry(&Action{Verb: Remove, Block: s.block(cidr)})
	}
	s.settle()
	s.want("it cools", s.block("10.0.0.0/28") != nil)
	s.later(time.Minute)
	s.settle()
	s.want("it goes", s.block("10.0.0.0/28") == nil)
}
