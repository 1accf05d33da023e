package audit

import (
	"fmt"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"danm.io/danm/ipam"
	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/model"
)

var (
	now   = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	space = ipam.Space{Domain: "edge", ID: 310, CIDR: prefix("10.0.0.0/26")}
	voice = model.Network{
		Kind: model.DanmNet, Namespace: "acme", Name: "voice", SpaceDomain: "edge", VLAN: 310,
		IPv4: &model.Subnet{
			CIDR: prefix("10.0.0.0/26"), Gateway: addr("10.0.0.1"), Pools: []model.AddrRange{{First: addr("10.0.0.1"), Last: addr("10.0.0.40")}},
			Exclude: []model.AddrRange{{First: addr("10.0.0.30"), Last: addr("10.0.0.31")}},
			Routes:  []model.PodRoute{{To: prefix("10.9.0.0/16"), Via: addr("10.0.0.1")}},
		},
		Reserved: []model.Reservation{{Name: "vip", Namespace: "acme", IP: addr("10.0.0.9")}},
	}
)

func record(sandbox, pod, ifName, a string) ipam.Record {
	return ipam.Record{Sandbox: sandbox, PodUID: "u-" + pod, Namespace: "acme", Pod: pod, Holds: []ipam.Hold{{Space: space, IfName: ifName, Addr: addr(a)}}}
}

