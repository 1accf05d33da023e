package ipam

import (
	"errors"
	"fmt"
	"net/netip"

	"danm.io/danm/ipam/alloc"
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
)

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

// TakenError names the Pod that holds a static address.
type TakenError struct {
	Addr           netip.Addr
	Namespace, Pod string
	Sandbox        string
}

func (e *TakenError) Error() string {
	return fmt.Sprintf("address %s is taken by Pod %s/%s (sandbox %s)", e.Addr, e.Namespace, e.Pod, e.Sandbox)
}

// Is says that it is an ErrTaken.
func (e *TakenError) Is(target error) bool { return target == ErrTaken }
