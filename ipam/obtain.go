package ipam

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"danm.io/danm/ipam/alloc"
	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/spec/model"
)

const (
	rootFresh   = time.Hour        // after which the root is read again before a claim (R16)
	claimsAside = 8                // claims of one space under way at once
	blindTries  = 8                // blocks tried before the root is asked where there are free ones
	claimTries  = 64               // blocks tried in a walk
	offersTried = 4                // offered addresses asked for before a caller is told that there is none
	hintsFresh  = 2 * time.Second  // after which the root's hints are read again
	takenFor    = 10 * time.Second // a block that was another's is not tried again before, unless the controller says that it is free
)

// rootSeen is a root as it was read.
type rootSeen struct {
	cut    alloc.Cut
	status v1alpha1.IPBlockStatus
	at     time.Duration // boottime

	waiting string // since when nodes wait for a check, "" if they do not
}

// subnetSeen is a subnet that a network on the space had.
type subnetSeen = model.Subnet

// demand is who waits for blocks of a space, so that as many are claimed as are needed, and no more.
type demand struct {
	waiting, claiming int
	last              *ending
}

// ending is how a claim ended that others wait for.
type ending struct {
	done chan struct{} // closed then
	dry  error         // there was nothing to be had of these pools
	sub  model.Subnet
}

func samePools(a, b model.Subnet) bool {
	return slices.Equal(a.Pools, b.Pools) && slices.Equal(a.Exclude, b.Exclude) && slices.Equal(a.Routers(), b.Routers())
}

// obtain claims what a need names. nil means that the acquisition is worth another try.
func (k *Keeper) obtain(ctx context.Context, need *NeedError) error {
	if err := k.goneBack(); err != nil {
		return err
	}
	if k.Meta().Suspect != "" {
		return fmt.Errorf("this node claims nothing until `danmctl ipam check --accept`: %w", ErrSuspect)
	}
	k.mu.Lock()
	started, wait := k.started, k.claimsAt-k.o.Boottime()
	k.mu.Unlock()
	switch {
	case !started:
		return fmt.Errorf("this node has not reached the API server since its agent started: %w", ErrLease)
	case wait > 0:
		return fmt.Errorf("this node claims blocks in %s, if the API server stays: %w", wait.Round(time.Second), ErrBack)
	}
	if err := k.leaseStands(ctx); err != nil {
		return err
	}
	root, err := k.root(ctx, need.Space, rootFresh)
	if err != nil {
		return err
	}
	if root.waiting != "" {
		return fmt.Errorf("space %s: nodes wait for `danmctl ipam check --accept` since %.30q, and this one knows nothing of before: %w", need.Space.object(), root.waiting, ErrSuspect)
	}
	switch {
	case need.Static.IsValid():
		return k.obtainStatic(ctx, need.Space, root, need.Static)
	case need.Sticky != nil:
		return k.obtainSticky(ctx, need, root)
	}
	return k.obtainAny(ctx, need, root)
}

