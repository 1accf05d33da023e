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
	Objects map[v1alpha1.ObjectReference]string
	Nodes   map[string]string
}

// others of nb. An object is of the bundle whose inventory has it. Of two that recorded one at the same moment it is of the older,
// so that one of them always goes on.
func (l *Lists) others(nb *v1alpha1.NetworkBundle) Others {
	out := Others{Objects: map[v1alpha1.ObjectReference]string{}, Nodes: map[string]string{}}
	for i := range l.Bundles.Items {
		b := &l.Bundles.Items[i]
		if b.Name == nb.Name {
			continue
		}
		for _, ref := range b.Status.Inventory {
			if !slices.Contains(nb.Status.Inventory, ref) || older(b, nb) {
				out.Objects[ref] = b.Name
			}
		}
	}
	for i := range l.Plans.Items {
		if owner := l.Plans.Items[i].Spec.Bundle; owner != "" && owner != nb.Name {
			out.Nodes[l.Plans.Items[i].Name] = owner
		}
	}
	return out
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
