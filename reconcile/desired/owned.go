package desired

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"danm.io/danm/reconcile/apply"
	"danm.io/danm/reconcile/fail"
	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/spec/diag"
)

// Others is what other NetworkBundles have, and whose it is.
type Others struct {
	Objects  map[v1alpha1.ObjectReference]string
	Recorded map[v1alpha1.ObjectReference]bool // in the inventory of another, whosever it is: not to be deleted
	Nodes    map[string]string
}

// OthersThan nb. An object is of the bundle whose inventory has it. Of two that recorded one at the same moment it is of the older,
// so that one of them always goes on. A node is nobody's whose bundle is gone.
func OthersThan(nb *v1alpha1.NetworkBundle, bundles []v1alpha1.NetworkBundle, plans []v1alpha1.NodePlan) Others {
	out := Others{Objects: map[v1alpha1.ObjectReference]string{}, Recorded: map[v1alpha1.ObjectReference]bool{}, Nodes: map[string]string{}}
	mine, there := map[v1alpha1.ObjectReference]bool{}, map[string]bool{}
	for _, ref := range nb.Status.Inventory {
		mine[ref] = true
	}
	for i := range bundles {
		b := &bundles[i]
		if b.Name == nb.Name {
			continue
		}
		there[b.Name] = true
		for _, ref := range b.Status.Inventory {
			out.Recorded[ref] = true
			if !mine[ref] || older(b, nb) {
				out.Objects[ref] = b.Name
			}
		}
	}
	for i := range plans {
		if owner := plans[i].Spec.Bundle; there[owner] {
			out.Nodes[plans[i].Name] = owner
		}
	}
	return out
}

// Prunable are those of gone that are this bundle's to delete.
func (o Others) Prunable(gone []v1alpha1.ObjectReference) []v1alpha1.ObjectReference {
	return slices.DeleteFunc(slices.Clone(gone), func(ref v1alpha1.ObjectReference) bool { return o.Recorded[ref] })
}

func older(a, b *v1alpha1.NetworkBundle) bool {
	return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(a.Name, b.Name)) < 0
}

// Free refuses a rendering with an object of another NetworkBundle: each would write its own over the other's, and the first to be
// deleted would take it away from both. Nodes of others alone are no reason: the rendering's other nodes get their plan.
func Free(r Rendering, o Others) error {
	objects, nodes := map[string][]string{}, map[string][]string{}
	for _, ref := range r.References {
		if owner := o.Objects[ref]; owner != "" {
			objects[owner] = append(objects[owner], apply.Describe(ref))
		}
	}
	if len(objects) == 0 {
		return nil
	}
	for _, n := range r.Nodes {
		if owner := o.Nodes[n.Name]; owner != "" && r.Grouped[n.Name] {
			nodes[owner] = append(nodes[owner], "node "+n.Name)
		}
	}
	reason := diag.ObjectOwnedByOther
	if len(nodes) > 0 { // told at once, and by its own name: whoever mends the networks alone meets it next
		reason = diag.NodeOwnedByOther
	}
	return fail.Terminal(string(reason), fmt.Errorf("of another NetworkBundle: %s", strings.Join(slices.Concat(of(nodes), of(objects)), "; ")))
}

// of says what is whose, a few of each.
func of(whose map[string][]string) (out []string) {
	const shown = 5
	for _, owner := range slices.Sorted(maps.Keys(whose)) {
		names, more := whose[owner], ""
		if len(names) > shown {
			names, more = names[:shown], fmt.Sprintf(" and %d more", len(names)-shown)
		}
		out = append(out, strings.Join(names, ", ")+more+" ("+owner+")")
	}
	return out
}
