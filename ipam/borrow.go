package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"danm.io/danm/ipam/alloc"
	"danm.io/danm/spec/model"
)

// obtainStatic has a given address: by the block around it, if that is nobody's, or from its owner.
func (k *Keeper) obtainStatic(ctx context.Context, s Space, root rootSeen, a netip.Addr) error {
	p := root.cut.Block(a)
	b, known := k.blockAt(placed{s, p})
	switch {
	case known && b.State == Owned:
		c, ceded := b.ceded(a)
		switch {
		case ceded && c.Node != k.o.Node:
			return fmt.Errorf("address %s was ceded to node %s: %w", a, c.Node, ErrOwner)
		case ceded:
			return k.ask(ctx, root, Block{Space: s, CIDR: singlePrefix(a), Single: true}, nil)
		}
		return nil // ours since a moment ago
	case known && b.State == Claiming:
		return k.awaitClaim(ctx, b)
	case known:
		return fmt.Errorf("block %s around address %s is %s on this node: %w", p, a, b.State, ErrFrozen)
	}
	o, err := k.api.Block(ctx, s.object().BlockName(p))
	if apierrors.IsNotFound(err) {
		_, err = k.claim(ctx, s, p)
		return err // if another was faster, the next try asks it
	}
	if err != nil {
		return fmt.Errorf("read block %s: %w", p, err)
	}
	if o.Spec.Owner == k.o.Node {
		return k.freezeOne(ctx, Block{Space: s, CIDR: p}, string(o.UID))
	}
	return k.ask(ctx, root, Block{Space: s, CIDR: singlePrefix(a), Single: true}, nil)
}

// awaitClaim waits for the end of a claim that is under way.
func (k *Keeper) awaitClaim(ctx context.Context, b Block) error {
	k.Poke() // nobody may be left who waits for its answer
	ctx, cancel := context.WithTimeout(ctx, k.o.AskWait)
	defer cancel()
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 500*time.Millisecond) {
		if now, known := k.blockAt(placed{b.Space, b.CIDR}); !known || now.State != Claiming {
			return nil
		}
		if k.o.Sleep(ctx, pause) != nil {
			return fmt.Errorf("block %s is being claimed, and the API server did not answer within %s: %w", b.CIDR, k.o.AskWait, ErrClaim)
		}
	}
}

// borrow asks other nodes for an address that they do not use.
func (k *Keeper) borrow(ctx context.Context, need *NeedError, root rootSeen) error {
	tried := 0
	for i := range root.status.Offers {
		of := root.status.Offers[(i+int(placeOfNode(k.o.Node, need.Space)%64))%len(root.status.Offers)] //nolint:gosec // below 64
		a, err := netip.ParseAddr(of.Address)
		if err != nil || of.Owner == k.o.Node || !alloc.Eligible(need.Subnet, a) {
			continue
		}
		if _, known := k.blockAt(placed{need.Space, singlePrefix(a)}); known {
			continue
		}
		err = k.ask(ctx, root, Block{Space: need.Space, CIDR: singlePrefix(a), Single: true, Borrowed: true}, nil)
		if err == nil || !errors.Is(err, ErrOwner) {
			return err
		}
		if tried++; tried == offersTried {
			return err
		}
	}
	return fmt.Errorf("no block of %s is unclaimed, and no node offers an address: %w", need.Space.CIDR, ErrExhausted)
}

func rangesOf(texts []string) (out []model.AddrRange) {
	for _, t := range texts {
		first, last, _ := strings.Cut(t, "-")
		a, err1 := netip.ParseAddr(first)
		b, err2 := netip.ParseAddr(last)
		if err1 == nil && err2 == nil {
			out = append(out, model.AddrRange{First: a, Last: b})
		}
	}
	return out
}
