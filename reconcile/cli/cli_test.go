package cli

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"danm.io/danm/node/plan"
	"danm.io/danm/render"
	"danm.io/danm/render/rendertest"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

func TestShortRevision(t *testing.T) {
	hash := strings.Repeat("3f2c9d1a", 5)
	for in, want := range map[string]string{
		"main@sha1:" + hash:                      "main@sha1:3f2c9d1",
		"sha1:" + hash:                           "sha1:3f2c9d1",
		"dir@sha256:" + strings.Repeat("00", 32): "working tree",
		"":                                       "",
		"odd":                                    "odd",
		"feature:x@sha1:" + strings.Repeat("ab", 20): "feature:x@sha1:abababa",
	} {
		if got := shortRevision(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestFieldChanges(t *testing.T) {
	n := model.Network{Kind: model.TenantNetwork, Namespace: "a", Name: "b", VLAN: 310,
		IPv4: &model.Subnet{CIDR: netip.MustParsePrefix("10.0.0.0/24"), Pools: []model.AddrRange{
			{First: netip.MustParseAddr("10.0.0.1"), Last: netip.MustParseAddr("10.0.0.9")},
			{First: netip.MustParseAddr("10.0.0.20"), Last: netip.MustParseAddr("10.0.0.20")}}}}
	m := n
	v4 := *n.IPv4
	v4.Pools = v4.Pools[:1]
	v4.Routes = []model.PodRoute{{To: netip.MustParsePrefix("10.9.0.0/16"), Via: netip.MustParseAddr("10.0.0.1")}, {To: netip.MustParsePrefix("10.8.0.0/16")}}
	m.IPv4, m.VLAN, m.MTU = &v4, 312, 1400
	was, now := Document{Networks: []model.Network{n}}, Document{Networks: []model.Network{m}, Origins: map[string]model.Origin{"Network/a/b": {File: "f.yaml", Line: 14}}}
	got := changeLines(changesOf(was, now))
	want := "~ a/b  f.yaml:14 ipv4.pools [10.0.0.1-10.0.0.9, 10.0.0.20] -> [10.0.0.1-10.0.0.9], " +
		"ipv4.routes none -> [10.9.0.0/16 via 10.0.0.1, 10.8.0.0/16], mtu none -> 1400, vlan 310 -> 312\n"
	if got != want {
		t.Errorf("\n got %q\nwant %q", got, want)
	}
	if got := changesOf(now, now); len(got) != 0 {
		t.Errorf("equal documents differ: %v", got)
	}
}

// A network of virtual functions is named by its pool, and its priority as a user writes it.
func TestPriorityAsWritten(t *testing.T) {
	n := model.Network{Kind: model.ClusterNetwork, Name: "n", Type: model.SRIOV, DevicePool: "danm.io/fast", VLAN: 7}
	m := n
	m.QoS = 5
	if got, want := changeLines(changesOf(Document{Networks: []model.Network{n}}, Document{Networks: []model.Network{m}})), "~ n   vlanQoS none -> 5\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := changeLines(changesOf(Document{}, Document{Networks: []model.Network{n}})), "+ n   vlan 7 of sriov from danm.io/fast\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// Every field of a network that a user can write shows up when it changes.
func TestNoFieldIsForgotten(t *testing.T) {
	base := model.Network{Kind: model.ClusterNetwork, Name: "n", VXLAN: true, VNI: 1}
	for i, edit := range []func(*model.Network){
		func(n *model.Network) { n.NetworkID = "x" }, func(n *model.Network) { n.Type = model.BRIDGE }, func(n *model.Network) { n.Fabric = "x" },
		func(n *model.Network) { n.HostDevice = "x" }, func(n *model.Network) { n.VNI = 2 }, func(n *model.Network) { n.VXLAN, n.VNI, n.VLAN = false, 0, 1 },
		func(n *model.Network) { n.MTU = 1400 }, func(n *model.Network) { n.IPv4 = &model.Subnet{CIDR: netip.MustParsePrefix("10.0.0.0/8")} },
		func(n *model.Network) { n.IPv6 = &model.Subnet{CIDR: netip.MustParsePrefix("fd00::/8")} }, func(n *model.Network) { n.InterfacePrefix = "x" },
		func(n *model.Network) { n.Table = 7 }, func(n *model.Network) { n.AllowedTenants = []string{"x"} }, func(n *model.Network) { n.AllowedNamespaces = []string{"x"} },
		func(n *model.Network) { n.SharedWith = []string{"x"} }, func(n *model.Network) { n.BlockSize = 4 },
		func(n *model.Network) { n.QoS = 3 },
	} {
		n := base
		edit(&n)
		if len(changesOf(Document{Networks: []model.Network{base}}, Document{Networks: []model.Network{n}})) != 1 {
			t.Errorf("edit %d is not seen", i)
		}
	}
}

func stepLink(name string, kind model.LinkKind, vni uint32, alias string) *model.Link {
	l := &model.Link{Name: name, Kind: kind, Parent: "eth0", Alias: alias}
	if kind == model.VXLAN {
		l.VXLAN = &model.VXLANOptions{VNI: vni}
	} else {
		l.VLANID = uint16(vni)
	}
	return l
}

func texts(rs []row) string {
	var out []string
	for _, r := range rs {
		out = append(out, fmt.Sprintf("%c|%s|%s|%s|%s", r.sign, r.text, r.disruption, r.pods, r.more))
	}
	return strings.Join(out, "\n")
}

func TestRows(t *testing.T) {
	peer := func(l, a string) *model.Peer { return &model.Peer{Link: l, Addr: netip.MustParseAddr(a)} }
	p := plan.Plan{
		Steps: []plan.Step{
			{Op: plan.DeleteLink, Link: stepLink("voice.310", model.VLAN, 310, "danm: acme/voice"), Disruption: plan.DestroysPods, Pods: []string{"acme/sip-0", "acme/sip-1"}},
			{Op: plan.DeleteLink, Link: stepLink("vx_a", model.VXLAN, 5, "danm: a"), Disruption: plan.DestroysPods},
			{Op: plan.DeleteLink, Link: stepLink("gone.7", model.VLAN, 7, "danm: gone"), Disruption: plan.DestroysPods},
			{Op: plan.CreateLink, Link: stepLink("voice.312", model.VLAN, 312, "danm: acme/voice"), Disruption: plan.None},
			{Op: plan.CreateLink, Link: stepLink("vx_a", model.VXLAN, 6, "danm: a"), Disruption: plan.None},
			{Op: plan.CreateLink, Link: stepLink("vx_new", model.VXLAN, 9, "danm: new"), Disruption: plan.None},
			{Op: plan.CreateLink, Link: stepLink("vx_gone", model.VXLAN, 10, "danm: gone"), Disruption: plan.None}, // another kind: no replacement
			{Op: plan.AddPeer, Peer: peer("vx_a", "192.0.2.1"), Disruption: plan.None},
			{Op: plan.AddPeer, Peer: peer("vx_new", "192.0.2.1"), Disruption: plan.None},
			{Op: plan.AddPeer, Peer: peer("vx_a", "192.0.2.2"), Disruption: plan.None},
			{Op: plan.DeletePeer, Peer: peer("vx_a", "192.0.2.9"), Disruption: plan.None},
		},
		Blocked: []plan.Blocked{{ID: "link/x", Reason: "x exists, not ours", Remedy: "rename or remove it"}},
	}
	want := `~|~ link voice.310 -> voice.312|destroys-pods|2 (acme/sip-0, acme/sip-1)|
~|~ link vx_a vxlan 5 -> 6|destroys-pods|-|
+|+ link vx_new vxlan 9 dev eth0|none|-|
+|+ link vx_gone vxlan 10 dev eth0|none|-|
+|+ 2 peers of vx_a|none|-|
+|+ 1 peer of vx_new|none|-|
-|- 1 peer of vx_a|none|-|
!|! blocked: link/x: x exists, not ours|-|-|remedy: rename or remove it`
	got := texts(rows(p))
	if i := strings.Index(got, "-|- link gone.7"); i < 0 {
		t.Errorf("the link that is not replaced is not shown as removed:\n%s", got)
	}
	got = strings.Replace(got, "-|- link gone.7 vlan 7 dev eth0|destroys-pods|-|\n", "", 1)
	if got != want {
		t.Errorf("\n%s\nwant\n%s", got, want)
	}
}

func TestTable(t *testing.T) {
	step := func(l string, d plan.Disruption, pods ...string) plan.Step {
		return plan.Step{Op: plan.SetLink, LinkName: l, Link: stepLink(l, model.VLAN, 1, ""), Property: "mtu", From: "1500", To: "1400", Disruption: d, Pods: pods}
	}
	node := func(name string, steps ...plan.Step) NodeDiff {
		p := plan.Plan{Steps: steps}
		return NodeDiff{Node: name, Plan: p, Worst: string(p.Worst())}
	}
	got := nodeTable([]NodeDiff{
		node("a", step("x.1", plan.None), step("y.1", plan.LinkDown, "ns/p")),
		node("bb", step("x.1", plan.None), step("y.1", plan.LinkDown, "ns/q", "ns/r")),
		node("c", step("x.1", plan.None)),
	})
	want := `  NODE  STEP                        DISRUPTION  PODS
  a     ~ link x.1 mtu 1500 -> 1400  none        -
        ~ link y.1 mtu 1500 -> 1400  link-down   1 (ns/p)
  bb    same as a                    link-down   2 (ns/q, ns/r)
  c     ~ link x.1 mtu 1500 -> 1400  none        -
0 to add, 5 to change, 0 to remove, 0 blocked
`
	want = strings.Replace(want, "STEP                        D", "STEP                         D", 1)
	if got.String() != want {
		t.Errorf("\n%s\nwant\n%s", got, want)
	}
	if got.disruptive != 1 {
		t.Errorf("%d disruptive, want 1: blip and none are not, alike steps count once", got.disruptive)
	}
}

func TestNodeNotes(t *testing.T) {
	s := model.NodeState{Node: "n", Slot: 1, Slots: 4}
	moved := s
	moved.Slot = 2
	for _, c := range []struct {
		before, after bool
		now           model.NodeState
		want          string
	}{
		{true, true, s, ""}, {false, true, s, "new"}, {true, false, s, "keeps its last plan"}, {true, true, moved, "slot 1 of 4 -> 2 of 4"},
	} {
		n := nodeDiff("n", s, c.now, c.before, c.after, nil)
		if (c.want == "") != (n.Note == "") || !strings.Contains(n.Note, c.want) {
			t.Errorf("note %q, want %q", n.Note, c.want)
		}
	}
}

// What a diff takes as the old state of a node is the state Diff itself calls done.
func TestAsIfAppliedIsDone(t *testing.T) {
	b := rendertest.Scale(rendertest.Shape{Nodes: 12, Groups: 3, Networks: 60, Tenants: 4})
	for _, n := range render.Render(b, model.Inventory{}).Nodes {
		want := plan.Desired{Plan: n.Plan, Peers: n.Peers}
		host := assumed(model.NodePlan{}, n.Plan, nil)
		first := plan.Diff(want, host)
		if len(first.Steps) < 20 || len(first.Blocked) > 0 {
			t.Fatalf("%s: %d steps on bare hardware, %v blocked", n.Node, len(first.Steps), first.Blocked)
		}
		if again := plan.Diff(want, asIfApplied(want, host)); !again.Empty() {
			t.Fatalf("%s: after applying:\n%s", n.Node, again.Text())
		}
	}
}

func TestAssumedFindsMatched(t *testing.T) {
	p := model.NodePlan{Links: []model.Link{
		{Name: "lan", Kind: model.Physical, Match: &model.Match{MAC: "02:00:00:00:00:01"}, MTU: 1400},
		{Name: "wan", Kind: model.Physical, Match: &model.Match{Name: "enp3s0", PCI: "0000:03:00.0"}, Up: true},
		{Name: "bus", Kind: model.Physical, Match: &model.Match{Driver: "virtio_net"}, Up: true},
	}}
	got := plan.Diff(plan.Desired{Plan: p}, assumed(model.NodePlan{}, p, nil))
	if len(got.Blocked) > 0 || len(got.Steps) != 3 {
		t.Errorf("steps and blocked:\n%s", got.Text())
	}
}

// A link that is given back was up before DANM came: a dry run must not promise to take it down.
func TestReleasedHardwareStaysUp(t *testing.T) {
	was := model.NodeState{Node: "n", Digest: "a", Plan: model.NodePlan{Links: []model.Link{
		{Name: "eth1", Kind: model.Physical, Up: true, MTU: 1400, Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/24")}},
	}}}
	got := nodeDiff("n", was, model.NodeState{Node: "n", Digest: "b"}, true, true, nil).Plan.Text()
	if !strings.Contains(got, "eth1 mtu 1400 -> 1500") || !strings.Contains(got, "- address 10.0.0.1/24") || strings.Contains(got, "-> down") {
		t.Errorf("steps:\n%s", got)
	}
}

// Five thousand nodes are compared in seconds (a busy machine: a minute), most of them by their digest alone.
func TestDifferenceAtScale(t *testing.T) {
	b := rendertest.Scale(rendertest.Budget)
	was := newDocument(b, render.Render(b, model.Inventory{}), "a")
	b.Networks[0].MTU = 1400
	now := newDocument(b, render.Render(b, model.Inventory{}), "b")
	start := time.Now()
	d := difference(was, now)
	if len(d.Nodes) != rendertest.Budget.Nodes/rendertest.Budget.Groups {
		t.Errorf("%d nodes differ, want those of one group", len(d.Nodes))
	}
	if text := diffText(d); strings.Count(text, "same as") != len(d.Nodes)-1 {
		t.Errorf("nodes of one group are not folded:\n%s", text[:min(2000, len(text))])
	}
	if took := time.Since(start); took > time.Minute {
		t.Errorf("took %v", took)
	}
}

func TestColor(t *testing.T) {
	var out bytes.Buffer
	to := IO{Out: &out, Color: true}
	if err := to.text("+ a\n  edge-1  - b\n  - c\nplain\n"); err != nil {
		t.Fatal(err)
	}
	if got, want := out.String(), green+"+ a"+reset+"\n  edge-1  - b\n"+red+"  - c"+reset+"\nplain\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	d := diag.Diagnostic{Severity: diag.Warning, Code: "X", Summary: "error[ in the text"}
	if got := paintSeverity(d.String(), d); got != yellow+"warning"+reset+"[X]: error[ in the text" {
		t.Errorf("%q", got)
	}
}

func TestWantColor(t *testing.T) {
	env := func(set map[string]string) func(string) string { return func(k string) string { return set[k] } }
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if WantColor(f, env(nil)) {
		t.Error("colours for what is no terminal")
	}
	tty, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Logf("no pseudo terminal here: %v", err)
		return
	}
	defer tty.Close()
	if !WantColor(tty, env(nil)) {
		t.Error("no colours on a terminal")
	}
	for _, set := range []map[string]string{{"NO_COLOR": "1"}, {"TERM": "dumb"}} {
		if WantColor(tty, env(set)) {
			t.Errorf("colours with %v", set)
		}
	}
}
