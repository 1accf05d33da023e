// Package diag is the project's one shape for telling a user about a problem: where it is, what it is, and what to do.
//
// It holds no rules and does no I/O: rooms that find problems return a List, rooms that talk to users print it.
// Codes are stable; they double as condition reasons and are explained by `danmctl explain CODE`.
package diag

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Severity says whether a diagnostic stops the bundle (Error) or only deserves attention (Warning).
type Severity string

const (
	Error   Severity = "error"
	Warning Severity = "warning"
)

// Code names a kind of problem, in CamelCase, forever. See Explain for its text.
type Code string

// Diagnostic is one problem. File is relative to the bundle's root; Line and Col count from 1, 0 means unknown.
// Path is the field's path inside its document, such as "spec.fabrics[0].vxlan.port".
type Diagnostic struct {
	Severity Severity `json:"severity"`
	Code     Code     `json:"code"`
	File     string   `json:"file,omitempty"`
	Line     int      `json:"line,omitempty"`
	Col      int      `json:"col,omitempty"`
	Path     string   `json:"path,omitempty"`
	Summary  string   `json:"summary"`
	Hint     string   `json:"hint,omitempty"`
}

// Position is file:line:col as far as known, "" if nothing is.
func (d Diagnostic) Position() string {
	file := Printable(d.File)
	switch {
	case file == "":
		return ""
	case d.Line == 0:
		return file
	case d.Col == 0:
		return fmt.Sprintf("%s:%d", file, d.Line)
	}
	return fmt.Sprintf("%s:%d:%d", file, d.Line, d.Col)
}

// Printable writes what a terminal would take for a command, or would show as something else, as its escape: names of files
// and words of documents come from whoever may commit.
func Printable(s string) string {
	if s = strings.ToValidUTF8(s, "\uFFFD"); !strings.ContainsFunc(s, hidden) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if hidden(r) {
			quoted := strconv.QuoteRuneToASCII(r)
			b.WriteString(quoted[1 : len(quoted)-1])
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

func hidden(r rune) bool { return !unicode.IsPrint(r) }

// String is "file:line:col: error[Code]: summary (path)", with the hint on a line of its own.
func (d Diagnostic) String() string {
	var b strings.Builder
	if p := d.Position(); p != "" {
		b.WriteString(p + ": ")
	}
	fmt.Fprintf(&b, "%s[%s]: %s", d.Severity, d.Code, Printable(d.Summary))
	if d.Path != "" {
		fmt.Fprintf(&b, " (%s)", Printable(d.Path))
	}
	if d.Hint != "" {
		fmt.Fprintf(&b, "\n  hint: %s", Printable(d.Hint))
	}
	return b.String()
}

// List is every problem found, errors and warnings together.
type List []Diagnostic

// HasErrors says whether at least one entry is an Error.
func (l List) HasErrors() bool {
	return slices.ContainsFunc(l, func(d Diagnostic) bool { return d.Severity == Error })
}

// Sorted returns a copy ordered by file, line, column, severity, code, path and summary: the same problems always print the same.
func (l List) Sorted() List {
	out := slices.Clone(l)
	slices.SortStableFunc(out, func(a, b Diagnostic) int {
		return cmp.Or(
			cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col),
			cmp.Compare(a.Severity, b.Severity), cmp.Compare(a.Code, b.Code),
			cmp.Compare(a.Path, b.Path), cmp.Compare(a.Summary, b.Summary))
	})
	return slices.CompactFunc(out, func(a, b Diagnostic) bool { return a == b })
}

// Err is the list as an error, nil when nothing in it is an Error. Recover the list with errors.As.
func (l List) Err() error {
	if !l.HasErrors() {
		return nil
	}
	return &ListError{List: l.Sorted()}
}

// ListError carries a List through error returns.
type ListError struct{ List List }

func (e *ListError) Error() string {
	lines := make([]string, len(e.List))
	for i, d := range e.List {
		lines[i] = d.String()
	}
	return strings.Join(lines, "\n")
}
