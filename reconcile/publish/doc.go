// Package publish brings a rendered bundle into the cluster: segments and node plans in waves, then the objects that users
// see, and takes away what the bundle no longer has.
//
// What to do is decided by pure functions over what the API holds now (Decide, Prune); the thin rest carries it out, and
// every step may be the last one before the process ends: the inventory is written before the objects, a wave is what node
// plans and their statuses say, and nothing depends on memory. It fetches and renders nothing.
package publish
