package cli

import (
	"cmp"
	"fmt"

	"danm.io/danm/spec/diag"
)

// Explain prints what a code means and what to do, or the list of all codes when none is given. An unknown code is a
// failure that names the nearest one.
func Explain(code string, io IO) int {
	if code == "" {
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
		hint := cmp.Or(diag.Suggest(code, Codes()), "danmctl explain lists all")
		return io.fail(&UsageError{fmt.Sprintf("unknown code %q; %s", code, hint)})
	}
	fmt.Fprintf(io.Out, "%s: %s\n\n%s\n\nRemedy: %s\n", e.Code, e.Title, e.Text, e.Remedy)
	return OK
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
