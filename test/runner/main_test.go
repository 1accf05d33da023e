package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const stream = `{"Action":"run","Package":"danm.io/danm/x","Test":"TestA"}
{"Action":"pass","Package":"danm.io/danm/x","Test":"TestA","Elapsed":0.1}
{"Action":"output","Package":"danm.io/danm/x","Test":"TestB","Output":"    x_test.go:12: kernel lacks vlan\n"}
{"Action":"output","Package":"danm.io/danm/x","Test":"TestB","Output":"--- SKIP: TestB (0.00s)\n"}
{"Action":"skip","Package":"danm.io/danm/x","Test":"TestB","Elapsed":0}
{"Action":"output","Package":"danm.io/danm/x","Test":"TestC","Output":"    x_test.go:20: wrong\n"}
{"Action":"fail","Package":"danm.io/danm/x","Test":"TestC","Elapsed":0}
{"Action":"skip","Package":"danm.io/danm/x","Test":"TestD","Elapsed":0}
{"Action":"fail","Package":"danm.io/danm/x","Elapsed":0.2}
not json
`

func TestTally(t *testing.T) {
	tl := &tally{output: map[string][]string{}, named: true}
	var progress, report bytes.Buffer
	tl.read(strings.NewReader(stream), &progress)
	if tl.passed != 1 || tl.failed != 1 || tl.skipped != 2 {
		t.Fatalf("counted %d passed, %d failed, %d skipped", tl.passed, tl.failed, tl.skipped)
	}
	unlisted := tl.unlisted([]string{"kernel lacks vlan"})
	if want := []string{"x.TestD: no reason given"}; !slices.Equal(unlisted, want) {
		t.Fatalf("unlisted skips %q, want %q", unlisted, want)
	}
	tl.report(&report, unlisted, true)
	for _, want := range []string{"x_test.go:20: wrong", "skipped: x.TestB: kernel lacks vlan", "NOT ALLOWED TO SKIP (test/skips.txt): x.TestD", "1 passed, 1 failed, 2 skipped\n"} {
		if !strings.Contains(report.String(), want) {
			t.Errorf("report lacks %q:\n%s", want, report.String())
		}
	}
	if !strings.Contains(progress.String(), "      TestA\n") || strings.Contains(progress.String(), "TestB") {
		t.Errorf("passed tests are not named: %q", progress.String())
	}
	if !strings.Contains(progress.String(), "not json") || !strings.Contains(progress.String(), "fail") {
		t.Errorf("progress: %q", progress.String())
	}
}

func TestReadSkips(t *testing.T) {
	file := filepath.Join(t.TempDir(), "skips.txt")
	if err := os.WriteFile(file, []byte("# why\n\nkernel lacks vlan\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := readSkips(file)
	if err != nil || !slices.Equal(got, []string{"kernel lacks vlan"}) {
		t.Fatalf("got %q, %v", got, err)
	}
	if _, err := readSkips(file + ".absent"); err == nil {
		t.Fatal("a missing list must be an error, or every skip would pass")
	}
}
