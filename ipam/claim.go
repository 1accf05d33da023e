package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// claim makes a block this node's, if it is nobody's (R5). false: it is another's.
func (k *Keeper) claim(ctx context.Context, s Space, p netip.Prefix) (bool, error) {
	b := Block{Space: s, CIDR: p, State: Claiming}
	fresh := false
	err := k.change(func(e *edit) error {
		if _, known := e.block(s, p); known {
			return nil // another call is at it
		}
		fresh = true
		return e.set(b)
	})
	if err != nil || !fresh {
		return false, err
	}
	got, err := k.api.Create(ctx, k.object(b))
	switch {
	case apierrors.IsAlreadyExists(err):
		k.count(func(s *KeeperStats) { s.Conflicts++ })
		return k.claimOfOld(ctx, b)
	case err != nil && certain(err):
		return false, errors.Join(fmt.Errorf("claim block %s: %w", p, err), k.change(func(e *edit) error { e.drop(s, p); return nil }))
	case err != nil:
		k.Poke() // settleClaims finds out
		return false, fmt.Errorf("claim block %s: %w", p, err)
	}
	if err := k.goneBack(); err != nil { // who had the block before the backup may have it still
		return false, errors.Join(err, k.letClaimGo(b, string(got.UID)))
	}
	k.count(func(s *KeeperStats) { s.Claims++ })
	return true, k.owned(b, string(got.UID))
}

// goneBack notes that the API went back in time, if its answers told so.
func (k *Keeper) goneBack() error {
	if !k.api.back.Load() {
		return nil
	}
	if err := k.suspectAnew("a new object has an old version"); err != nil {
		return err
	}
	return fmt.Errorf("this node claims nothing until `danmctl ipam check --accept`: %w", ErrSuspect)
}

func (k *Keeper) letClaimGo(b Block, uid string) error {
	return k.change(func(e *edit) error {
		now, ok := e.block(b.Space, b.CIDR)
		if !ok || now.State != Claiming {
			return nil
		}
		now.State, now.UID = Releasing, uid
		return e.set(now)
	})
}

// claimOfOld looks whose a block is that was there already: an earlier try of this node may have made it.
func (k *Keeper) claimOfOld(ctx context.Context, b Block) (bool, error) {
	o, err := k.api.Block(ctx, nameOf(b))
	switch {
	case apierrors.IsNotFound(err): // given back just now
		return false, k.change(func(e *edit) error { e.drop(b.Space, b.CIDR); return nil })
	case err != nil:
		k.Poke()
		return false, fmt.Errorf("read block %s: %w", b.CIDR, err)
	case o.Spec.Owner != k.o.Node:
		k.mu.Lock()
		k.taken[placed{b.Space, b.CIDR}] = k.o.Boottime()
		k.mu.Unlock()
		return false, k.change(func(e *edit) error { e.drop(b.Space, b.CIDR); return nil })
	case o.Spec.Identity != k.Meta().Identity || o.Spec.Epoch != k.Meta().Epoch:
		// An object of an earlier life that no list showed: what was given out of it is not known.
		return false, k.freezeOne(ctx, b, string(o.UID))
	}
	// It may also be what this life has given back, in an API from a backup: after it was read, not before, this can be said (R18).
	if err := k.leaseStandsNow(ctx); err != nil {
		return false, err
	}
	return true, k.owned(b, string(o.UID))
}

// freezeOne freezes what an earlier life of this node had. b is the caller's own claim of it, or, with State 0, not in the journal: if
// it is there by now, another call has claimed it.
func (k *Keeper) freezeOne(ctx context.Context, b Block, uid string) error {
	seen, err := k.o.Sandboxes(ctx)
	if err != nil {
		return fmt.Errorf("list the sandboxes of this machine: %w", err)
	}
	return k.change(func(e *edit) error {
		if _, known := e.block(b.Space, b.CIDR); known && b.State != Claiming {
			return nil
		}
		b.State, b.UID = Frozen, uid
		e.lose(seen)
		return e.set(b)
	})
}

// owned notes that a claim has succeeded.
func (k *Keeper) owned(b Block, uid string) error {
	return k.change(func(e *edit) error {
		now, ok := e.block(b.Space, b.CIDR)
		if !ok || now.State != Claiming {
			return nil // a round was faster
		}
		now.State, now.UID = Owned, uid
		k.noteVersion(e)
		return e.set(now)
	})
}

// noteVersion writes down, with what is written anyway, how far the API has come: a start after this one compares.
func (k *Keeper) noteVersion(e *edit) {
	if seen := k.api.seen.Load(); seen > e.s.st.meta.Version {
		e.meta(func(m *Meta) { m.Version = seen })
	}
}

// certain says of a failed write whether it is certain that it was not done, and will not be.
func certain(err error) bool {
	return apierrors.IsInvalid(err) || apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) || apierrors.IsConflict(err) ||
		apierrors.IsNotFound(err) || apierrors.IsBadRequest(err) || apierrors.IsTooManyRequests(err)
}
