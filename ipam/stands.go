package ipam

import (
	"context"
	"fmt"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
)

// leaseFresh is how long the API is believed after the own lease was found as it should be.
const leaseFresh = 5 * time.Second

// leaseStands reads the own lease, unless it was read a moment ago: an API from a backup has an older one, or none (R18). Before a
// block is claimed, and before anything ceded is taken for returned, this is known.
func (k *Keeper) leaseStands(ctx context.Context) error {
	k.mu.Lock()
	mine, fresh := k.lease != nil, k.o.Boottime()-k.leaseSeen < leaseFresh && k.leaseSeen != 0
	k.mu.Unlock()
	if fresh || !mine {
		return nil
	}
	return k.leaseStandsNow(ctx)
}

// leaseStandsNow is leaseStands, whenever the lease was read last.
func (k *Keeper) leaseStandsNow(ctx context.Context) error {
	k.mu.Lock()
	mine := k.lease
	k.mu.Unlock()
	if mine == nil {
		return nil
	}
	at := k.o.Boottime()
	lease, err := k.readLease(ctx)
	if err != nil {
		return err
	}
	if lease == nil { // with its Node, perhaps: the next round finds out
		k.mu.Lock()
		k.renewAt = 0
		k.mu.Unlock()
		k.Poke()
		return fmt.Errorf("the lease of node %s is gone: %w", k.o.Node, ErrLease)
	}
	if deref(lease.Spec.LeaseTransitions) < deref(mine.Spec.LeaseTransitions) || older(lease, mine) {
		if err := k.suspectAnew("its lease is older than what this node wrote"); err != nil {
			return err
		}
		return fmt.Errorf("this node claims nothing until `danmctl ipam check --accept`: %w", ErrSuspect)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.leaseSeen = at
	return nil
}

// older says whether the API's lease is from before what this node wrote.
func older(have, wrote *coordinationv1.Lease) bool {
	if wrote == nil || wrote.Spec.RenewTime == nil {
		return false
	}
	return have.Spec.RenewTime == nil || have.UID != wrote.UID || have.Spec.RenewTime.Before(wrote.Spec.RenewTime)
}
