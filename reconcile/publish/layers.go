package publish

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"danm.io/danm/render"
	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/spec/model"
	"danm.io/danm/spec/segment"
)

// Rendered is what a revision means for the API: what many nodes share, and each node's layer.
type Rendered struct {
	Segments []v1alpha1.PlanSegment // sorted by name
	Layers   map[string]v1alpha1.Layer
	Peers    []v1alpha1.FabricPeersSpec // as hostlinks will keep them, for a look ahead
}

// Origin is where a revision came from.
type Origin struct {
	Bundle   string // the NetworkBundle
	Revision string
	Endpoint string // host:port of the source, "" if the cluster itself is the source
}

// Render turns a result into objects. segment.ErrTooBig if something does not fit.
func Render(r render.Result, from Origin) (Rendered, error) {
	shared, parts, err := r.Segments()
	if err != nil {
		return Rendered{}, err
	}
	labels := map[string]string{v1alpha1.LabelBundle: v1alpha1.LabelValue(from.Bundle)}
	out := Rendered{Layers: make(map[string]v1alpha1.Layer, len(parts))}
	for _, s := range shared {
		name, data := segment.Encode(s)
		out.Segments = append(out.Segments, v1alpha1.PlanSegment{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}, Data: string(data)})
	}
	slices.SortFunc(out.Segments, func(a, b v1alpha1.PlanSegment) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	for i, p := range parts {
		out.Layers[p.Node] = layer(p, r.Nodes[i], from)
	}
	for _, p := range r.FabricPeers() {
		spec := v1alpha1.FabricPeersSpec{Fabric: p.Fabric, Shard: p.Shard}
		for _, n := range p.Nodes {
			spec.Nodes = append(spec.Nodes, v1alpha1.FabricPeer{Node: n.Node, Address: n.Address.String()})
		}
		out.Peers = append(out.Peers, spec)
	}
	return out, nil
}

func layer(p model.NodePart, st model.NodeState, from Origin) v1alpha1.Layer {
	l := v1alpha1.Layer{
		Revision: from.Revision, Short: v1alpha1.ShortID(from.Revision), Digest: p.Digest, Segments: p.Segments,
		Source: from.Endpoint, ConfirmTimeout: metav1.Duration{Duration: st.ConfirmTimeout}, Disruptive: st.Disruptive,
	}
	for link, prefixes := range p.Addresses {
		var texts []string
		for _, a := range prefixes {
			texts = append(texts, a.String())
		}
		set(&l.Addresses, link, texts)
	}
	for fabric, a := range p.Underlays {
		set(&l.Underlays, fabric, a.String())
	}
	return l
}

func set[V any](m *map[string]V, key string, value V) {
	if *m == nil {
		*m = map[string]V{}
	}
	(*m)[key] = value
}
