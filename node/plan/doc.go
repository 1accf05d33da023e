// Package plan decides what has to change on a node: Diff(desired, observed) → Plan, a pure function.
//
// A Plan is data: it is printed, counted, refused, journalled and executed, always the same value. Steps are ordered
// (parents before children up, children before parents down, add before delete), idempotent and carry their disruption
// class and reason. The package does no I/O, has no clock, and never decides from what it remembers: everything it knows
// stands in its arguments. Executing steps is node/guard's work, the kernel is node/link's.
package plan
