package ipam

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"danm.io/danm/spec/api/v1alpha1"
)

// resync compares the journal's blocks with the API's, and brings the journal to what may be relied on.
func (k *Keeper) resync(ctx context.Context, v verdict) error {
	known := k.Meta().Version // claims under way raise it
	list, version, err := k.api.Blocks(ctx, map[string]string{v1alpha1.LabelOwner: v1alpha1.LabelValue(k.o.Node)})
	if err != nil {
		return fmt.Errorf("list the blocks of node %s: %w", k.o.Node, err)
	}
	if told := versionOf(version); told != 0 && told < known {
		if err := k.suspectAnew(fmt.Sprintf("it is at version %d, and has been at %d", told, known)); err != nil {
			return err
		}
	}
	there := map[placed]v1alpha1.IPBlock{}
	for _, o := range list {
		if key, err := placeOf(o); err == nil && o.Spec.Owner == k.o.Node {
			there[key] = o
		}
	}
	if err := k.adoptUnknown(ctx, there); err != nil {
		return err
	}
	var failed []error
	unlisted := map[placed]bool{}
	for _, b := range k.allBlocks() {
		o, ok := there[placed{b.Space, b.CIDR}]
		if ok && b.Single && (b.State == Owned || b.State == Frozen) && o.Spec.Before != "" && o.Status.Answer != v1alpha1.AnswerCeded {
			unlisted[placed{b.Space, b.CIDR}] = true
		}
		switch {
		case !ok:
			failed = append(failed, k.missing(ctx, b, v))
		case b.State == Owned && unlisted[placed{b.Space, b.CIDR}]:
			failed = append(failed, k.askOnceMore(ctx, b, o))
		case (b.State == Owned || b.State == Frozen) && !b.Foreign:
			failed = append(failed, k.reassert(ctx, o, v.fenced))
		}
		if ok && b.State == Owned && !sameCessions(b.Ceded, o.Spec.Ceded) {
			failed = append(failed, k.writeCeded(ctx, b))
		}
	}
	k.mu.Lock()
	k.unlisted = unlisted
	k.mu.Unlock()
	return errors.Join(failed...)
}

// askOnceMore has a Single that was made again, and that nobody has listed, asked of whoever has the block around it by now.
func (k *Keeper) askOnceMore(ctx context.Context, b Block, o v1alpha1.IPBlock) error {
	next := o.DeepCopy()
	m := k.Meta()
	if err := k.askedAgain(ctx, b, next); err != nil {
		return err
	}
	if next.Spec.Asked != o.Spec.Asked || next.Spec.Identity != m.Identity {
		next.Spec.Identity, next.Spec.Epoch = m.Identity, m.Epoch
		got, err := k.api.Update(ctx, next)
		if err != nil {
			return fmt.Errorf("ask for address %s again: %w", b.CIDR.Addr(), err)
		}
		next = got
	}
	if next.Status.Answer != "" {
		next.Status = v1alpha1.IPBlockStatus{}
		if _, err := k.api.UpdateStatus(ctx, next); err != nil {
			return fmt.Errorf("ask for address %s again: %w", b.CIDR.Addr(), err)
		}
	}
	return nil
}

// placeOf is where an object's block is; an error says that the object means nothing.
func placeOf(o v1alpha1.IPBlock) (placed, error) {
	space, r, err := o.Range()
	if err != nil {
		return placed{}, err
	}
	s := o.Spec.Space
	return placed{Space{Domain: s.Domain, ID: uint32(s.ID), VXLAN: s.VXLAN, CIDR: space}, r}, nil
}

// adoptUnknown takes what the API says into the journal: claims of this node that succeeded, cessions; and what the journal
// does not list is frozen (R6).
func (k *Keeper) adoptUnknown(ctx context.Context, there map[placed]v1alpha1.IPBlock) error {
	unknown := false
	for key, o := range there {
		b, ok := k.blockAt(key)
		unknown = unknown || !ok && o.Spec.Role != v1alpha1.RoleRoot || ok && b.UID != "" && b.UID != string(o.UID)
	}
	var seen []string
	if unknown {
		var err error
		if seen, err = k.o.Sandboxes(ctx); err != nil {
			return fmt.Errorf("list the sandboxes of this machine: %w", err)
		}
	}
	return k.change(func(e *edit) error {
		lost := false
		for _, key := range slices.SortedFunc(maps.Keys(there), placed.compare) {
			o := there[key]
			b, ok := e.block(key.space, key.cidr)
			next, freeze := k.adopt(b, ok, key, o, e.s.st.meta)
			if lost = lost || freeze; freeze {
				k.o.Log.Warn("a block of this node that its journal does not know is frozen", "block", o.Name)
			}
			if ok && sameBlock(b, next) {
				continue
			}
			if err := e.set(next); err != nil {
				return err
			}
		}
		if lost {
			e.lose(seen)
		}
		return nil
	})
}