func text(all []Space) string {
	var b strings.Builder
	for _, s := range all {
		fmt.Fprintln(&b, s.Space, s.Networks)
		for _, r := range s.Ranges {
			fmt.Fprintf(&b, "%s-%s %s", r.First, r.Last, r.State)
			for _, x := range []string{r.Pod, r.Interface, r.Sandbox, r.Node, r.For} {
				if x != "" {
					b.WriteString(" " + x)
				}
			}
			if !r.Since.IsZero() {
				b.WriteString(" since " + r.Since.Format("15:04:05"))
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

func compare(t *testing.T, have, want string) {
	t.Helper()
	if want = strings.TrimLeft(want, "\n"); have != want {
		t.Errorf("have\n%s\nwant\n%s", have, want)
	}
}

func nodeView() Node {
	return Node{
		Name: "a", Networks: []model.Network{voice}, Cooldown: time.Minute, Now: now,
		Journal: ipam.Snapshot{
			Records: []ipam.Record{record("s1", "p1", "eth1", "10.0.0.5"), record("s2", "p2", "eth1", "10.0.0.45")},
			Blocks: []ipam.BlockView{
				{Space: space, CIDR: prefix("10.0.0.0/28"), Role: "Block", State: ipam.Owned, Ceded: []ipam.Cession{{Addr: addr("10.0.0.7"), UID: "u7", Node: "c"}}},
				{Space: space, CIDR: prefix("10.0.0.32/28"), Role: "Block", State: ipam.Owned},
				{Space: space, CIDR: prefix("10.0.0.48/28"), Role: "Block", State: ipam.Frozen, Since: now.Add(-time.Hour)},
				{Space: space, CIDR: prefix("10.0.0.20/32"), Role: "Single", State: ipam.Owned, Kept: true, Since: now.Add(-time.Hour)},
				{Space: space, CIDR: prefix("10.0.0.21/32"), Role: "Single", State: ipam.Asked, Since: now},
			},
			Cooling: []ipam.Cooling{{Space: space, Addr: addr("10.0.0.6"), Since: now.Add(-30 * time.Second)}, {Space: space, Addr: addr("10.0.0.8"), Since: now.Add(-2 * time.Minute)}},
		},
	}
}

func TestNodeView(t *testing.T) {
	compare(t, text(nodeView().View("")), `
edge vlan 310 10.0.0.0/26 [acme/voice]
10.0.0.0-10.0.0.0 network base address
10.0.0.1-10.0.0.1 gateway
10.0.0.2-10.0.0.4 free
10.0.0.5-10.0.0.5 held acme/p1 eth1 s1 a
10.0.0.6-10.0.0.6 cooling since 11:59:30
10.0.0.7-10.0.0.7 ceded node c
10.0.0.8-10.0.0.8 free
10.0.0.9-10.0.0.9 reserved acme/vip
10.0.0.10-10.0.0.15 free
10.0.0.16-10.0.0.19 not this node's
10.0.0.20-10.0.0.20 kept since 11:00:00
10.0.0.21-10.0.0.21 claiming since 12:00:00
10.0.0.22-10.0.0.29 not this node's
10.0.0.30-10.0.0.31 excluded
10.0.0.32-10.0.0.40 free
10.0.0.41-10.0.0.44 out of pool
10.0.0.45-10.0.0.45 held acme/p2 eth1 s2 a
10.0.0.46-10.0.0.47 out of pool
10.0.0.48-10.0.0.62 frozen since 11:00:00
10.0.0.63-10.0.0.63 broadcast address
`)
	s := nodeView().View("acme/voice")[0]
	if s.Counts[Held] != 2 || s.Counts[Free] != 3+1+6+9 || s.Counts[Frozen] != 15 || s.Counts[Outside] != 6 {
		t.Error(s.Counts)
	}
	for _, r := range s.Shown(false) {
		if r.State == Free || r.State == Outside || r.State == Elsewhere {
			t.Errorf("shown: %v", r)
		}
	}
	if n := len(s.Shown(true)); n != len(s.Ranges) {
		t.Errorf("%d of %d", n, len(s.Ranges))
	}
	if other := nodeView().View("acme/other"); len(other) != 0 {
		t.Errorf("%v", other)
	}
}

// TestNodeViewBySlot: in the local home a node has every third block.
func TestNodeViewBySlot(t *testing.T) {
	n := Node{Name: "b", Networks: []model.Network{voice}, Slot: 1, Slots: 3, Now: now}
	n.Networks[0].BlockSize = 8
	compare(t, text(n.View("")), `
edge vlan 310 10.0.0.0/26 [acme/voice]
10.0.0.0-10.0.0.0 network base address
10.0.0.1-10.0.0.1 gateway
10.0.0.2-10.0.0.7 not this node's
10.0.0.8-10.0.0.8 free
10.0.0.9-10.0.0.9 reserved acme/vip
10.0.0.10-10.0.0.15 free
10.0.0.16-10.0.0.29 not this node's
10.0.0.30-10.0.0.31 excluded
10.0.0.32-10.0.0.39 free
10.0.0.40-10.0.0.40 not this node's
10.0.0.41-10.0.0.62 out of pool
10.0.0.63-10.0.0.63 broadcast address
`)
}

func object(role, owner, cidr string) v1alpha1.IPBlock {
	s := SpaceOf(space)
	o := v1alpha1.IPBlock{Spec: v1alpha1.IPBlockSpec{Role: role, Space: s, CIDR: cidr, Owner: owner}}
	o.Name, o.UID = s.BlockName(prefix(cidr)), types.UID("uid-"+cidr)
	o.CreationTimestamp = metav1.NewTime(now.Add(-time.Hour))
	o.Labels = map[string]string{v1alpha1.LabelSpace: s.Hash(), v1alpha1.LabelOwner: owner}
	if role == v1alpha1.RoleRoot {
		o.Name, o.Spec.BlockBits = s.RootName(), 28
	}
	if role == v1alpha1.RoleSingle {
		o.Labels[v1alpha1.LabelAsked] = ""
	}
	return o
}

func endpoint(pod, node, a string) danmv1.DanmEp {
	e := danmv1.DanmEp{Spec: danmv1.DanmEpSpec{NetworkName: "voice", Pod: pod, PodUID: "u-" + pod, Host: node, CID: "s-" + pod, Iface: danmv1.DanmEpIface{Name: "eth1", Address: a + "/26"}}}
	e.Namespace, e.Name = "acme", "ep-"+pod
	return e
}

func cluster() Cluster {
	a := object("Block", "a", "10.0.0.0/28")
	a.Spec.Ceded = []v1alpha1.IPCession{{Address: "10.0.0.7", UID: "single", Node: "c"}}
	single := object("Single", "c", "10.0.0.7/32")
	single.UID, single.Spec.Asked, single.Labels[v1alpha1.LabelAsked] = "single", "a", "a"
	orphan := object("Block", "", "10.0.0.16/28")
	orphan.Spec.Held = []v1alpha1.IPHolder{{Address: "10.0.0.18", Namespace: "acme", Pod: "old", Node: "c"}}
	return Cluster{
		Blocks: []v1alpha1.IPBlock{object("Root", "", "10.0.0.0/26"), a, single, orphan}, Networks: []model.Network{voice}, Now: now, Nodes: map[string]bool{"a": true, "c": true},
		Endpoints: []danmv1.DanmEp{endpoint("p1", "a", "10.0.0.5"), endpoint("p2", "c", "10.0.0.7"), endpoint("old", "c", "10.0.0.18")},
		Plans:     []v1alpha1.NodePlan{{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Status: v1alpha1.NodePlanStatus{Addresses: []v1alpha1.AddressUse{{Space: SpaceOf(space).Hash(), Held: 1, Free: 8}}}}},
	}
}

func TestClusterView(t *testing.T) {
	all := cluster().View("")
	compare(t, text(all), `
edge vlan 310 10.0.0.0/26 [acme/voice]
10.0.0.0-10.0.0.0 network base address
10.0.0.1-10.0.0.1 gateway
10.0.0.2-10.0.0.4 in a block a
10.0.0.5-10.0.0.5 held acme/p1 eth1 s-p1 a
10.0.0.6-10.0.0.6 in a block a
10.0.0.7-10.0.0.7 held acme/p2 eth1 s-p2 c
10.0.0.8-10.0.0.8 in a block a
10.0.0.9-10.0.0.9 reserved acme/vip
10.0.0.10-10.0.0.15 in a block a
10.0.0.16-10.0.0.17 in a block the controller
10.0.0.18-10.0.0.18 held acme/old c from before DANM's blocks
10.0.0.19-10.0.0.29 in a block the controller
10.0.0.30-10.0.0.31 excluded
10.0.0.32-10.0.0.40 unclaimed
10.0.0.41-10.0.0.62 out of pool
10.0.0.63-10.0.0.63 broadcast address
`)
	if len(all[0].Nodes) != 1 || all[0].Nodes[0].Held != 1 || all[0].Nodes[0].Free != 8 {
		t.Error(all[0].Nodes)
	}
}
