package hostlinks

import (
	"fmt"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/model"
	"danm.io/danm/spec/segment"
)

func TestTheOlderOneStays(t *testing.T) {
	other := options("a", "eth9", 130, 0)
	other.NetworkType = "ipvlan"
	older, younger := made(danmv1.KindDanmNet, "acme", "z", options("z", "eth9", 130, 0)), made(danmv1.KindDanmNet, "acme", "a", other)
	d := decide(t, site(t, younger, older)) // one device serves one of the two types
	if d.Verdicts[older.Key()].Code != "" || d.Verdicts[younger.Key()].Code == "" {
		t.Errorf("%+v", d.Verdicts)
	}
}

func TestRefusedOnSomeNodesIsRefusedOnAll(t *testing.T) {
	in := site(t, made(danmv1.KindDanmNet, "acme", "n", options("n", "eth7", 140, 0)))
	if d := decide(t, in); linkOf(state(t, in, d, "n3"), "n.140") == nil || linkOf(state(t, in, d, "n1"), "n.140") == nil {
		t.Fatalf("%+v", d.Verdicts)
	}
	name, data := segment.Encode(model.Segment{Links: []model.SharedLink{{Link: model.Link{Name: "eth7", Kind: model.Physical}}, {Link: model.Link{Name: "n.140", Kind: model.Dummy}}}})
	s, err := segment.Decode(name, data)
	if err != nil {
		t.Fatal(err)
	}
	in.Segments[name] = s
	in.Plans[2].Spec.Layers.Bundle = &v1alpha1.Layer{Segments: []string{name}} // n3 has another link of this name
	d := decide(t, in)
	if v := d.Verdicts["DanmNet acme/n"]; v.Code == "" || v.Nodes != 0 || linkOf(state(t, in, d, "n1"), "n.140") != nil {
		t.Errorf("%+v", v)
	}
}

func TestANodeWhoseSegmentsAreMissingKeepsItsLayer(t *testing.T) {
	in := site(t, made(danmv1.KindDanmNet, "acme", "n", options("n", "eth7", 140, 0)))
	for _, name := range in.Plans[2].Spec.Layers.Bundle.Segments {
		delete(in.Segments, name)
	}
	d := decide(t, in)
	if _, decided := d.Layers["n3"]; decided || d.Layers["n1"] == nil {
		t.Errorf("%+v", d.Layers)
	}
}

func TestReadyCountsForWhatItWasSaidOf(t *testing.T) {
	ready := []metav1.Condition{{Type: "Ready", Status: metav1.ConditionTrue, ObservedGeneration: 1}}
	for generation, settled := range map[int64]bool{1: true, 2: false} {
		n := &danmv1.DanmNet{ObjectMeta: metav1.ObjectMeta{Name: "n", Generation: generation}, Status: danmv1.NetworkStatus{Conditions: ready}}
		if l := newListed(danmv1.KindDanmNet, n, n, &n.Status); l.Settled != settled {
			t.Errorf("generation %d: settled %v", generation, l.Settled)
		}
	}
}

func TestSegmentsThatALayerNamesStay(t *testing.T) {
	segments := []v1alpha1.PlanSegment{{ObjectMeta: metav1.ObjectMeta{Name: "a"}}, {ObjectMeta: metav1.ObjectMeta{Name: "b"}}, {ObjectMeta: metav1.ObjectMeta{Name: "c"}}, {ObjectMeta: metav1.ObjectMeta{Name: "d"}}}
	plan := v1alpha1.NodePlan{Spec: v1alpha1.NodePlanSpec{Layers: v1alpha1.Layers{Bundle: &v1alpha1.Layer{Segments: []string{"a"}}, API: &v1alpha1.Layer{Segments: []string{"b"}}}, LastGood: &v1alpha1.Layer{Segments: []string{"c"}}}}
	if out := unused(segments, []v1alpha1.NodePlan{plan}); len(out) != 1 || out[0].Name != "d" {
		t.Errorf("%+v", out)
	}
}