func sameBlock(a, b Block) bool {
	ceded := slices.Equal(a.Ceded, b.Ceded)
	a.Ceded, b.Ceded = nil, nil
	return ceded && a.Space == b.Space && a.CIDR == b.CIDR && a.State == b.State && a.Single == b.Single && a.Borrowed == b.Borrowed && a.Foreign == b.Foreign &&
		a.Reservation == b.Reservation && a.UID == b.UID && a.Since == b.Since
}

// adopt is adopted, and lets go of a Single that a call of an earlier life asked for.
func (k *Keeper) adopt(b Block, known bool, at placed, o v1alpha1.IPBlock, m Meta) (next Block, freeze bool) {
	next, freeze = adopted(b, known, at, o, m)
	if known && b.State == Claiming && next.State == Asked && k.abandoned(b) {
		next.State = Releasing
	}
	return next, freeze
}

// adopted is what the journal says after it has seen an object of this node. It is pure.
func adopted(b Block, known bool, key placed, o v1alpha1.IPBlock, m Meta) (next Block, freeze bool) {
	single, foreign := o.Spec.Role == v1alpha1.RoleSingle, machineOf(o.Spec.Identity) != machineOf(m.Identity)
	if known && b.State == Frozen && !b.Foreign && foreign && b.UID != string(o.UID) && m.LostSince != 0 {
		b.UID = "" // whoever an API from a backup says it was: what Pods have of it since before the loss is on this machine
		return b, false
	}
	if known && !foreign && b.UID != "" && o.Spec.Before == b.UID { // this node made it again, and did not hear of it
		b.UID = string(o.UID)
	}
	if !known || b.UID != "" && b.UID != string(o.UID) {
		b = Block{Space: key.space, CIDR: key.cidr, State: Frozen, Single: single, UID: string(o.UID), Ceded: b.Ceded}
		if o.Spec.Reservation != nil {
			b.Reservation = o.Labels[v1alpha1.LabelReservation]
		}
		freeze = true
	}
	if b.State == Frozen {
		b.UID, b.Foreign = string(o.UID), foreign
	}
	b.Ceded = union(b.Ceded, o.Spec.Ceded)
	if b.State == Claiming && b.UID == "" && m.Suspect == "" {
		b.UID = string(o.UID)
		switch {
		case !single:
			b.State = Owned
		case b.Reservation != "" && o.Status.Answer == v1alpha1.AnswerCeded: // taken over from nobody
			b.State = Owned
		default:
			b.State = Asked
		}
	}
	return b, freeze
}

// sameCessions says whether the API lists the same addresses for the same Singles, in whatever order.
func sameCessions(have []Cession, told []v1alpha1.IPCession) bool {
	return len(have) == len(told) && !slices.ContainsFunc(have, func(c Cession) bool {
		return !slices.ContainsFunc(told, func(t v1alpha1.IPCession) bool { return t.Address == c.Addr.String() && t.UID == c.UID })
	})
}

// union keeps every cession that journal or API knows: a list that is too long costs an address, one too short gives it to two.
func union(have []Cession, told []v1alpha1.IPCession) []Cession {
	out := slices.Clone(have)
	for _, c := range told {
		a, err := netip.ParseAddr(c.Address)
		if err != nil || slices.ContainsFunc(out, func(x Cession) bool { return x.Addr == a }) {
			continue
		}
		out = append(out, Cession{Addr: a, UID: c.UID, Node: c.Node})
	}
	slices.SortFunc(out, func(a, b Cession) int { return a.Addr.Compare(b.Addr) })
	return out
}

// missing handles a block that the journal has and the API's list does not.
func (k *Keeper) missing(ctx context.Context, b Block, v verdict) error {
	if b.State == Claiming || b.State == Releasing {
		return nil // settleClaims and finish look at these one by one
	}
	o, err := k.api.Block(ctx, nameOf(b))
	switch {
	case err == nil && o.Spec.Owner == k.o.Node && string(o.UID) == b.UID:
		return nil // the list was older
	case err != nil && !apierrors.IsNotFound(err):
		return fmt.Errorf("read block %s: %w", b.CIDR, err)
	}
	gone := err != nil
	if b.State == Parking || b.State == Asked || v.fenced || b.Foreign || b.State == Frozen && (b.UID == "" || k.Meta().Suspect == "") {
		return k.dropBlock(b) // what the controller may free, and what was never seen
	}
	if !gone {
		k.o.Log.Error("a block of this node belongs to another", "block", nameOf(b), "owner", o.Spec.Owner)
		return k.dropBlock(b)
	}
	if err := k.suspect("block " + nameOf(b) + " of this node is missing"); err != nil {
		return err
	}
	return k.recreate(ctx, b)
}

