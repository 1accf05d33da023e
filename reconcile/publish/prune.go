package publish

import (
	"cmp"
	"fmt"
	"slices"

	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/model"
)

// Compare orders references by kind, namespace and name.
func Compare(a, b v1alpha1.ObjectReference) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.APIVersion, b.APIVersion), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// Union is every reference of both, sorted, once.
func Union(a, b []v1alpha1.ObjectReference) []v1alpha1.ObjectReference {
	out := slices.Concat(a, b)
	slices.SortFunc(out, Compare)
	return slices.Compact(out)
}

// Gone are the references of the inventory that the bundle no longer has.
func Gone(inventory, wanted []v1alpha1.ObjectReference) []v1alpha1.ObjectReference {
	keep := map[v1alpha1.ObjectReference]bool{}
	for _, r := range wanted {
		keep[r] = true
	}
	var out []v1alpha1.ObjectReference
	for _, r := range inventory {
		if !keep[r] {
			out = append(out, r)
		}
	}
	return out
}

// Limits is an error if what goes is more than one revision may delete.
func Limits(gone []v1alpha1.ObjectReference, p model.Prune) error {
	networks, tenants := 0, 0
	for _, r := range gone {
		switch r.Kind {
		case danmv1.KindTenantNetwork, danmv1.KindClusterNetwork:
			networks++
		case danmv1.KindTenantConfig:
			tenants++
		}
	}
	if p.MaxNetworks != nil && networks > *p.MaxNetworks {
		return fmt.Errorf("%d networks would be deleted, at most %d may", networks, *p.MaxNetworks)
	}
	if p.MaxTenants != nil && tenants > *p.MaxTenants {
		return fmt.Errorf("%d tenants would be deleted, at most %d may", tenants, *p.MaxTenants)
	}
	return nil
}
