package audit

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"danm.io/danm/ipam"
	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
)

// node is one in which everything agrees: two Pods, a block with a cession, a Single, a DanmEp.
func node() NodeCheck {
	return NodeCheck{
		Node: "a", AskedAPI: true,
		Journal: ipam.Snapshot{
			Identity: "m/n", Records: []ipam.Record{record("s1", "p1", "eth1", "10.0.0.5"), record("s2", "p2", "eth1", "10.0.0.20")},
			Blocks: []ipam.BlockView{
				{Space: space, CIDR: prefix("10.0.0.0/28"), Role: "Block", State: ipam.Owned, UID: "b", Ceded: []ipam.Cession{{Addr: addr("10.0.0.7"), UID: "u7", Node: "c"}}},
				{Space: space, CIDR: prefix("10.0.0.20/32"), Role: "Single", State: ipam.Owned, UID: "s"},
			},
			Cooling: []ipam.Cooling{{Space: space, Addr: addr("10.0.0.6"), Since: now}},
		},
		Attached: map[string]Attached{"s1": {Netns: "/run/netns/1", Links: map[string]bool{"eth1": true}}, "s2": {Netns: "/run/netns/2", Links: map[string]bool{"eth1": true}}},
		Kernel: map[string]Namespace{
			"s1": {Addresses: map[string][]netip.Addr{"lo": {addr("127.0.0.1")}, "eth0": {addr("10.0.0.33")}, "eth1": {addr("10.0.0.5"), addr("fe80::1"), addr("192.0.2.1")}}},
			"s2": {Addresses: map[string][]netip.Addr{"eth1": {addr("10.0.0.20")}}},
		},
		Blocks: func() []v1alpha1.IPBlock {
			b, s := object("Block", "a", "10.0.0.0/28"), object("Single", "a", "10.0.0.20/32")
			b.UID, s.UID = "b", "s"
			b.Spec.Ceded = []v1alpha1.IPCession{{Address: "10.0.0.7", UID: "u7", Node: "c"}}
			return []v1alpha1.IPBlock{b, s}
		}(),
		Published: []danmv1.DanmEp{func() danmv1.DanmEp { e := endpoint("p1", "a", "10.0.0.5"); e.Spec.CID = "s1"; return e }()},
	}
}

// want is "Kind place" of each finding.
func kinds(all []Finding) (out []string) {
	for _, f := range all {
		if f.What == "" || f.Remedy == "" || f.Where == "" {
			out = append(out, fmt.Sprintf("incomplete: %+v", f))
		}
		out = append(out, string(f.Kind)+" "+f.Where)
	}
	return out
}

