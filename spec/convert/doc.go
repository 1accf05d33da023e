// Package convert makes a bundle of what a cluster has: DANM's networks and tenant configurations, and the NPWG's
// NetworkAttachmentDefinitions. Pods and Services keep their annotations; nothing of them stands in a bundle.
//
// What a bundle cannot say, or what has to be decided by a person, comes back as a note with the object it is about: nothing
// is left out silently. The package is pure; it reads no files and judges no bundle (spec/validate does).
package convert

import (
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
	Tenants  []v1.Tenant
	Notes    []Note
}

// converter is one run.
type converter struct {
	out        Bundle
	configs    []*danmv1.TenantConfig
	devices    map[string]bool // interfaces that networks stand on
	fabrics    map[string]*v1.Fabric
	shares     []v1.TenantFabric // of every tenant
	namespaces map[string]bool   // of networks and of those allowed to use them
	taken      map[string]bool   // network keys
}

// Objects converts pointers to the types of spec/danm/v1 and spec/npwg/v1. Networks come out in their order of kind,
// namespace and name, whatever the order of objects.
func Objects(name string, objects []any) Bundle {
	c := &converter{devices: map[string]bool{}, fabrics: map[string]*v1.Fabric{}, namespaces: map[string]bool{}, taken: map[string]bool{}}
	c.out.Topology = v1.Topology{APIVersion: v1.APIVersion, Kind: v1.KindTopology, Metadata: v1.Metadata{Name: name}}
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
		case *npwgv1.NetworkAttachmentDefinition:
			c.definition(o)
		}
	}
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
	case *npwgv1.NetworkAttachmentDefinition:
		return "4 " + o.Namespace + "/" + o.Name
	}
	return "5"
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
