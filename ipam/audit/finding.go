package audit

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"danm.io/danm/ipam"
)

// Kind names a discrepancy. It is stable: scripts may compare it.
type Kind string

// The kinds of findings.
const (
	Double        Kind = "DoubleAddress"  // two that live have one address
	NoBlock       Kind = "OutsideBlocks"  // held, and in no block of its node
	SandboxGone   Kind = "SandboxGone"    // held for a network namespace that is not there
	NotInKernel   Kind = "NotInKernel"    // held, and not on the interface
	NotInJournal  Kind = "NotInJournal"   // on an interface, and not held
	HeldAndCeded  Kind = "HeldAndCeded"   // held by a Pod of a node that ceded it
	HeldAndFreed  Kind = "HeldAndCooling" // held, and cooling down
	BlockMissing  Kind = "BlockMissing"   // in the journal, not in the API
	BlockForeign  Kind = "BlockOfAnother" // in the journal, another's in the API
	BlockUnknown  Kind = "BlockUnknown"   // the node's in the API, not in the journal
	CededDiffers  Kind = "CededDiffers"   // journal and API
	EndpointStale Kind = "EndpointStale"  // a DanmEp of an address that is not held
	Waits         Kind = "WaitsForCheck"  // since the API went back in time
	Unheard       Kind = "NodeUnheard"    // its lease is old
	Unreadable    Kind = "Unreadable"     // could not be looked at
	Overlap       Kind = "BlocksOverlap"  // two of one role
	NotCeded      Kind = "SingleNotCeded" // no block lists it
	CededNoSingle Kind = "CededWithoutSingle"
	OwnerGone     Kind = "OwnerGone"
	OffGrid       Kind = "OffGrid"
	NoRoot        Kind = "RootMissing"
	BadLabels     Kind = "LabelsDiffer"
	BadObject     Kind = "IPBlockInvalid"
)

// Finding is one discrepancy: where, what, and what helps.
type Finding struct {
	Kind   Kind   `json:"kind"`
	Space  string `json:"space,omitempty"`
	Where  string `json:"where"` // "10.0.0.5", "IPBlock x", "sandbox y"
	What   string `json:"what"`
	Remedy string `json:"remedy"`
}

func (f Finding) String() string {
	place := f.Where
	if f.Space != "" {
		place = f.Space + ": " + place
	}
	return fmt.Sprintf("%s: %s: %s\n  remedy: %s", place, f.Kind, f.What, f.Remedy)
}

func sorted(out []Finding) []Finding {
	slices.SortStableFunc(out, func(a, b Finding) int {
		return cmp.Or(strings.Compare(a.Space, b.Space), compareWhere(a.Where, b.Where), strings.Compare(string(a.Kind), string(b.Kind)), strings.Compare(a.What, b.What))
	})
	return slices.Compact(out)
}

// compareWhere puts addresses in their order, and before what is none.
func compareWhere(a, b string) int {
	x, errX := netip.ParseAddr(a)
	y, errY := netip.ParseAddr(b)
	switch {
	case errX == nil && errY == nil:
		return x.Compare(y)
	case errX == nil:
		return -1
	case errY == nil:
		return 1
	}
	return strings.Compare(a, b)
}

// Both keeps the findings of two looks that are in both: what was only on its way is in one of them.
func Both(first, second []Finding) []Finding {
	return slices.DeleteFunc(slices.Clone(second), func(f Finding) bool { return !slices.Contains(first, f) })
}

// at is an address of a space.
type at struct {
	space ipam.Space
	addr  netip.Addr
}

func name(s ipam.Space) string { return SpaceOf(s).String() }
