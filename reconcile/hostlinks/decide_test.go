package hostlinks

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
	npwgv1 "danm.io/danm/spec/npwg/v1"
)

func TestNetworksGetTheirLinks(t *testing.T) {
	nad := Object{Kind: npwgv1.Kind, Namespace: "multus", Name: "video", Created: clock, Value: &npwgv1.NetworkAttachmentDefinition{
		ObjectMeta: metav1.ObjectMeta{Namespace: "multus", Name: "video"}, Spec: npwgv1.Spec{Config: `{"cniVersion":"0.3.1","name":"vid","type":"macvlan","master":"eth9","vxlan":5007}`}}}
	plugin := Object{Kind: npwgv1.Kind, Namespace: "multus", Name: "other", Created: clock, Value: &npwgv1.NetworkAttachmentDefinition{
		ObjectMeta: metav1.ObjectMeta{Namespace: "multus", Name: "other"}, Spec: npwgv1.Spec{Config: `{"cniVersion":"0.3.1","name":"oth","type":"ptp","master":"eth7","vlan":44,"hairpin":true}`}}}
	in := site(t,
		made(danmv1.KindDanmNet, "acme", "vlan", options("v", "eth9", 120, 0)),
		made(danmv1.KindDanmNet, "acme", "again", options("v", "eth9", 120, 0)), // DANM lets two stand on one
		made(danmv1.KindDanmNet, "acme", "vxlan", options("x", "eth9", 0, 5003)),
		made(danmv1.KindClusterNetwork, "", "bridged", danmv1.NetworkSpec{NetworkID: "b", NetworkType: "bridge", AllowedTenants: []string{"acme"}, Options: danmv1.NetworkOptions{Device: "eth9", Vlan: 130}}),
		made(danmv1.KindClusterNetwork, "", "card", options("c", "eth7", 0, 77)),
		made(danmv1.KindDanmNet, "acme", "plain", options("p", "eth8", 0, 0)),
		nad, plugin)
	d := decide(t, in)
	for _, c := range classes(in.Plans, in.Segments, nil) {
		if j := newJudge(c, nil); len(j.own) != len(c.networks) {
			t.Error("the bundle's networks do not pass for themselves")
		}
	}
	for key, v := range d.Verdicts {
		if v.Code != "" {
			t.Errorf("%s: %+v", key, v)
		}
	}
	n1, n2, n3 := state(t, in, d, "n1"), state(t, in, d, "n2"), state(t, in, d, "n3")
	if l := linkOf(n1, "w.120"); l == nil && linkOf(n1, "v.120") == nil {
		t.Error("no VLAN 120")
	}
	a, b := networkOf(n1, model.DanmNet, "acme/vlan"), networkOf(n1, model.DanmNet, "acme/again")
	if a == nil || b == nil || a.Device != b.Device || linkOf(n1, a.Device) == nil || a.VLAN != 120 {
		t.Errorf("two networks on one VLAN: %+v %+v", a, b)
	}
	x := linkOf(n2, "vx_x")
	if x == nil || x.VXLAN.VNI != 5003 || x.VXLAN.Local.String() != "10.0.0.2" || x.VXLAN.Group.IsValid() || x.MTU != 1450 {
		t.Errorf("VXLAN on the bundle's fabric: %+v", x)
	}
	for _, link := range []string{"vx_x", "vx_tunnel", "vx_vid"} {
		if !slices.ContainsFunc(n2.Peers, func(p model.Peer) bool { return p.Link == link && p.Addr.String() == "10.0.0.1" }) {
			t.Errorf("%s on n2 does not find n1: %v", link, n2.Peers)
		}
	}
	if br := linkOf(n1, "br_b"); br == nil || linkOf(n1, "b.130").Master != "br_b" || networkOf(n1, model.ClusterNetwork, "bridged").Device != "br_b" {
		t.Errorf("bridge: %+v", br)
	}
	if n := networkOf(n1, model.ClusterNetwork, "bridged"); !slices.Equal(n.AllowedNamespaces, []string{"acme"}) {
		t.Errorf("allowed: %v", n.AllowedNamespaces)
	}
	card := linkOf(n3, "vx_c") // a card that no bundle declares
	if card == nil || card.Parent != "eth7" || card.VXLAN.Group.String() != "239.0.0.77" || linkOf(n3, "eth7") == nil || linkOf(n3, "eth7").Up || linkOf(n3, "eth7").MTU != 0 {
		t.Errorf("on a card: %+v %+v", card, linkOf(n3, "eth7"))
	}
	if n := networkOf(n3, model.DanmNet, "acme/plain"); n == nil || n.Device != "eth8" || networkOf(n1, model.DanmNet, "acme/plain") != nil {
		t.Errorf("untagged on eth8: %+v", n)
	}
	if n := networkOf(n1, model.Definition, "multus/video"); n == nil || n.Device != "vx_vid" || n.VNI != 5007 {
		t.Errorf("definition: %+v", n)
	}
	if n, l := networkOf(n1, model.Definition, "multus/other"), linkOf(n1, "oth.44"); n == nil || l == nil || n.Device != "oth.44" || n.Delegate == nil {
		t.Errorf("a plugin's definition: %+v %+v", n, l)
	}
	if linkOf(n3, "vx_x") != nil || networkOf(n3, model.DanmNet, "acme/vlan") != nil {
		t.Error("n3 is not on the fabric")
	}
	if d.Verdicts["DanmNet acme/vlan"].Nodes != 2 || d.Verdicts["ClusterNetwork card"].Nodes != 3 {
		t.Errorf("%+v", d.Verdicts)
	}
}

