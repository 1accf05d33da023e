package desired

import (
	"slices"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/model"
	"danm.io/danm/spec/tenancy"
)

// numbered is a network of the API with a VLAN id or VNI in its spec.
type numbered struct {
	ref      v1alpha1.ObjectReference
	key      string // Network.Key(), if it is a bundle's
	label    string // the bundle that it says it is of
	id       uint32
	deleting bool
}

// numbered are the networks whose number nobody else may be given. A TenantNetwork that was refused its number is none of them: whoever
// may make one could keep every number from everybody. One that a bundle left behind is refused, too, and has its Pods still.
func (l *Lists) numbered() []numbered {
	var out []numbered
	add := func(kind string, m *metav1.ObjectMeta, o danmv1.NetworkOptions) {
		n := numbered{ref: v1alpha1.ObjectReference{APIVersion: danmv1.APIVersion, Kind: kind, Namespace: m.Namespace, Name: m.Name},
			key: m.Name, label: m.Labels[v1alpha1.LabelBundle], id: uint32(max(o.Vlan, o.Vxlan, 0)), deleting: m.DeletionTimestamp != nil}
		if m.Namespace != "" {
			n.key = m.Namespace + "/" + m.Name
		}
		if n.id != 0 {
			out = append(out, n)
		}
	}
	for i := range l.Cluster.Items {
		add(danmv1.KindClusterNetwork, &l.Cluster.Items[i].ObjectMeta, l.Cluster.Items[i].Spec.Options)
	}
	for i := range l.Danm.Items {
		add(danmv1.KindDanmNet, &l.Danm.Items[i].ObjectMeta, l.Danm.Items[i].Spec.Options)
	}
	for i := range l.Networks.Items {
		n := &l.Networks.Items[i]
		if n.Labels[v1alpha1.LabelBundle] != "" || !meta.IsStatusConditionFalse(n.Status.Conditions, tenancy.ConditionAssigned) {
			add(danmv1.KindTenantNetwork, &n.ObjectMeta, n.Spec.Options)
		}
	}
	return out
}

// found says whether a bundle that wants a network of this name has it already: a bundle made it, and no other has it now. The label alone
// proves little: see tenancy.Made.
func (n numbered) found(o Others) bool {
	return n.ref.Kind != danmv1.KindDanmNet && n.label != "" && o.Objects[n.ref] == ""
}

// recorded are the numbers that others than nb have on record, by whose they are.
func (l *Lists) recorded(nb *v1alpha1.NetworkBundle) map[string]uint32 {
	out := map[string]uint32{}
	for _, t := range l.Tenants.Items {
		for _, n := range t.Status.Reserved {
			out["tenant "+t.Name+" "+n.Network] = uint32(n.ID)
		}
	}
	for i := range l.Bundles.Items {
		if b := &l.Bundles.Items[i]; b.Name != nb.Name {
			for _, a := range b.Status.Assignments {
				out["bundle "+b.Name+" "+a.Network] = uint32(a.ID)
			}
		}
	}
	return out
}

// Contested are the numbers on nb's record that somebody else has, too. What a network of the bundle has already stays, and so does
// what a partner has: it would be given again. networks are the bundle's, as written.
func (l *Lists) Contested(nb *v1alpha1.NetworkBundle, networks []model.Network) []v1alpha1.Assignment {
	taken, firm, partners := map[uint32]bool{}, map[v1alpha1.Assignment]bool{}, map[string][]string{}
	for _, id := range l.recorded(nb) {
		taken[id] = true
	}
	others, own := OthersThan(nb, l.Bundles.Items, nil), v1alpha1.LabelValue(nb.Name)
	for _, n := range l.numbered() {
		found := n.found(others)
		if found {
			firm[v1alpha1.Assignment{Network: n.key, ID: int64(n.id)}] = true
		}
		taken[n.id] = taken[n.id] || !found || n.label != own
	}
	for i := range networks {
		n := &networks[i]
		partners[n.Key()] = n.SharedWith
		firm[v1alpha1.Assignment{Network: n.Key(), ID: int64(n.ID())}] = true
	}
	var out []v1alpha1.Assignment
	for _, a := range nb.Status.Assignments {
		stays := firm[a] || slices.ContainsFunc(partners[a.Network], func(p string) bool { return firm[v1alpha1.Assignment{Network: p, ID: a.ID}] })
		if taken[uint32(a.ID)] && !stays {
			out = append(out, a)
		}
	}
	return out
}
