// Package cli holds the bodies of danmctl: each command is a function of its options, two writers and nothing else that
// returns an exit code, so that tests run exactly what a shell runs.
//
// Findings and results go to stdout, problems of the call itself to stderr. Commands look. What writes says so: init, convert and
// sync into directories, retry to a guard or a cluster, ipam check --accept and ipam release to a cluster. Flags and completion are
// in reconcile/cmd/danmctl.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"danm.io/danm/reconcile/source"
	"danm.io/danm/spec/diag"
	"sigs.k8s.io/yaml"
)

// Exit codes. diff and plan use Differences as kubectl diff does.
const (
	OK          = 0
	Invalid     = 1 // validate: the bundle has errors
	Differences = 1 // diff, plan: there is something to do
	Failed      = 2 // usage, input or output; diff and plan also for a bundle with errors
)

// IO is what a command writes to. Color asks for ANSI colours on Out.
type IO struct {
	Out, Err io.Writer
	Color    bool
}

// fail reports a problem of the call and gives its exit code.
func (o IO) fail(err error) int {
	var list *diag.ListError
	var fetch *source.Error
	switch {
	case errors.As(err, &list):
		for _, d := range list.List {
			fmt.Fprintln(o.Err, d)
		}
	case errors.As(err, &fetch):
		fmt.Fprintln(o.Err, fetch.Diagnostic())
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(o.Err, "danmctl: interrupted")
	default:
		fmt.Fprintln(o.Err, "danmctl:", err)
	}
	return Failed
}

// failSide is fail for one side of a comparison. It does not repeat the side's location, which may hold what is secret.
func (o IO) failSide(side string, err error) int {
	fmt.Fprintf(o.Err, "danmctl: the %s side cannot be compared:\n", side)
	return o.fail(err)
}

// print writes v in one of the machine formats.
func (o IO) print(format string, v any) error {
	switch format {
	case "json":
		e := json.NewEncoder(o.Out)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		return e.Encode(v)
	case "yaml":
		b, err := yaml.Marshal(v)
		if err != nil {
			return fmt.Errorf("write YAML: %w", err)
		}
		_, err = o.Out.Write(b)
		return err
	}
	return unknownFormat(format, "yaml", "json")
}

// UsageError is a wrong call: an unknown format, flags that exclude each other.
type UsageError struct{ Message string }

func (e *UsageError) Error() string { return e.Message }

func unknownFormat(format string, allowed ...string) error {
	return &UsageError{fmt.Sprintf("unknown output format %q: it is %s", format, strings.Join(allowed, " or "))}
}

func oneOf(format string, allowed ...string) error {
	for _, a := range allowed {
		if format == a {
			return nil
		}
	}
	return unknownFormat(format, allowed...)
}
