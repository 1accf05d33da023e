// Package ipamsim lets the real IPAM code of many nodes live through what clusters live through, in virtual time: Pods come,
// restart in new sandboxes and go, DELs are repeated late, processes are killed at any write, frozen and restarted, machines
// lose power, disks fill up, tear, vanish and come back from snapshots, clocks step, the API server is slow, cut off, frozen
// and restored. A history.Checker, which shares no code with ipam, judges what the kernels had.
//
// A run is a list of operations made from a seed (Plan) and played in a testing/synctest bubble (Run): every wait ends at an
// instant of its own, so goroutines take turns in the same order each time. A run that finds something is played again
// with ever fewer operations (Shrink).
//
// The seam to the code under test is Home, which starts one node's Stack in an Env. Local is the local home: ipam.Service with
// slots. Another home needs a Start that answers with a Stack, and says which faults it promises to survive (Faults);
// what it does not promise is not done to it.
//
// It does not simulate the kernel's links (a sandbox has addresses or not), CNI's wire, or networks between nodes.
package ipamsim
