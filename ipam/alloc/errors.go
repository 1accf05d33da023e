package alloc

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"danm.io/danm/spec/model"
)

// What can be wrong with a wish for an address; test with errors.Is.
var (
	ErrGeometry  = errors.New("block geometry")
	ErrExhausted = errors.New("no address left")
	ErrTaken     = errors.New("address is taken")
	ErrOutside   = errors.New("address outside the network")
	ErrReserved  = errors.New("address is the network's own")
	ErrNotOurs   = errors.New("address belongs to another node's blocks")
)

// ExhaustedError counts what became of this node's addresses in the pools; the numbers saturate at 2^64-1.
type ExhaustedError struct {
	CIDR     netip.Prefix
	Pools    []model.AddrRange // none = the whole CIDR
	Held     uint64            // by Pods
	Cooling  uint64            // freed, but not long enough ago
	Reserved uint64            // excluded, routers, network and broadcast address
	Slot     int
	Slots    int
}

func (e *ExhaustedError) Error() string {
	s := fmt.Sprintf("no address left in the pools of %s%s: %d held, %d cooling down, %d never given by choice", e.CIDR, e.pools(), e.Held, e.Cooling, e.Reserved)
	if e.Slots > 1 {
		s += fmt.Sprintf(" of the share of slot %d of %d", e.Slot, e.Slots)
	}
	return s
}

// pools are the first few, in brackets.
func (e *ExhaustedError) pools() string {
	const most = 4
	var names []string
	for _, r := range e.Pools[:min(len(e.Pools), most)] {
		names = append(names, r.First.String()+"-"+r.Last.String())
	}
	if len(e.Pools) > most {
		names = append(names, fmt.Sprintf("and %d more", len(e.Pools)-most))
	}
	if len(names) == 0 {
		return ""
	}
	return " (" + strings.Join(names, ", ") + ")"
}

func (e *ExhaustedError) Is(target error) bool { return target == ErrExhausted }

// TakenError names the holder by the number it was taken with.
type TakenError struct {
	Addr   netip.Addr
	Holder uint32
}

func (e *TakenError) Error() string        { return fmt.Sprintf("address %s is taken", e.Addr) }
func (e *TakenError) Is(target error) bool { return target == ErrTaken }

// NotOursError names the slot whose node could give the address.
type NotOursError struct {
	Addr   netip.Addr
	Owner  int
	Slot   int
	Slots  int
	Prefix netip.Prefix
}

func (e *NotOursError) Error() string {
	if e.Slots <= 1 {
		return fmt.Sprintf("address %s of %s is in no block of this node", e.Addr, e.Prefix)
	}
	return fmt.Sprintf("address %s of %s lies in the blocks of slot %d, this node is slot %d of %d", e.Addr, e.Prefix, e.Owner, e.Slot, e.Slots)
}

func (e *NotOursError) Is(target error) bool { return target == ErrNotOurs }
