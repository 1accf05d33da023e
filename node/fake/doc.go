// Package fake is a node's network stack in memory: the same interface as node/link, the kernel's rules and refusals, a text
// dump, foreign objects and faults on demand.
//
// It shares no code with plan.Diff or plan.Simulate, so that they can be tested against it; it is itself held to the real
// kernel by the scripts of test/kernel, which run on both. It knows the rules that plans meet, not all of them: no packets,
// no neighbours, no carrier.
package fake
