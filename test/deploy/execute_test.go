package deploy

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"testing"
)

// execute runs a program of bin/ with an environment of its own.
func execute(t *testing.T, dir string, env []string, program string, args ...string) (out, problems string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin(t), program), args...)
	cmd.Dir, cmd.Env = dir, env
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	err = cmd.Run()
	return o.String(), e.String(), err
}
