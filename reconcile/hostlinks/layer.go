package hostlinks

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
	"danm.io/danm/spec/segment"
)

// Input of Decide: what the API says now.
type Input struct {
	Plans    []v1alpha1.NodePlan
	Segments map[string]model.Segment // decoded, those that plans name
	Objects  []Object                 // made with kubectl
	Configs  []danmv1.TenantConfig
}

// Decision is what the API should say.
type Decision struct {
	Layers   map[string]*v1alpha1.Layer // by node; nil = none. Nodes that are not in it keep theirs.
	Segments map[string]model.Segment
	Peers    []model.FabricPeers
	Verdicts map[string]Verdict // by Object.Key
}

// Decide is pure. Objects that are refused on some nodes are refused on all.
func Decide(in Input) (Decision, error) {
	objects, verdicts := read(in)
	slices.SortFunc(objects, byAge)
	tenants, elsewhere := tenantsOf(in.Configs, false), tenantsOf(in.Configs, true)
	all := classes(in.Plans, in.Segments, devices(objects))
	for _, c := range all {
		elsewhere = append(elsewhere, c.tenants...)
	}
	good, err := settle(all, objects, tenants, elsewhere, verdicts)
	if err != nil {
		return Decision{}, err
	}
	out := Decision{Layers: map[string]*v1alpha1.Layer{}, Segments: map[string]model.Segment{}, Verdicts: verdicts}
	for i, c := range all {
		if err := out.add(c, good[i], tenants); err != nil {
			return Decision{}, err
		}
	}
	for _, o := range objects {
		v := verdicts[o.Key()]
		if v.Code == "" && v.Nodes == 0 && !o.Deleting {
			v.Code, v.Message = diag.NoNode, missing(o)
		}
		verdicts[o.Key()] = v
	}
	out.Peers = peers(all, good)
	return out, nil
}

func missing(o *Object) string {
	if o.device != "" {
		return fmt.Sprintf("no node has the device %s", o.device)
	}
	return fmt.Sprintf("no node is on the fabric %s", o.doc.Spec.Fabric)
}

// read turns objects into documents, and refuses those that stand for none.
func read(in Input) ([]*Object, map[string]Verdict) {
	verdicts := map[string]Verdict{}
	var out []*Object
	names := map[string]*Object{}
	list := make([]*Object, len(in.Objects))
	for i := range in.Objects {
		o := in.Objects[i]
		list[i] = &o
	}
	slices.SortFunc(list, byAge)
	for _, o := range list {
		if v := o.read(in.Configs); v != nil {
			verdicts[o.Key()] = *v
			continue
		}
		o.tag()
		if first := names[o.key()]; first != nil {
			verdicts[o.Key()] = Verdict{Code: diag.DuplicateName, Message: fmt.Sprintf("there is a %s of this name already; networks of one namespace have names of their own", first.Kind)}
			continue
		}
		names[o.key()] = o
		verdicts[o.Key()] = Verdict{}
		out = append(out, o)
	}
	return out, verdicts
}

// devices are those that objects name, but for the links that objects make: no card has the name of one, unless a node says so to
// have the network refused everywhere.
func devices(objects []*Object) map[string]bool {
	out := map[string]bool{}
	for _, o := range objects {
		if o.device != "" {
			out[o.device] = true
		}
	}
	for _, o := range objects {
		spec := o.doc.Spec
		id := cmp.Or(spec.NetworkID, o.Name)
		if spec.VLAN != nil {
			delete(out, fmt.Sprintf("%s.%d", id, spec.VLAN.Value))
		}
		if spec.VXLAN != nil {
			delete(out, "vx_"+id)
		}
	}
	return out
}

