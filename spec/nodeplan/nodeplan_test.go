package nodeplan

import (
	"errors"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"danm.io/danm/reconcile/overlay"
	"danm.io/danm/reconcile/publish"
	"danm.io/danm/reconcile/source"
	"danm.io/danm/render"
	"danm.io/danm/render/rendertest"
	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/spec/decode"
	"danm.io/danm/spec/model"
	"danm.io/danm/spec/segment"
)

// TestAssembledAsRendered: what the controller publishes and the mirror puts together is the state that render made, for every
// node of the examples and of a large bundle.
func TestAssembledAsRendered(t *testing.T) {
	nodes, peered := 0, 0
	scale := rendertest.Scale(rendertest.Shape{Nodes: 40, Groups: 4, Networks: 60, Tenants: 5})
	scale.ConfirmTimeout = time.Second
	bundles := map[string]model.Bundle{"scale": scale}
	for _, example := range []string{"edge-site", "telco-core", "multus-migration", "minimal", "site-overlays//sites/oslo"} {
		f, err := source.Open(filepath.Join("..", "..", "examples")+"/"+example, source.Options{})
		if err != nil {
			t.Fatal(err)
		}
		snap, err := f.Fetch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		files := make([]decode.File, len(snap.Files))
		for i, f := range snap.Files {
			files[i] = decode.File{Path: f.Path, Data: f.Data}
		}
		b, diags := overlay.Validate(files, snap.Dir)
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		bundles[example] = b
	}
	for seed, bundle := range bundles {
		r := render.Render(bundle, model.Inventory{})
		if r.Diagnostics.HasErrors() {
			t.Fatal(seed, r.Diagnostics)
		}
		published, err := publish.Render(r, publish.Origin{Bundle: "b", Revision: "main@sha1:0123456789012345678901234567890123456789"})
		if err != nil {
			t.Fatal(err)
		}
		segments := map[string]model.Segment{}
		for _, s := range published.Segments {
			if segments[s.Name], err = segment.Decode(s.Name, []byte(s.Data)); err != nil {
				t.Fatal(err)
			}
		}
		var peers []v1alpha1.FabricPeersSpec
		peers = append(peers, published.Peers...)
		for _, want := range r.Nodes {
			l := published.Layers[want.Node]
			p := &v1alpha1.NodePlan{ObjectMeta: metav1.ObjectMeta{Name: want.Node}, Spec: v1alpha1.NodePlanSpec{Bundle: "b", Layers: v1alpha1.Layers{Bundle: &l}}}
			got, err := Assemble(p, segments, peers, "api:6443")
			if err != nil {
				t.Fatalf("%s, node %s: %v", seed, want.Node, err)
			}
			same := cmpopts.IgnoreFields(model.NodeState{}, "Home", "Slot", "Slots", "Bundle", "Revision", "Source", "Layers", "Probes")
			if d := cmp.Diff(want, got, same, cmpopts.EquateEmpty(), cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); d != "" {
				t.Fatalf("%s, node %s (-rendered +assembled):\n%s", seed, want.Node, d)
			}
			if got.Home != model.ClusterHome || got.Source != "api:6443" || len(got.Layers) != 1 || len(got.Probes) == 0 {
				t.Fatalf("%+v", got)
			}
			nodes++
			peered += len(got.Peers)
		}
	}
	if nodes < 40 || peered == 0 {
		t.Errorf("only %d nodes compared, %d peers", nodes, peered)
	}
}

