package cli

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"danm.io/danm/node/plan"
	"danm.io/danm/reconcile/desired"
	"danm.io/danm/reconcile/live"
	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/model"
	"danm.io/danm/spec/nodeplan"
	"danm.io/danm/spec/segment"
)

// candidate is what the cluster would get: by node, the state that the bundle alone makes, with peers.
type candidate struct {
	name, version, revision string
	origins                 map[string]model.Origin
	states                  map[string]model.NodeState
	grouped                 map[string]bool            // nil: every node with a state is the bundle's
	references              []v1alpha1.ObjectReference // nil: not known
	peers                   []v1alpha1.FabricPeersSpec // of every bundle, afterwards
}

// candidateOf is a rendered file's: its nodes and numbers are taken as they are.
func candidateOf(d Document) candidate {
	return candidate{name: d.Bundle, version: d.Version, revision: d.Revision, origins: d.Origins, states: nodesByName(d)}
}

// candidateFrom is the controller's rendering, as nodes put it together.
func candidateFrom(r desired.Rendering, present []v1alpha1.FabricPeers, bundle string) (candidate, error) {
	c := candidate{name: r.Bundle.Name, version: r.Bundle.Version, revision: r.Revision, origins: r.Bundle.Origins, references: r.References,
		states: map[string]model.NodeState{}, peers: peersAfter(present, r.Rendered.Peers)}
	segments := map[string]model.Segment{}
	for _, s := range r.Rendered.Segments {
		var err error
		if segments[s.Name], err = segment.Decode(s.Name, []byte(s.Data)); err != nil {
			return c, err
		}
	}
	c.grouped = r.Grouped
	for name, l := range r.Rendered.Layers {
		p := &v1alpha1.NodePlan{Spec: v1alpha1.NodePlanSpec{Bundle: bundle, Layers: v1alpha1.Layers{Bundle: &l}}}
		p.Name = name
		st, err := nodeplan.Assemble(p, segments, c.peers, "")
		if err != nil {
			return c, fmt.Errorf("node %s: %w", name, err)
		}
		c.states[name] = st
	}
	return c, nil
}

// liveNode is one node with what it has and what it will have; nil states are none.
type liveNode struct {
	name     string
	was, now *model.NodeState // both layers
	docs     [2]*model.NodeState
	cards    []model.NIC
	pods     map[string][]string // attached Pods by host link
	note     string
}

// liveDifference is what the candidate changes on the cluster's nodes. It is pure.
func liveDifference(c live.Cluster, nb *v1alpha1.NetworkBundle, next candidate) (Difference, error) {
	nodes, err := liveNodes(c, nb, next)
	if err != nil {
		return Difference{}, err
	}
	was, now := liveDocument(nodes, 0), liveDocument(nodes, 1)
	was.Bundle = cmp.Or(nb.Name, next.name)
	was.Version, now.Bundle, now.Version, now.Origins, now.Revision = nb.Status.Version, was.Bundle, next.version, next.origins, next.revision
	if nb.Status.RolledOut != nil {
		was.Revision = nb.Status.RolledOut.Name
	} else { // a first bundle is all new, its settings need no line each
		was.Version, was.ConfirmTimeout, was.Probes = now.Version, now.ConfirmTimeout, now.Probes
	}
	d := Difference{Bundle: now.Bundle, Old: was.Revision, New: now.Revision, Total: len(nodes)}
	d.Changes = append(changesOf(was, now), nowhere(nb, next.references, was, now)...)
	for _, n := range nodes {
		if step := n.diff(); len(step.Plan.Steps)+len(step.Plan.Blocked) > 0 {
			d.Nodes = append(d.Nodes, step)
		}
	}
	return d, nil
}