// tenantsOf are the tenants that were made with kubectl, or those of bundles.
func tenantsOf(configs []danmv1.TenantConfig, bundled bool) []model.Tenant {
	var out []model.Tenant
	for i := range configs {
		t := &configs[i]
		name := t.Labels[danmv1.LabelTenant]
		if (t.Labels[v1alpha1.LabelBundle] != "") != bundled || name == "" {
			continue
		}
		m := model.Tenant{Name: name, Namespaces: []string{name}, NetworkIDs: t.NetworkIds}
		if e := t.Extension; e != nil {
			if m.DefaultNetwork = e.DefaultNetwork; len(e.Namespaces) > 0 {
				m.Namespaces = slices.Sorted(slices.Values(e.Namespaces))
			}
		}
		for _, n := range t.AllowedClusterNetworks {
			m.Networks = append(m.Networks, n.Name)
		}
		out = append(out, m)
	}
	slices.SortFunc(out, func(a, b model.Tenant) int { return cmp.Compare(a.Name, b.Name) })
	return slices.CompactFunc(out, func(a, b model.Tenant) bool { return a.Name == b.Name })
}

// knownTo are all tenants that a network may name. Those of other nodes' bundles count, too: nodes of a class that has never heard of
// one must not have a network refused for it everywhere. What the class itself says of a tenant goes before what others do.
func knownTo(c *class, tenants, elsewhere []model.Tenant) []model.Tenant {
	out := append(slices.Clone(tenants), c.tenants...)
	seen := map[string]bool{}
	for _, t := range out {
		seen[t.Name] = true
	}
	for _, t := range elsewhere {
		if !seen[t.Name] {
			seen[t.Name] = true
			out = append(out, t)
		}
	}
	return out
}

// settle finds what each class has, until nobody is refused who was taken elsewhere.
func settle(all []*class, objects []*Object, tenants, elsewhere []model.Tenant, verdicts map[string]Verdict) ([]outcome, error) {
	out := make([]outcome, len(all))
	judges := make([]*judge, len(all))
	for i, c := range all {
		if slices.ContainsFunc(objects, c.reaches) { // judging costs the rule book over all the bundle's networks
			judges[i] = newJudge(c, knownTo(c, tenants, elsewhere))
		}
	}
	for again := true; again; {
		again = false
		for i, j := range judges {
			if j == nil {
				continue
			}
			var here []*Object
			for _, o := range objects {
				if verdicts[o.Key()].Code == "" && j.class.reaches(o) && !j.class.hasAlready(o) {
					here = append(here, o)
				}
			}
			good, bad := accept(here, func(set []*Object) diag.List {
				problems, _ := j.check(set)
				return problems
			})
			for o, v := range bad {
				verdicts[o.Key()], again = v, true
			}
			for _, o := range good {
				if c, ok := o.Value.(*danmv1.ClusterNetwork); ok {
					if _, err := allowed(c, j.tenants); err != nil {
						verdicts[o.Key()], again = Verdict{Code: diag.UnknownReference, Message: err.Error()}, true
					}
				}
			}
			_, out[i] = j.check(good)
			for _, n := range out[i].networks { // tenants' namespaces, written out, come on top of what the object said
				if bytes := size(n); bytes > 3*maxObject {
					verdicts[objectKey(n)], again = *tooBig(bytes), true
				}
			}
		}
	}
	return out, nil
}

// add makes the layers of a class's nodes.
func (d *Decision) add(c *class, o outcome, tenants []model.Tenant) error {
	own := slices.DeleteFunc(slices.Clone(tenants), func(t model.Tenant) bool {
		return slices.ContainsFunc(c.tenants, func(b model.Tenant) bool { return b.Name == t.Name })
	})
	if len(o.links) == 0 && len(o.networks) == 0 && len(own) == 0 {
		for _, p := range c.plans {
			d.Layers[p.Name] = c.nothing(p)
		}
		d.count(c, nil)
		return nil
	}
	pieces, err := segment.Cut(model.Segment{Links: o.links, Networks: o.networks, Tenants: own})
	if err != nil {
		return fmt.Errorf("host links of networks made with kubectl: %w", err)
	}
	var names []string
	for _, s := range pieces {
		name, _ := segment.Encode(s)
		d.Segments[name] = s
		names = append(names, name)
	}
	slices.Sort(names)
	for _, p := range c.plans {
		d.Layers[p.Name] = c.layer(p, o.links, names)
	}
	d.count(c, o.networks)
	return nil
}

