package docs

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	named = regexp.MustCompile("(?m)`((?:danmctl|danm-node) [^`\n]+)`|^((?:danmctl|danm-node) .+)$|^\\$ ((?:danmctl|danm-node) .+)$")
	flags = regexp.MustCompile(`(?:^|\s)(--[a-z-]+|-[a-z])\b`)
)

// TestE2ENamedCommands: each subcommand and flag that a document names exists.
func TestE2ENamedCommands(t *testing.T) {
	var files []string
	for _, glob := range []string{"README.md", "CONTRIBUTING.md", "docs/*.md", "docs/decisions/*.md", "examples/*/README.md"} {
		found, err := filepath.Glob(filepath.Join(root, glob))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	help := map[string]string{}
	seen := 0
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range named.FindAllStringSubmatch(string(data), -1) {
			text := regexp.MustCompile(`[;|>&]`).Split(m[1]+m[2]+m[3], 2)[0]
			words := strings.Fields(text)
			sub := words[0] + " " + words[1]
			switch {
			case strings.HasPrefix(words[1], "-"):
				sub = words[0]
			case words[1] == "ipam" && len(words) > 2 && !strings.HasPrefix(words[2], "-"):
				sub += " " + words[2]
			}
			if _, ok := help[sub]; !ok {
				out, err := exec.Command(filepath.Join(root, "bin", words[0]), append(strings.Fields(sub)[1:], "--help")...).CombinedOutput()
				if err != nil || sub != words[0] && !strings.Contains(string(out), sub) {
					t.Errorf("%s: %q: no such command: %v", file, text, err)
				}
				help[sub] = string(out)
			}
			for _, f := range flags.FindAllStringSubmatch(text, -1) {
				seen++
				if !strings.Contains(help[sub], f[1]+" ") && !strings.Contains(help[sub], f[1]+",") {
					t.Errorf("%s: %q: %s has no flag %s", file, text, sub, f[1])
				}
			}
		}
	}
	if seen < 10 {
		t.Fatalf("%d flags found: the documents name more", seen)
	}
}
