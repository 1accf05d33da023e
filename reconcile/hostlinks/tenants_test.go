package hostlinks

import (
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// TestANetworkMayNameATenantOfAnyBundle: nodes that are not of the tenant's bundle are told nothing of the tenant, and have the
// network for the same namespaces as all others.
func TestANetworkMayNameATenantOfAnyBundle(t *testing.T) {
	const tenant = "---\napiVersion: bundle.danm.io/v1\nkind: Tenant\nmetadata: {name: acme}\nspec: {namespaces: [acme-a, acme-b]}\n" +
		"---\napiVersion: bundle.danm.io/v1\nkind: Network\nmetadata: {name: own, namespace: acme-a}\nspec: {type: macvlan, fabric: f, vlan: 111}\n"
	config := func(bundle string, namespaces ...string) danmv1.TenantConfig {
		labels := map[string]string{danmv1.LabelTenant: "acme"}
		if bundle != "" {
			labels[v1alpha1.LabelBundle] = bundle
		}
		return danmv1.TenantConfig{ObjectMeta: metav1.ObjectMeta{Name: "acme", Labels: labels}, Extension: &danmv1.TenantExtension{Namespaces: namespaces}}
	}
	both := []string{"acme-a", "acme-b"}
	for _, r := range []struct {
		name    string
		text    string
		configs []danmv1.TenantConfig
		code    diag.Code
		want    map[string][]string // namespaces by node
		told    map[string]int      // tenants by node
	}{
		{"known from layers", bundle + tenant, nil, "", map[string][]string{"n1": both, "n4": both}, map[string]int{"n1": 1, "n4": 0}},
		{"known from its configuration, no layer has it yet", bundle, []danmv1.TenantConfig{config("site", "acme-a", "acme-b")}, "", map[string][]string{"n1": both, "n4": both}, map[string]int{"n1": 0, "n4": 0}},
		{"known from both, which differ in a rollout", bundle + tenant, []danmv1.TenantConfig{config("site", "acme-a")}, "", map[string][]string{"n1": both, "n4": {"acme-a"}}, map[string]int{"n1": 1, "n4": 0}},
		{"made with kubectl", bundle, []danmv1.TenantConfig{config("", "acme-a", "acme-b")}, "", map[string][]string{"n1": both, "n4": both}, map[string]int{"n1": 1, "n4": 1}},
		{"known to nobody", bundle, nil, diag.UnknownReference, nil, map[string]int{"n1": 0}},
	} {
		spec := options("c", "eth7", 150, 0)
		spec.Extension = &danmv1.NetworkExtension{AllowedTenants: []string{"acme"}}
		o := made(danmv1.KindClusterNetwork, "", "c", spec)
		o.Settled = true
		in := siteOf(t, r.text, o)
		in.Configs = r.configs
		in.Plans = append(in.Plans, v1alpha1.NodePlan{ObjectMeta: metav1.ObjectMeta{Name: "n4"}, Status: v1alpha1.NodePlanStatus{Hardware: []v1alpha1.NIC{{Name: "eth7"}}}})
		d := decide(t, in)
		if v := d.Verdicts[o.Key()]; v.Code != r.code || r.code == "" && v.Nodes != 4 {
			t.Errorf("%s: %+v", r.name, v)
			continue
		}
		for node, tenants := range r.told {
			st := state(t, in, d, node)
			if len(st.Tenants) != tenants {
				t.Errorf("%s: %s is told of the tenants %+v", r.name, node, st.Tenants)
			}
			n := networkOf(st, model.ClusterNetwork, "c")
			if want := r.want[node]; want == nil && n != nil || want != nil && (n == nil || linkOf(st, "c.150") == nil || !slices.Equal(n.AllowedNamespaces, want)) {
				t.Errorf("%s: on %s the network is %+v", r.name, node, n)
			}
		}
	}
}
