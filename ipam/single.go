package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"danm.io/danm/ipam/alloc"
	"danm.io/danm/spec/api/v1alpha1"
)

// ask has a Single from the owner of the block around it (R10). nil: it is this node's.
func (k *Keeper) ask(ctx context.Context, root rootSeen, b Block, keptFor *v1alpha1.IPReservation) error {
	around := root.cut.Block(b.CIDR.Addr())
	block, err := k.api.Block(ctx, b.Space.object().BlockName(around))
	if err != nil {
		return fmt.Errorf("read block %s: %w", around, err)
	}
	o := k.object(b)
	o.Spec.Asked = block.Spec.Owner
	o.Labels[v1alpha1.LabelAsked] = v1alpha1.LabelValue(o.Spec.Asked)
	if keptFor != nil {
		o.Spec.Reservation, b.Reservation = keptFor, keptFor.Hash(b.Space.object())
		o.Labels[v1alpha1.LabelReservation] = b.Reservation
	}
	uid, err := k.create(ctx, b, o)
	if err != nil {
		return err
	}
	k.count(func(s *KeeperStats) { s.Asked++ })
	if err := k.await(ctx, b, uid, block.Name, o.Spec.Asked); err != nil {
		k.count(func(s *KeeperStats) { s.Refused++ })
		k.Poke() // finish removes it
		return errors.Join(err, k.change(func(e *edit) error {
			now, ok := e.block(b.Space, b.CIDR)
			if !ok || now.State == Owned {
				return nil
			}
			now.State = Releasing
			return e.set(now)
		}))
	}
	return nil
}

// create journals a Single and creates its object.
func (k *Keeper) create(ctx context.Context, b Block, o *v1alpha1.IPBlock) (uid string, err error) {
	b.State = Claiming
	err = k.change(func(e *edit) error {
		if now, known := e.block(b.Space, b.CIDR); known {
			return fmt.Errorf("address %s is %s on this node: %w", b.CIDR.Addr(), now.State, ErrOwner)
		}
		return e.set(b)
	})
	if err != nil {
		return "", err
	}
	got, err := k.api.Create(ctx, o)
	switch {
	case apierrors.IsAlreadyExists(err):
		other, gerr := k.api.Block(ctx, o.Name)
		if gerr == nil && other.Spec.Owner != k.o.Node || apierrors.IsNotFound(gerr) {
			err = fmt.Errorf("address %s is another node's: %w", b.CIDR.Addr(), ErrOwner)
			if gerr == nil {
				err = fmt.Errorf("address %s is node %q's: %w", b.CIDR.Addr(), other.Spec.Owner, ErrOwner)
			}
			return "", errors.Join(err, k.change(func(e *edit) error { e.drop(b.Space, b.CIDR); return nil }))
		}
		if gerr != nil {
			return "", fmt.Errorf("read address %s: %w", b.CIDR.Addr(), gerr)
		}
		// What an earlier life had of it is not known.
		return "", errors.Join(fmt.Errorf("address %s was asked for by an earlier life of this node: %w", b.CIDR.Addr(), ErrFrozen), k.freezeOne(ctx, b, string(other.UID)))
	case err != nil && certain(err):
		return "", errors.Join(fmt.Errorf("ask for address %s: %w", b.CIDR.Addr(), err), k.change(func(e *edit) error { e.drop(b.Space, b.CIDR); return nil }))
	case err != nil:
		k.Poke()
		return "", fmt.Errorf("ask for address %s: %w", b.CIDR.Addr(), err)
	}
	return string(got.UID), k.change(func(e *edit) error {
		now, ok := e.block(b.Space, b.CIDR)
		if !ok || now.State != Claiming {
			return nil
		}
		now.State, now.UID = Asked, string(got.UID)
		k.noteVersion(e)
		return e.set(now)
	})
}

