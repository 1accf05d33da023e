// Package nodeplan puts a node's state together from its NodePlan, the PlanSegments that the plan names, and FabricPeers: what
// the mirror writes on the node, and what danmctl shows of it. It is pure and reads no API.
package nodeplan

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
	"danm.io/danm/spec/segment"
)

const (
	defaultConfirmTimeout = 15 * time.Second
	probeTimeout          = 2 * time.Second
)

// The names of layers.
const (
	LayerBundle = "bundle"
	LayerAPI    = "api"
)

// ErrSegments says that segments of a plan are not there.
var ErrSegments = errors.New(string(diag.SegmentMissing))

// ErrNoLayer says that a NodePlan has nothing to say yet.
var ErrNoLayer = errors.New("the NodePlan has no layer yet")

// Assemble makes a node's state of its plan, the segments that the plan names, and the peers. It is pure. endpoint is where the
// API server is reached: the way that a plan of the cluster home must not cut.
func Assemble(p *v1alpha1.NodePlan, segments map[string]model.Segment, peers []v1alpha1.FabricPeersSpec, endpoint string) (model.NodeState, error) {
	if p.Spec.Teardown {
		st := model.NodeState{Home: model.ClusterHome, Node: p.Name, Slot: -1, Bundle: p.Spec.Bundle, Revision: "teardown", Digest: model.NodePlan{}.Digest()}
		return finish(st, endpoint), nil
	}
	if p.Spec.Layers.Bundle == nil && (p.Spec.Layers.API == nil || Withheld(p)) {
		return model.NodeState{}, ErrNoLayer
	}
	st := model.NodeState{Node: p.Name, Digest: model.NodePlan{}.Digest()}
	var links []model.SharedLink
	var err error
	if l := p.Spec.Layers.Bundle; l != nil {
		if st, links, err = layer(p.Name, l, segments); err != nil {
			return model.NodeState{}, fmt.Errorf("layer %s: %w", LayerBundle, err)
		}
		st.Bundle, st.Revision, st.ConfirmTimeout, st.Disruptive = p.Spec.Bundle, l.Revision, l.ConfirmTimeout.Duration, l.Disruptive
		st.Layers = []model.LayerRef{{Name: LayerBundle, Revision: l.Revision, Digest: l.Digest, Segments: l.Segments}}
	}
	st.Peers = peersOf(p.Name, links, st.Plan.Links, peers)
	if st, err = WithAPI(st, p, segments, peers); err != nil {
		return model.NodeState{}, err
	}
	return finish(st, endpoint), nil
}

// Withheld says whether the node leaves the api layer out, since just that layer has cut it off before. Tried again with every
// revision of the bundle it would make those guilty. Another layer is tried, and so is this one when the verdict is lifted.
func Withheld(p *v1alpha1.NodePlan) bool {
	r, api := p.Status.Refused, p.Spec.Layers.API
	return r != nil && api != nil && r.Guilty && r.Digest == api.Digest && p.Annotations[v1alpha1.AnnotationRetry] == p.Status.HandledRetry
}

// WithAPI is a state made of a bundle alone with the plan's api layer on top.
func WithAPI(st model.NodeState, p *v1alpha1.NodePlan, segments map[string]model.Segment, peers []v1alpha1.FabricPeersSpec) (model.NodeState, error) {
	api := p.Spec.Layers.API
	if api == nil || Withheld(p) {
		return st, nil
	}
	more, links, err := layer(p.Name, api, segments)
	if err != nil {
		return model.NodeState{}, fmt.Errorf("layer %s: %w", LayerAPI, err)
	}
	more.Peers = peersOf(p.Name, links, more.Plan.Links, peers)
	st = join(st, more)
	st.Revision = cmp.Or(st.Revision, api.Revision)
	st.Layers = append(st.Layers, model.LayerRef{Name: LayerAPI, Revision: api.Revision, Digest: api.Digest, Segments: api.Segments})
	return st, nil
}

// layer is one layer's plan, held to its digest, with its links as many nodes share them.
func layer(node string, l *v1alpha1.Layer, segments map[string]model.Segment) (model.NodeState, []model.SharedLink, error) {
	part := model.NodePart{Node: node, Digest: l.Digest, Segments: l.Segments}
	if err := convert(map[string]any{"addresses": l.Addresses, "underlays": l.Underlays}, &part); err != nil {
		return model.NodeState{}, nil, err
	}
	var pieces []model.Segment
	var links []model.SharedLink
	for _, name := range l.Segments {
		s, ok := segments[name]
		if !ok {
			return model.NodeState{}, nil, fmt.Errorf("%w: %s", ErrSegments, name)
		}
		pieces = append(pieces, s)
		links = append(links, s.Links...)
	}
	st, err := segment.Assemble(part, pieces)
	return st, links, err
}

