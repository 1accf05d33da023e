// Package wire carries one CNI call from the thin plugin to the agent and its answer back.
//
// A call is one connection to a unix socket: a frame with the request, the Pod's network namespace beside it as a file
// descriptor (SCM_RIGHTS, so the agent needs no path that may lie in another mount namespace), a frame with the answer.
// The frame has a version: an end reads its own and the one before; within a version fields are only added. It knows
// nothing of what the calls mean, and it links nothing but the standard library and CNI's error type, because each Pod's
// start pays for what the plugin loads.
package wire