func TestNodeCheck(t *testing.T) {
	for _, c := range []struct {
		name  string
		wrong func(*NodeCheck)
		want  []string
	}{
		{"all agrees", func(*NodeCheck) {}, nil},
		{"nothing but the journal is looked at", func(c *NodeCheck) { c.Kernel, c.AskedAPI, c.Published = nil, false, nil }, nil},
		{"local home: no blocks", func(c *NodeCheck) { c.Journal.Blocks, c.Journal.Identity, c.AskedAPI = nil, "", false }, nil},
		{"two records", func(c *NodeCheck) {
			c.Journal.Records = append(c.Journal.Records, record("s3", "p3", "eth1", "10.0.0.5"))
		}, []string{"DoubleAddress 10.0.0.5"}},
		{"the same address of another space", func(c *NodeCheck) {
			r := record("s3", "p3", "eth1", "10.0.0.5")
			r.Holds[0].Space.ID = 311
			c.Journal.Records = append(c.Journal.Records, r)
			c.Journal.Blocks = append(c.Journal.Blocks, ipam.BlockView{Space: r.Holds[0].Space, CIDR: prefix("10.0.0.0/28"), Role: "Block", State: ipam.Claiming})
		}, nil},
		{"outside every block", func(c *NodeCheck) {
			c.Journal.Records[0].Holds[0].Addr = addr("10.0.0.50")
			c.Kernel["s1"].Addresses["eth1"][0] = addr("10.0.0.50")
			c.Published = nil
		}, []string{"OutsideBlocks 10.0.0.50"}},
		{"in a block that goes back", func(c *NodeCheck) { c.Journal.Blocks[0].State = ipam.Releasing }, []string{"OutsideBlocks 10.0.0.5"}},
		{"in a frozen block", func(c *NodeCheck) { c.Journal.Blocks[0].State = ipam.Frozen }, nil},
		{"ceded and held", func(c *NodeCheck) {
			c.Journal.Blocks[0].Ceded[0].Addr = addr("10.0.0.5")
			c.Blocks[0].Spec.Ceded[0].Address = "10.0.0.5"
		}, []string{"HeldAndCeded 10.0.0.5"}},
		{"a Single of one's own block", func(c *NodeCheck) {
			c.Journal.Blocks[0].Ceded[0].Addr, c.Blocks[0].Spec.Ceded[0].Address = addr("10.0.0.5"), "10.0.0.5"
			c.Journal.Blocks = append(c.Journal.Blocks, ipam.BlockView{Space: space, CIDR: prefix("10.0.0.5/32"), Role: "Single", State: ipam.Owned})
			s := object("Single", "a", "10.0.0.5/32")
			c.Blocks = append(c.Blocks, s)
		}, nil},
		{"cools and is held", func(c *NodeCheck) { c.Journal.Cooling[0].Addr = addr("10.0.0.5") }, []string{"HeldAndCooling 10.0.0.5"}},
		{"sandbox gone", func(c *NodeCheck) { c.Kernel["s1"] = Namespace{Gone: "is not there"} }, []string{"SandboxGone sandbox s1 of Pod acme/p1"}},
		{"sandbox without addresses gone", func(c *NodeCheck) {
			c.Kernel["s3"] = Namespace{Gone: "is not there"}
			c.Journal.Records = append(c.Journal.Records, ipam.Record{Sandbox: "s3", PodUID: "x"})
		}, nil},
		{"cannot look", func(c *NodeCheck) { c.Kernel["s2"] = Namespace{Error: "permission denied"} }, []string{"Unreadable sandbox s2 of Pod acme/p2"}},
		{"record not readable", func(c *NodeCheck) { a := c.Attached["s1"]; a.Error = "version 9"; c.Attached["s1"] = a }, []string{"Unreadable sandbox s1"}},
		{"address lost", func(c *NodeCheck) { c.Kernel["s1"].Addresses["eth1"] = []netip.Addr{addr("fe80::1")} }, []string{"NotInKernel 10.0.0.5"}},
		{"interface lost", func(c *NodeCheck) { delete(c.Kernel["s2"].Addresses, "eth1") }, []string{"NotInKernel 10.0.0.20"}},
		{"a userspace driver has it", func(c *NodeCheck) {
			delete(c.Kernel["s2"].Addresses, "eth1")
			c.Attached["s2"] = Attached{Netns: "/run/netns/2"}
		}, nil},
		{"an address nobody gave", func(c *NodeCheck) {
			c.Kernel["s1"].Addresses["eth1"] = append(c.Kernel["s1"].Addresses["eth1"], addr("10.0.0.9"))
		}, []string{"NotInJournal 10.0.0.9"}},
		{"a plugin of the Pod's asked for it", func(c *NodeCheck) {
			c.Journal.Records = append(c.Journal.Records, record("s1/eth1", "p1/eth1", "eth1", "10.0.0.8"))
			c.Kernel["s1"].Addresses["eth1"] = append(c.Kernel["s1"].Addresses["eth1"], addr("10.0.0.8"))
			e := endpoint("p1", "a", "10.0.0.8")
			e.Spec.CID = "s1"
			c.Published = append(c.Published, e)
		}, nil},
		{"a plugin asked for it for another interface", func(c *NodeCheck) {
			c.Journal.Records = append(c.Journal.Records, record("s1/eth2", "p1/eth2", "eth2", "10.0.0.8"))
			c.Kernel["s1"].Addresses["eth1"] = append(c.Kernel["s1"].Addresses["eth1"], addr("10.0.0.8"))
		}, []string{"DoubleAddress 10.0.0.8"}},
		{"another's address", func(c *NodeCheck) {
			c.Kernel["s1"].Addresses["eth1"] = append(c.Kernel["s1"].Addresses["eth1"], addr("10.0.0.20"))
		}, []string{"DoubleAddress 10.0.0.20"}},
		{"no object", func(c *NodeCheck) { c.Blocks = c.Blocks[1:] }, []string{"BlockMissing block 10.0.0.0/28"}},
		{"no object of one being claimed", func(c *NodeCheck) { c.Blocks = c.Blocks[:1]; c.Journal.Blocks[1].State = ipam.Asked }, nil},
		{"another's object", func(c *NodeCheck) { c.Blocks[0].Spec.Owner = "c" }, []string{"BlockMissing block 10.0.0.0/28"}},
		{"another object", func(c *NodeCheck) { c.Blocks[0].UID = "b2" }, []string{"BlockOfAnother block 10.0.0.0/28"}},
		{"not in the journal", func(c *NodeCheck) { c.Blocks = append(c.Blocks, object("Block", "a", "10.0.0.48/28")) }, []string{"BlockUnknown IPBlock " + SpaceOf(space).BlockName(prefix("10.0.0.48/28"))}},
		{"a root is no node's", func(c *NodeCheck) { c.Blocks = append(c.Blocks, object("Root", "a", "10.0.0.0/26")) }, nil},
		{"cessions differ", func(c *NodeCheck) { c.Blocks[0].Spec.Ceded[0].UID = "u8" }, []string{"CededDiffers block 10.0.0.0/28"}},
		{"one more cession", func(c *NodeCheck) {
			c.Blocks[0].Spec.Ceded = append(c.Blocks[0].Spec.Ceded, v1alpha1.IPCession{Address: "10.0.0.8", UID: "u8"})
		}, []string{"CededDiffers block 10.0.0.0/28"}},
		{"DanmEp of another sandbox", func(c *NodeCheck) { c.Published[0].Spec.CID = "s0" }, []string{"EndpointStale DanmEp acme/ep-p1"}},
		{"DanmEp of another plugin's address", func(c *NodeCheck) {
			c.Published[0].Spec.Iface.Address, c.Attached["s1"].Links["eth1"] = "10.0.0.40/24", false
		}, nil},
		{"DanmEp of another plugin's link with DANM's address", func(c *NodeCheck) {
			c.Journal.Records[0].Sandbox, c.Attached["s1/eth1"], c.Kernel["s1/eth1"] = "s1/eth1", c.Attached["s1"], c.Kernel["s1"]
			delete(c.Attached, "s1")
			delete(c.Kernel, "s1")
		}, nil},
		{"DanmEp without an address", func(c *NodeCheck) { c.Published[0].Spec.Iface.Address = "none" }, nil},
		{"DanmEp of other people's addresses", func(c *NodeCheck) { c.Published[0].Spec.Iface.Address = "172.16.0.1/24" }, nil},
		{"waits", func(c *NodeCheck) { c.Journal.Suspect = "x" }, []string{"WaitsForCheck node a"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := node()
			c.wrong(&n)
			if have := kinds(n.Check()); !slices.Equal(have, c.want) {
				t.Errorf("have %q\nwant %q\n%v", have, c.want, n.Check())
			}
		})
	}
}

