package ipamsim

import (
	"context"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/test/ipamsim/world"
)

// reporter tells how addresses are used.
type reporter struct {
	store world.Store
	node  string
	every time.Duration
	sleep func(ctx context.Context, d time.Duration) error
}

// report writes it into the node's NodePlan, where that says something else, as the mirror does.
func (r reporter) report(ctx context.Context, usage func() []v1alpha1.AddressUse) {
	var said []v1alpha1.AddressUse
	for round := 0; ctx.Err() == nil; round++ {
		if r.sleep(ctx, r.every) != nil {
			return
		}
		use := usage()
		if round%4 != 0 && sameUse(use, said) { // it may have been set back with etcd
			continue
		}
		o, err := r.store.Get(ctx, world.NodePlan, "", r.node)
		if apierrors.IsNotFound(err) {
			o, err = r.store.Create(ctx, &v1alpha1.NodePlan{ObjectMeta: metav1.ObjectMeta{Name: r.node}})
		}
		if err != nil {
			continue
		}
		p, ok := o.(*v1alpha1.NodePlan)
		if !ok || sameUse(use, p.Status.Addresses) {
			continue
		}
		p.Status.Addresses = use
		if _, err := r.store.UpdateStatus(ctx, p); err == nil {
			said = use
		}
	}
}

func sameUse(a, b []v1alpha1.AddressUse) bool {
	return slices.EqualFunc(a, b, func(a, b v1alpha1.AddressUse) bool { return fmt.Sprint(a) == fmt.Sprint(b) })
}
