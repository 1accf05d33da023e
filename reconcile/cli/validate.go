package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"danm.io/danm/reconcile/source"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// ValidateOptions are danmctl validate's.
type ValidateOptions struct {
	Path      string // a directory or a location of a Git repository
	Inventory string
	Output    string // text or json
}

// Findings is the JSON form of validate's result.
type Findings struct {
	Valid       bool      `json:"valid"`
	Revision    string    `json:"revision,omitempty"`
	Errors      int       `json:"errors"`
	Warnings    int       `json:"warnings"`
	Diagnostics diag.List `json:"diagnostics"`
}

// Validate reports every problem of a bundle at once on stdout. It returns OK (warnings allowed), Invalid or Failed. A
// bundle that is there but cannot be taken (empty, oversized, a link out of it) is invalid; one that is not there is a
// failure.
func Validate(ctx context.Context, o ValidateOptions, io IO) int {
	if err := oneOf(o.Output, "text", "json"); err != nil {
		return io.fail(err)
	}
	inv, err := readInventory(o.Inventory)
	if err != nil {
		return io.fail(err)
	}
	f, err := findings(ctx, o.Path, inv)
	if err != nil {
		return io.fail(err)
	}
	if o.Output == "json" {
		err = io.print("json", f)
	} else {
		_, err = fmt.Fprint(io.Out, f.text(io.Color))
	}
	if err != nil {
		return io.fail(err)
	}
	if !f.Valid {
		return Invalid
	}
	return OK
}

func findings(ctx context.Context, path string, inv model.Inventory) (Findings, error) {
	snap, err := fetch(ctx, path)
	var refused *source.Error
	var diags diag.List
	switch {
	case errors.As(err, &refused) && contentCodes[refused.Code]:
		diags = diag.List{refused.Diagnostic()}
	case err != nil:
		return Findings{}, err
	default:
		_, _, diags = compile(snap, inv)
	}
	f := Findings{Valid: !diags.HasErrors(), Revision: snap.Revision, Diagnostics: diags}
	if f.Diagnostics == nil {
		f.Diagnostics = diag.List{} // [] in JSON
	}
	for _, d := range diags {
		if d.Severity == diag.Error {
			f.Errors++
		} else {
			f.Warnings++
		}
	}
	return f, nil
}

func (f Findings) text(color bool) string {
	var b strings.Builder
	for _, d := range f.Diagnostics {
		line := d.String()
		if color {
			line = paintSeverity(line, d)
		}
		b.WriteString(line + "\n")
	}
	if f.Valid {
		fmt.Fprintf(&b, "valid: %s\n", plural(f.Warnings, "warning"))
	} else {
		fmt.Fprintf(&b, "invalid: %s, %s\n", plural(f.Errors, "error"), plural(f.Warnings, "warning"))
	}
	return b.String()
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
