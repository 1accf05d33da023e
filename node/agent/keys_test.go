package agent

import (
	"testing"

	"danm.io/danm/cni/server"
	"danm.io/danm/node/plan"
)

// TestKeysOfFunctions: the server of CNI calls names Pods by the keys that a plan asks for them by, or no change would wait for them.
func TestKeysOfFunctions(t *testing.T) {
	const pci, pf = "0000:3b:02.1", "ens1"
	if got, want := server.FunctionKey+pci, plan.VFKey(pci); got != want {
		t.Errorf("a virtual function is %q to the server and %q to a plan", got, want)
	}
	if got, want := server.PhysicalKey+pf, plan.SRIOVKey(pf); got != want {
		t.Errorf("a physical function is %q to the server and %q to a plan", got, want)
	}
}
