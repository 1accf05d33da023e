package desired

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"danm.io/danm/reconcile/fail"
	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/spec/model"
)

func network(name string) v1alpha1.ObjectReference {
	return v1alpha1.ObjectReference{APIVersion: "danm.io/v1", Kind: "TenantNetwork", Namespace: "acme", Name: name}
}

func bundle(name string, born int64, inventory ...v1alpha1.ObjectReference) v1alpha1.NetworkBundle {
	return v1alpha1.NetworkBundle{ObjectMeta: metav1.ObjectMeta{Name: name, CreationTimestamp: metav1.NewTime(time.Unix(born, 0))},
		Status: v1alpha1.NetworkBundleStatus{Inventory: inventory}}
}

func TestWhoseAnObjectIs(t *testing.T) {
	voice, data := network("voice"), network("data")
	for _, r := range []struct {
		name string
		me   v1alpha1.NetworkBundle
		them []v1alpha1.NetworkBundle
		refs []v1alpha1.ObjectReference
		want string // whose voice is; "": mine
	}{
		{"nobody else is there", bundle("a", 1), nil, []v1alpha1.ObjectReference{voice}, ""},
		{"they have another", bundle("a", 1), []v1alpha1.NetworkBundle{bundle("b", 1, data)}, []v1alpha1.ObjectReference{voice}, ""},
		{"they have it and I do not", bundle("a", 1), []v1alpha1.NetworkBundle{bundle("b", 2, voice)}, []v1alpha1.ObjectReference{voice}, "b"},
		{"both have it, I am older", bundle("a", 1, voice), []v1alpha1.NetworkBundle{bundle("b", 2, voice)}, []v1alpha1.ObjectReference{voice}, ""},
		{"both have it, they are older", bundle("a", 2, voice), []v1alpha1.NetworkBundle{bundle("b", 1, voice)}, []v1alpha1.ObjectReference{voice}, "b"},
		{"both have it, of one second", bundle("b", 1, voice), []v1alpha1.NetworkBundle{bundle("a", 1, voice)}, []v1alpha1.ObjectReference{voice}, "a"},
		{"it is mine alone", bundle("b", 1, voice), []v1alpha1.NetworkBundle{bundle("a", 1)}, []v1alpha1.ObjectReference{voice}, ""},
		{"I do not want what they have", bundle("a", 1, voice), []v1alpha1.NetworkBundle{bundle("b", 1, voice)}, nil, ""},
		{"my own entry in the list", bundle("a", 1), []v1alpha1.NetworkBundle{bundle("a", 1, voice)}, []v1alpha1.ObjectReference{voice}, ""},
	} {
		l := Lists{Bundles: v1alpha1.NetworkBundleList{Items: r.them}}
		err := Free(Rendering{References: r.refs}, l.World(&r.me).Others)
		f := (*fail.Failure)(nil)
		switch {
		case r.want == "" && err != nil:
			t.Errorf("%s: %v", r.name, err)
		case r.want != "" && (!errors.As(err, &f) || !f.Terminal || f.Reason != "ObjectOwnedByOther" || err.Error() != "of another NetworkBundle: TenantNetwork acme/voice ("+r.want+")"):
			t.Errorf("%s: %+v", r.name, err)
		}
	}
}

// TestOneHasIt: whatever inventories say, of the bundles that want an object one at most may have it, and if each that
// recorded it wants it still, one does.
func TestOneHasIt(t *testing.T) {
	for seed := range uint64(2000) {
		rng := rand.New(rand.NewPCG(seed, 7))
		l, wants := Lists{}, map[string][]v1alpha1.ObjectReference{}
		for i := range 1 + rng.IntN(4) {
			b := bundle(fmt.Sprint("b", i), int64(rng.IntN(3)))
			for o := range 3 {
				ref := network(fmt.Sprint("n", o))
				if recorded := rng.IntN(2) == 0; recorded {
					b.Status.Inventory = append(b.Status.Inventory, ref)
					wants[b.Name] = append(wants[b.Name], ref)
				} else if rng.IntN(2) == 0 {
					wants[b.Name] = append(wants[b.Name], ref)
				}
			}
			l.Bundles.Items = append(l.Bundles.Items, b)
		}
		for o := range 3 {
			ref := network(fmt.Sprint("n", o))
			var recorded, free, holders []string
			for i := range l.Bundles.Items {
				b := &l.Bundles.Items[i]
				if slices.Contains(b.Status.Inventory, ref) {
					recorded = append(recorded, b.Name)
				}
				if slices.Contains(wants[b.Name], ref) && Free(Rendering{References: []v1alpha1.ObjectReference{ref}}, l.World(b).Others) == nil {
					free = append(free, b.Name)
					if slices.Contains(b.Status.Inventory, ref) {
						holders = append(holders, b.Name)
					}
				}
			}
			if len(recorded) > 0 && (len(free) != 1 || len(holders) != 1) {
				t.Fatalf("seed %d: %s, recorded by %v, may be had by %v", seed, ref.Name, recorded, free)
			}
		}
	}
}

func TestNodesOfOthers(t *testing.T) {
	me, l := bundle("a", 1), Lists{}
	l.Bundles.Items = []v1alpha1.NetworkBundle{bundle("b", 1, network("voice"))}
	r := Rendering{References: []v1alpha1.ObjectReference{network("voice")}, Grouped: map[string]bool{"mine": true}}
	for i := range 7 {
		name := fmt.Sprint("n", i)
		r.Nodes, r.Grouped[name] = append(r.Nodes, model.Node{Name: name}), true
		l.Plans.Items = append(l.Plans.Items, v1alpha1.NodePlan{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.NodePlanSpec{Bundle: "b"}})
	}
	for _, p := range []struct{ name, bundle string }{{"mine", "a"}, {"nobodys", ""}, {"notwanted", "b"}} {
		r.Nodes = append(r.Nodes, model.Node{Name: p.name})
		l.Plans.Items = append(l.Plans.Items, v1alpha1.NodePlan{ObjectMeta: metav1.ObjectMeta{Name: p.name}, Spec: v1alpha1.NodePlanSpec{Bundle: p.bundle}})
	}
	err := Free(r, l.World(&me).Others)
	f := (*fail.Failure)(nil)
	if !errors.As(err, &f) || f.Reason != "NodeOwnedByOther" ||
		err.Error() != "of another NetworkBundle: node n0, node n1, node n2, node n3, node n4 and 2 more (b); TenantNetwork acme/voice (b)" {
		t.Errorf("%+v", err)
	}
	r.References = nil
	if err := Free(r, l.World(&me).Others); err != nil { // the rollout says it, and serves the others
		t.Errorf("nodes alone: %v", err)
	}
	if err := Acceptable(&me, r, l.World(&me).Others); err != nil && strings.Contains(err.Error(), "another") {
		t.Error(err)
	}
}
