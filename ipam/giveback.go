package ipam

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"danm.io/danm/spec/api/v1alpha1"
)

const (
	// unsureFor is how long the object of a claim without an answer is looked for: the API server ends a request after a minute.
	unsureFor = 3 * time.Minute
	// lastIdle is how much longer a node keeps its only block of a space: a Pod that comes while the API is away finds one.
	lastIdle = 6
	// unusedSingle is how long a Single that nobody took is kept.
	unusedSingle = 30 * time.Second
)

// allBlocks are the journal's blocks, as they are now.
func (k *Keeper) allBlocks() []Block {
	k.Service.mu.Lock()
	defer k.Service.mu.Unlock()
	return k.st.allBlocks()
}

func (st *state) allBlocks() []Block {
	var out []Block
	for _, ss := range st.spaces {
		for _, b := range ss.blocks {
			out = append(out, b)
		}
	}
	slices.SortFunc(out, func(a, b Block) int { return placed{a.Space, a.CIDR}.compare(placed{b.Space, b.CIDR}) })
	return out
}

func (k *Keeper) blockAt(p placed) (Block, bool) {
	k.Service.mu.Lock()
	defer k.Service.mu.Unlock()
	ss, ok := k.st.spaces[p.space]
	if !ok {
		return Block{}, false
	}
	b, ok := ss.blocks[p.cidr]
	return b, ok
}

func (k *Keeper) blockOf(o v1alpha1.IPBlock) (Block, bool) {
	p, err := placeOf(o)
	if err != nil {
		return Block{}, false
	}
	return k.blockAt(p)
}

func (k *Keeper) hasSingles() bool {
	k.Service.mu.Lock()
	defer k.Service.mu.Unlock()
	for _, ss := range k.st.spaces {
		if ss.lengths[ss.key.CIDR.Addr().BitLen()] > 0 {
			return true
		}
	}
	return false
}

// pending says whether there is work that no event announces.
func (k *Keeper) pending() bool {
	k.Service.mu.Lock()
	defer k.Service.mu.Unlock()
	if k.st.meta.LostSince != 0 || k.st.meta.Suspect != "" {
		return true
	}
	for _, ss := range k.st.spaces {
		for _, b := range ss.blocks {
			if b.State != Owned && b.State != Frozen {
				return true
			}
			if b.Single {
				if _, held := ss.space.Holder(b.CIDR.Addr()); !held {
					return true
				}
			}
		}
	}
	return false
}

// settleClaims finds out what became of claims without an answer.
func (k *Keeper) settleClaims(ctx context.Context) error {
	var failed []error
	open := map[attempt]bool{}
	for _, b := range k.allBlocks() {
		switch {
		case b.State == Claiming:
			open[attempt{placed{b.Space, b.CIDR}, b.Since}] = true
			failed = append(failed, k.settle(ctx, b))
		case b.State == Asked && k.abandoned(b):
			failed = append(failed, k.change(func(e *edit) error {
				now, ok := e.block(b.Space, b.CIDR)
				if !ok || now.State != Asked || now.UID != b.UID {
					return nil
				}
				now.State = Releasing
				return e.set(now)
			}))
		}
	}
	k.mu.Lock()
	maps.DeleteFunc(k.unsure, func(a attempt, _ time.Duration) bool { return !open[a] })
	k.mu.Unlock()
	return errors.Join(failed...)
}

// abandoned says whether the call that asked for a Single is no more.
func (k *Keeper) abandoned(b Block) bool {
	now := k.now()
	since := sinceOf(b, now)
	return since < k.born || time.Duration(now-since) > 2*k.o.AskWait+time.Minute
}

// attempt is one claim: the same place may be claimed again later.
type attempt struct {
	placed
	since int64 // Block.Since
}

