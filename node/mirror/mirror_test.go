package mirror

import (
	"errors"
	"net/netip"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"danm.io/danm/node/guard"
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
		for _, p := range published.Peers {
			peers = append(peers, p.Spec)
		}
		for _, want := range r.Nodes {
			l := published.Layers[want.Node]
			p := &v1alpha1.NodePlan{ObjectMeta: metav1.ObjectMeta{Name: want.Node}, Spec: v1alpha1.NodePlanSpec{Bundle: "b", Layers: v1alpha1.Layers{Bundle: &l}}}
			got, err := assemble(p, segments, peers, "api:6443")
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
	if _, err := assemble(p, map[string]model.Segment{name: s}, nil, ""); err != nil {
		t.Fatal(err)
	}
	if _, err := assemble(p, nil, nil, ""); !errors.Is(err, ErrSegments) {
		t.Errorf("a segment is missing: %v", err)
	}
	p.Spec.Layers.Bundle.Digest = model.NodePlan{}.Digest()
	if _, err := assemble(p, map[string]model.Segment{name: s}, nil, ""); !errors.Is(err, segment.ErrDigest) {
		t.Errorf("another digest: %v", err)
	}
	if _, err := assemble(&v1alpha1.NodePlan{}, nil, nil, ""); !errors.Is(err, ErrNoLayer) {
		t.Errorf("no layer: %v", err)
	}
	p.Spec.Teardown = true
	if st, err := assemble(p, nil, nil, ""); err != nil || len(st.Plan.Links) != 0 || st.Digest != (model.NodePlan{}).Digest() {
		t.Errorf("teardown: %+v %v", st, err)
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
	p := &v1alpha1.NodePlan{Spec: v1alpha1.NodePlanSpec{Layers: v1alpha1.Layers{Bundle: layerOf(base), API: layerOf(leaf, model.Network{Name: "n"})}}}
	st, err := assemble(p, segments, nil, "")
	if err != nil {
		t.Fatal(err)
	}
	if len(st.Plan.Links) != 2 || st.Plan.Links[0].MTU != 1500 || len(st.Networks) != 1 || st.Digest != st.Plan.Digest() || len(st.Layers) != 2 {
		t.Errorf("%+v", st)
	}
}

func TestReport(t *testing.T) {
	now := time.Unix(1e9, 0)
	state := func(revision, layer, plan string) *model.NodeState {
		return &model.NodeState{Digest: plan, Layers: []model.LayerRef{{Name: LayerBundle, Revision: revision, Digest: layer}}}
	}
	good, bad := state("main@sha1:3f2c9d1000", "l1", "p1"), state("main@sha1:8ab01c2000", "l2", "p2")
	confirmed := &guard.Transaction{Digest: "p1", T0: now}
	undone := &guard.Undone{Digest: "p2", At: now.Add(time.Minute), Verdict: guard.Guilty, Probe: "gateway"}
	guilty := map[string]guard.Refusal{"p2": {Guilty: true, Attempts: 1, Reason: "gateway 10.0.0.1 silent"}}
	kept := &v1alpha1.RefusedPlan{Digest: "l2", Plan: "p2", Revision: "main@sha1:8ab01c2000", Guilty: true, Attempts: 1, Reason: "gateway 10.0.0.1 silent"}
	for _, r := range []struct {
		name    string
		view    View
		old     *v1alpha1.RefusedPlan
		err     error
		phase   string
		reason  string
		refused *v1alpha1.RefusedPlan
	}{
		{"applied", View{Wanted: good, Confirmed: good, Guard: guard.Status{Confirmed: confirmed}}, nil, nil, "Applied", "", nil},
		{"in the window", View{Wanted: bad, Confirmed: good, Guard: guard.Status{Phase: guard.Waiting, Confirmed: confirmed}}, nil, nil, "Applying", "", nil},
		{"undone", View{Wanted: bad, Confirmed: good, Guard: guard.Status{Confirmed: confirmed, Undone: undone, Refusals: guilty}}, nil, nil, "RolledBack", "8ab01c2: gateway 10.0.0.1 silent", kept},
		{"the controller went back", View{Wanted: good, Confirmed: good, Guard: guard.Status{Confirmed: confirmed, Undone: undone, Refusals: guilty}}, kept, nil, "RolledBack", "8ab01c2: gateway 10.0.0.1 silent", kept},
		{"a later plan is confirmed", View{Wanted: good, Confirmed: good, Guard: guard.Status{Confirmed: &guard.Transaction{Digest: "p1", T0: now.Add(time.Hour)}, Undone: undone, Refusals: guilty}}, kept, nil, "Applied", "", nil},
		{"forgiven", View{Wanted: good, Confirmed: good, Guard: guard.Status{Confirmed: confirmed, Undone: undone}}, kept, nil, "Applied", "", nil},
		{"no guard", View{Wanted: good, Confirmed: good, GuardErr: errors.New("refused")}, kept, nil, "Degraded", "GuardAway: refused", kept},
		{"segments missing", View{Wanted: good, Confirmed: good, Guard: guard.Status{Confirmed: confirmed}}, nil, ErrSegments, "Refused", "SegmentMissing", nil},
		{"a problem", View{Wanted: good, Confirmed: good, Problem: "disk full", Guard: guard.Status{Confirmed: confirmed}}, nil, nil, "Degraded", "disk full", nil},
	} {
		p := &v1alpha1.NodePlan{Status: v1alpha1.NodePlanStatus{Refused: r.old}}
		st := report(p, r.view, r.err)
		if st.Phase != r.phase || st.Reason != r.reason || !reflect.DeepEqual(st.Refused, r.refused) {
			t.Errorf("%s: %s %q %+v", r.name, st.Phase, st.Reason, st.Refused)
		}
		if st.Applied.Digest != "l1" || st.Applied.Short != "main@3f2c9d1" {
			t.Errorf("%s: applied %+v", r.name, st.Applied)
		}
	}
}

func TestEndpoint(t *testing.T) {
	for host, want := range map[string]string{"https://10.0.0.1:6443": "10.0.0.1:6443", "https://api.example.org": "api.example.org:443", "10.0.0.1": "10.0.0.1:443", "https://[2001:db8::1]:6443/x": "[2001:db8::1]:6443"} {
		if got := endpointOf(host); got != want {
			t.Errorf("%s: %s", host, got)
		}
	}
}