func TestOnlyBridgesAttachAboveALink(t *testing.T) {
	c := &class{links: []model.SharedLink{{Link: model.Link{Name: "v", Kind: model.VLAN, Parent: "eth9", VLANID: 7, Master: "br"}}}}
	for typ, want := range map[model.NetworkType]string{model.BRIDGE: "br", model.MACVLAN: "v"} {
		if got, ok := c.carrier("eth9", false, 7, typ); !ok || got != want {
			t.Errorf("%s: %q", typ, got)
		}
	}
}

func TestAnUnderlayIsNoLinkLocalAddress(t *testing.T) {
	c := &class{links: []model.SharedLink{{Link: model.Link{Name: "eth9"}}}}
	p := &v1alpha1.NodePlan{Spec: v1alpha1.NodePlanSpec{Layers: v1alpha1.Layers{Bundle: &v1alpha1.Layer{Addresses: map[string][]string{"eth9": {"169.254.1.1/16", "198.51.100.1/24"}}}}}}
	if a := c.underlay(p, model.Fabric{Device: "eth9"}); a.String() != "198.51.100.1" {
		t.Errorf("%s", a)
	}
}

func TestMulticastNeedsNoPeers(t *testing.T) {
	in := site(t, made(danmv1.KindDanmNet, "acme", "n", options("n", "eth7", 0, 700)))
	for i := range in.Plans {
		in.Plans[i].Status.Underlays = map[string]string{"eth7": fmt.Sprintf("192.0.2.%d", i+1)}
	}
	d := decide(t, in)
	if linkOf(state(t, in, d, "n3"), "vx_n") == nil {
		t.Fatalf("%+v", d.Verdicts)
	}
	for _, p := range d.Peers {
		if p.Fabric != "f" {
			t.Errorf("%+v", p)
		}
	}
}

func TestATenantsListOpensNoNetworkAndClosesNone(t *testing.T) {
	tenants := []model.Tenant{{Name: "acme", Namespaces: []string{"acme"}, Networks: []string{"n"}}}
	for _, c := range []struct{ listed, want []string }{{nil, nil}, {[]string{"globex"}, []string{"acme", "globex"}}} {
		n := &danmv1.ClusterNetwork{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Spec: danmv1.NetworkSpec{AllowedTenants: c.listed}}
		if got, err := allowed(n, tenants); err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%v: %v %v", c.listed, got, err)
		}
	}
}

// TestADeletedNetworkKeepsItsLinks: as long as a finalizer keeps it, Pods that are attached have their link, and no other Pod finds it.
func TestADeletedNetworkKeepsItsLinks(t *testing.T) {
	for _, deleting := range []bool{false, true} {
		o := made(danmv1.KindDanmNet, "acme", "n", options("n", "eth7", 140, 0))
		o.Deleting, o.Settled = deleting, true
		in := site(t, o, made(danmv1.KindDanmNet, "acme", "other", options("other", "eth7", 141, 0)))
		d := decide(t, in)
		st := state(t, in, d, "n1")
		found := slices.ContainsFunc(st.Networks, func(n model.Network) bool { return n.Name == "n" })
		if linkOf(st, "n.140") == nil || found == deleting || d.Verdicts["DanmNet acme/n"].Code != "" {
			t.Errorf("deleting %v: link %v, network %v, %+v", deleting, linkOf(st, "n.140"), found, d.Verdicts)
		}
	}
	now := metav1.Now()
	for _, c := range []struct {
		ready   metav1.ConditionStatus
		label   string
		leaving bool
	}{{metav1.ConditionTrue, "", false}, {metav1.ConditionFalse, "", true}, {metav1.ConditionTrue, "b", true}} {
		n := &danmv1.DanmNet{ObjectMeta: metav1.ObjectMeta{Name: "n", Generation: 2, DeletionTimestamp: &now}}
		n.Status.Conditions = []metav1.Condition{{Type: "Ready", Status: c.ready, ObservedGeneration: 1}}
		if c.label != "" {
			n.Labels = map[string]string{v1alpha1.LabelBundle: c.label}
		}
		if l := newListed(danmv1.KindDanmNet, n, n, &n.Status); l.leaving() != c.leaving {
			t.Errorf("%+v: leaving %v", c, l.leaving())
		}
		n.DeletionTimestamp = nil
		if l := newListed(danmv1.KindDanmNet, n, n, &n.Status); l.leaving() {
			t.Errorf("%+v: leaving without being deleted", c)
		}
	}
}
