// Package docs runs what the documents say: every `$ command` of a ```console block, with the output that stands below it.
package docs

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const root = "../.."

// elsewhere names commands that another test, or CI itself, runs: repeating them here would recurse.
var elsewhere = map[string]string{
	"make build": "test-e2e builds first",
	"make demo":  "TestE2EDemo",
	"make test":  "what CI runs",
	"make bench": "measures; never part of a test",
}

// command is one `$ …` line with the lines shown below it; "..." stands for any number of lines.
type command struct {
	line   int
	text   string
	output []string
}

// commands reads the console blocks of a document. Blocks of one document share one working directory and order.
func commands(doc string) (out []command) {
	in := false
	for i, line := range strings.Split(doc, "\n") {
		switch {
		case strings.HasPrefix(line, "```"):
			in = !in && strings.TrimSpace(line) == "```console"
		case !in:
		case strings.HasPrefix(line, "$ "):
			out = append(out, command{line: i + 1, text: strings.TrimPrefix(line, "$ ")})
		case len(out) > 0:
			out[len(out)-1].output = append(out[len(out)-1].output, line)
		}
	}
	return out
}

// matches compares real output with what is shown, where "..." stands for any lines.
func matches(shown, real []string) bool {
	if len(shown) == 0 {
		return len(real) == 0
	}
	if strings.TrimSpace(shown[0]) == "..." {
		for skip := 0; skip <= len(real); skip++ {
			if matches(shown[1:], real[skip:]) {
				return true
			}
		}
		return false
	}
	return len(real) > 0 && strings.TrimRight(shown[0], " ") == strings.TrimRight(real[0], " ") && matches(shown[1:], real[1:])
}

func lines(s string) []string {
	s = strings.TrimRight(s, "\n")
	if s == "" {
		return nil
	}
	return strings.Split(s, "\n")
}

func TestE2EDocuments(t *testing.T) {
	files, err := filepath.Glob(root + "/docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	examples, err := filepath.Glob(root + "/examples/*/README.md")
	if err != nil {
		t.Fatal(err)
	}
	files = append(append(files, examples...), root+"/README.md", root+"/CONTRIBUTING.md")
	ran := 0
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		home := t.TempDir()
		for _, c := range commands(string(data)) {
			if elsewhere[c.text] != "" {
				continue
			}
			ran++
			t.Run(fmt.Sprintf("%s:%d", strings.TrimPrefix(file, root+"/"), c.line), func(t *testing.T) {
				check(t, c, home)
			})
		}
	}
	if ran < 5 {
		t.Fatalf("only %d commands found: the documents show more", ran)
	}
}

// check runs one command from the repository's root, bin/ first in PATH, TMPDIR a directory of the document's own.
func check(t *testing.T, c command, home string) {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", c.text)
	cmd.Dir = root
	bin, err := filepath.Abs(filepath.Join(root, "bin"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "TMPDIR="+home, "NO_COLOR=1")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err = cmd.Run() // an exit code that matters is shown with `echo $?`
	if ctx.Err() != nil {
		t.Fatalf("%s: %v", c.text, ctx.Err())
	}
	shown := lines(strings.Join(c.output, "\n"))
	if len(shown) == 0 && err != nil {
		t.Fatalf("%s: %v\n%s", c.text, err, out.String())
	}
	if len(shown) > 0 && !matches(shown, lines(out.String())) {
		t.Errorf("%s\nshown:\n%s\nreal:\n%s", c.text, strings.Join(shown, "\n"), out.String())
	}
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		shown, real string
		want        bool
	}{
		{"a\nb", "a\nb", true},
		{"a\nb", "a", false},
		{"a\n...\nd", "a\nb\nc\nd", true},
		{"...\nd", "a\nb", false},
		{"a", "a\nb", false},
		{"...", "", true},
	} {
		if got := matches(lines(c.shown), lines(c.real)); got != c.want {
			t.Errorf("matches(%q, %q) = %v", c.shown, c.real, got)
		}
	}
}
