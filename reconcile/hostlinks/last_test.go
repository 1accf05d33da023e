package hostlinks

import (
	"testing"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
)

// TestTheLastNetworkLeavesTheNode: without a layer a node keeps what it has, so a node without a bundle is told of an empty one,
// once, and only if it was told of links before.
func TestTheLastNetworkLeavesTheNode(t *testing.T) {
	bundled := site(t).Plans[2].Spec // n3: no network of the bundle has its card
	for _, r := range []struct {
		name   string
		spec   v1alpha1.NodePlanSpec
		before []Object // made with kubectl, and deleted again
		empty  bool
	}{
		{"no bundle, and it had a network", v1alpha1.NodePlanSpec{}, []Object{made(danmv1.KindDanmNet, "acme", "last", options("last", "eth7", 140, 0))}, true},
		{"no bundle, and it had a VXLAN", v1alpha1.NodePlanSpec{}, []Object{made(danmv1.KindDanmNet, "acme", "last", options("last", "eth7", 0, 140))}, true},
		{"no bundle, and it had a network without a link of its own", v1alpha1.NodePlanSpec{}, []Object{made(danmv1.KindDanmNet, "acme", "last", options("last", "eth7", 0, 0))}, true},
		{"no bundle, and it never had any", v1alpha1.NodePlanSpec{}, nil, false},
		{"the bundle's layer says what there is", bundled, []Object{made(danmv1.KindDanmNet, "acme", "last", options("last", "eth7", 140, 0))}, false},
	} {
		in := site(t, r.before...)
		in.Plans = []v1alpha1.NodePlan{{ObjectMeta: metav1.ObjectMeta{Name: "n"}, Spec: r.spec, Status: v1alpha1.NodePlanStatus{Hardware: []v1alpha1.NIC{{Name: "eth7"}}}}}
		layer := &in.Plans[0].Spec.Layers.API
		*layer = decide(t, in).Layers["n"]
		if (*layer != nil) != (len(r.before) > 0) {
			t.Fatalf("%s: %+v", r.name, *layer)
		}
		in.Objects = nil
		d := decide(t, in)
		if *layer = d.Layers["n"]; (*layer != nil) != r.empty {
			t.Errorf("%s: told %+v", r.name, *layer)
			continue
		}
		if again := decide(t, in).Layers["n"]; !equality.Semantic.DeepEqual(again, *layer) {
			t.Errorf("%s: told %+v, and then %+v", r.name, *layer, again)
		}
		if !r.empty {
			continue
		}
		if st := state(t, in, d, "n"); len(st.Plan.Links) != 0 || len(st.Networks) != 0 || st.Revision == "" {
			t.Errorf("%s: the node makes %+v of it", r.name, st)
		}
		in.Plans[0].Spec.Bundle, in.Plans[0].Spec.Layers.Bundle = bundled.Bundle, bundled.Layers.Bundle
		if st := state(t, in, Decision{}, "n"); linkOf(st, "eth8") == nil || st.Revision != bundled.Layers.Bundle.Revision || st.Digest != bundled.Layers.Bundle.Digest {
			t.Errorf("%s: with a bundle beside the empty layer it is %+v", r.name, st)
		}
		if d := decide(t, in); d.Layers["n"] != nil {
			t.Errorf("%s: a node with a bundle keeps the empty layer", r.name)
		}
	}
}
