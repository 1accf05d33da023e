// Package blocks is the controller's part of the cluster-wide IPAM: docs/ipam.md has the rules (R1 to R20), and decision 0010 why
// they are these. It makes the root of each space, keeps addresses that Pods had before (import), frees what lost nodes owned,
// answers for blocks that are nobody's (orphans), ends reservations, counts, and keeps networks that Pods are attached to.
//
// Spaces are read from the PlanSegments that NodePlans name, of either layer and of the last good one: the very model.Networks that
// nodes compute their spaces from (Space = SpaceDomain, ID, VXLAN, CIDR), whatever made them. Network objects could not say it: a
// bundle's reach the API after their plans, and hostlinks names the domain of a device by what the nodes have.
//
// Decide is pure: what the API has now → Actions, and what has to be read before more can be said. The loop reads, decides, acts,
// and looks again; it remembers nothing that a restart would lose. Three things make that safe, also with two controllers at once and
// with caches of any age:
//
//   - The actions of one decision do not depend on each other: what has to come after something else is decided once that is seen
//     in the API. A root is made when every orphan of the import is there; a Single is told Ceded when the list of its block says so.
//   - Every write carries the version, every deletion the UID and the version, of the object that it was decided upon.
//   - What frees somebody's addresses, or ends a root, is decided a second time upon what the API server itself says, not a cache.
//     Blocks and Singles are one kind, so a cache shows them as they were together at some moment.
//
// Times that must outlast a restart stand on the object that they are about (AnnotationSince).
//
// It never gives out an address, and it never writes what a live node owns, but for removing a mark of its own.
package blocks
