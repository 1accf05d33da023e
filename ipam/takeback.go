package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"danm.io/danm/spec/api/v1alpha1"
)

// takeBack has ceded addresses again whose Single is gone (R11).
func (k *Keeper) takeBack(ctx context.Context) error {
	var lists []Block
	for _, b := range k.allBlocks() {
		if len(b.Ceded) > 0 && (b.State == Owned || b.State == Releasing) {
			lists = append(lists, b)
		}
	}
	if len(lists) == 0 {
		return nil
	}
	list, _, err := k.api.Blocks(ctx, map[string]string{v1alpha1.LabelAsked: v1alpha1.LabelValue(k.o.Node)})
	if err != nil {
		return fmt.Errorf("list the addresses that this node has ceded: %w", err)
	}
	alive := map[string]bool{}
	for _, o := range list {
		alive[string(o.UID)] = true
	}
	type change struct {
		block  Block
		gone   []string
		others []Cession
	}
	var changes []change
	var failed []error
	missing := false
	for _, b := range lists {
		c := change{block: b}
		for _, ceded := range b.Ceded {
			if alive[ceded.UID] {
				continue
			}
			o, err := k.api.Block(ctx, b.Space.object().BlockName(singlePrefix(ceded.Addr)))
			switch {
			case err == nil && string(o.UID) == ceded.UID:
			case err == nil && (o.Spec.Before == ceded.UID || o.Spec.Asked == k.o.Node && o.Status.Answer == v1alpha1.AnswerCeded):
				// Made again after a restore, or ceded by a life that this journal does not know.
				c.others = append(c.others, Cession{Addr: ceded.Addr, UID: string(o.UID), Node: o.Spec.Owner})
			case err == nil || apierrors.IsNotFound(err):
				c.gone = append(c.gone, ceded.UID)
			default:
				failed = append(failed, fmt.Errorf("read address %s: %w", ceded.Addr, err))
			}
		}
		if len(c.gone)+len(c.others) > 0 {
			changes, missing = append(changes, c), missing || len(c.gone) > 0
		}
	}
	if missing { // in an API from a backup, what is missing may be in use: after it was read, not before, this can be said
		if err := k.leaseStandsNow(ctx); err != nil {
			return errors.Join(append(failed, err)...)
		}
	}
	for _, c := range changes {
		failed = append(failed, k.uncede(ctx, c.block, c.gone, c.others))
	}
	return errors.Join(failed...)
}

// uncede takes the Singles with the given UIDs for gone, and notes which others have the place of ones that are gone.
func (k *Keeper) uncede(ctx context.Context, b Block, uids []string, others []Cession) error {
	err := k.change(func(e *edit) error {
		now, ok := e.block(b.Space, b.CIDR)
		if !ok || now.UID != b.UID {
			return nil
		}
		var back []netip.Addr
		now.Ceded = slices.DeleteFunc(slices.Clone(now.Ceded), func(c Cession) bool {
			if !slices.Contains(uids, c.UID) {
				return false
			}
			back = append(back, c.Addr)
			return true
		})
		for _, c := range others {
			if i := slices.IndexFunc(now.Ceded, func(x Cession) bool { return x.Addr == c.Addr }); i >= 0 {
				now.Ceded[i] = c
			}
		}
		if err := e.set(now); err != nil {
			return err
		}
		for _, a := range back {
			e.cool(b.Space, a)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return k.writeCeded(ctx, b)
}
