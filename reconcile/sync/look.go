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
	"danm.io/danm/reconcile/fail"
	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/diag"
)

// look reads the other registries once more, now that the numbers are on record: of two that record the same number at one
// moment the later one sees the earlier, whatever leases say. Numbers that another one has, too, and that no network has yet,
// are given up, and chosen again after a pause of random length; so does the other.
func (r *Reconciler) look(ctx context.Context, nb *v1alpha1.NetworkBundle, m *memory) error {
	var bundles v1alpha1.NetworkBundleList
	var tenants danmv1.TenantConfigList
	var cluster danmv1.ClusterNetworkList
	var networks danmv1.TenantNetworkList
	for _, list := range []client.ObjectList{&bundles, &tenants, &cluster, &networks} {
		if err := r.APIReader.List(ctx, list); err != nil {
			return apply.Reason(fmt.Sprintf("list %T", list), err)
		}
	}
	lost := contested(nb, bundles.Items, tenants.Items, inUse(cluster.Items, networks.Items))
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

// contested are the bundle's numbers that another registry has, too, and that are not in use.
func contested(nb *v1alpha1.NetworkBundle, bundles []v1alpha1.NetworkBundle, tenants []danmv1.TenantConfig, used map[v1alpha1.Assignment]bool) []v1alpha1.Assignment {
	others := map[int64]bool{}
	for i := range bundles {
		if bundles[i].Name == nb.Name {
			continue
		}
		for _, a := range bundles[i].Status.Assignments {
			others[a.ID] = true
		}
	}
	for i := range tenants {
		for _, n := range tenants[i].Status.Reserved {
			others[n.ID] = n.ID != 0 || others[n.ID]
		}
	}
	var out []v1alpha1.Assignment
	for _, a := range nb.Status.Assignments {
		if others[a.ID] && !used[a] {
			out = append(out, a)
		}
	}
	return out
}

// inUse are the numbers that networks of bundles have, in the form in which they are recorded.
func inUse(cluster []danmv1.ClusterNetwork, networks []danmv1.TenantNetwork) map[v1alpha1.Assignment]bool {
	out := map[v1alpha1.Assignment]bool{}
	add := func(key string, labels map[string]string, o danmv1.NetworkOptions) {
		if labels[v1alpha1.LabelBundle] != "" {
			out[v1alpha1.Assignment{Network: key, ID: int64(max(o.Vlan, o.Vxlan))}] = true
		}
	}
	for i := range cluster {
		add(cluster[i].Name, cluster[i].Labels, cluster[i].Spec.Options)
	}
	for i := range networks {
		add(networks[i].Namespace+"/"+networks[i].Name, networks[i].Labels, networks[i].Spec.Options)
	}
	return out
}

func words(lost []v1alpha1.Assignment) string {
	var out []string
	for _, a := range lost {
		out = append(out, fmt.Sprintf("%d of %s", a.ID, a.Network))
	}
	return strings.Join(out, ", ")
}
