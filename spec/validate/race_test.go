//go:build race

package validate

// raceFactor: the race detector slows code down about tenfold.
const raceFactor = 10