// liveNodes are the bundle's nodes in the cluster, sorted by name. Those of another NetworkBundle stay as they are.
func liveNodes(c live.Cluster, nb *v1alpha1.NetworkBundle, next candidate) ([]liveNode, error) {
	plans := map[string]*v1alpha1.NodePlan{}
	for i := range c.Plans.Items {
		plans[c.Plans.Items[i].Name] = &c.Plans.Items[i]
	}
	var peers []v1alpha1.FabricPeersSpec
	for _, p := range c.Peers {
		peers = append(peers, p.Spec)
	}
	theirs := desired.OthersThan(nb, c.Bundles.Items, c.Plans.Items).Nodes
	var out []liveNode
	for i := range c.Nodes.Items {
		name := c.Nodes.Items[i].Name
		st, ok := next.states[name]
		p := plans[name]
		own := p != nil && p.Spec.Bundle == nb.Name
		if !ok || theirs[name] != "" || next.grouped != nil && !next.grouped[name] && !own {
			continue
		}
		n := liveNode{name: name, docs: [2]*model.NodeState{1: &st}, now: &st}
		if p != nil {
			n.cards = desired.Hardware(p.Status.Hardware)
			if err := n.fill(p, c.Segments, peers, next.peers); err != nil {
				return nil, fmt.Errorf("NodePlan %s: %w", name, err)
			}
		} else {
			n.note = "has no plan yet"
		}
		if q := slices.IndexFunc(nb.Status.Quarantined, func(q v1alpha1.QuarantinedPlan) bool { return q.Digest == st.Digest }); q >= 0 {
			n.note = fmt.Sprintf("quarantined: node %s undid this plan (%s); a retry lifts it", nb.Status.Quarantined[q].Node, nb.Status.Quarantined[q].Reason)
		}
		n.pods = podsOn(name, n.was, c.Endpoints)
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b liveNode) int { return cmp.Compare(a.name, b.name) })
	return out, nil
}

// fill adds what the plan says: what the node has, and the api's layer that stays.
func (n *liveNode) fill(p *v1alpha1.NodePlan, segments map[string]model.Segment, before, after []v1alpha1.FabricPeersSpec) (err error) {
	if n.was, n.docs[0], err = n.present(p, segments, before); err != nil {
		return err
	}
	if p.Spec.Teardown {
		n.now, n.docs[1] = n.was, n.docs[0]
		return nil
	}
	both, err := nodeplan.WithAPI(*n.now, p, segments, after)
	n.now = &both
	return err
}

// present is what a node has: what its plan says, or, if it does not have that (undone, or not come to it yet), the good one
// before. The second result is the bundle's layer alone.
func (n *liveNode) present(p *v1alpha1.NodePlan, segments map[string]model.Segment, peers []v1alpha1.FabricPeersSpec) (both, bundle *model.NodeState, err error) {
	applied := p.Status.Applied
	l := p.Spec.Layers.Bundle
	switch {
	case p.Spec.Teardown:
		n.note = "is being torn down: stays so until its NodePlan says otherwise"
	case l == nil || applied == nil:
		n.note = "has not applied a plan yet"
		return nil, nil, nil
	case applied.Digest == l.Digest:
	case p.Spec.LastGood != nil && applied.Digest == p.Spec.LastGood.Digest:
		p = p.DeepCopy()
		p.Spec.Layers.Bundle = p.Spec.LastGood
	default:
		n.note = fmt.Sprintf("has %s and is told %s (%s): the steps are from the latter", applied.Short, l.Short, strings.TrimSpace(p.Status.Phase+" "+p.Status.Reason))
	}
	return assembled(p, segments, peers)
}

func assembled(p *v1alpha1.NodePlan, segments map[string]model.Segment, peers []v1alpha1.FabricPeersSpec) (both, bundle *model.NodeState, err error) {
	all, err := nodeplan.Assemble(p, segments, peers, "")
	if err != nil {
		return nil, nil, err
	}
	p = p.DeepCopy()
	p.Spec.Layers.API = nil
	alone, err := nodeplan.Assemble(p, segments, nil, "")
	return &all, &alone, err
}

// peersAfter are the FabricPeers after a bundle's new ones are published: its fabrics' are new, others stay.
func peersAfter(present []v1alpha1.FabricPeers, coming []v1alpha1.FabricPeersSpec) []v1alpha1.FabricPeersSpec {
	out := slices.Clone(coming)
	for _, p := range present {
		if !slices.ContainsFunc(coming, func(c v1alpha1.FabricPeersSpec) bool { return c.Fabric == p.Spec.Fabric }) {
			out = append(out, p.Spec)
		}
	}
	return out
}

