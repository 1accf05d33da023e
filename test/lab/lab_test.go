//go:build linux

package lab

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	code, done, err := Isolate()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	if done {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// TestKernelPing: the lab's own claims, with both outcomes: neighbours answer, the absent does not.
func TestKernelPing(t *testing.T) {
	before, err := Mounts()
	if err != nil {
		t.Fatal(err)
	}
	w, err := NewWorld(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var ns [3]*NS
	for i, name := range []string{"sw", "a", "b"} {
		if ns[i], err = w.Add(name); err != nil {
			t.Fatal(err)
		}
	}
	if err := ns[0].Switch("br"); err != nil {
		t.Fatal(err)
	}
	for i, addr := range []string{"192.0.2.1/24", "192.0.2.2/24"} {
		if err := ns[0].Plug("br", ns[i+1], "eth0", addr); err != nil {
			t.Fatal(err)
		}
	}
	if err := ns[1].Ping("192.0.2.2", 5*time.Second); err != nil {
		t.Error(err)
	}
	if err := ns[1].Ping("192.0.2.9", 500*time.Millisecond); err == nil {
		t.Error("an absent neighbour answered")
	}
	dump, err := ns[1].Dump()
	if err != nil || !strings.Contains(dump, "address eth0 192.0.2.1/24") {
		t.Errorf("dump: %v\n%s", err, dump)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	after, err := Mounts()
	if err != nil || strings.Join(after, "\n") != strings.Join(before, "\n") {
		t.Errorf("mounts before %q, after %q, %v", before, after, err)
	}
}
