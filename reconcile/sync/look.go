package sync

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"danm.io/danm/reconcile/apply"
	"danm.io/danm/reconcile/desired"
	"danm.io/danm/reconcile/fail"
	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/spec/diag"
)

// look reads the other registries and networks once more, now that the numbers are on record: of two that record the same number at
// one moment the later one sees the earlier, whatever leases say. Numbers that another one has, too, and that no network has yet,
// are given up, and chosen again after a pause of random length; so does the other.
func (r *Reconciler) look(ctx context.Context, nb *v1alpha1.NetworkBundle, m *memory) error {
	var in desired.Lists
	if err := read(ctx, r.APIReader, &in.Bundles, &in.Tenants, &in.Cluster, &in.Networks, &in.Danm); err != nil {
		return err
	}
	lost := in.Contested(nb, m.rendering.Bundle.Networks)
	if len(lost) == 0 {
		m.looked = true
		return nil
	}
	nb.Status.Assignments = slices.DeleteFunc(nb.Status.Assignments, func(a v1alpha1.Assignment) bool { return slices.Contains(lost, a) })
	if err := r.Client.Status().Update(ctx, nb, client.FieldOwner(v1alpha1.FieldManager)); err != nil {
		return apply.Reason("give up numbers", err)
	}
	const shortest, longest = 50 * time.Millisecond, 500 * time.Millisecond
	pause := shortest + rand.N(longest-shortest) //nolint:gosec // a pause is no secret
	return fail.Waiting(string(diag.NumberTaken), pause, fmt.Errorf("numbers that others recorded at the same moment: %s; choosing again", words(lost)))
}

func words(lost []v1alpha1.Assignment) string {
	var out []string
	for _, a := range lost {
		out = append(out, fmt.Sprintf("%d of %s", a.ID, a.Network))
	}
	return strings.Join(out, ", ")
}