func TestAssembleRefuses(t *testing.T) {
	plan := model.NodePlan{Links: []model.Link{{Name: "br0", Kind: model.Bridge}}}
	s := model.Segment{Links: []model.SharedLink{{Link: plan.Links[0]}}}
	name, _ := segment.Encode(s)
	p := &v1alpha1.NodePlan{Spec: v1alpha1.NodePlanSpec{Layers: v1alpha1.Layers{Bundle: &v1alpha1.Layer{Digest: plan.Digest(), Segments: []string{name}}}}}
	if _, err := Assemble(p, map[string]model.Segment{name: s}, nil, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := Assemble(p, nil, nil, ""); !errors.Is(err, ErrSegments) {
		t.Errorf("a segment is missing: %v", err)
	}
	p.Spec.Layers.Bundle.Digest = model.NodePlan{}.Digest()
	if _, err := Assemble(p, map[string]model.Segment{name: s}, nil, ""); !errors.Is(err, segment.ErrDigest) {
		t.Errorf("another digest: %v", err)
	}
	alone := &v1alpha1.NodePlan{Spec: v1alpha1.NodePlanSpec{Layers: v1alpha1.Layers{API: &v1alpha1.Layer{Revision: "api@sha256:1", Digest: plan.Digest(), Segments: []string{name}}}}}
	if st, err := Assemble(alone, map[string]model.Segment{name: s}, nil, ""); err != nil || len(st.Plan.Links) != 1 || st.Revision != "api@sha256:1" {
		t.Errorf("the api layer alone: %+v %v", st, err)
	}
	if _, err := Assemble(&v1alpha1.NodePlan{}, nil, nil, ""); !errors.Is(err, ErrNoLayer) {
		t.Errorf("no layer: %v", err)
	}
	p.Spec.Teardown = true
	if st, err := Assemble(p, nil, nil, ""); err != nil || len(st.Plan.Links) != 0 || st.Digest != (model.NodePlan{}).Digest() {
		t.Errorf("teardown: %+v %v", st, err)
	}
}

// TestALayerThatCutTheNodeOffIsLeftOut: or every later revision of the bundle would be found guilty of it.
func TestALayerThatCutTheNodeOffIsLeftOut(t *testing.T) {
	s := model.Segment{Links: []model.SharedLink{{Link: model.Link{Name: "br0", Kind: model.Bridge}}}}
	leaf := model.NodePlan{Links: []model.Link{{Name: "br0", Kind: model.Bridge}}}
	name, _ := segment.Encode(s)
	p := &v1alpha1.NodePlan{Spec: v1alpha1.NodePlanSpec{Layers: v1alpha1.Layers{Bundle: &v1alpha1.Layer{Digest: model.NodePlan{}.Digest()},
		API: &v1alpha1.Layer{Digest: leaf.Digest(), Segments: []string{name}}}}}
	has := func() bool {
		st, err := Assemble(p, map[string]model.Segment{name: s}, nil, "")
		if err != nil {
			t.Fatal(err)
		}
		return len(st.Plan.Links) == 1
	}
	if !has() {
		t.Fatal("the layer is not there")
	}
	p.Status.Refused = &v1alpha1.RefusedPlan{Digest: leaf.Digest(), Guilty: true}
	if has() {
		t.Error("a guilty layer is tried again")
	}
	p.Annotations = map[string]string{v1alpha1.AnnotationRetry: leaf.Digest() + " now"}
	if !has() {
		t.Error("a retry that was asked for is not made")
	}
	p.Annotations = nil
	p.Status.Refused.Guilty = false
	if !has() {
		t.Error("nobody knows whether it was guilty, and it is given up")
	}
	p.Status.Refused = &v1alpha1.RefusedPlan{Digest: "sha256:another", Guilty: true}
	if !has() {
		t.Error("another layer's verdict holds for this one")
	}
}

// TestTheAPILayerOnlyAdds: a link that the bundle has is the bundle's, whatever the api layer says.
func TestTheAPILayerOnlyAdds(t *testing.T) {
	base := model.NodePlan{Links: []model.Link{{Name: "eth9", Kind: model.Physical, MTU: 1500}}}
	leaf := model.NodePlan{Links: []model.Link{{Name: "eth9", Kind: model.Physical, MTU: 9000}, {Name: "x.5", Kind: model.VLAN, Parent: "eth9", VLANID: 5}}}
	segments := map[string]model.Segment{}
	layerOf := func(p model.NodePlan, n ...model.Network) *v1alpha1.Layer {
		s := model.Segment{Networks: n}
		for _, l := range p.Links {
			s.Links = append(s.Links, model.SharedLink{Link: l})
		}
		name, _ := segment.Encode(s)
		segments[name] = s
		return &v1alpha1.Layer{Revision: "r", Digest: p.Digest(), Segments: []string{name}}
	}
	p := &v1alpha1.NodePlan{Spec: v1alpha1.NodePlanSpec{Layers: v1alpha1.Layers{Bundle: layerOf(base), API: layerOf(leaf, model.Network{Name: "n", Device: "x.5"})}}}
	st, err := Assemble(p, segments, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	// The bundle has got the tag itself: its link it is, and the network moves there.
	later := model.NodePlan{Links: append(base.Links, model.Link{Name: "y.5", Kind: model.VLAN, Parent: "eth9", VLANID: 5})}
	p.Spec.Layers.Bundle = layerOf(later)
	moved, err := Assemble(p, segments, nil, "")
	if err != nil || len(moved.Plan.Links) != 2 || moved.Plan.Links[1].Name != "y.5" || moved.Networks[0].Device != "y.5" {
		t.Errorf("%+v %v", moved, err)
	}
	if len(st.Plan.Links) != 2 || st.Plan.Links[0].MTU != 1500 || len(st.Networks) != 1 || st.Digest != st.Plan.Digest() || len(st.Layers) != 2 {
		t.Errorf("%+v", st)
	}
}

// TestPeersThatTheKernelTakes: what one node reports of itself, true or not, never fails the plan of another.
func TestPeersThatTheKernelTakes(t *testing.T) {
	shards := []v1alpha1.FabricPeersSpec{{Fabric: "f"}}
	for i, a := range []string{"10.0.0.2", "2001:db8::2", "0.0.0.0", "::", "127.0.0.1", "224.0.0.1", "255.255.255.255", "::ffff:10.0.0.3", "fe80::1", "fe80::1%eth0", "ff02::1", "no address", ""} {
		shards[0].Nodes = append(shards[0].Nodes, v1alpha1.FabricPeer{Node: string(rune('a' + i)), Address: a})
	}
	for local, want := range map[string]string{"10.0.0.1": "10.0.0.2", "2001:db8::1": "2001:db8::2", "": "10.0.0.2"} {
		s := model.Segment{Links: []model.SharedLink{{Link: model.Link{Name: "vx", Kind: model.VXLAN, Parent: "eth9", VXLAN: &model.VXLANOptions{VNI: 5, Port: 4789}}, Underlay: "f"}}}
		made := s.Links[0].Link
		options := *made.VXLAN
		made.VXLAN = &options
		l := &v1alpha1.Layer{Revision: "r"}
		if local != "" {
			options.Local, l.Underlays = netip.MustParseAddr(local), map[string]string{"f": local}
		}
		l.Digest = model.NodePlan{Links: []model.Link{made}}.Digest()
		name, _ := segment.Encode(s)
		l.Segments = []string{name}
		st, err := Assemble(&v1alpha1.NodePlan{Spec: v1alpha1.NodePlanSpec{Layers: v1alpha1.Layers{Bundle: l}}}, map[string]model.Segment{name: s}, shards, "")
		if err != nil || len(st.Peers) != 1 || st.Peers[0].Addr.String() != want {
			t.Errorf("from %q: %v, %v", local, st.Peers, err)
		}
	}
}
