package local

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"danm.io/danm/node/state"
)

// killAt makes this test binary sync once and kill itself with SIGKILL right after a step.
const killAt = "DANM_TEST_KILL_AT"

func TestMain(m *testing.M) {
	step := os.Getenv(killAt)
	if step == "" {
		os.Exit(m.Run())
	}
	_ = Run(context.Background(), Options{
		Location: os.Getenv("DANM_TEST_LOCATION"), StateDir: os.Getenv("DANM_TEST_STATE"), Node: "edge-1", Once: true,
		step: func(now string) {
			if now == step {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
				select {}
			}
		},
	})
	os.Exit(7)
}

// TestKilledBetweenSteps: after kill -9 anywhere the directory holds the old state or the new one, whole, and the next run goes on.
func TestKilledBetweenSteps(t *testing.T) {
	for _, row := range []struct {
		step string
		mtu  int
	}{{"fetched", 1400}, {"decided", 1400}, {"written", 1300}, {"reported", 1300}} {
		for _, fresh := range []bool{false, true} {
			root, dir := t.TempDir(), filepath.Join(t.TempDir(), "state")
			if !fresh {
				put(t, root, good(1400))
				if err := once(t, root, dir, "edge-1"); err != nil {
					t.Fatal(err)
				}
			}
			put(t, root, good(1300))
			child := exec.Command(os.Args[0])
			child.Env = append(os.Environ(), killAt+"="+row.step, "DANM_TEST_LOCATION="+root, "DANM_TEST_STATE="+dir)
			err := child.Run()
			if st, ok := child.ProcessState.Sys().(syscall.WaitStatus); !ok || !st.Signaled() {
				t.Fatalf("%s: the child was not killed: %v", row.step, err)
			}
			want := row.mtu
			if fresh && want == 1400 {
				want = -2 // no state yet
			}
			if got := stateMTU(dir); got != want {
				t.Errorf("%s: state has MTU %d, want %d", row.step, got, want)
			}
			if err := once(t, root, dir, "edge-1"); err != nil {
				t.Fatalf("%s: the next run fails: %v", row.step, err)
			}
			s, err := ReadStatus(dir)
			if st := read(t, dir); err != nil || mtu(st) != 1300 || s.Applied != st.Revision {
				t.Errorf("%s: not recovered: %+v %v", row.step, s, err)
			}
		}
	}
	if _, err := state.Open(t.TempDir()).Read(); err == nil {
		t.Error("an empty directory has a state")
	}
}
