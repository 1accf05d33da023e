package validate

import (
	"fmt"
	"strconv"

	"danm.io/danm/spec/decode"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// spot is a field of a document: what a diagnostic points at.
type spot struct {
	doc  *decode.Where
	path string
}

func at(doc *decode.Where, path string) spot { return spot{doc, path} }

func (s spot) in(field string) spot {
	if s.path == "" {
		return spot{s.doc, field}
	}
	return spot{s.doc, s.path + "." + field}
}

func (s spot) nth(i int) spot    { return spot{s.doc, s.path + "[" + strconv.Itoa(i) + "]"} }
func (s spot) key(k string) spot { return spot{s.doc, s.path + "[" + strconv.Quote(k) + "]"} }
func (s spot) broken() bool      { return s.doc.Broken }
func (s spot) place() string {
	line, _ := s.doc.At(s.path)
	return fmt.Sprintf("%s:%d", s.doc.File, line)
}
func (s spot) origin() model.Origin { return model.Origin{File: s.doc.File, Line: s.doc.Line} }

func (c *checker) report(severity diag.Severity, code diag.Code, s spot, summary, hint string) {
	d := diag.Diagnostic{Severity: severity, Code: code, Path: s.path, Summary: summary, Hint: hint}
	if s.doc != nil {
		d.File = s.doc.File
		d.Line, d.Col = s.doc.At(s.path)
	}
	c.problems = append(c.problems, d)
}

func (c *checker) error(code diag.Code, s spot, summary, hint string) {
	c.report(diag.Error, code, s, summary, hint)
}

func (c *checker) warn(code diag.Code, s spot, summary, hint string) {
	c.report(diag.Warning, code, s, summary, hint)
}

// unique reports a second bearer of a name; what says whose names are meant, such as "node". False for the second.
func (c *checker) unique(what, name string, s spot) bool {
	key := what + "\x00" + name
	if first, taken := c.names[key]; taken {
		c.error(diag.DuplicateName, s, fmt.Sprintf("%s %q is declared already in %s", what, name, first.place()), "rename or remove one of them")
		return false
	}
	c.names[key] = s
	return true
}

// dangling reports a reference to nowhere, unless the target may stand in what could not be read.
func (c *checker) dangling(what, name string, s spot, known []string, unsure bool) {
	if unsure || c.docs.Incomplete || s.broken() {
		return
	}
	hint := diag.Suggest(name, known)
	if hint == "" {
		hint = fmt.Sprintf("declare the %s, or correct the name", what)
	}
	c.error(diag.UnknownReference, s, fmt.Sprintf("%s %q does not exist", what, name), hint)
}

func anyBroken[T any](docs []decode.Doc[T]) bool {
	for i := range docs {
		if docs[i].Broken {
			return true
		}
	}
	return false
}

func keys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	return out
}
