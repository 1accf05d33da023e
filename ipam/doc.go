// Package ipam gives addresses to Pod interfaces so that no address ever has two live holders and none leaks.
//
// A record is Key{space, Pod UID, ifname} → {address, sandbox}; every block of addresses has one writer, its owner; one
// durable write an ADD stores the addresses and the attachment record together, before the kernel is touched. Choosing is
// pure (ipam/alloc); the journal is ours; in the local home node slot k owns the blocks with number ≡ k mod slots.
// It does not touch links and does not know what an attachment record contains.
package ipam