// settle looks for the object of a claim. As long as the request may still land, only "it is this node's" is an answer: one that is
// not there may be created yet, and one that is nobody's, or another's who gives it back, may be written yet.
func (k *Keeper) settle(ctx context.Context, b Block) error {
	o, err := k.api.Block(ctx, nameOf(b))
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("read block %s: %w", b.CIDR, err)
	}
	at := placed{b.Space, b.CIDR}
	mine := err == nil && o.Spec.Owner == k.o.Node
	if !mine && !k.overdue(attempt{at, b.Since}) {
		return nil
	}
	if mine { // or it is what was given back, in an API from a backup
		if err := k.leaseStandsNow(ctx); err != nil {
			return err
		}
	}
	return k.change(func(e *edit) error {
		now, ok := e.block(b.Space, b.CIDR)
		if !ok || now.State != Claiming || now.Since != b.Since {
			return nil
		}
		if !mine {
			e.drop(b.Space, b.CIDR)
			return nil
		}
		next, _ := k.adopt(now, true, at, *o, e.s.st.meta)
		return e.set(next)
	})
}

// overdue says whether a claim has been looked for in vain for longer than any request lasts.
func (k *Keeper) overdue(a attempt) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	since, known := k.unsure[a]
	if !known {
		since = k.o.Boottime()
		k.unsure[a] = since
	}
	return k.o.Boottime()-since > unsureFor
}

// giveBack lets go of what has been unused for a while, in the journal; finish tells the API (R8, R9).
func (k *Keeper) giveBack() {
	type spaceUse struct{ blocks int }
	uses := map[Space]spaceUse{}
	blocks := k.allBlocks()
	for _, b := range blocks {
		if b.State == Owned && !b.Single {
			uses[b.Space] = spaceUse{uses[b.Space].blocks + 1}
		}
	}
	now := k.now()
	known := map[placed]bool{}
	for _, b := range blocks {
		at := placed{b.Space, b.CIDR}
		known[at] = true
		if b.State != Owned {
			continue
		}
		last := uses[b.Space].blocks == 1
		if k.letGo(b, now, last) && !b.Single {
			uses[b.Space] = spaceUse{uses[b.Space].blocks - 1}
		}
	}
	k.mu.Lock()
	maps.DeleteFunc(k.busyAt, func(p placed, _ int64) bool { return !known[p] })
	k.mu.Unlock()
}

// sinceOf is when a block came into its state. What a clock that was ahead has noted, in an earlier boot, is long ago.
func sinceOf(b Block, now int64) int64 {
	if b.Since > now {
		return 0
	}
	return b.Since
}

// letGo decides about one block inside a transaction, on what is true then.
func (k *Keeper) letGo(b Block, now int64, last bool) bool {
	k.mu.Lock()
	busyAt := k.busyAt[placed{b.Space, b.CIDR}]
	k.mu.Unlock()
	// The scan costs nothing; only what is to go is written.
	held, cooling := k.busy(b)
	if held > 0 || len(b.Ceded) > 0 || cooling > 0 && b.Reservation == "" {
		k.mu.Lock()
		k.busyAt[placed{b.Space, b.CIDR}] = now
		k.mu.Unlock()
		return false
	}
	idle := time.Duration(now - max(busyAt, sinceOf(b, now)))
	need := k.o.Idle
	switch {
	case b.Single && (cooling > 0 || busyAt > 0):
		need = 0 // somebody had it and is gone
	case b.Single:
		need = unusedSingle
	case last:
		need *= lastIdle
	}
	if idle < need {
		return false
	}
	went, err := k.beginRelease(b)
	if err != nil {
		k.o.Log.Warn("give a block back", "block", nameOf(b), "reason", err)
		return false
	}
	if went && !b.Single {
		k.count(func(s *KeeperStats) { s.GivenBack++ })
	}
	return went
}

// beginRelease notes that a block goes, unless somebody has an address of it by now.
func (k *Keeper) beginRelease(b Block) (went bool, err error) {
	err = k.change(func(e *edit) error {
		b, ok := e.block(b.Space, b.CIDR)
		if !ok || b.State != Owned || len(b.Ceded) > 0 {
			return nil
		}
		if held, cooling := e.s.st.spaces[b.Space].space.Busy(b.CIDR, e.ready); held > 0 || cooling > 0 && b.Reservation == "" {
			return nil
		}
		if b.State = Releasing; b.Reservation != "" {
			b.State = Parking
		}
		went = true
		return e.set(b)
	})
	return went, err
}