// root reads a space's root unless it was read within the given time.
func (k *Keeper) root(ctx context.Context, s Space, within time.Duration) (rootSeen, error) {
	if !k.ownsIn(s) { // it may have been deleted and made anew
		within = min(within, hintsFresh)
	}
	k.mu.Lock()
	have, ok := k.roots[s]
	k.mu.Unlock()
	at := k.o.Boottime()
	if ok && at-have.at < within {
		return have, nil
	}
	o, err := k.api.Block(ctx, s.object().RootName())
	if apierrors.IsNotFound(err) {
		return rootSeen{}, fmt.Errorf("space %s: the controller makes its root when it has seen the network: %w", s.object(), ErrNoRoot)
	}
	if err != nil {
		return rootSeen{}, fmt.Errorf("read the root of space %s: %w", s.object(), err)
	}
	if _, closing := o.Annotations[v1alpha1.AnnotationClosing]; closing {
		return rootSeen{}, fmt.Errorf("space %s: its root was deleted and is made anew in a few minutes: %w", s.object(), ErrNoRoot)
	}
	seen := rootSeen{waiting: o.Annotations[v1alpha1.AnnotationWaiting], cut: alloc.Cut{CIDR: s.CIDR, Bits: int(o.Spec.BlockBits)}, status: o.Status, at: at}
	if o.Spec.Role != v1alpha1.RoleRoot || o.Spec.Space != s.object() || !seen.cut.Valid() {
		return rootSeen{}, fmt.Errorf("IPBlock %s is no root of space %s", o.Name, s.object())
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.roots[s] = seen
	return seen, nil
}

// ownsIn says whether a block of a space is this node's, so that the space is not empty.
func (k *Keeper) ownsIn(s Space) bool {
	k.Service.mu.Lock()
	defer k.Service.mu.Unlock()
	ss, ok := k.st.spaces[s]
	if !ok {
		return false
	}
	for _, b := range ss.blocks {
		if b.State == Owned {
			return true
		}
	}
	return false
}

// someFree says whether the node has addresses of the pools by now.
func (k *Keeper) someFree(need *NeedError) bool {
	k.Service.mu.Lock()
	defer k.Service.mu.Unlock()
	ss, ok := k.st.spaces[need.Space]
	if !ok {
		return false
	}
	n, _ := ss.space.Free(need.Subnet, k.now()-int64(k.opts.Cooldown), 0)
	return n > 0
}

// obtainAny claims a block of the pools, or waits for somebody who does. One claim may serve many that wait.
func (k *Keeper) obtainAny(ctx context.Context, need *NeedError, root rootSeen) error {
	if need.Sticky == nil && k.someFree(need) {
		need.waited = true // another's claim has ended since
		return nil
	}
	hostBits := min(need.Space.CIDR.Addr().BitLen()-root.cut.Bits, 20)
	k.mu.Lock()
	d := k.demands[need.Space]
	if d == nil {
		d = &demand{last: &ending{done: make(chan struct{})}}
		k.demands[need.Space] = d
	}
	d.waiting++
	mine := d.claiming<<hostBits < d.waiting && d.claiming < claimsAside
	if mine {
		d.claiming++
	}
	end := d.last
	k.mu.Unlock()
	var err error
	if mine {
		err = k.claimAny(ctx, need, root)
	} else {
		select {
		case <-end.done:
			need.waited = true
			if err = end.dry; err != nil && !samePools(end.sub, need.Subnet) {
				err = nil // of other pools than this call's
			}
			if err != nil { // it was looked for all that waited; in a simulation, they go on one by one
				_ = k.o.Sleep(ctx, 0)
			}
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if d.waiting--; mine {
		d.claiming--
		if errors.Is(err, ErrExhausted) {
			d.last.dry, d.last.sub = err, need.Subnet
		}
		close(d.last.done)
		d.last = &ending{done: make(chan struct{})}
	}
	return err
}

// claimAny tries blocks of the pools, from a place of this node's own on, then where the controller says that some are
// free, and then asks others for an address.
func (k *Keeper) claimAny(ctx context.Context, need *NeedError, root rootSeen) error {
	got, err := k.claimAlong(ctx, need, root, nil, blindTries)
	if got || err != nil {
		return err
	}
	if root, err = k.root(ctx, need.Space, hintsFresh); err != nil {
		return err
	}
	if free := rangesOf(root.status.Free); len(free) > 0 {
		if got, err = k.claimAlong(ctx, need, root, free, claimTries); got || err != nil {
			return err
		}
	}
	if err = k.borrow(ctx, need, root); !errors.Is(err, ErrExhausted) {
		return err
	}
	if got, werr := k.claimAlong(ctx, need, root, nil, claimTries); got || werr != nil { // the root's word may be old
		return werr
	}
	return err
}

// claimAlong tries up to so many blocks.
func (k *Keeper) claimAlong(ctx context.Context, need *NeedError, root rootSeen, within []model.AddrRange, most int) (bool, error) {
	k.mu.Lock()
	place, went := k.places[need.Space]
	if !went {
		place = placeOfNode(k.o.Node, need.Space)
	}
	k.mu.Unlock()
	tries, passed := 0, uint64(0)
	for p := range root.cut.Blocks(need.Subnet, within, place) {
		if passed++; tries == most {
			return false, nil
		}
		if _, known := k.blockAt(placed{need.Space, p}); known || within == nil && k.isTaken(placed{need.Space, p}) {
			continue
		}
		tries++
		got, err := k.claim(ctx, need.Space, p)
		if err != nil {
			return false, err
		}
		if got {
			if within == nil {
				k.mu.Lock()
				k.places[need.Space] = place + passed
				k.mu.Unlock()
			}
			return true, nil
		}
	}
	return false, nil
}

func (k *Keeper) isTaken(p placed) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	at, ok := k.taken[p]
	return ok && k.o.Boottime()-at < takenFor
}

// forgetOld drops what was noted of blocks and spaces that no Pod is on any more.
func (k *Keeper) forgetOld() {
	k.Service.mu.Lock()
	used := map[Space]bool{}
	for s, ss := range k.st.spaces {
		used[s] = len(ss.blocks) > 0 || ss.space.Held() > 0
	}
	k.Service.mu.Unlock()
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.o.Boottime()
	maps.DeleteFunc(k.taken, func(_ placed, at time.Duration) bool { return now-at >= takenFor })
	maps.DeleteFunc(k.roots, func(s Space, seen rootSeen) bool { return !used[s] && now-seen.at >= rootFresh })
	maps.DeleteFunc(k.demands, func(s Space, d *demand) bool { return !used[s] && d.waiting == 0 })
	for _, gone := range slices.Collect(maps.Keys(k.places)) {
		if _, read := k.roots[gone]; !read && !used[gone] {
			delete(k.places, gone)
		}
	}
	maps.DeleteFunc(k.wanted, func(s Space, _ subnetSeen) bool { return !used[s] })
}

// placeOfNode spreads nodes over a space.
func placeOfNode(node string, s Space) uint64 {
	h := fnv.New64a()
	h.Write([]byte(node + "\x00" + s.object().Hash()))
	v := h.Sum64()
	v ^= v >> 33
	v *= 0xff51afd7ed558ccd
	return v ^ v>>33
}