func TestTheBundleIsNotTouched(t *testing.T) {
	// What the bundle has a link for already is used, and never made twice.
	in := site(t, made(danmv1.KindDanmNet, "acme", "onvlan", func() danmv1.NetworkSpec {
		s := options("z", "eth9", 110, 0)
		s.Extension = &danmv1.NetworkExtension{SharedWith: []string{"data"}}
		return s
	}()))
	d := decide(t, in)
	if v := d.Verdicts["DanmNet acme/onvlan"]; v.Code == "" { // the bundle's network does not say so
		t.Errorf("a network got onto the bundle's wire by its own word: %+v", v)
	}
	for _, name := range []string{"n1", "n2", "n3"} {
		if d.Layers[name] != nil {
			t.Errorf("%s has a layer", name)
		}
	}
}

// Networks of the bundle that only some tenants may use are in nobody's way: whose tenants they are for, nobody here is asked.
func TestTheBundleMayRestrictItsNetworks(t *testing.T) {
	text := strings.Replace(bundle, "fabric: f, vlan: 110", "fabric: f, vlan: 110, allowedTenants: [acme]", 1) +
		"---\napiVersion: bundle.danm.io/v1\nkind: Tenant\nmetadata: {name: acme}\nspec: {namespaces: [acme], networks: [tunnel]}\n"
	in := siteOf(t, text, made(danmv1.KindDanmNet, "other", "own", options("own", "eth9", 120, 0)))
	d := decide(t, in)
	if v := d.Verdicts["DanmNet other/own"]; v.Code != "" || v.Nodes != 2 {
		t.Errorf("%+v", v)
	}
	st := state(t, in, d, "n1")
	for _, key := range []string{"data", "tunnel"} {
		if n := networkOf(st, model.ClusterNetwork, key); n == nil || !slices.Equal(n.AllowedNamespaces, []string{"acme"}) {
			t.Errorf("%s is %+v", key, n)
		}
	}
}

// TestWhatABundleLeftBehind: a network whose bundle was deleted without prune is on nodes already, as the bundle's layer has it.
func TestWhatABundleLeftBehind(t *testing.T) {
	left := made(danmv1.KindClusterNetwork, "", "data", danmv1.NetworkSpec{NetworkID: "data", NetworkType: "macvlan", Options: danmv1.NetworkOptions{Device: "eth9", Vlan: 110}})
	in := site(t, left)
	d := decide(t, in)
	if v := d.Verdicts[left.Key()]; v.Code != "" || v.Nodes != 2 || d.Layers["n1"] != nil {
		t.Errorf("%+v %+v", v, d.Layers["n1"])
	}
}