// dropBlock forgets a block that is not this node's any more. What Pods have of it stays theirs as long as they live, but
// their node gives no address of it to anybody. Of a frozen block nobody knows what they have until the loss is over.
func (k *Keeper) dropBlock(b Block) error {
	return k.change(func(e *edit) error {
		now, ok := e.block(b.Space, b.CIDR)
		if !ok || now.UID != b.UID {
			return nil
		}
		held, _ := e.s.st.spaces[b.Space].space.Busy(b.CIDR, e.ready)
		if held > 0 || now.State == Frozen && !now.Foreign && e.s.st.meta.LostSince != 0 {
			now.State, now.UID = Frozen, ""
			return e.set(now)
		}
		e.drop(b.Space, b.CIDR)
		return nil
	})
}

// recreate puts a block back that an API from a backup does not know (R18): by name, so that whoever has it keeps it.
func (k *Keeper) recreate(ctx context.Context, b Block) error {
	o := k.object(b)
	o.Spec.Before = b.UID
	if b.Single {
		if err := k.askedAgain(ctx, b, o); err != nil {
			return err
		}
	}
	for _, c := range b.Ceded {
		o.Spec.Ceded = append(o.Spec.Ceded, v1alpha1.IPCession{Address: c.Addr.String(), UID: c.UID, Node: c.Node})
	}
	got, err := k.api.Create(ctx, o)
	if apierrors.IsAlreadyExists(err) {
		k.o.Log.Error("a block of this node was claimed by another after the API server was restored; danmctl ipam check names what is held twice", "block", o.Name)
		return k.dropBlock(b)
	}
	if err != nil {
		return fmt.Errorf("make block %s again: %w", b.CIDR, err)
	}
	return k.change(func(e *edit) error {
		now, ok := e.block(b.Space, b.CIDR)
		if !ok || now.UID != b.UID {
			return nil
		}
		now.UID, now.Reservation = string(got.UID), "" // for whom it was kept only the lost object told
		return e.set(now)
	})
}

// askedAgain has the owner of the block around a Single list it anew.
func (k *Keeper) askedAgain(ctx context.Context, b Block, o *v1alpha1.IPBlock) error {
	root, err := k.root(ctx, b.Space, rootFresh)
	if errors.Is(err, ErrNoRoot) { // nor is there a block: the controller is asked
		o.Labels[v1alpha1.LabelAsked] = v1alpha1.LabelValue(o.Spec.Asked)
		return nil
	}
	if err != nil {
		return err
	}
	around, err := k.api.Block(ctx, b.Space.object().BlockName(root.cut.Block(b.CIDR.Addr())))
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("read the block around %s: %w", b.CIDR.Addr(), err)
	}
	if err == nil {
		o.Spec.Asked = around.Spec.Owner
	}
	o.Labels[v1alpha1.LabelAsked] = v1alpha1.LabelValue(o.Spec.Asked)
	return nil
}

// reassert writes the node's identity of now on a block that bears another one of this machine. A life that may have been taken for
// dead writes all of them: a controller that is about to free one has read it before, and its write fails then (R14).
func (k *Keeper) reassert(ctx context.Context, o v1alpha1.IPBlock, fenced bool) error {
	m := k.Meta()
	current := o.Spec.Identity == m.Identity && (!fenced || o.Spec.Epoch == m.Epoch)
	if current || machineOf(o.Spec.Identity) != machineOf(m.Identity) {
		return nil
	}
	o.Spec.Identity, o.Spec.Epoch = m.Identity, m.Epoch
	if _, err := k.api.Update(ctx, &o); err != nil {
		return fmt.Errorf("write the identity on block %s: %w", o.Name, err)
	}
	return nil
}

func nameOf(b Block) string { return b.Space.object().BlockName(b.CIDR) }

// object is what is created to claim a block, or to ask for an address.
func (k *Keeper) object(b Block) *v1alpha1.IPBlock {
	m, s := k.Meta(), b.Space.object()
	o := &v1alpha1.IPBlock{Spec: v1alpha1.IPBlockSpec{Role: v1alpha1.RoleBlock, Space: s, CIDR: b.CIDR.String(), Owner: k.o.Node, Identity: m.Identity, Epoch: m.Epoch}}
	o.APIVersion, o.Kind, o.Name, o.Finalizers, o.Labels = v1alpha1.APIVersion, v1alpha1.KindIPBlock, nameOf(b), []string{v1alpha1.IPFinalizer}, k.labelsOf(s)
	if b.Single {
		o.Spec.Role = v1alpha1.RoleSingle
	}
	return o
}
