package ipam

import (
	"context"
	"errors"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"danm.io/danm/spec/api/v1alpha1"
)

// thaw gives frozen blocks free when everything that was seen at the loss is gone, and has been for a cooldown (R7).
func (k *Keeper) thaw(ctx context.Context) error {
	free, err := k.Recheck(ctx, k.o.Sandboxes)
	if err != nil || !free {
		return err
	}
	if waits, err := k.othersWait(ctx); err != nil || waits {
		return err
	}
	m := k.Meta()
	var failed []error
	for _, b := range k.allBlocks() {
		if b.State == Frozen && b.UID != "" && !b.Foreign {
			failed = append(failed, k.thawOne(ctx, b, m))
		}
	}
	if err := errors.Join(failed...); err != nil {
		return err
	}
	if m.LostSince == 0 {
		return nil
	}
	if err := k.change(func(e *edit) error { e.meta(func(m *Meta) { m.LostSince = 0 }); return nil }); err != nil {
		return err
	}
	for _, b := range k.allBlocks() {
		if b.State == Frozen && b.UID == "" { // another's, and remembered for what Pods might have had of it
			failed = append(failed, k.dropBlock(b))
		}
	}
	return errors.Join(failed...)
}

// othersWait says whether nodes wait for a check since the API went back in time, of which this one, whose journal was lost, knows
// nothing itself: what the API says of its frozen blocks, such as what they have ceded, may be from before then (R18).
func (k *Keeper) othersWait(ctx context.Context) (bool, error) {
	asked := map[Space]bool{}
	for _, b := range k.allBlocks() {
		if b.State != Frozen || asked[b.Space] {
			continue
		}
		asked[b.Space] = true
		root, err := k.root(ctx, b.Space, hintsFresh)
		if err != nil && !errors.Is(err, ErrNoRoot) {
			return false, err
		}
		if root.waiting != "" {
			return true, nil
		}
	}
	return false, nil
}

// Recheck strikes those off the list of a lost journal that are not there any more. It says whether what was frozen may be
// used again: all are gone, for a cooldown.
func (s *Service) Recheck(ctx context.Context, sandboxes func(context.Context) ([]string, error)) (bool, error) {
	m := s.Meta()
	if m.LostSince == 0 {
		return true, nil
	}
	if len(m.Lost) > 0 {
		now, err := sandboxes(ctx)
		if err != nil {
			return false, fmt.Errorf("list the sandboxes of this machine: %w", err)
		}
		left := slices.DeleteFunc(slices.Clone(m.Lost), func(x string) bool { return !slices.Contains(now, x) })
		if len(left) == len(m.Lost) {
			return false, nil
		}
		return false, s.change(func(e *edit) error {
			e.meta(func(m *Meta) {
				m.Lost = slices.DeleteFunc(m.Lost, func(x string) bool { return !slices.Contains(now, x) })
				if len(m.Lost) == 0 {
					m.LostSince = e.now
				}
			})
			return nil
		})
	}
	return s.opts.Clock().UnixNano()-m.LostSince >= int64(s.opts.Cooldown), nil
}

// thawOne writes the node's identity of now on a frozen block, and then owns it. One of another machine stays frozen: what
// lives there cannot be seen from here, and the controller frees it in time.
func (k *Keeper) thawOne(ctx context.Context, b Block, m Meta) error {
	o, err := k.api.Block(ctx, nameOf(b))
	switch {
	case apierrors.IsNotFound(err) || err == nil && (o.Spec.Owner != k.o.Node || string(o.UID) != b.UID):
		return k.dropBlock(b)
	case err != nil:
		return fmt.Errorf("read block %s: %w", b.CIDR, err)
	case machineOf(o.Spec.Identity) != machineOf(m.Identity):
		return nil
	}
	if held, _ := k.busy(b); held > 0 && b.Single && b.Reservation == "" && o.Status.Answer != v1alpha1.AnswerCeded {
		return nil // a Pod has it from before, and it may never have been ceded: when that has gone
	}
	o.Spec.Identity, o.Spec.Epoch = m.Identity, m.Epoch
	got, err := k.api.Update(ctx, o)
	if err != nil {
		return fmt.Errorf("write the identity on block %s: %w", b.CIDR, err)
	}
	k.count(func(s *KeeperStats) { s.Thawed++ })
	return k.change(func(e *edit) error {
		now, ok := e.block(b.Space, b.CIDR)
		if !ok || now.State != Frozen || now.UID != string(got.UID) {
			return nil
		}
		now.State = Owned
		now.Ceded = union(now.Ceded, got.Spec.Ceded)
		if now.Single && now.Reservation == "" && got.Status.Answer != v1alpha1.AnswerCeded { // it may never have been ceded
			if held, _ := e.s.st.spaces[b.Space].space.Busy(b.CIDR, e.ready); held > 0 {
				return nil // a Pod has it from before: when that has gone
			}
			now.State = Releasing
		}
		return e.set(now)
	})
}
