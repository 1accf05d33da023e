package desired

import (
	"crypto/sha256"
	"encoding/json"
	"net/netip"

	corev1 "k8s.io/api/core/v1"

	"danm.io/danm/reconcile/publish"
	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/model"
	"danm.io/danm/spec/segment"
)

// World is what the cluster says besides the source: all that rendering depends on.
type World struct {
	Nodes       []corev1.Node
	Assignments map[string]uint32 // by network; under other keys, those that none may be given
	Found       map[string]uint32 // what networks of the bundle have in the API, on record or not
	Hardware    map[string][]model.NIC
	Underlays   map[string]map[string]netip.Addr // node → device → address it reports
	Others      Others                           // decides whether a rendering may be published, not what it is
}

// Lists are the API's objects that a World is made of.
type Lists struct {
	Nodes    corev1.NodeList
	Plans    v1alpha1.NodePlanList
	Bundles  v1alpha1.NetworkBundleList
	Tenants  danmv1.TenantConfigList
	Cluster  danmv1.ClusterNetworkList
	Networks danmv1.TenantNetworkList
	Danm     danmv1.DanmNetList
}

// World is what a NetworkBundle is rendered upon. nb may be newer than the one listed.
func (l *Lists) World(nb *v1alpha1.NetworkBundle) World {
	w := World{Nodes: l.Nodes.Items, Assignments: l.recorded(nb), Found: map[string]uint32{}, Hardware: map[string][]model.NIC{}, Underlays: map[string]map[string]netip.Addr{}, Others: OthersThan(nb, l.Bundles.Items, l.Plans.Items)}
	for i := range l.Plans.Items {
		if cards := l.Plans.Items[i].Status.Hardware; len(cards) > 0 {
			w.Hardware[l.Plans.Items[i].Name] = Hardware(cards)
		}
		if u := underlays(l.Plans.Items[i].Status.Underlays); len(u) > 0 {
			w.Underlays[l.Plans.Items[i].Name] = u
		}
	}
	for _, n := range l.numbered() {
		w.Assignments["object "+n.ref.Kind+" "+n.key] = n.id
		if !n.deleting && n.found(w.Others) {
			w.Found[n.key] = n.id
		}
	}
	for i := range l.Bundles.Items {
		if b := &l.Bundles.Items[i]; b.Name == nb.Name {
			w.give(b.Status.Assignments)
		}
	}
	w.give(nb.Status.Assignments) // newer than any cache
	return w
}

func (w World) give(list []v1alpha1.Assignment) {
	for _, a := range list {
		w.Assignments[a.Network] = uint32(a.ID)
	}
}

func underlays(texts map[string]string) map[string]netip.Addr {
	out := map[string]netip.Addr{}
	for device, text := range texts {
		if a, err := netip.ParseAddr(text); err == nil && segment.CanPeer(a) {
			out[device] = a
		}
	}
	return out
}

// Hardware is a node's cards as rendering and diffing know them.
func Hardware(cards []v1alpha1.NIC) []model.NIC {
	var out []model.NIC
	for _, c := range cards {
		out = append(out, model.NIC(c))
	}
	return out
}

// Sum stands for everything that a rendering depends on.
func (w World) Sum(from publish.Origin) [32]byte {
	type node struct {
		Name   string
		Labels map[string]string
	}
	var nodes []node
	for i := range w.Nodes {
		nodes = append(nodes, node{w.Nodes[i].Name, w.Nodes[i].Labels})
	}
	b, _ := json.Marshal([]any{from, nodes, w.Assignments, w.Found, w.Hardware, w.Underlays})
	return sha256.Sum256(b)
}