// count adds a class's nodes to what is said of objects.
func (d *Decision) count(c *class, networks []model.Network) {
	for _, n := range append(slices.Clone(networks), c.networks...) {
		key := objectKey(n)
		if _, ours := d.Verdicts[key]; !ours {
			continue
		}
		v := d.Verdicts[key]
		v.Nodes += len(c.plans)
		d.Verdicts[key] = v
	}
}

func objectKey(n model.Network) string {
	return string(n.Kind) + " " + n.Key()
}

// nothing is the layer of a node that no network made with kubectl is for. A node keeps what it has while its plan has no layer at
// all: where the bundle has none, a layer that was once there is emptied and never taken away, or the last links would stay.
func (c *class) nothing(p *v1alpha1.NodePlan) *v1alpha1.Layer {
	if p.Spec.Layers.Bundle == nil && p.Spec.Layers.API != nil {
		return c.layer(p, nil, nil)
	}
	return nil
}

// layer is one node's: the source addresses of its VXLANs are its own.
func (c *class) layer(p *v1alpha1.NodePlan, links []model.SharedLink, names []string) *v1alpha1.Layer {
	l := &v1alpha1.Layer{Segments: names}
	plan := model.NodePlan{}
	for _, s := range links {
		link := s.Link
		if s.Underlay != "" && link.VXLAN != nil {
			options := *link.VXLAN
			f := model.Fabric{Name: s.Underlay, Device: link.Parent, VXLAN: &model.Underlay{Multicast: options.Group}}
			if options.Local = c.underlay(p, f); options.Local.IsValid() {
				if l.Underlays == nil {
					l.Underlays = map[string]string{}
				}
				l.Underlays[s.Underlay] = options.Local.String()
			}
			link.VXLAN = &options
		}
		plan.Links = append(plan.Links, link)
	}
	slices.SortFunc(plan.Links, func(a, b model.Link) int { return cmp.Compare(a.Name, b.Name) })
	l.Digest = plan.Digest()
	l.Revision = "api@sha256:" + sum(names, l.Underlays)
	l.Short = v1alpha1.ShortRevision(l.Revision)
	return l
}

func sum(parts ...any) string {
	b, err := json.Marshal(parts) // maps are sorted
	if err != nil {
		panic("hostlinks: does not marshal: " + err.Error())
	}
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// peers lists where the nodes of each unicast fabric are reached: every node that has a VXLAN of it, in either layer. What the
// bundle declares goes before what the node reports.
func peers(all []*class, made []outcome) []model.FabricPeers {
	byFabric := map[string]map[string]netip.Addr{}
	for i, c := range all {
		for _, l := range append(slices.Clone(c.links), made[i].links...) {
			if l.Underlay == "" || l.VXLAN == nil || l.VXLAN.Group.IsValid() {
				continue
			}
			if byFabric[l.Underlay] == nil {
				byFabric[l.Underlay] = map[string]netip.Addr{}
			}
			for _, p := range c.plans {
				a := c.underlay(p, model.Fabric{Name: l.Underlay, Device: l.Parent})
				if !a.IsValid() {
					a, _ = netip.ParseAddr(p.Status.Underlays[l.Parent])
				}
				if segment.CanPeer(a) {
					byFabric[l.Underlay][p.Name] = a
				}
			}
		}
	}
	var out []model.FabricPeers
	for _, f := range slices.Sorted(maps.Keys(byFabric)) {
		out = append(out, segment.Shard(f, byFabric[f])...)
	}
	return out
}
