package hostlinks

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"danm.io/danm/render"
	"danm.io/danm/spec/bundle/v1"
	"danm.io/danm/spec/convert"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/decode"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
	npwgv1 "danm.io/danm/spec/npwg/v1"
	"danm.io/danm/spec/validate"
)

// group is the one group of nodes of a class, node a node that stands for all of them.
const (
	group = "nodes"
	node  = "node"
)

// danmGroups is where DANM's netwatcher takes multicast groups from (contract 1.15): the block's first address and the VNI.
var danmGroups = netip.MustParsePrefix("239.0.0.0/8")

// judge is one class with the bundle's own networks as documents.
type judge struct {
	class   *class
	tenants []model.Tenant
	own     []v1.Network // the bundle's
}

// outcome is what a set of objects makes on the nodes of a class.
type outcome struct {
	links    []model.SharedLink // beyond the bundle's
	networks []model.Network    // of the objects
}

func newJudge(c *class, tenants []model.Tenant) *judge {
	j := &judge{class: c, tenants: tenants, own: documents(c)}
	if problems, _ := j.check(nil); len(problems) > 0 { // no object's fault: render still sees what clashes on the host
		j.own = nil
	}
	return j
}

// documents are the bundle's networks on a class, as the rule book reads them. Who may use them plays no part here.
func documents(c *class) []v1.Network {
	b := model.Bundle{Name: "bundle", Fabrics: c.fabrics}
	here := map[string]bool{}
	for _, n := range c.networks {
		here[n.Key()] = true
	}
	for _, n := range c.networks {
		n.AllowedTenants, n.AllowedNamespaces, n.Reserved = nil, nil, nil
		n.SharedWith = slices.DeleteFunc(slices.Clone(n.SharedWith), func(k string) bool { return !here[k] })
		b.Networks = append(b.Networks, n)
	}
	var objects []any
	for _, o := range render.Render(b, model.Inventory{}).Objects {
		if o.Kind == danmv1.KindTenantNetwork || o.Kind == danmv1.KindClusterNetwork {
			objects = append(objects, o.Value)
		}
	}
	return convert.Objects(convert.Options{Name: "bundle"}, objects).Networks
}

// advised is a problem with what to do about it, where the rule knows. A condition has no other place for that.
func advised(d diag.Diagnostic) string {
	if d.Hint == "" {
		return d.Summary
	}
	return d.Summary + ": " + d.Hint
}

// reaches says whether an object stands on something that the class has.
func (c *class) reaches(o *Object) bool {
	spec := o.doc.Spec
	switch {
	case o.device != "":
		return c.has(o.device)
	case spec.Fabric != "":
		return slices.ContainsFunc(c.fabrics, func(f model.Fabric) bool { return f.Name == spec.Fabric })
	}
	return true
}

// hasAlready says whether the bundle's layer has the network that an object is of: its bundle is gone, and left it behind.
func (c *class) hasAlready(o *Object) bool {
	return slices.ContainsFunc(c.networks, func(n model.Network) bool { return string(n.Kind) == o.Kind && n.Key() == o.key() })
}

// place is the document of an object on the nodes of a class: a tagged one stands on the fabric of its device.
func (j *judge) place(o *Object) v1.Network {
	doc := o.doc
	if o.device == "" || doc.Spec.VLAN == nil && doc.Spec.VXLAN == nil {
		return doc
	}
	doc.Spec.Fabric, doc.Spec.HostDevice = "", ""
	if f := j.fabricOn(o.device, doc.Spec.VXLAN != nil); f != nil {
		doc.Spec.Fabric = f.Name
	} else if doc.Spec.VXLAN != nil {
		doc.Spec.Fabric = madeUp(o.device)
	} else {
		doc.Spec.HostDevice = o.device
	}
	return doc
}

// fabricOn is the bundle's fabric on a device, one with VXLAN if that is wanted and there is a choice.
func (j *judge) fabricOn(device string, vxlan bool) *model.Fabric {
	var found *model.Fabric
	for i := range j.class.fabrics {
		if f := &j.class.fabrics[i]; f.Device == device && (found == nil || vxlan && found.VXLAN == nil) {
			found = f
		}
	}
	return found
}

// madeUp names the fabric of a device that the bundle has none on, in the form of labels, which names of devices need not have.
func madeUp(device string) string { return "device-" + short(device) }

// fabrics are the bundle's and those made up for VXLANs of objects.
func (j *judge) fabrics(objects []*Object) []model.Fabric {
	out := slices.Clone(j.class.fabrics)
	seen := map[string]bool{}
	for _, o := range objects {
		if o.doc.Spec.VXLAN == nil || o.device == "" || seen[o.device] || j.fabricOn(o.device, true) != nil {
			continue
		}
		seen[o.device] = true
		out = append(out, model.Fabric{Name: madeUp(o.device), Device: o.device,
			VXLAN: &model.Underlay{Port: 4789, Multicast: danmGroups.Addr(), PerVNI: true}})
	}
	for i := range out {
		out[i].Groups = []string{group}
	}
	return out
}