func TestClusterCheck(t *testing.T) {
	blockName := func(cidr string) string { return "IPBlock " + SpaceOf(space).BlockName(prefix(cidr)) }
	for _, c := range []struct {
		name  string
		wrong func(*Cluster)
		want  []string
	}{
		{"all agrees", func(*Cluster) {}, nil},
		{"empty", func(c *Cluster) { *c = Cluster{} }, nil},
		{"no DanmEps", func(c *Cluster) { c.Endpoints = nil }, nil},
		{"owner is no node", func(c *Cluster) { delete(c.Nodes, "c") }, []string{"OwnerGone " + blockName("10.0.0.7/32")}},
		{"nodes are not known", func(c *Cluster) { c.Nodes = nil; c.Blocks[1].Spec.Owner = "a" }, nil},
		{"no root", func(c *Cluster) { c.Blocks = c.Blocks[1:] }, []string{"RootMissing the space"}},
		{"off the grid", func(c *Cluster) {
			c.Blocks = append(c.Blocks, object("Block", "c", "10.0.0.48/29"))
		}, []string{"OffGrid " + blockName("10.0.0.48/29")}},
		{"overlap", func(c *Cluster) { c.Blocks = append(c.Blocks, object("Block", "c", "10.0.0.8/29")) }, []string{"BlocksOverlap " + blockName("10.0.0.8/29"), "OffGrid " + blockName("10.0.0.8/29")}},
		{"three overlap one", func(c *Cluster) {
			c.Blocks = append(c.Blocks, object("Block", "c", "10.0.0.8/29"), object("Block", "c", "10.0.0.0/30"))
		}, []string{"BlocksOverlap " + blockName("10.0.0.0/30"), "OffGrid " + blockName("10.0.0.0/30"), "BlocksOverlap " + blockName("10.0.0.8/29"), "OffGrid " + blockName("10.0.0.8/29")}},
		{"not listed", func(c *Cluster) { c.Blocks[1].Spec.Ceded = nil }, []string{"SingleNotCeded " + blockName("10.0.0.7/32")}},
		{"not listed yet", func(c *Cluster) {
			c.Blocks[1].Spec.Ceded = nil
			c.Blocks[2].CreationTimestamp = metav1.NewTime(now.Add(-time.Minute))
		}, nil},
		{"refused", func(c *Cluster) {
			c.Blocks[1].Spec.Ceded, c.Blocks[2].Status.Answer = nil, v1alpha1.AnswerRefused
			c.Endpoints = slices.Delete(c.Endpoints, 1, 2)
		}, nil},
		{"no block around a Single", func(c *Cluster) { c.Blocks = slices.Delete(c.Blocks, 1, 2); c.Endpoints = c.Endpoints[1:] }, []string{"SingleNotCeded " + blockName("10.0.0.7/32")}},
		{"listed as another address", func(c *Cluster) { c.Blocks[1].Spec.Ceded[0].Address = "10.0.0.8" }, []string{"SingleNotCeded " + blockName("10.0.0.7/32")}},
		{"a cession of nobody", func(c *Cluster) {
			c.Blocks[1].Spec.Ceded = append(c.Blocks[1].Spec.Ceded, v1alpha1.IPCession{Address: "10.0.0.9", UID: "gone", Node: "c"})
		}, []string{"CededWithoutSingle " + blockName("10.0.0.0/28")}},
		{"label of another owner", func(c *Cluster) { c.Blocks[1].Labels[v1alpha1.LabelOwner] = "c" }, []string{"LabelsDiffer " + blockName("10.0.0.0/28")}},
		{"label gone", func(c *Cluster) { delete(c.Blocks[2].Labels, v1alpha1.LabelAsked) }, []string{"LabelsDiffer " + blockName("10.0.0.7/32")}},
		{"name of another range", func(c *Cluster) { c.Blocks[3].Name += "x"; c.Endpoints = c.Endpoints[:2] }, []string{"IPBlockInvalid " + blockName("10.0.0.16/28") + "x"}},
		{"no range", func(c *Cluster) { c.Blocks[3].Spec.CIDR = "10.0.0.17/28"; c.Endpoints = c.Endpoints[:2] }, []string{"IPBlockInvalid " + blockName("10.0.0.16/28")}},
		{"a Single of many", func(c *Cluster) { c.Blocks = append(c.Blocks, object("Single", "c", "10.0.0.32/28")) }, []string{"IPBlockInvalid " + blockName("10.0.0.32/28")}},
		{"out of its space", func(c *Cluster) { c.Blocks = append(c.Blocks, object("Block", "c", "10.0.1.0/28")) }, []string{"IPBlockInvalid " + blockName("10.0.1.0/28")}},
		{"two Pods", func(c *Cluster) { c.Endpoints = append(c.Endpoints, endpoint("p9", "a", "10.0.0.5")) }, []string{"DoubleAddress 10.0.0.5"}},
		{"one Pod, two DanmEps", func(c *Cluster) { c.Endpoints = append(c.Endpoints, c.Endpoints[0]) }, nil},
		{"in nobody's block", func(c *Cluster) { c.Endpoints[0].Spec.Iface.Address = "10.0.0.50/26" }, []string{"OutsideBlocks 10.0.0.50"}},
		{"in another's block", func(c *Cluster) { c.Endpoints[0].Spec.Host = "c" }, []string{"OutsideBlocks 10.0.0.5"}},
		{"in an orphan, not imported", func(c *Cluster) { c.Blocks[3].Spec.Held = nil }, []string{"OutsideBlocks 10.0.0.18"}},
		{"ceded, and the owner's Pod has it", func(c *Cluster) { c.Endpoints[1].Spec.Host = "a" }, []string{"HeldAndCeded 10.0.0.7"}},
		{"of a network that is not known", func(c *Cluster) { c.Endpoints[0].Spec.NetworkName, c.Endpoints[0].Spec.Host = "gone", "c" }, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := cluster()
			c.wrong(&k)
			if have := kinds(k.Check()); !slices.Equal(have, c.want) {
				t.Errorf("have %q\nwant %q\n%v", have, c.want, k.Check())
			}
		})
	}
}

