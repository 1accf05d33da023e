// Package sync is the loop of NetworkBundles: fetch, validate, render, and hand the result to publish; what came of it is told
// in the status, in events and in metrics.
//
// It is level-triggered: an event only wakes it, each round looks at everything. It remembers only what saves work: the newest
// snapshot and the newest rendering. A bad bundle, a source that is away, or an API that does not answer change nothing.
package sync
