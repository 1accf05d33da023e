//go:build race

package ipamsim

// The race detector makes a run several times as long.
func init() { fewer = 5 }
