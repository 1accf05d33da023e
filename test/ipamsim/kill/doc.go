// Package kill runs nodes as processes of their own, each with a real journal directory, kills them with SIGKILL and starts
// them again. The parent is everything else: kernel, runtime, Pods, the API (a world served over a unix socket), and the
// history.Checker that sees every answer. What ipamsim does in virtual time and at chosen writes happens here to real
// files, at whatever instruction the signal comes.
//
// The seam is ipamsim.Home, as in the simulator. A killed process's page cache survives: power cuts are the simulator's.
package kill