func TestRefusedWithAReason(t *testing.T) {
	pool := func(cidr string) danmv1.NetworkSpec {
		s := options("q", "eth9", 140, 0)
		s.Options.Cidr = cidr
		return s
	}
	for _, r := range []struct {
		name string
		o    Object
		code diag.Code
		says string
	}{
		{"outside the fabric's ranges", made(danmv1.KindDanmNet, "acme", "n", options("a", "eth9", 300, 0)), diag.IDOutsideRange, "300: "},
		{"name of a link too long", made(danmv1.KindDanmNet, "acme", "n", options("averylongnetid", "eth9", 150, 0)), diag.LinkNameTooLong, ""},
		{"the bundle's VNI", made(danmv1.KindDanmNet, "acme", "n", options("a", "eth9", 0, 5001)), "", ""},
		{"the bundle's link name", made(danmv1.KindDanmNet, "acme", "n", options("tunnel", "eth9", 0, 5002)), diag.LinkNameClash, "vx_tunnel"},
		{"another use of the bundle's VLAN", made(danmv1.KindDanmNet, "acme", "n", options("a", "eth9", 110, 0)), "", ""},
		{"no such device", made(danmv1.KindDanmNet, "acme", "n", options("a", "eth5", 150, 0)), diag.NoNode, "eth5"},
		{"no device", made(danmv1.KindDanmNet, "acme", "n", options("a", "", 150, 0)), diag.FabricOrDevice, "host_device"},
		{"no such fabric", made(danmv1.KindDanmNet, "acme", "n", danmv1.NetworkSpec{NetworkType: "macvlan", Options: danmv1.NetworkOptions{Vlan: 150}, Extension: &danmv1.NetworkExtension{Fabric: "g"}}), diag.NoNode, "g"},
		{"no CIDR", made(danmv1.KindDanmNet, "acme", "n", pool("10.0.0.0")), diag.InvalidCIDR, "10.0.0.0"},
		{"a tenant of the cluster that is not there", made(danmv1.KindClusterNetwork, "", "n", func() danmv1.NetworkSpec {
			s := options("a", "eth9", 150, 0)
			s.Extension = &danmv1.NetworkExtension{AllowedTenants: []string{"nobody"}}
			return s
		}()), diag.UnknownReference, "nobody"},
		{"a tenant's without a reservation", made(danmv1.KindTenantNetwork, "acme", "n", options("a", "eth9", 150, 0)), diag.NotAssigned, ""},
		{"a tenant's that is not served yet", made(danmv1.KindTenantNetwork, "acme", "n", options("a", "", 0, 0)), diag.NotAssigned, "waits"},
	} {
		good := made(danmv1.KindDanmNet, "acme", "good", options("g", "eth9", 199, 0))
		d := decide(t, site(t, good, r.o))
		v := d.Verdicts[r.o.Key()]
		if v.Code == "" || r.code != "" && v.Code != r.code || !strings.Contains(v.Message, r.says) {
			t.Errorf("%s: %+v", r.name, v)
		}
		if g := d.Verdicts[good.Key()]; g.Code != "" || g.Nodes != 2 {
			t.Errorf("%s: took another network along: %+v", r.name, g)
		}
	}
}

