package cli

import (
	"cmp"
	"fmt"
	"strings"
	"unicode/utf8"

	"danm.io/danm/spec/diag"
)

// Explain prints what a code means and what to do, what a kind of document or a field of one holds (Network, Network.spec.ipv4), or the
// list of all kinds and codes when nothing is given. An unknown word is a failure that names the nearest one.
func Explain(code string, io IO) int {
	if code == "" {
		fmt.Fprintf(io.Out, "kinds of documents, and fields as in Network.spec.ipv4: %s\n\n", strings.Join(Kinds(), ", "))
		width := 0
		for _, e := range diag.All() {
			width = max(width, len(e.Code))
		}
		for _, e := range diag.All() {
			fmt.Fprintf(io.Out, "%-*s  %s\n", width, e.Code, e.Title)
		}
		return OK
	}
	e, ok := diag.Explain(diag.Code(code))
	if !ok {
		known, err := explainField(code, io)
		if !known && err == nil {
			err = &UsageError{fmt.Sprintf("unknown code or kind %q; %s", code, cmp.Or(diag.Suggest(code, append(Kinds(), Codes()...)), "danmctl explain lists all"))}
		}
		if err != nil {
			return io.fail(err)
		}
		return OK
	}
	fmt.Fprintf(io.Out, "%s: %s\n\n%s\n%s", e.Code, e.Title, wrapped(e.Text, ""), wrapped("Remedy: "+e.Remedy, ""))
	return OK
}

// proseWidth is how wide prose for a terminal is, in characters, as kubectl explain's.
const proseWidth = 80

// wrapped is text in lines of at most proseWidth, each with indent before it; a longer word has a line of its own.
func wrapped(text, indent string) string {
	var b strings.Builder
	for line := ""; ; {
		word, rest, more := strings.Cut(text, " ")
		if line != "" && utf8.RuneCountInString(indent+line+" "+word) > proseWidth {
			b.WriteString(indent + line + "\n")
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += word
		if text = rest; !more {
			b.WriteString(indent + line + "\n")
			return b.String()
		}
	}
}

// Codes lists every code, for completion.
func Codes() []string {
	all := diag.All()
	out := make([]string, len(all))
	for i, e := range all {
		out[i] = string(e.Code)
	}
	return out
}