func TestBothLooks(t *testing.T) {
	a, b, c := Finding{Kind: "A", Where: "x"}, Finding{Kind: "B", Where: "x"}, Finding{Kind: "C", Where: "x"}
	if out := Both([]Finding{a, b}, []Finding{b, c}); !slices.Equal(out, []Finding{b}) {
		t.Error(out)
	}
}

func TestWaiting(t *testing.T) {
	have := Waiting(map[string]map[string]string{"a": {ipam.AnnotationSuspect: "1"}, "b": {ipam.AnnotationSuspect: "2", ipam.AnnotationChecked: "2"}, "c": nil, "d": {ipam.AnnotationSuspect: "3", ipam.AnnotationChecked: "2"}})
	if strings.Join(have, " ") != "a d" {
		t.Error(have)
	}
}

// TestClusterCheckIsNotQuadratic: 20,000 blocks, Singles and DanmEps in a second or two.
func TestClusterCheckIsNotQuadratic(t *testing.T) {
	s := ipam.Space{Domain: "edge", ID: 7, CIDR: prefix("10.0.0.0/8")}
	id := SpaceOf(s)
	var c Cluster
	root := v1alpha1.IPBlock{Spec: v1alpha1.IPBlockSpec{Role: "Root", Space: id, CIDR: "10.0.0.0/8", BlockBits: 28}}
	root.Name, root.Labels = id.RootName(), map[string]string{v1alpha1.LabelSpace: id.Hash()}
	c.Blocks = append(c.Blocks, root)
	a := addr("10.0.0.0")
	for range 20000 {
		p := netip.PrefixFrom(a, 28)
		o := v1alpha1.IPBlock{Spec: v1alpha1.IPBlockSpec{Role: "Block", Space: id, CIDR: p.String(), Owner: "a"}}
		o.Name, o.Labels = id.BlockName(p), map[string]string{v1alpha1.LabelSpace: id.Hash(), v1alpha1.LabelOwner: "a"}
		c.Blocks = append(c.Blocks, o)
		a = lastOf(p).Next()
	}
	start := time.Now()
	if out := c.Check(); len(out) != 0 {
		t.Fatal(out[0])
	}
	c.View("")
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("%v", took)
	}
}