// TestATenantHasWhatWasReserved: what a tenant writes plays no part, only what was reserved and held for just this network.
func TestATenantHasWhatWasReserved(t *testing.T) {
	reserve := func(uid string, id int64) []danmv1.TenantConfig {
		return []danmv1.TenantConfig{{ObjectMeta: metav1.ObjectMeta{Name: "acme"}, NetworkIds: map[string]string{"MACVLAN": "forced"},
			Status: danmv1.TenantStatus{Reserved: []danmv1.ReservedNumber{{Network: "acme/n", UID: uid, Device: "eth9", VniType: "vlan", ID: id}}}}}
	}
	held := func(status metav1.ConditionStatus, reason string) Object {
		n := made(danmv1.KindTenantNetwork, "acme", "n", options("a", "eth9", 160, 0))
		tn := n.Value.(*danmv1.TenantNetwork)
		tn.Generation = 3
		tn.Status.Conditions = []metav1.Condition{{Type: "Assigned", Status: status, Reason: reason, Message: "says " + reason, ObservedGeneration: 3}}
		return n
	}
	for _, r := range []struct {
		name   string
		object Object
		uid    string
		code   diag.Code
		link   string
	}{
		{"assigned, whatever it says by now", held("True", "Assigned"), "uid-1", "", "forced.150"},
		{"changed afterwards", held("False", "AssignmentChanged"), "uid-1", "", "forced.150"},
		{"reserved for one of that name before it", held("True", "Assigned"), "another", diag.NotAssigned, ""},
		{"not held against all others yet", held("Unknown", "Assigned"), "uid-1", diag.NotAssigned, ""},
		{"refused", held("False", "NumberTaken"), "uid-1", diag.NumberTaken, ""},
	} {
		in := site(t, r.object)
		in.Configs = reserve(r.uid, 150)
		d := decide(t, in)
		if v := d.Verdicts[r.object.Key()]; v.Code != r.code {
			t.Errorf("%s: %+v", r.name, v)
		}
		st := state(t, in, d, "n1")
		if r.link != "" && linkOf(st, r.link) == nil || linkOf(st, "forced.160") != nil || linkOf(st, "a.160") != nil || r.link == "" && d.Layers["n1"] != nil {
			t.Errorf("%s: %+v", r.name, st.Plan.Links)
		}
	}
	// Nobody else gets onto a tenant's VLAN, older or younger.
	for _, first := range []bool{true, false} {
		n := held("True", "Assigned")
		thief := made(danmv1.KindDanmNet, "evil", "m", options("forced", "eth9", 150, 0))
		if n.Settled = true; first {
			thief.Created = n.Created.Add(-time.Hour)
		}
		in := site(t, n, thief)
		in.Configs = reserve("uid-1", 150)
		d := decide(t, in)
		if d.Verdicts[n.Key()].Code != "" || d.Verdicts[thief.Key()].Code == "" {
			t.Errorf("%+v", d.Verdicts)
		}
	}
	in := site(t)
	in.Configs = []danmv1.TenantConfig{{ObjectMeta: metav1.ObjectMeta{Name: "t", Labels: map[string]string{danmv1.LabelTenant: "acme"}}, Extension: &danmv1.TenantExtension{Namespaces: []string{"acme", "acme2"}, DefaultNetwork: "acme/n"}}}
	st := state(t, in, decide(t, in), "n3")
	if len(st.Tenants) != 1 || st.Tenants[0].DefaultNetwork != "acme/n" || len(st.Tenants[0].Namespaces) != 2 {
		t.Errorf("tenants on the node: %+v", st.Tenants)
	}
}

// TestWhoWasThereFirstStays: over random sets of conflicting objects, no object that was Ready loses that to a newer or changed
// one, nothing depends on the order of the list, and what is refused is refused for a reason: alone with the accepted it does not go.
func TestWhoWasThereFirstStays(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	for range 20 {
		var objects []Object
		in := site(t)
		ready := map[string]bool{}
		for i := range 12 {
			kind := []string{danmv1.KindDanmNet, danmv1.KindClusterNetwork}[rng.IntN(2)]
			namespace := map[string]string{danmv1.KindDanmNet: "acme"}[kind]
			s := options(fmt.Sprintf("l%d", rng.IntN(6)), []string{"eth9", "eth7"}[rng.IntN(2)], 100+rng.IntN(4), 0)
			s.NetworkType = []string{"macvlan", "ipvlan"}[rng.IntN(2)]
			o := made(kind, namespace, fmt.Sprintf("%c%d", 'a'+rune(rng.IntN(26)), i), s) // names say nothing of age
			objects = append(objects, o)
			in.Objects = slices.Clone(objects)
			rng.Shuffle(len(in.Objects), func(a, b int) { in.Objects[a], in.Objects[b] = in.Objects[b], in.Objects[a] })
			d := decide(t, in)
			for key := range ready {
				if d.Verdicts[key].Code != "" {
					t.Fatalf("%s was ready and is not any more: %+v, after %s", key, d.Verdicts[key], o.Key())
				}
			}
			for k := range objects {
				if d.Verdicts[objects[k].Key()].Code == "" {
					ready[objects[k].Key()], objects[k].Settled = true, true
				}
			}
			checkPlans(t, in, d)
		}
		if len(ready) == len(objects) || len(ready) == 0 {
			t.Fatalf("%d of %d are ready: no conflict was tried", len(ready), len(objects))
		}
	}
}

