// Package model is the address protocol of docs/ipam.md as a state machine small enough to be searched to the last state:
// two nodes, a controller, an API server that may answer late or never, machines that crash, lose or get back their disks,
// and the world around them. Explore visits every state that a Scenario can reach, breadth first, and returns the shortest
// story that breaks one of the invariants: no address has two live holders; none is given out while neighbours may still
// send to its former holder; and from every state on, when all Pods end and all that can come back has come back, every
// address becomes free again.
//
// Each rule of the page is a flag of Rules: with all of them the search finds nothing, and without any single one it finds a
// story. The model shares no code with package ipam: it says what must be true of any implementation. It does no I/O, and
// does not model what a journal does below one transaction (package ipam's tests cut that at any byte), how a block is
// chosen, or how large it is.
package model
