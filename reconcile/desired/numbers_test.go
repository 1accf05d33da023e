package desired

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"danm.io/danm/reconcile/source"
	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/model"
)

const numbersSite = `apiVersion: bundle.danm.io/v1
kind: Bundle
metadata: {name: site}
spec: {version: 1.0.0}
---
apiVersion: bundle.danm.io/v1
kind: Topology
metadata: {name: site}
spec:
  groups:
  - {name: all, selector: {role: edge}, interfaces: [{name: eth9, mtu: 1500}]}
  fabrics:
  - {name: f, groups: [all], device: eth9, vlanRanges: ["100-199"]}
---
apiVersion: bundle.danm.io/v1
kind: Tenant
metadata: {name: acme}
spec: {namespaces: [acme], fabrics: [{name: f, vlanRanges: ["100-149"]}]}
`

func siteWith(vlans map[string]string) source.Snapshot {
	text := numbersSite
	for _, name := range slices.Sorted(maps.Keys(vlans)) {
		text += "---\napiVersion: bundle.danm.io/v1\nkind: Network\nmetadata: {name: " + name + ", namespace: acme}\nspec: {type: macvlan, fabric: f, vlan: " + vlans[name] + "}\n"
	}
	return source.Snapshot{Revision: "r", Files: []source.File{{Path: "b.yaml", Data: []byte(text)}}}
}

// object is what an API has of a network: "kind ns/name vlan", and words: of=<label>, deleting, refused.
func (l *Lists) object(t *testing.T, text string) {
	t.Helper()
	var kind, key string
	var vlan int
	if _, err := fmt.Sscanf(text, "%s %s %d", &kind, &key, &vlan); err != nil {
		t.Fatal(text, err)
	}
	m := metav1.ObjectMeta{Name: key}
	if ns, name, ok := strings.Cut(key, "/"); ok {
		m.Namespace, m.Name = ns, name
	}
	var status danmv1.NetworkStatus
	for _, word := range strings.Fields(text)[3:] {
		switch label, labelled := strings.CutPrefix(word, "of="); {
		case labelled:
			m.Labels = map[string]string{v1alpha1.LabelBundle: label}
		case word == "deleting":
			m.DeletionTimestamp = &metav1.Time{}
		case word == "refused":
			status.Conditions = []metav1.Condition{{Type: "Assigned", Status: metav1.ConditionFalse}}
		}
	}
	spec := danmv1.NetworkSpec{Options: danmv1.NetworkOptions{Device: "eth9", Vlan: vlan}}
	switch kind {
	case danmv1.KindClusterNetwork:
		l.Cluster.Items = append(l.Cluster.Items, danmv1.ClusterNetwork{ObjectMeta: m, Spec: spec, Status: status})
	case danmv1.KindDanmNet:
		l.Danm.Items = append(l.Danm.Items, danmv1.DanmNet{ObjectMeta: m, Spec: spec, Status: status})
	default:
		l.Networks.Items = append(l.Networks.Items, danmv1.TenantNetwork{ObjectMeta: m, Spec: spec, Status: status})
	}
}