// await waits until the owner has listed the Single, has refused, or has had its time.
func (k *Keeper) await(ctx context.Context, b Block, uid, block, owner string) error {
	whose := "node " + owner
	if owner == "" {
		whose = "the controller"
	}
	ctx, cancel := context.WithTimeout(ctx, k.o.AskWait)
	defer cancel()
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 500*time.Millisecond) {
		if owner == k.o.Node {
			if err := k.answerAsked(ctx); err != nil {
				return err
			}
		}
		o, err := k.api.Block(ctx, block)
		if err == nil && slices.ContainsFunc(o.Spec.Ceded, func(c v1alpha1.IPCession) bool { return c.UID == uid }) {
			return k.change(func(e *edit) error {
				now, ok := e.block(b.Space, b.CIDR)
				if !ok || now.UID != uid || now.State != Asked && now.State != Owned {
					return fmt.Errorf("address %s was given up meanwhile: %w", b.CIDR.Addr(), ErrOwner)
				}
				now.State = Owned
				return e.set(now)
			})
		}
		if single, err := k.api.Block(ctx, nameOf(b)); err == nil && single.Status.Answer == v1alpha1.AnswerRefused {
			return fmt.Errorf("address %s: %s refuses: %q: %w", b.CIDR.Addr(), whose, single.Status.Reason, ErrOwner)
		}
		if k.o.Sleep(ctx, pause) != nil {
			return fmt.Errorf("address %s: %s, which has the block around it, did not answer within %s: %w", b.CIDR.Addr(), whose, k.o.AskWait, ErrOwner)
		}
	}
}

// obtainSticky has the address that is kept for a Pod of a StatefulSet, wherever it was last, or makes one.
func (k *Keeper) obtainSticky(ctx context.Context, need *NeedError, root rootSeen) error {
	s := need.Space.object()
	hash := need.Sticky.Hash(s)
	wait, cancel := context.WithTimeout(ctx, k.o.AskWait)
	defer cancel()
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, 500*time.Millisecond) {
		list, _, err := k.api.Blocks(ctx, map[string]string{v1alpha1.LabelReservation: hash})
		if err != nil {
			return fmt.Errorf("look for the address kept for Pod %d of StatefulSet %s/%s: %w", need.Sticky.Ordinal, need.Sticky.Namespace, need.Sticky.StatefulSet, err)
		}
		list = slices.DeleteFunc(list, func(o v1alpha1.IPBlock) bool { return o.DeletionTimestamp != nil || !keptFor(o, need, hash) })
		if len(list) == 0 {
			return k.keepNew(ctx, need, root)
		}
		slices.SortFunc(list, func(a, b v1alpha1.IPBlock) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
		o, listed, err := k.listedOne(ctx, root, list)
		if err != nil {
			return err
		}
		b, known := k.blockOf(o)
		switch {
		case known && b.State == Owned && o.Spec.Owner == k.o.Node:
			return nil
		case known && b.State == Claiming && o.Spec.Owner == "" && listed:
			if err := k.take(ctx, b, o); !certain(err) { // written once more: of both requests one counts
				return err
			}
		case known:
			k.Poke() // on its way to nobody, or from there: wait for it
		case o.Spec.Owner == "" && listed:
			return k.takeParked(ctx, o)
		}
		if k.o.Sleep(wait, pause) != nil {
			why := fmt.Sprintf("node %s still has it", o.Spec.Owner)
			if o.Spec.Owner == "" {
				why = "the block around it does not list it"
			}
			return fmt.Errorf("address %s is kept for Pod %d of StatefulSet %s/%s, and %s: %w",
				o.Spec.CIDR, need.Sticky.Ordinal, need.Sticky.Namespace, need.Sticky.StatefulSet, why, errors.Join(ErrOwner, ctx.Err()))
		}
	}
}

// keptFor says whether an object is an address kept for that Pod, on an address that Pods can have. Whoever wrote it may have
// written anything.
func keptFor(o v1alpha1.IPBlock, need *NeedError, hash string) bool {
	at, err := placeOf(o)
	r := o.Spec.Reservation
	return err == nil && at.space == need.Space && o.Spec.Role == v1alpha1.RoleSingle && r != nil && r.Hash(o.Spec.Space) == hash &&
		!alloc.Reserved(at.space.CIDR, at.cidr.Addr()) && !slices.Contains(need.Subnet.Routers(), at.cidr.Addr())
}

// listedOne is the first Single that the block around it lists as ceded, or the first of all (R10).
func (k *Keeper) listedOne(ctx context.Context, root rootSeen, list []v1alpha1.IPBlock) (o v1alpha1.IPBlock, listed bool, err error) {
	for _, o := range list {
		at, err := placeOf(o)
		if err != nil {
			continue
		}
		around, err := k.api.Block(ctx, o.Spec.Space.BlockName(root.cut.Block(at.cidr.Addr())))
		if err != nil && !apierrors.IsNotFound(err) {
			return o, false, fmt.Errorf("read the block around %s: %w", at.cidr.Addr(), err)
		}
		if err == nil && slices.ContainsFunc(around.Spec.Ceded, func(c v1alpha1.IPCession) bool { return c.UID == string(o.UID) }) {
			return o, true, nil
		}
	}
	return list[0], false, nil
}