// check validates and renders objects beside the bundle.
func (j *judge) check(objects []*Object) (diag.List, outcome) {
	bundle, problems := validate.Documents(j.documents(objects))
	if problems = errorsOf(problems); len(problems) > 0 {
		return problems, outcome{}
	}
	byKey := map[string]*Object{}
	for _, o := range objects {
		byKey[o.key()] = o
	}
	b := model.Bundle{Name: "api", Fabrics: j.fabrics(objects), Nodes: []model.Node{{Name: node}}, Groups: []model.NodeGroup{{Name: group, Interfaces: j.base()}}}
	for _, n := range j.class.networks {
		n.AllowedTenants = nil // as in documents: their tenants are not among those of this bundle
		b.Networks = append(b.Networks, untagged(n, n.Device))
	}
	for _, n := range bundle.Networks {
		if byKey[n.Key()] != nil {
			b.Networks = append(b.Networks, j.onCarrier(n, b.Fabrics))
		}
	}
	slices.SortFunc(b.Networks, func(x, y model.Network) int {
		return cmp.Or(cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Name, y.Name))
	})
	result := render.Render(b, model.Inventory{})
	if problems = errorsOf(result.Diagnostics); len(problems) > 0 {
		return problems, outcome{}
	}
	return nil, j.beyond(b, result, byKey)
}

func errorsOf(list diag.List) diag.List {
	return slices.DeleteFunc(slices.Clone(list), func(d diag.Diagnostic) bool { return d.Severity != diag.Error })
}

// ofNetworks are the links that the bundle's networks make: to the rule book they come with the networks.
func (c *class) ofNetworks() map[string]bool {
	out := map[string]bool{}
	for _, n := range c.networks {
		if n.ID() != 0 {
			out[n.Device] = true
		}
	}
	for _, l := range c.links {
		if out[l.Master] && (l.Kind == model.VLAN || l.Kind == model.VXLAN) {
			out[l.Name] = true
		}
	}
	return out
}

// documents are all that the rule book is asked about: the nodes' devices and fabrics, the bundle's networks, the objects.
func (j *judge) documents(objects []*Object) *decode.Documents {
	docs := &decode.Documents{Bundles: []decode.Doc[v1.Bundle]{{Value: v1.Bundle{Metadata: v1.Metadata{Name: "api"}}}}}
	t := v1.Topology{Metadata: v1.Metadata{Name: "nodes"}, Spec: v1.TopologySpec{Groups: []v1.Group{{Name: group}}}}
	made := j.class.ofNetworks()
	for _, l := range j.class.links {
		if made[l.Name] && len(j.own) > 0 {
			continue
		}
		t.Spec.Groups[0].Interfaces = append(t.Spec.Groups[0].Interfaces, v1.Interface{Name: l.Name, MTU: l.MTU})
	}
	for _, name := range j.class.cards {
		t.Spec.Groups[0].Interfaces = append(t.Spec.Groups[0].Interfaces, v1.Interface{Name: name})
	}
	for _, f := range j.fabrics(objects) {
		t.Spec.Fabrics = append(t.Spec.Fabrics, fabricDocument(f))
	}
	docs.Topologies = []decode.Doc[v1.Topology]{{Value: t}}
	namespaces := map[string]bool{}
	add := func(n v1.Network, file string) {
		namespaces[n.Metadata.Namespace] = true
		docs.Networks = append(docs.Networks, decode.Doc[v1.Network]{Value: n, Where: decode.Where{File: file}})
	}
	for _, n := range j.own {
		add(n, "bundle")
	}
	for i, n := range j.shared(objects) {
		add(n, objects[i].Key())
	}
	delete(namespaces, "")
	for ns := range namespaces {
		docs.Tenants = append(docs.Tenants, decode.Doc[v1.Tenant]{Value: v1.Tenant{Metadata: v1.Metadata{Name: ns}, Spec: v1.TenantSpec{Namespaces: []string{ns}}}})
	}
	slices.SortFunc(docs.Tenants, func(a, b decode.Doc[v1.Tenant]) int { return cmp.Compare(a.Value.Metadata.Name, b.Value.Metadata.Name) })
	return docs
}

func fabricDocument(f model.Fabric) v1.Fabric {
	out := v1.Fabric{Name: f.Name, Groups: []string{group}, Device: f.Device}
	for _, r := range f.VLANRanges {
		out.VLANRanges = append(out.VLANRanges, r.String())
	}
	for _, r := range f.VNIRanges {
		out.VNIRanges = append(out.VNIRanges, r.String())
	}
	if u := f.VXLAN; u != nil {
		out.VXLAN = &v1.Underlay{Port: u.Port}
		if u.Multicast.IsValid() {
			out.VXLAN.Multicast = u.Multicast.String()
			if u.PerVNI {
				out.VXLAN.Multicast += map[bool]string{true: "/8", false: "/16"}[u.Multicast.Is4()] // as wide as the rule book takes
			}
		}
	}
	return out
}