// A lie about when the API went back makes no node heard that was not.
func TestHeardSinceTheLastThatTells(t *testing.T) {
	lease := func(version, suspect, from string) coordinationv1.Lease {
		now := metav1.NewMicroTime(time.Now())
		return coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{ResourceVersion: version, Annotations: map[string]string{ipam.AnnotationSuspect: suspect, ipam.AnnotationSuspectFrom: from}},
			Spec: coordinationv1.LeaseSpec{RenewTime: &now}}
	}
	c := Cluster{Now: time.Now()}
	for _, x := range []struct {
		name   string
		leases map[string]coordinationv1.Lease
		want   string
	}{
		{"all heard", map[string]coordinationv1.Lease{"a": lease("120", "n", "100"), "b": lease("130", "", "")}, ""},
		{"one not heard", map[string]coordinationv1.Lease{"a": lease("120", "n", "100"), "b": lease("90", "", "")}, "node b"},
		{"a lie", map[string]coordinationv1.Lease{"a": lease("120", "n", "100"), "b": lease("90", "", ""), "evil": lease("125", "n", "1")}, "node b"},
		{"one that waits no more", map[string]coordinationv1.Lease{"a": lease("120", "n", "100"), "b": lease("110", "", "115")}, ""},
	} {
		var got []string
		for _, f := range c.Heard(x.leases) {
			got = append(got, f.Where)
		}
		if strings.Join(got, ",") != x.want {
			t.Errorf("%s: %v", x.name, got)
		}
	}
}