// convert parses addresses where they come in; nobody behind does.
func convert(from, to any) error {
	b, err := json.Marshal(from)
	if err == nil {
		err = json.Unmarshal(b, to)
	}
	if err != nil {
		return fmt.Errorf("read the node's own part: %w", err)
	}
	return nil
}

// join puts the leaves of the api layer onto the bundle's plan: links, networks and tenants, nothing else. For a moment the
// two layers may be of different times: what the bundle has by now, by name or by tag, is the bundle's.
func join(st, more model.NodeState) model.NodeState {
	moved := map[string]string{}
	for _, l := range more.Plan.Links {
		switch i := slices.IndexFunc(st.Plan.Links, func(x model.Link) bool { return x.Name == l.Name || sameTag(x, l) }); {
		case i < 0:
			st.Plan.Links = append(st.Plan.Links, l)
		case st.Plan.Links[i].Name != l.Name:
			moved[l.Name] = st.Plan.Links[i].Name
		}
	}
	slices.SortFunc(st.Plan.Links, func(a, b model.Link) int { return cmp.Compare(a.Name, b.Name) })
	st.Peers = sorted(slices.Concat(st.Peers, more.Peers))
	for _, n := range more.Networks {
		n.Device = cmp.Or(moved[n.Device], n.Device)
		st.Networks = append(st.Networks, n)
	}
	for _, t := range more.Tenants {
		if !slices.ContainsFunc(st.Tenants, func(x model.Tenant) bool { return x.Name == t.Name }) {
			st.Tenants = append(slices.Clip(st.Tenants), t)
		}
	}
	slices.SortFunc(st.Networks, func(a, b model.Network) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	st.Digest = st.Plan.Digest()
	return st
}

// sameTag says whether two links are one VLAN of one device, or one VNI: the kernel has each once.
func sameTag(a, b model.Link) bool {
	switch {
	case a.Kind != b.Kind:
		return false
	case a.Kind == model.VLAN:
		return a.Parent == b.Parent && a.VLANID == b.VLANID
	}
	return a.VXLAN != nil && b.VXLAN != nil && a.VXLAN.VNI == b.VXLAN.VNI && a.VXLAN.Port == b.VXLAN.Port
}

// peersOf lists where each unicast VXLAN floods: every other node of its fabric. A VXLAN is of its source address's family, of
// IPv4 if it has none, and the kernel takes no entry of the other (EAFNOSUPPORT): one node's report must not fail all others' plans.
func peersOf(node string, links []model.SharedLink, made []model.Link, shards []v1alpha1.FabricPeersSpec) []model.Peer {
	var out []model.Peer
	v6 := map[string]bool{}
	for _, l := range made {
		v6[l.Name] = l.VXLAN != nil && l.VXLAN.Local.Is6()
	}
	for _, l := range links {
		if l.Underlay == "" || l.VXLAN == nil || l.VXLAN.Group.IsValid() {
			continue
		}
		for _, s := range shards {
			if s.Fabric != l.Underlay {
				continue
			}
			for _, n := range s.Nodes {
				if a, err := netip.ParseAddr(n.Address); err == nil && n.Node != node && segment.CanPeer(a) && a.Is6() == v6[l.Name] {
					out = append(out, model.Peer{Link: l.Name, Addr: a})
				}
			}
		}
	}
	return sorted(out)
}

func sorted(peers []model.Peer) []model.Peer {
	slices.SortFunc(peers, func(a, b model.Peer) int { return cmp.Or(cmp.Compare(a.Link, b.Link), a.Addr.Compare(b.Addr)) })
	return slices.Compact(peers)
}

// finish adds what every state of the cluster home has: the API server's endpoint, and the probe of it.
func finish(st model.NodeState, endpoint string) model.NodeState {
	st.Home, st.Slot, st.Source = model.ClusterHome, -1, endpoint
	if st.ConfirmTimeout == 0 {
		st.ConfirmTimeout = defaultConfirmTimeout
	}
	if !slices.ContainsFunc(st.Probes, func(p model.Probe) bool { return p.Kind == model.ProbeSource }) {
		st.Probes = append(slices.Clone(st.Probes), model.Probe{Name: "apiserver", Kind: model.ProbeSource, Timeout: probeTimeout})
		slices.SortFunc(st.Probes, func(a, b model.Probe) int { return cmp.Compare(a.Name, b.Name) })
	}
	return st
}
