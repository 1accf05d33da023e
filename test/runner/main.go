// Command runner runs `go test -json`, shows progress a package at a time, prints the output of what failed, and holds
// skipped tests against a list: as root a skip that test/skips.txt does not name is a failure, since a skipped test is not
// a passed one. Its last line is "N passed, N failed, N skipped".
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// event is one line of `go test -json` (go doc test2json).
type event struct {
	Action  string
	Package string
	Test    string
	Output  string
	Elapsed float64
}

// tally is what the events add up to.
type tally struct {
	passed, failed, skipped int
	output                  map[string][]string // "package.Test" → lines
	named                   bool                // passed tests are told, too
	failures                []string
	skips                   []string // "package.Test: reason"
}

func main() {
	skipFile := flag.String("skips", "test/skips.txt", "skips allowed as root, one `Test: reason` a line")
	named := flag.Bool("named", false, "name each test that passed, and the first level below it")
	flag.Parse()
	os.Exit(run(*skipFile, *named, flag.Args()))
}

func run(skipFile string, named bool, args []string) int {
	allowed, err := readSkips(skipFile)
	if err != nil {
		fmt.Fprintln(os.Stderr, "read allowed skips:", err)
		return 2
	}
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	t := &tally{output: map[string][]string{}, named: named}
	t.read(out, os.Stdout)
	failedRun := cmd.Wait() != nil
	unlisted := t.unlisted(allowed)
	t.report(os.Stdout, unlisted, os.Geteuid() == 0)
	switch {
	case failedRun, t.failed > 0, len(unlisted) > 0 && os.Geteuid() == 0:
		return 1
	case t.passed == 0:
		fmt.Println("no test ran")
		return 1
	}
	return 0
}

func (t *tally) read(in io.Reader, progress io.Writer) {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				progress.Write(line)
			} else {
				t.take(e, progress)
			}
		}
		if err != nil {
			return
		}
	}
}

func (t *tally) take(e event, progress io.Writer) {
	id := e.Package + "." + e.Test
	switch e.Action {
	case "output":
		t.output[id] = append(t.output[id], e.Output)
	case "build-output":
		fmt.Fprint(progress, e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			t.finishPackage(e, progress)
			return
		}
		t.finishTest(e, id)
		if t.named && e.Action == "pass" && strings.Count(e.Test, "/") <= 1 {
			fmt.Fprintf(progress, "      %s\n", e.Test)
		}
	}
}

func (t *tally) finishTest(e event, id string) {
	switch e.Action {
	case "pass":
		t.passed++
		delete(t.output, id)
	case "skip":
		t.skipped++
		t.skips = append(t.skips, strings.TrimPrefix(id, "danm.io/danm/")+": "+skipReason(t.output[id]))
	case "fail":
		t.failed++
		t.failures = append(t.failures, id)
	}
}

func (t *tally) finishPackage(e event, progress io.Writer) {
	if e.Action == "skip" || e.Action == "pass" && e.Elapsed < 0.005 {
		return // no tests selected in it
	}
	fmt.Fprintf(progress, "%-5s %-45s %v\n", e.Action, strings.TrimPrefix(e.Package, "danm.io/danm/"), time.Duration(e.Elapsed*float64(time.Second)).Round(10*time.Millisecond))
	if e.Action == "fail" {
		t.failures = append(t.failures, e.Package+".")
	}
}

// skipReason is the message of t.Skip: the last indented line that is no "--- SKIP".
func skipReason(lines []string) string {
	for _, l := range slices.Backward(lines) {
		l = strings.TrimSpace(l)
		if _, reason, ok := strings.Cut(l, ".go:"); ok {
			if _, reason, ok = strings.Cut(reason, ": "); ok {
				return reason
			}
		}
	}
	return "no reason given"
}

// readSkips reads allowed skips: a reason a line; a skip is allowed when its line contains that text.
func readSkips(file string) ([]string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var out []string
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			out = append(out, line)
		}
	}
	return out, nil
}

func (t *tally) unlisted(allowed []string) []string {
	var out []string
	for _, s := range t.skips {
		if !slices.ContainsFunc(allowed, func(a string) bool { return strings.Contains(s, a) }) {
			out = append(out, s)
		}
	}
	return out
}

func (t *tally) report(w io.Writer, unlisted []string, asRoot bool) {
	for _, id := range t.failures {
		if lines := t.output[id]; len(lines) > 0 {
			fmt.Fprintf(w, "\n--- %s\n%s", id, strings.Join(lines, ""))
		}
	}
	for _, s := range t.skips {
		fmt.Fprintln(w, "skipped:", s)
	}
	if asRoot {
		for _, s := range unlisted {
			fmt.Fprintln(w, "NOT ALLOWED TO SKIP (test/skips.txt):", s)
		}
	}
	fmt.Fprintf(w, "%d passed, %d failed, %d skipped\n", t.passed, t.failed, t.skipped)
}