// shared are the objects' documents on the class. DANM never asked networks on one wire to name each other, so those whose
// authors set physical parameters themselves do so here; a tenant's network, or the bundle's, is shared on purpose only.
func (j *judge) shared(objects []*Object) []v1.Network {
	out := make([]v1.Network, len(objects))
	wires := map[string][]int{}
	for i, o := range objects {
		out[i] = j.place(o)
		if w := wire(out[i].Spec); w != "" && o.Kind != danmv1.KindTenantNetwork {
			wires[w] = append(wires[w], i)
		}
	}
	for _, members := range wires {
		if len(members) == 1 {
			continue
		}
		keys := make([]string, len(members))
		for k, i := range members {
			keys[k] = objects[i].key()
		}
		slices.Sort(keys)
		for _, i := range members {
			own := objects[i].key()
			all := make([]string, 0, len(keys)-1+len(out[i].Spec.SharedWith))
			for _, key := range keys {
				if key != own {
					all = append(all, key)
				}
			}
			for _, key := range out[i].Spec.SharedWith {
				if _, listed := slices.BinarySearch(keys, key); !listed || key == own {
					all = append(all, key)
				}
			}
			slices.Sort(all)
			out[i].Spec.SharedWith = all
		}
	}
	return out
}

func wire(s v1.NetworkSpec) string {
	on := s.Fabric + "|" + s.HostDevice
	switch {
	case on == "|":
		return ""
	case s.VLAN != nil:
		return fmt.Sprint(on, " vlan ", s.VLAN.Value)
	case s.VXLAN != nil:
		return fmt.Sprint(on, " vxlan ", s.VXLAN.Value)
	}
	return on
}

// base is what the nodes have before any object: the bundle's links, and cards that objects stand on, with nothing declared.
func (j *judge) base() []model.Link {
	var out []model.Link
	for _, l := range j.class.links {
		out = append(out, l.Link)
	}
	for _, name := range j.class.cards {
		out = append(out, model.Link{Name: name, Kind: model.Physical})
	}
	return out
}

// onCarrier puts a network whose tag the bundle has a link for onto that link.
func (j *judge) onCarrier(n model.Network, fabrics []model.Fabric) model.Network {
	device := n.HostDevice
	if i := slices.IndexFunc(fabrics, func(f model.Fabric) bool { return f.Name == n.Fabric }); n.Fabric != "" && i >= 0 {
		device = fabrics[i].Device
	}
	if n.ID() == 0 {
		return n
	}
	if carrier, ok := j.class.carrier(device, n.VXLAN, n.ID(), n.Type); ok {
		return untagged(n, carrier)
	}
	return n
}

// untagged is a network that attaches Pods to a link as it is.
func untagged(n model.Network, link string) model.Network {
	if link == "" { // it needs none
		return n
	}
	n.Fabric, n.HostDevice, n.VLAN, n.VNI, n.VXLAN, n.VLANAuto = "", link, 0, 0, false, false
	return n
}

// beyond is what the objects add to the bundle.
func (j *judge) beyond(b model.Bundle, r render.Result, objects map[string]*Object) outcome {
	var out outcome
	fabrics := map[string]string{} // device → fabric with VXLAN
	for _, f := range b.Fabrics {
		if f.VXLAN != nil {
			fabrics[f.Device] = f.Name
		}
	}
	for _, l := range r.Nodes[0].Plan.Links {
		if _, there := j.class.link(l.Name); there {
			continue
		}
		s := model.SharedLink{Link: l}
		if l.Kind == model.VXLAN {
			s.Underlay = fabrics[l.Parent]
		}
		out.links = append(out.links, s)
	}
	given := map[string]model.Network{}
	for _, n := range r.Networks {
		given[n.Key()] = n
	}
	for _, n := range r.Nodes[0].Networks {
		o := objects[n.Key()]
		if o == nil || o.Deleting { // Pods that are attached need the link; no other Pod finds the network
			continue
		}
		out.networks = append(out.networks, j.finished(n, o))
	}
	return out
}

// finished is a network as the agent finds it: by its own kind, for its own users, and in an address space named after what
// everyone calls its device.
func (j *judge) finished(n model.Network, o *Object) model.Network {
	n.SharedWith = nil // for judging: nodes do not ask, and with everyone on a wire in every entry the layer would grow by the square
	switch o.Kind {
	case danmv1.KindDanmNet:
		n.Kind = model.DanmNet
	case npwgv1.Kind:
		n.Kind, n.NAD = model.Definition, true
	case danmv1.KindClusterNetwork:
		n.AllowedNamespaces, _ = allowed(o.Value.(*danmv1.ClusterNetwork), j.tenants)
	}
	if strings.HasPrefix(n.SpaceDomain, "device-") && o.multi {
		n.SpaceDomain = o.device
	}
	spec := o.doc.Spec
	if spec.VLAN != nil {
		n.VLAN = uint16(spec.VLAN.Value)
	}
	if spec.VXLAN != nil {
		n.VXLAN, n.VNI = true, uint32(spec.VXLAN.Value)
	}
	return n
}
