// Package desired decides what a cluster should have: a snapshot of a bundle and the API's objects in, a rendering out. The
// controller publishes it, danmctl shows what it would change. It is pure: it fetches, lists and writes nothing.
package desired

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/Masterminds/semver/v3"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"danm.io/danm/reconcile/apply"
	"danm.io/danm/reconcile/fail"
	"danm.io/danm/reconcile/overlay"
	"danm.io/danm/reconcile/publish"
	"danm.io/danm/reconcile/source"
	"danm.io/danm/render"
	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/spec/decode"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
	"danm.io/danm/spec/segment"
)

// Origin is where a revision came from.
type Origin = publish.Origin

// Gone are the references of the inventory that the bundle no longer has.
func Gone(inventory, wanted []v1alpha1.ObjectReference) []v1alpha1.ObjectReference {
	return publish.Gone(inventory, wanted)
}

// Rendering is a revision made into what the API should hold.
type Rendering struct {
	Bundle      model.Bundle
	Revision    string
	Rendered    publish.Rendered
	Nodes       []model.Node
	Grouped     map[string]bool              // nodes in a group of the bundle: others are not its own
	Objects     []*unstructured.Unstructured // networks, tenants, definitions
	References  []v1alpha1.ObjectReference   // of objects
	Assignments []v1alpha1.Assignment        // numbers that networks left open, old and new; sorted
	Diags       diag.List
}

// Decide turns a snapshot into what the cluster should have. It is pure. Diagnostics are returned with an error, too.
func Decide(snap source.Snapshot, from publish.Origin, w World) (Rendering, error) {
	files := make([]decode.File, len(snap.Files))
	for i, f := range snap.Files {
		files[i] = decode.File{Path: f.Path, Data: f.Data}
	}
	bundle, found := overlay.Validate(files, snap.Dir)
	out := Rendering{Bundle: bundle, Revision: snap.Revision, Diags: slices.Concat(snap.Warnings, found).Sorted()}
	if err := out.Diags.Err(); err != nil {
		return out, invalid(err)
	}
	wish := wishes(bundle.Networks)
	bundle.Nodes = nodesOf(bundle.Nodes, w.Nodes)
	result := render.Render(bundle, model.Inventory{Assignments: w.Assignments, Found: w.Found, Hardware: w.Hardware, Underlays: w.Underlays})
	out.Diags = slices.Concat(out.Diags, result.Diagnostics).Sorted()
	if err := out.Diags.Err(); err != nil {
		return out, invalid(err)
	}
	var err error
	if out.Rendered, err = publish.Render(result, from); err != nil {
		if errors.Is(err, segment.ErrTooBig) {
			return out, fail.Terminal(string(diag.ObjectTooLarge), err)
		}
		return out, err
	}
	for i := range result.Networks {
		if n := &result.Networks[i]; wish[n.Key()] {
			out.Assignments = append(out.Assignments, v1alpha1.Assignment{Network: n.Key(), ID: int64(n.ID())})
		}
	}
	slices.SortFunc(out.Assignments, func(a, b v1alpha1.Assignment) int { return cmp.Compare(a.Network, b.Network) })
	out.Nodes, out.Grouped = bundle.Nodes, grouped(bundle)
	out.Objects, err = objects(result, bundle, from)
	for _, o := range out.Objects {
		out.References = append(out.References, apply.Reference(o))
	}
	slices.SortFunc(out.References, publish.Compare)
	return out, err
}

func invalid(err error) error { return fail.Terminal(string(diag.BundleInvalid), err) }

// wishes are the networks that leave their number open.
func wishes(networks []model.Network) map[string]bool {
	out := map[string]bool{}
	for i := range networks {
		if n := &networks[i]; (n.VXLAN || n.VLANAuto) && n.ID() == 0 {
			out[n.Key()] = true
		}
	}
	return out
}