// keepNew chooses an address of this node's own and keeps it for the Pod from now on.
func (k *Keeper) keepNew(ctx context.Context, need *NeedError, root rootSeen) error {
	if root.cut.Bits == need.Space.CIDR.Addr().BitLen() && root.cut.Bits > need.Space.CIDR.Bits() {
		return fmt.Errorf("space %s was cut into single addresses before a network on it was sticky, so that none can be kept for Pod %d of StatefulSet %s/%s; delete the root when its last Pod is gone, or give the network a CIDR of its own: %w",
			need.Space.object(), need.Sticky.Ordinal, need.Sticky.Namespace, need.Sticky.StatefulSet, ErrUnkept)
	}
	var a netip.Addr
	k.Service.mu.Lock()
	if ss, ok := k.st.spaces[need.Space]; ok {
		if _, some := ss.space.Free(need.Subnet, k.now()-int64(k.opts.Cooldown), 8); len(some) > 0 {
			a = some[int(placeOfNode(need.Sticky.UID+need.Sticky.IfName, need.Space)%uint64(len(some)))] //nolint:gosec // below 8
		}
	}
	k.Service.mu.Unlock()
	if !a.IsValid() {
		return k.obtainAny(ctx, need, root) // and come back
	}
	err := k.ask(ctx, root, Block{Space: need.Space, CIDR: singlePrefix(a), Single: true}, need.Sticky)
	if errors.Is(err, ErrOwner) && ctx.Err() == nil {
		return nil // somebody took it between: try again
	}
	return err
}

// takeParked writes this node's name over nobody's (R20).
func (k *Keeper) takeParked(ctx context.Context, o v1alpha1.IPBlock) error {
	key, err := placeOf(o)
	if err != nil {
		return err
	}
	b := Block{Space: key.space, CIDR: key.cidr, State: Claiming, Single: true, Reservation: o.Labels[v1alpha1.LabelReservation]}
	err = k.change(func(e *edit) error {
		if now, known := e.block(b.Space, b.CIDR); known {
			return fmt.Errorf("address %s is %s on this node: %w", b.CIDR.Addr(), now.State, ErrOwner)
		}
		return e.set(b)
	})
	if err != nil {
		return err
	}
	if err = k.take(ctx, b, o); certain(err) { // it was the only request
		derr := k.change(func(e *edit) error { e.drop(b.Space, b.CIDR); return nil })
		if apierrors.IsConflict(err) || apierrors.IsNotFound(err) {
			return derr // look again
		}
		return errors.Join(err, derr)
	}
	return err
}

// take writes this node's name on a parked Single whose claim is journaled.
func (k *Keeper) take(ctx context.Context, b Block, o v1alpha1.IPBlock) error {
	m := k.Meta()
	o.Spec.Owner, o.Spec.Identity, o.Spec.Epoch = k.o.Node, m.Identity, m.Epoch
	o.Labels[v1alpha1.LabelOwner] = v1alpha1.LabelValue(k.o.Node)
	got, err := k.api.Update(ctx, &o)
	if err == nil {
		return k.owned(b, string(got.UID))
	}
	k.Poke()
	return fmt.Errorf("take address %s: %w", o.Spec.CIDR, err)
}

