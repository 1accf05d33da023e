package state

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"testing"
	"time"
)

// TestAttended: an agent is seen from another process and from this one, until it lets go or is killed, and being asked takes nothing.
func TestAttended(t *testing.T) {
	if dir := os.Getenv("DANM_TEST_ATTEND"); dir != "" {
		if _, err := Open(dir).Attend(); err != nil {
			t.Fatal(err)
		}
		_, _ = os.Stdout.WriteString("attending\n")
		time.Sleep(time.Hour)
	}
	d := Open(t.TempDir())
	if _, err := d.Attended(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no agent ever: %v", err)
	}
	attended := func(want bool) {
		t.Helper()
		if got, err := d.Attended(); err != nil || got != want {
			t.Errorf("attended: %v, %v", got, err)
		}
	}
	release, err := d.Attend()
	if err != nil {
		t.Fatal(err)
	}
	attended(true)
	if _, err := Open(d.path).Attend(); !errors.Is(err, ErrAttended) {
		t.Errorf("a second agent: %v", err)
	}
	release()
	attended(false)

	agent := exec.Command(os.Args[0], "-test.run=^TestAttended$")
	agent.Env = append(os.Environ(), "DANM_TEST_ATTEND="+d.path)
	out, err := agent.StdoutPipe()
	if err == nil {
		err = agent.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = agent.Process.Kill() })
	if _, err := out.Read(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	attended(true)
	_ = agent.Process.Kill()
	_ = agent.Wait()
	attended(false)
}