// podsOn names a node's attached Pods by the host link they stand on, as far as DanmEps tell.
func podsOn(node string, st *model.NodeState, endpoints []danmv1.DanmEp) map[string][]string {
	if st == nil {
		return nil
	}
	out := map[string][]string{}
	for _, e := range endpoints {
		if e.Spec.Host != node {
			continue
		}
		kind, namespace, name := e.Spec.Network(e.Namespace)
		for _, n := range st.Networks {
			if string(n.Kind) == kind && n.Namespace == namespace && n.Name == name && n.Device != "" {
				out[n.Device] = append(out[n.Device], e.Namespace+"/"+e.Spec.Pod)
			}
		}
	}
	return out
}

func (n liveNode) diff() NodeDiff {
	d := NodeDiff{Node: n.name, Note: n.note, Worst: string(plan.None)}
	if n.was != nil && n.was.Digest == n.now.Digest && slices.Equal(n.was.Peers, n.now.Peers) {
		return d
	}
	var running model.NodePlan
	if n.was != nil {
		running = n.was.Plan
	}
	host := assumed(running, n.now.Plan, n.cards)
	if n.was != nil {
		host = asIfApplied(plan.Desired{Plan: n.was.Plan, Peers: n.was.Peers}, host)
	}
	d.Plan = plan.Diff(plan.Desired{Plan: n.now.Plan, Peers: n.now.Peers}, host)
	d.Plan = d.Plan.NamePods(func(link string) []string { return plan.AttachedTo(link, host, n.pods) })
	d.Worst = string(d.Plan.Worst())
	return d
}

// liveDocument is one side, 0 old and 1 new, as the nodes' segments have it: both sides are read alike, so that only what
// differs is shown.
func liveDocument(nodes []liveNode, side int) Document {
	var d Document
	networks, tenants, pools := map[string]model.Network{}, map[string]model.Tenant{}, map[string]model.SRIOVPool{}
	probes := map[string]model.Probe{}
	for _, n := range nodes {
		st := n.docs[side]
		if st == nil {
			continue
		}
		d.ConfirmTimeout = st.ConfirmTimeout.String()
		for _, x := range st.Networks {
			x.Device = "" // differs from node to node, and is in the steps
			keep(networks, x.Key(), x)
		}
		for _, x := range st.Tenants {
			keep(tenants, x.Name, x)
		}
		for _, x := range st.Plan.Pools {
			keep(pools, x.Name, x)
		}
		for _, x := range st.Probes {
			if x.Kind != model.ProbeSource { // every node of a cluster has it, whatever the bundle says
				keep(probes, x.Name, x)
			}
		}
	}
	d.Networks, d.Tenants, d.Pools, d.Probes = byKey(networks), byKey(tenants), byKey(pools), byKey(probes)
	return d
}

// keep puts what the first node has; groups may differ in what they add, and either side begins with the same node.
func keep[T any](m map[string]T, key string, value T) {
	if _, ok := m[key]; !ok {
		m[key] = value
	}
}

func byKey[T any](m map[string]T) []T {
	var out []T
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, m[k])
	}
	return out
}

// nowhere are networks and tenants that come or go and that no node's plan tells of, such as those of a fabric without nodes.
func nowhere(nb *v1alpha1.NetworkBundle, wanted []v1alpha1.ObjectReference, was, now Document) []Change {
	if wanted == nil {
		return nil
	}
	kinds := map[string]string{danmv1.KindTenantNetwork: "Network", danmv1.KindClusterNetwork: "Network", danmv1.KindTenantConfig: "Tenant"}
	known := func(d Document, kind, key string) bool {
		if kind == "Tenant" {
			return slices.ContainsFunc(d.Tenants, func(t model.Tenant) bool { return t.Name == key })
		}
		return slices.ContainsFunc(d.Networks, func(n model.Network) bool { return n.Key() == key })
	}
	var out []Change
	for _, x := range []struct {
		sign string
		refs []v1alpha1.ObjectReference
		d    Document
	}{{"+", desired.Gone(wanted, nb.Status.Inventory), now}, {"-", desired.Gone(nb.Status.Inventory, wanted), was}} {
		for _, ref := range x.refs {
			kind, key := kinds[ref.Kind], ref.Name
			if ref.Namespace != "" {
				key = ref.Namespace + "/" + ref.Name
			}
			if kind != "" && !known(x.d, kind, key) {
				out = append(out, located(x.sign, kind, key, "on no node", x.d))
			}
		}
	}
	return out
}
