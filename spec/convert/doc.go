// Package convert makes a bundle of what a cluster has: DANM's networks and tenant configurations, the NPWG's
// NetworkAttachmentDefinitions, and the sriov-network-operator's policies and networks. Pods and Services keep their annotations; nothing of them stands in a bundle.
//
// What a bundle cannot say, or what has to be decided by a person, comes back as a note with the object it is about: nothing
// is left out silently. The package is pure; it reads no files and judges no bundle (spec/validate does).
package convert

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"danm.io/danm/spec/bundle/v1"
	danmv1 "danm.io/danm/spec/danm/v1"
	npwgv1 "danm.io/danm/spec/npwg/v1"
)

// Note is something that a person should know about one object. Refused: DANM would not take the object, so it is left out.
type Note struct {
	Object  string // kind and key
	Text    string
	Refused bool
}

// Bundle is the result: documents, sorted, and notes in the order of the objects.
type Bundle struct {
	Topology v1.Topology
	Networks []v1.Network
	Pools    []v1.SRIOVPool
	Tenants  []v1.Tenant
	Notes    []Note
}

// converter is one run.
type converter struct {
	out        Bundle
	prefix     string // of the operator's resources
	configs    []*danmv1.TenantConfig
	devices    map[string]bool // interfaces that networks stand on
	fabrics    map[string]*v1.Fabric
	shares     []v1.TenantFabric            // of every tenant
	namespaces map[string]bool              // of networks and of those allowed to use them
	taken      map[string]bool              // network keys
	operators  map[string]string            // SriovNetworks by the keys of their definitions
	policies   map[string]*NodePolicy       // by the names of their pools
	settings   map[string][]networkSettings // by resource, one a network
}

// Options say what objects do not.
type Options struct {
	Name           string // of the bundle
	ResourcePrefix string // of the resources that the sriov-network-operator made, "" = DefaultResourcePrefix
}

// DefaultResourcePrefix is the operator's, as long as its deployment says nothing else.
const DefaultResourcePrefix = "openshift.io"

// Objects converts pointers to the types of spec/danm/v1, spec/npwg/v1, and what OperatorObject makes. Networks come out in their order of kind,
// namespace and name, whatever the order of objects.
func Objects(o Options, objects []any) Bundle {
	c := &converter{prefix: cmp.Or(o.ResourcePrefix, DefaultResourcePrefix) + "/", devices: map[string]bool{}, fabrics: map[string]*v1.Fabric{}, namespaces: map[string]bool{}, taken: map[string]bool{},
		operators: map[string]string{}, policies: map[string]*NodePolicy{}, settings: map[string][]networkSettings{}}
	c.out.Topology = v1.Topology{APIVersion: v1.APIVersion, Kind: v1.KindTopology, Metadata: v1.Metadata{Name: o.Name}}
	sorted := slices.Clone(objects)
	slices.SortStableFunc(sorted, func(a, b any) int { return strings.Compare(sortKey(a), sortKey(b)) })
	for _, o := range sorted { // first, for networks refer to them
		if t, ok := o.(*danmv1.TenantConfig); ok {
			c.configs = append(c.configs, t)
		}
	}
	for _, o := range sorted {
		switch o := o.(type) {
		case *danmv1.ClusterNetwork:
			c.network(danmv1.KindClusterNetwork, "", o.Name, o.Spec)
		case *danmv1.DanmNet:
			c.network(danmv1.KindDanmNet, o.Namespace, o.Name, o.Spec)
		case *danmv1.TenantNetwork:
			c.network(danmv1.KindTenantNetwork, o.Namespace, o.Name, o.Spec)
		case *NodePolicy:
			c.policy(o)
		case *OperatorNetwork:
			c.operatorNetwork(o)
		case *npwgv1.NetworkAttachmentDefinition:
			c.definition(o)
		}
	}
	c.poolSettings()
	c.shareWires()
	c.ranges()
	c.tenants()
	c.topology()
	return c.out
}

// sortKey puts cluster networks first, then by namespace and name.
func sortKey(o any) string {
	switch o := o.(type) {
	case *danmv1.TenantConfig:
		return "0 " + o.Name
	case *danmv1.ClusterNetwork:
		return "1 " + o.Name
	case *danmv1.DanmNet:
		return "2 " + o.Namespace + "/" + o.Name
	case *danmv1.TenantNetwork:
		return "3 " + o.Namespace + "/" + o.Name
	case *NodePolicy: // before the networks, whose settings are theirs
		return "4 " + o.Metadata.Name
	case *OperatorNetwork: // before the definition that the operator made of it
		return "5 " + o.Metadata.Namespace + "/" + o.Metadata.Name
	case *npwgv1.NetworkAttachmentDefinition:
		return "6 " + o.Namespace + "/" + o.Name
	}
	return "7"
}

func (c *converter) note(kind, namespace, name, format string, args ...any) {
	object := kind + " " + name
	if namespace != "" {
		object = kind + " " + namespace + "/" + name
	}
	c.out.Notes = append(c.out.Notes, Note{Object: object, Text: fmt.Sprintf(format, args...)})
}

// refuse is a note about an object that DANM's own rules forbid.
func (c *converter) refuse(kind, namespace, name, format string, args ...any) {
	c.note(kind, namespace, name, format, args...)
	c.out.Notes[len(c.out.Notes)-1].Refused = true
}

// add takes a network unless another object was converted to one of this name already.
func (c *converter) add(kind string, n v1.Network) {
	key := n.Metadata.Namespace + "/" + n.Metadata.Name
	if c.taken[key] {
		c.note(kind, n.Metadata.Namespace, n.Metadata.Name, "left out: a network of this name was converted already from another kind; rename one of them")
		return
	}
	c.taken[key] = true
	n.APIVersion, n.Kind = v1.APIVersion, v1.KindNetwork
	if n.Metadata.Namespace != "" {
		c.namespaces[n.Metadata.Namespace] = true
	}
	c.out.Networks = append(c.out.Networks, n)
}
