//go:build linux

package main

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// runDemo builds and plays the demo against the repository's bin/ as `make demo` does.
func runDemo(t *testing.T, sabotage string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "run", "./test/demo", "--bin", "bin")
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "DEMO_BREAK="+sabotage)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestE2EDemo(t *testing.T) {
	out, err := runDemo(t, "")
	if err != nil || !strings.Contains(out, "DEMO OK") {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Log(out)
}

// TestE2EDemoNoticesSabotage breaks one claim a run: a demo that still passes proves nothing.
func TestE2EDemoNoticesSabotage(t *testing.T) {
	for sabotage, said := range map[string]string{
		"isolation": "tenant isolation broken",
		"drift":     "(e) a link deleted by hand comes back",
		"refuse":    "(d) a bad commit is refused",
		"guard":     "edge-2 as before the commit",
	} {
		t.Run(sabotage, func(t *testing.T) {
			out, err := runDemo(t, sabotage)
			failed := strings.SplitAfter(out, "\nFAILED")
			if err == nil || len(failed) < 2 || !strings.Contains(failed[1], said) {
				t.Fatalf("want a failure that says %q, got %v\n%s", said, err, out)
			}
		})
	}
}
