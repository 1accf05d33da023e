// Package alloc chooses addresses: which addresses a node owns (Geometry), which of them are held, free or cooling
// (Space), and which one a Pod gets next (Dynamic, Static). Changes go through a Tx and can be taken back.
//
// It is pure: no clock, no disk, no locks, no randomness. It knows nothing of Pods; a holder is a number of the caller's.
// The cost of a choice does not depend on the size of the CIDR, and on the number of addresses only by its logarithm.
package alloc