func TestNumbersOfTheAPI(t *testing.T) {
	voice := map[string]string{"voice": "auto"}
	for _, r := range []struct {
		name     string
		objects  []string
		networks map[string]string
		recorded map[string]int64 // of edge
		reserved string           // in a TenantConfig, 101
		other    []v1alpha1.ObjectReference
		want     string
	}{
		{"nobody has any", nil, voice, nil, "", nil, "voice 100"},
		{"a ClusterNetwork made with kubectl", []string{"ClusterNetwork data 100"}, voice, nil, "", nil, "voice 101"},
		{"a DanmNet", []string{"DanmNet acme/data 100"}, voice, nil, "", nil, "voice 101"},
		{"a DanmNet that says it is the bundle's", []string{"DanmNet acme/voice 100 of=edge"}, voice, nil, "", nil, "voice 101"},
		{"a TenantNetwork not judged yet", []string{"TenantNetwork acme/data 100"}, voice, nil, "", nil, "voice 101"},
		{"a TenantNetwork that may not have it", []string{"TenantNetwork acme/data 100 refused"}, voice, nil, "", nil, "voice 100"},
		{"left behind by a bundle", []string{"TenantNetwork acme/data 100 of=core refused"}, voice, nil, "", nil, "voice 101"},
		{"pruned, and Pods are attached", []string{"TenantNetwork acme/data 100 of=edge deleting"}, voice, nil, "", nil, "voice 101"},
		{"on record before the ClusterNetwork", []string{"ClusterNetwork data 100"}, voice, map[string]int64{"acme/voice": 100}, "", nil, "voice 100"},
		{"written, whoever has it", []string{"ClusterNetwork data 100"}, map[string]string{"voice": "100"}, nil, "", nil, "voice 100"},
		{"found as it was", []string{"TenantNetwork acme/voice 101 of=edge"}, voice, nil, "", nil, "voice 101"},
		{"found, and on record for its TenantConfig", []string{"TenantNetwork acme/voice 101 of=edge"}, voice, nil, "acme/voice", nil, "voice 101"},
		{"found before another chooses", []string{"TenantNetwork acme/voice 100 of=edge"}, map[string]string{"able": "auto", "voice": "auto"}, nil, "", nil, "able 101 voice 100"},
		{"the record goes before what is found", []string{"TenantNetwork acme/voice 101 of=edge"}, voice, map[string]int64{"acme/voice": 102}, "", nil, "voice 102"},
		{"found, and written for another", []string{"TenantNetwork acme/voice 101 of=edge"}, map[string]string{"able": "101", "voice": "auto"}, nil, "", nil, "able 101 voice 100"},
		{"found beyond the tenant's share", []string{"TenantNetwork acme/voice 150 of=edge"}, voice, nil, "", nil, "voice 100"},
		{"found being deleted", []string{"TenantNetwork acme/voice 100 of=edge deleting"}, voice, nil, "", nil, "voice 101"},
		{"found without the label", []string{"TenantNetwork acme/voice 100"}, voice, nil, "", nil, "voice 101"},
		{"found where another bundle left it", []string{"TenantNetwork acme/voice 101 of=core"}, voice, nil, "", nil, "voice 101"},
		{"found, and another bundle's", []string{"TenantNetwork acme/voice 101 of=edge"}, voice, nil, "", []v1alpha1.ObjectReference{network("voice")}, "voice 100"},
	} {
		l, nb := Lists{}, bundle("edge", 1)
		l.Nodes.Items = []corev1.Node{{ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"role": "edge"}}}}
		l.Bundles.Items = []v1alpha1.NetworkBundle{bundle("core", 2, r.other...)}
		for _, o := range r.objects {
			l.object(t, o)
		}
		for key, id := range r.recorded {
			nb.Status.Assignments = append(nb.Status.Assignments, v1alpha1.Assignment{Network: key, ID: id})
		}
		if r.reserved != "" {
			l.Tenants.Items = []danmv1.TenantConfig{{ObjectMeta: metav1.ObjectMeta{Name: "acme"}, Status: danmv1.TenantStatus{Reserved: []danmv1.ReservedNumber{{Network: r.reserved, ID: 101}}}}}
		}
		d, err := Decide(siteWith(r.networks), Origin{Bundle: "edge", Revision: "r"}, l.World(&nb))
		var got []string
		for _, o := range d.Objects {
			if vlan, ok, _ := unstructured.NestedFieldNoCopy(o.Object, "spec", "Options", "vlan"); ok {
				got = append(got, fmt.Sprint(o.GetName(), " ", vlan))
			}
		}
		if err != nil || strings.Join(got, " ") != r.want {
			t.Errorf("%s: %v, want %s (%v)", r.name, got, r.want, err)
		}
		if r.networks["voice"] != "auto" {
			continue
		}
		nb.Status.Assignments = d.Assignments
		if lost := l.Contested(&nb, d.Bundle.Networks); len(lost) != 0 && len(r.recorded) == 0 {
			t.Errorf("%s: chosen, and given up at once: %v", r.name, lost)
		}
		again, err := Decide(siteWith(r.networks), Origin{Bundle: "edge", Revision: "r"}, l.World(&nb))
		if err != nil || !slices.Equal(again.Assignments, d.Assignments) {
			t.Errorf("%s: on record, it is %v after %v (%v)", r.name, again.Assignments, d.Assignments, err)
		}
	}
	l := Lists{}
	l.object(t, "TenantNetwork acme/voice 100")
	if w := l.World(&v1alpha1.NetworkBundle{}); len(w.Found) != 0 { // danmctl, where there is no NetworkBundle
		t.Errorf("nobody's network is found as its own: %v", w.Found)
	}
}

