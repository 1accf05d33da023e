package diag

import (
	"strings"
	"testing"
)

// Nothing that a document or a file's name says reaches a terminal as a command, or hides.
func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain äß 網": "plain äß 網", "a\x1b[31mred": `a\x1b[31mred`, "two\nlines": `two\nlines`, "\u202egpj.exe": `\u202egpj.exe`, "zero\u200bwidth": `zero\u200bwidth`, "\x7f\r": `\x7f\r`, "bad\xff": "bad�",
	} {
		if got := Printable(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	evil := "x\x1b]0;title\a"
	d := Diagnostic{Severity: Error, Code: "X", File: evil, Line: 1, Path: evil, Summary: evil, Hint: evil}
	if s := d.String(); strings.ContainsAny(s, "\x1b\a") || strings.Count(s, `\x1b]0;title\a`) != 4 {
		t.Errorf("%q", s)
	}
}
