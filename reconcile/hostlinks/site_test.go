package hostlinks

import (
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"danm.io/danm/reconcile/publish"
	"danm.io/danm/render"
	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/decode"
	"danm.io/danm/spec/model"
	"danm.io/danm/spec/nodeplan"
	"danm.io/danm/spec/segment"
	"danm.io/danm/spec/validate"
)

const bundle = `apiVersion: bundle.danm.io/v1
kind: Bundle
metadata: {name: site}
---
apiVersion: bundle.danm.io/v1
kind: Topology
metadata: {name: site}
spec:
  nodes:
  - {name: n1, labels: {role: edge}, interfaces: [{name: eth9, addresses: [10.0.0.1/24]}]}
  - {name: n2, labels: {role: edge}, interfaces: [{name: eth9, addresses: [10.0.0.2/24]}]}
  - {name: n3, labels: {role: core}}
  groups:
  - {name: edge, selector: {role: edge}, interfaces: [{name: eth9, mtu: 1500}]}
  - {name: core, selector: {role: core}, interfaces: [{name: eth8}]}
  fabrics:
  - {name: f, groups: [edge], device: eth9, vlanRanges: ["100-199"], vniRanges: ["5000-5999"], vxlan: {port: 4789}}
---
apiVersion: bundle.danm.io/v1
kind: Network
metadata: {name: data}
spec: {type: macvlan, fabric: f, vlan: 110}
---
apiVersion: bundle.danm.io/v1
kind: Network
metadata: {name: tunnel}
spec: {type: macvlan, fabric: f, vxlan: 5001}
`

// site is the input that a bundle makes, with what is made with kubectl on top.
func site(t *testing.T, objects ...Object) Input {
	t.Helper()
	return siteOf(t, bundle, objects...)
}

func siteOf(t *testing.T, text string, objects ...Object) Input {
	t.Helper()
	b, problems := validate.Files([]decode.File{{Path: "b.yaml", Data: []byte(text)}})
	if problems.HasErrors() {
		t.Fatal(problems)
	}
	r := render.Render(b, model.Inventory{})
	published, err := publish.Render(r, publish.Origin{Bundle: "site", Revision: "main@sha1:1"})
	if err != nil || r.Diagnostics.HasErrors() {
		t.Fatal(err, r.Diagnostics)
	}
	in := Input{Segments: map[string]model.Segment{}, Objects: objects}
	for _, s := range published.Segments {
		in.Segments[s.Name], err = segment.Decode(s.Name, []byte(s.Data))
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"n1", "n2", "n3"} {
		l := published.Layers[name]
		in.Plans = append(in.Plans, v1alpha1.NodePlan{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.NodePlanSpec{Bundle: "site", Layers: v1alpha1.Layers{Bundle: &l}},
			Status: v1alpha1.NodePlanStatus{Hardware: []v1alpha1.NIC{{Name: "eth0"}, {Name: "eth7"}}}})
	}
	return in
}

var clock = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// made is an object, younger than those made before it.
func made(kind, namespace, name string, spec danmv1.NetworkSpec) Object {
	clock = clock.Add(time.Second)
	m := metav1.ObjectMeta{Namespace: namespace, Name: name, UID: "uid-1"}
	o := Object{Kind: kind, Namespace: namespace, Name: name, UID: "uid-1", Created: clock}
	switch kind {
	case danmv1.KindDanmNet:
		o.Value = &danmv1.DanmNet{ObjectMeta: m, Spec: spec}
	case danmv1.KindTenantNetwork:
		o.Value = &danmv1.TenantNetwork{ObjectMeta: m, Spec: spec}
	case danmv1.KindClusterNetwork:
		o.Value = &danmv1.ClusterNetwork{ObjectMeta: m, Spec: spec}
	}
	return o
}

func options(id, device string, vlan, vxlan int) danmv1.NetworkSpec {
	return danmv1.NetworkSpec{NetworkID: id, NetworkType: "macvlan", Options: danmv1.NetworkOptions{Device: device, Vlan: vlan, Vxlan: vxlan}}
}

func decide(t *testing.T, in Input) Decision {
	t.Helper()
	d, err := Decide(in)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// state is what a node makes of the decision, by the code that nodes run.
func state(t *testing.T, in Input, d Decision, name string) model.NodeState {
	t.Helper()
	i := slices.IndexFunc(in.Plans, func(p v1alpha1.NodePlan) bool { return p.Name == name })
	p := in.Plans[i].DeepCopy()
	if want, ok := d.Layers[name]; ok {
		p.Spec.Layers.API = want
	}
	all := map[string]model.Segment{}
	for _, m := range []map[string]model.Segment{in.Segments, d.Segments} {
		for k, v := range m {
			all[k] = v
		}
	}
	var peers []v1alpha1.FabricPeersSpec
	for _, s := range d.Peers {
		peers = append(peers, peersObject(s).Spec)
	}
	st, err := nodeplan.Assemble(p, all, peers, "")
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func linkOf(st model.NodeState, name string) *model.Link {
	for i := range st.Plan.Links {
		if st.Plan.Links[i].Name == name {
			return &st.Plan.Links[i]
		}
	}
	return nil
}

func networkOf(st model.NodeState, kind model.APIKind, key string) *model.Network {
	for i := range st.Networks {
		if n := &st.Networks[i]; n.Key() == key && n.Kind == kind {
			return n
		}
	}
	return nil
}
