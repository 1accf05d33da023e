// Package guard is the only writer of what a plan declares, a process of its own, and the reason why no plan can cut a
// node off: what is applied and not confirmed in time is undone, by this node alone.
//
// A submission goes prepared → applying → waiting → confirmed | reverting. The journal is durable before each of these
// takes effect, the ledger's claims before the first kernel write (t0). Without Confirm within the plan's confirmTimeout,
// on a failed step, on SIGTERM and as the first act after a crash, the observation from before t0 is restored and the
// restoration verified by observing again. After a reboot the undo is void (another boot_id) and the last confirmed plan
// is applied instead.
//
// It runs no probes, reads no state directory and decides no diff: the agent submits and confirms, node/plan decides.
package guard