// checkPlans holds every node's plan to what the kernel demands, by code that shares nothing with render.
func checkPlans(t *testing.T, in Input, d Decision) {
	t.Helper()
	for _, p := range in.Plans {
		st := state(t, in, d, p.Name)
		names, tags, types := map[string]bool{}, map[string]bool{}, map[string]model.NetworkType{}
		for _, l := range st.Plan.Links {
			tag := fmt.Sprint(l.Parent, l.VLANID)
			if names[l.Name] || l.Kind == model.VLAN && tags[tag] || len(l.Name) > 15 {
				t.Fatalf("%s: link %s is there twice: %+v", p.Name, l.Name, st.Plan.Links)
			}
			names[l.Name], tags[tag] = true, true
		}
		for _, n := range st.Networks {
			if !names[n.Device] {
				t.Fatalf("%s: network %s stands on %q, which is not there", p.Name, n.Key(), n.Device)
			}
			if have := cmp.Or(types[n.Device], n.Type); have != n.Type {
				t.Fatalf("%s: %s is used as %s and %s", p.Name, n.Device, have, n.Type)
			}
			types[n.Device] = n.Type
		}
	}
}

func TestPeersThatNodesReport(t *testing.T) {
	in := site(t)
	for i := range in.Plans {
		l := in.Plans[i].Spec.Layers.Bundle
		l.Underlays, l.Addresses = nil, nil
		in.Plans[i].Status.Underlays = map[string]string{"eth9": fmt.Sprintf("192.0.2.%d", i+1), "eth0": "10.9.9.9"}
	}
	in.Plans[1].Spec.Layers.Bundle.Underlays = map[string]string{"f": "10.0.0.2"}
	d := decide(t, in)
	if len(d.Peers) != 1 || len(d.Peers[0].Nodes) != 2 || d.Peers[0].Nodes[0].Address.String() != "192.0.2.1" || d.Peers[0].Nodes[1].Address.String() != "10.0.0.2" {
		t.Errorf("declared goes before reported, and n3 is not on the fabric: %+v", d.Peers)
	}
}

func TestANodeWithoutABundle(t *testing.T) {
	in := Input{Plans: []v1alpha1.NodePlan{{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Status: v1alpha1.NodePlanStatus{Hardware: []v1alpha1.NIC{{Name: "ens4"}}}}},
		Objects: []Object{made(danmv1.KindDanmNet, "ns", "a", options("a", "ens4", 0, 900)), made(danmv1.KindDanmNet, "ns", "b", options("b", "ens4", 55, 0))}}
	d := decide(t, in)
	st := state(t, in, d, "n1")
	if x := linkOf(st, "vx_a"); x == nil || x.VXLAN.Group.String() != "239.0.3.132" || linkOf(st, "b.55") == nil {
		t.Errorf("%+v", st.Plan.Links)
	}
	in.Objects = nil
	if d := decide(t, in); d.Layers["n1"] != nil {
		t.Error("nothing is wanted and there is a layer")
	}
	in.Plans[0].Spec.Teardown = true
	if _, told := decide(t, in).Layers["n1"]; told {
		t.Error("a node that is torn down is told of networks")
	}
}
