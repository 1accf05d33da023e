//go:build linux

package bed

import (
	"errors"
	"testing"
)

// NewCluster starts a cluster for one test and ends it with the test; a failed test shows the programs' logs. Where whole nodes
// cannot run, the test is skipped with the reason. The package's TestMain must be ClusterMain.
func NewCluster(t *testing.T, o Options) *Cluster {
	t.Helper()
	c, err := StartCluster("", o)
	if errors.Is(err, ErrNotBuilt) || errors.Is(err, ErrCannot) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(c.Logs())
		}
		if err := c.Close(); err != nil {
			t.Error("end the cluster: ", err)
		}
	})
	return c
}