// TestSumSeesNumbers: a rendering is made again whenever one of the networks could have another number.
func TestSumSeesNumbers(t *testing.T) {
	sums := map[[32]byte]string{}
	for _, object := range []string{"", "TenantNetwork acme/voice 100", "TenantNetwork acme/voice 101", "TenantNetwork acme/voice 100 of=edge", "DanmNet acme/voice 100", "TenantNetwork acme/other 100"} {
		l, nb := Lists{}, bundle("edge", 1)
		if object != "" {
			l.object(t, object)
		}
		sum := l.World(&nb).Sum(Origin{Bundle: "edge"})
		if before, same := sums[sum]; same {
			t.Errorf("%q is the same as %q", object, before)
		}
		sums[sum] = object
	}
}

func TestContested(t *testing.T) {
	mine := bundle("edge", 1)
	for i, key := range []string{"acme/a", "acme/b", "c", "d", "e", "f", "g"} {
		mine.Status.Assignments = append(mine.Status.Assignments, v1alpha1.Assignment{Network: key, ID: int64(100 + i)})
	}
	mine.Status.Assignments = append(mine.Status.Assignments, v1alpha1.Assignment{Network: "h", ID: 106})
	other := bundle("core", 2)
	other.Status.Assignments = []v1alpha1.Assignment{{Network: "acme/a", ID: 102}}
	tenant := danmv1.TenantConfig{Status: danmv1.TenantStatus{Reserved: []danmv1.ReservedNumber{{Network: "acme/x", ID: 101}, {Network: "acme/y", ID: 103}, {Network: "acme/z"}}}}
	clusterD := v1alpha1.ObjectReference{APIVersion: danmv1.APIVersion, Kind: danmv1.KindClusterNetwork, Name: "d"}
	networks := []model.Network{{Name: "c"}, {Name: "g", VLAN: 106, VLANAuto: true}, {Name: "h", VLANAuto: true, SharedWith: []string{"g"}}}
	for _, r := range []struct {
		name    string
		lists   Lists
		objects []string
		want    string
	}{
		{"alone", Lists{Bundles: v1alpha1.NetworkBundleList{Items: []v1alpha1.NetworkBundle{mine}}}, nil, "[]"},
		{"other records, and d is in use", Lists{Bundles: v1alpha1.NetworkBundleList{Items: []v1alpha1.NetworkBundle{mine, other}}, Tenants: danmv1.TenantConfigList{Items: []danmv1.TenantConfig{tenant}}},
			[]string{"ClusterNetwork d 103 of=edge", "TenantNetwork acme/b 101"}, "[{acme/b 101} {c 102}]"},
		{"networks of the API", Lists{}, []string{"ClusterNetwork x 104", "DanmNet acme/x 105", "TenantNetwork acme/x 100 refused"}, "[{e 104} {f 105}]"},
		{"one that another bundle has", Lists{Bundles: v1alpha1.NetworkBundleList{Items: []v1alpha1.NetworkBundle{bundle("core", 2, clusterD)}}}, []string{"ClusterNetwork d 103 of=core"}, "[{d 103}]"},
		{"one that another bundle left", Lists{}, []string{"ClusterNetwork d 103 of=core"}, "[]"},
		{"one that another bundle left, of another name", Lists{}, []string{"ClusterNetwork x 103 of=core"}, "[{d 103}]"},
		{"one of the bundle's own", Lists{}, []string{"ClusterNetwork x 103 of=edge"}, "[]"},
		{"a partner has it for good", Lists{}, []string{"ClusterNetwork x 106"}, "[]"},
	} {
		for _, o := range r.objects {
			r.lists.object(t, o)
		}
		if got := r.lists.Contested(&mine, networks); fmt.Sprint(got) != r.want {
			t.Errorf("%s: %v, want %s", r.name, got, r.want)
		}
	}
}