// nodesOf are the cluster's nodes: labels are the API's, on top of those in the bundle; addresses the bundle's. A node that
// only the bundle knows has no plan: nobody would read it.
func nodesOf(bundle []model.Node, nodes []corev1.Node) []model.Node {
	declared := make(map[string]model.Node, len(bundle))
	for _, b := range bundle {
		declared[b.Name] = b
	}
	var out []model.Node
	for i := range nodes {
		n := model.Node{Name: nodes[i].Name, Labels: map[string]string{}, Slot: -1}
		if b, ok := declared[n.Name]; ok {
			maps.Copy(n.Labels, b.Labels)
			n.Interfaces = b.Interfaces
		}
		maps.Copy(n.Labels, nodes[i].Labels)
		out = append(out, n)
	}
	slices.SortFunc(out, func(a, b model.Node) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// grouped are the nodes that a group of the bundle selects; all, if it has no groups.
func grouped(b model.Bundle) map[string]bool {
	out := map[string]bool{}
	for _, n := range b.Nodes {
		out[n.Name] = len(b.Groups) == 0 || slices.ContainsFunc(b.Groups, func(g model.NodeGroup) bool {
			for k, v := range g.Selector {
				if have, ok := n.Labels[k]; !ok || have != v {
					return false
				}
			}
			return true
		})
	}
	return out
}

// Owns says whether a node is the bundle's: in a group of it, or with a plan of it, which is emptied then.
func (r Rendering) Owns(node, bundle string, p *v1alpha1.NodePlan) bool {
	return r.Grouped[node] || p != nil && p.Spec.Bundle == bundle
}

// objects are the manifests to apply, labelled with the bundle and with the document they come from.
func objects(r render.Result, b model.Bundle, from publish.Origin) ([]*unstructured.Unstructured, error) {
	var out []*unstructured.Unstructured
	for _, o := range r.Objects {
		u, err := manifest(o.Value, from.Bundle, originOf(b, o))
		if err != nil {
			return nil, err
		}
		out = append(out, u)
	}
	return out, nil
}

func originOf(b model.Bundle, o render.Object) string {
	key := o.Name
	if o.Namespace != "" {
		key = o.Namespace + "/" + o.Name
	}
	for _, kind := range []string{"Network/", "Tenant/"} {
		if at, ok := b.Origins[kind+key]; ok && (kind == "Tenant/") == (o.Kind == "TenantConfig") {
			return fmt.Sprintf("%s:%d", at.File, at.Line)
		}
	}
	return ""
}

func manifest(value any, bundle, origin string) (*unstructured.Unstructured, error) {
	u, err := apply.Object(value)
	if err != nil {
		return nil, err
	}
	labels := u.GetLabels()
	if labels == nil {
		labels = map[string]string{}
	}
	labels[v1alpha1.LabelBundle] = v1alpha1.LabelValue(bundle)
	u.SetLabels(labels)
	if origin != "" {
		a := u.GetAnnotations()
		a[v1alpha1.AnnotationOrigin] = origin
		u.SetAnnotations(a)
	}
	return u, nil
}

// Acceptable refuses a rendering that is whole and still not to be published, before anything is written.
func Acceptable(nb *v1alpha1.NetworkBundle, r Rendering, o Others) error {
	if err := Free(r, o); err != nil {
		return err
	}
	if !nb.Spec.AllowEmpty && len(nb.Status.Inventory) > 0 && empty(r) {
		return fail.Terminal(string(diag.EmptyRender), errors.New("the revision has neither networks nor host links, the one before had"))
	}
	if nb.Spec.Prune == nil || *nb.Spec.Prune {
		if err := publish.Limits(o.Prunable(publish.Gone(nb.Status.Inventory, r.References)), r.Bundle.Prune); err != nil {
			return fail.Terminal(string(diag.PruneLimit), err)
		}
	}
	if r.Bundle.Monotonic && nb.Status.Version != "" && r.Bundle.Version != "" {
		was, errWas := semver.NewVersion(nb.Status.Version)
		is, errIs := semver.NewVersion(r.Bundle.Version)
		if errWas == nil && errIs == nil && is.LessThan(was) {
			return fail.Terminal(string(diag.VersionWentBack), fmt.Errorf("version %s after %s", is, was))
		}
	}
	return nil
}

// empty says whether nothing is left that would be missed.
func empty(r Rendering) bool {
	nothing := model.NodePlan{}.Digest()
	for _, l := range r.Rendered.Layers {
		if l.Digest != nothing {
			return false
		}
	}
	return !slices.ContainsFunc(r.References, func(o v1alpha1.ObjectReference) bool { return o.Kind != "TenantConfig" })
}
