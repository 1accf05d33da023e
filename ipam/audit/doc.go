// Package audit says who has which address, and compares what different places say of it: the kernel of a node, its journal,
// the IPBlocks of a cluster and the DanmEps that were published. It decides from plain values and reads nothing itself;
// reconcile/cli brings them.
//
// It does not say what is right where two places differ: it names the places and what helps.
package audit