// answerAsked cedes what other nodes ask for, if it is free and cool, and refuses the rest.
func (k *Keeper) answerAsked(ctx context.Context) error {
	select {
	case k.answering <- struct{}{}:
		defer func() { <-k.answering }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := k.o.Sleep(ctx, 0); err != nil { // in a simulation, those who waited for one another go on one by one
		return err
	}
	list, _, err := k.api.Blocks(ctx, map[string]string{v1alpha1.LabelAsked: v1alpha1.LabelValue(k.o.Node)})
	if err != nil {
		return fmt.Errorf("list the addresses that this node is asked for: %w", err)
	}
	var failed []error
	for i := range list {
		if o := &list[i]; o.Spec.Asked == k.o.Node && o.Spec.Role == v1alpha1.RoleSingle && o.Status.Answer == "" && o.DeletionTimestamp == nil {
			failed = append(failed, k.answer(ctx, o))
		}
	}
	return errors.Join(failed...)
}

func (k *Keeper) answer(ctx context.Context, o *v1alpha1.IPBlock) error {
	key, err := placeOf(*o)
	if err != nil || !key.cidr.IsSingleIP() {
		return nil // nobody this node would cede to
	}
	var block Block
	refusal := ""
	err = k.change(func(e *edit) error {
		block, refusal = e.cede(key.space, key.cidr.Addr(), Cession{Addr: key.cidr.Addr(), UID: string(o.UID), Node: o.Spec.Owner}, o.Spec.Before)
		if refusal != "" {
			return nil
		}
		return e.set(block)
	})
	if err != nil {
		return err
	}
	o.Status = v1alpha1.IPBlockStatus{Answer: v1alpha1.AnswerRefused, Reason: refusal}
	if refusal == "" {
		if err := k.writeCeded(ctx, block); err != nil {
			return err
		}
		k.count(func(s *KeeperStats) { s.Ceded++ })
		o.Status = v1alpha1.IPBlockStatus{Answer: v1alpha1.AnswerCeded}
	}
	if _, err := k.api.UpdateStatus(ctx, o); err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
		return fmt.Errorf("answer for address %s: %w", key.cidr.Addr(), err)
	}
	return nil
}

// cede is the block without the address, or why it stays. before is the lost Single that the asking one takes the place of: its
// node had the address already, so that only a Pod's hold, or another's, stands against it.
func (e *edit) cede(s Space, a netip.Addr, c Cession, before string) (Block, string) {
	ss, ok := e.s.st.spaces[s]
	if !ok {
		return Block{}, "no block around it is this node's; ask again"
	}
	b, ok := ss.aroundBlock(a)
	switch {
	case !ok || b.State == Releasing || b.State == Claiming:
		return Block{}, "no block around it is this node's; ask again"
	case b.State != Owned && before == "":
		return Block{}, "its block is frozen: the node's journal was lost, and a Pod may have the address"
	}
	if had, ceded := b.ceded(a); ceded {
		switch {
		case had.UID == c.UID:
			return b, ""
		case had.UID == before:
			b.Ceded = slices.Clone(b.Ceded)
			b.Ceded[slices.Index(b.Ceded, had)] = c
			return b, ""
		}
		return Block{}, "it was ceded to node " + had.Node
	}
	if alloc.Reserved(s.CIDR, a) {
		return Block{}, "it is the network or broadcast address"
	}
	if _, held := ss.space.Holder(a); held {
		return Block{}, "a Pod of the node has it"
	}
	if (before == "" || b.State == Owned) && ss.space.Cooling(a, e.ready) { // a whole journal would list what is lost
		return Block{}, "it was freed a moment ago; ask again"
	}
	b.Ceded = append(slices.Clone(b.Ceded), c)
	slices.SortFunc(b.Ceded, func(x, y Cession) int { return x.Addr.Compare(y.Addr) })
	return b, ""
}

// aroundBlock is the known block, not Single, that an address lies in.
func (ss *spaceState) aroundBlock(a netip.Addr) (found Block, ok bool) {
	for bits := range ss.lengths {
		p, err := a.Prefix(bits)
		if err != nil {
			continue
		}
		if b, is := ss.blocks[p]; is && !b.Single {
			return b, true
		}
	}
	return Block{}, false
}

// writeCeded makes the object of a block list what the journal does.
func (k *Keeper) writeCeded(ctx context.Context, b Block) error {
	for range 5 {
		o, err := k.api.Block(ctx, nameOf(b))
		if err != nil {
			return fmt.Errorf("read block %s: %w", b.CIDR, err)
		}
		if o.Spec.Owner != k.o.Node || string(o.UID) != b.UID {
			return fmt.Errorf("block %s is not this node's any more", b.CIDR)
		}
		now, ok := k.blockAt(placed{b.Space, b.CIDR})
		if !ok {
			return nil
		}
		var list []v1alpha1.IPCession
		for _, c := range now.Ceded {
			list = append(list, v1alpha1.IPCession{Address: c.Addr.String(), UID: c.UID, Node: c.Node})
		}
		if slices.Equal(list, o.Spec.Ceded) {
			return nil
		}
		o.Spec.Ceded = list
		if _, err = k.api.Update(ctx, o); err == nil || !apierrors.IsConflict(err) {
			if err != nil {
				return fmt.Errorf("write what block %s has ceded: %w", b.CIDR, err)
			}
			return nil
		}
	}
	return fmt.Errorf("block %s is written by another", b.CIDR)
}
