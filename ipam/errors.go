package ipam

import (
	"errors"
	"fmt"
	"net/netip"

	"danm.io/danm/ipam/alloc"
	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/spec/model"
)

// What can be wrong with a request; test with errors.Is. The *alloc.ExhaustedError behind ErrExhausted has the counts,
// the *alloc.NotOursError behind ErrNotOurs the slot that owns the address, the *TakenError behind ErrTaken the holder.
var (
	ErrExhausted = alloc.ErrExhausted
	ErrTaken     = alloc.ErrTaken
	ErrOutside   = alloc.ErrOutside
	ErrReserved  = alloc.ErrReserved
	ErrNotOurs   = alloc.ErrNotOurs
	// ErrBlockGeometry: slot, slots or block size changed while an address of the space is held on this node, or they
	// make no sense. Two nodes could then believe in the same block.
	ErrBlockGeometry = alloc.ErrGeometry
	ErrL2            = errors.New("address asked on a network without that address family")
	ErrIntent        = errors.New("invalid intent")
	ErrNotFound      = errors.New("no record")
	// ErrFrozen: what was given out before the journal was lost is not known, and may be live.
	ErrFrozen = errors.New("addresses are frozen")
	// ErrBack: the node has just reached the API again, and leaves unclaimed blocks alone for a moment.
	ErrBack = errors.New("the API server was out of reach until a moment ago")
	// ErrLease: the node has not reached the API for so long that its blocks may be another's soon.
	ErrLease = errors.New("the node's lease of its blocks has run out")
	// ErrSuspect: the API went back in time, and blocks that look free may be another's.
	ErrSuspect = errors.New("the API server was restored from a backup")
	// ErrClaim: the API server did not answer while a block was claimed.
	ErrClaim = errors.New("no address of this node is free, and no block could be claimed")
	// ErrNoRoot: the controller has not opened the space yet.
	ErrNoRoot = errors.New("the space has no root yet")
	// ErrUnkept: the space is cut so that no address can be kept for a Pod of a StatefulSet.
	ErrUnkept = errors.New("no address of the space can be kept")
	// ErrOwner: the owner of the block around an address did not answer, or has it.
	ErrOwner = errors.New("the owner of the block did not cede the address")
)

// NeedError says what a node would have to claim to fulfil a wish, and in Err why it cannot without.
type NeedError struct {
	Space  Space
	Subnet model.Subnet
	Static netip.Addr              // invalid = any of the pools
	Sticky *v1alpha1.IPReservation // nil = none
	Err    error

	waited bool // for the claim of another call
}

func (e *NeedError) Error() string { return e.Err.Error() }

// Unwrap is what stands in the way.
func (e *NeedError) Unwrap() error { return e.Err }

// What can be wrong with the journal; test with errors.Is.
var (
	// ErrCorrupt: the journal is damaged or gone. It is never taken for an empty one: addresses may be live.
	ErrCorrupt = errors.New("address journal is damaged")
	// ErrVersion: the journal was written by a newer program.
	ErrVersion = errors.New("address journal has an unknown format")
	// ErrLocked: another process has the journal open.
	ErrLocked = errors.New("address journal is in use by another process")
	// ErrFailed: a write could not be made or taken back, so disk and memory may differ. Only opening it again helps.
	ErrFailed = errors.New("address journal failed and must be opened again")
	ErrClosed = errors.New("address journal is closed")
)

// TakenError names the Pod that holds a static address, if it is one of the namespace that asks.
type TakenError struct {
	Addr           netip.Addr
	Namespace, Pod string
	Sandbox        string
}

func (e *TakenError) Error() string {
	if e.Pod == "" {
		return fmt.Sprintf("address %s is taken by another Pod", e.Addr)
	}
	return fmt.Sprintf("address %s is taken by Pod %s/%s (sandbox %s)", e.Addr, e.Namespace, e.Pod, e.Sandbox)
}

// Is says that it is an ErrTaken.
func (e *TakenError) Is(target error) bool { return target == ErrTaken }
