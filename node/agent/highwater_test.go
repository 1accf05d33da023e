package agent

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// What is told of a boot is found by the next process, and its clock goes on evenly.
func TestHighWaterOutlivesTheProcess(t *testing.T) {
	dir := "/dev/shm"
	if _, err := os.Stat(dir); err != nil {
		t.Skip("no tmpfs here: ", err)
	}
	dir, err := os.MkdirTemp(dir, "danm-test-")
	must(t, err)
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "run", "ipam.frames")
	a, err := openHighWater(path)
	must(t, err)
	if a.Load() != 0 || time.Since(a.Clock()).Abs() > time.Minute {
		t.Fatal(a.Load(), a.Clock())
	}
	a.Store(77)
	b, err := openHighWater(path)
	must(t, err)
	if b.Load() != 77 || b.anchor.Load() != a.anchor.Load() {
		t.Fatal(b.Load(), b.anchor.Load(), a.anchor.Load())
	}
	if _, err := openHighWater(filepath.Join(t.TempDir(), "x")); err == nil {
		var onTmp bool
		if _, err := os.Stat("/tmp"); err == nil {
			onTmp = true
		}
		t.Log("the test's own directory is on tmpfs, too: ", onTmp)
	}
}