func (k *Keeper) busy(b Block) (held, cooling int) {
	k.Service.mu.Lock()
	defer k.Service.mu.Unlock()
	ss, ok := k.st.spaces[b.Space]
	if !ok {
		return 0, 0
	}
	return ss.space.Busy(b.CIDR, k.now()-int64(k.opts.Cooldown))
}

// finishMost is how many blocks a round lets go: others wait for answers meanwhile.
const finishMost = 64

// finish tells the API of what is being let go, until it is seen gone.
func (k *Keeper) finish(ctx context.Context) error {
	going := slices.DeleteFunc(k.allBlocks(), func(b Block) bool { return b.State != Releasing && b.State != Parking })
	if len(going) > finishMost { // in turns: some may be held by a finalizer of others
		k.finishFrom %= len(going)
		going = slices.Concat(going[k.finishFrom:], going[:k.finishFrom])[:finishMost]
		k.finishFrom += finishMost
	}
	var failed []error
	gone := 0
	for _, b := range going {
		letGo := k.release
		if b.State == Parking {
			letGo = k.park
		}
		err := letGo(ctx, b)
		failed = append(failed, err)
		if _, left := k.blockAt(placed{b.Space, b.CIDR}); !left {
			gone++
		}
	}
	if gone > 0 && len(going) == finishMost { // the rest comes next
		k.Poke()
	}
	return errors.Join(failed...)
}

// release removes the finalizer and deletes by UID. There is no way back, whatever a read shows (R8).
func (k *Keeper) release(ctx context.Context, b Block) error {
	o, err := k.api.Block(ctx, nameOf(b))
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("read block %s: %w", b.CIDR, err)
	}
	if err != nil || b.UID != "" && string(o.UID) != b.UID || o.Spec.Owner != k.o.Node {
		return k.forget(b) // a creation without an answer may land yet: then the next resync freezes it
	}
	if len(b.Ceded) > 0 { // the API told of cessions that the journal did not know: they come back first
		return nil
	}
	if slices.Contains(o.Finalizers, v1alpha1.IPFinalizer) {
		o.Finalizers = slices.DeleteFunc(o.Finalizers, func(f string) bool { return f == v1alpha1.IPFinalizer })
		if _, err := k.api.Update(ctx, o); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("let block %s go: %w", b.CIDR, err)
		}
	}
	if err := k.api.Delete(ctx, o.Name, string(o.UID)); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete block %s: %w", b.CIDR, err)
	}
	if now, err := k.api.Block(ctx, o.Name); !apierrors.IsNotFound(err) && (err != nil || now.UID == o.UID) {
		return nil // held by a finalizer of others: later
	}
	return k.forget(b)
}

// park hands a Single with a reservation to nobody (R20).
func (k *Keeper) park(ctx context.Context, b Block) error {
	o, err := k.api.Block(ctx, nameOf(b))
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("read address %s: %w", b.CIDR.Addr(), err)
	}
	if err != nil || string(o.UID) != b.UID || o.Spec.Owner != k.o.Node {
		return k.forget(b)
	}
	if o.DeletionTimestamp != nil { // somebody wants it gone: it is kept for nobody
		return k.release(ctx, b)
	}
	o.Spec.Owner = ""
	if o.Labels == nil {
		o.Labels = map[string]string{}
	}
	o.Labels[v1alpha1.LabelOwner] = ""
	if _, err := k.api.Update(ctx, o); err != nil {
		return fmt.Errorf("hand address %s on: %w", b.CIDR.Addr(), err)
	}
	return k.forget(b)
}

// forget drops a block that is seen to be gone.
func (k *Keeper) forget(b Block) error {
	return k.change(func(e *edit) error {
		if now, ok := e.block(b.Space, b.CIDR); ok && (now.State == Releasing || now.State == Parking) && now.UID == b.UID {
			e.drop(b.Space, b.CIDR)
		}
		return nil
	})
}
