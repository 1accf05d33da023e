// Package fail sorts the errors of reconcile loops by what helps against them: a change by people (Terminal), time
// (Waiting), or another try (any other error). Reasons are condition reasons and codes of spec/diag.
package fail

import (
	"errors"
	"time"
)

// Failure is an error with the reason that a condition shows.
type Failure struct {
	Reason   string
	Terminal bool          // only a change of the input helps
	After    time.Duration // when to look again, 0 = as the loop does anyway
	Err      error
}

func (f *Failure) Error() string { return f.Err.Error() }
func (f *Failure) Unwrap() error { return f.Err }

// Terminal is an error that repeats until somebody changes something.
func Terminal(reason string, err error) error {
	return &Failure{Reason: reason, Terminal: true, Err: err}
}

// Waiting is an error, or a state, that time may mend: nothing is wrong with the input.
func Waiting(reason string, after time.Duration, err error) error {
	return &Failure{Reason: reason, After: after, Err: err}
}

// Of is the failure in err's chain; an error of no kind is one that another try may mend, with the reason given.
func Of(err error, otherwise string) *Failure {
	if err == nil {
		return nil
	}
	if f := (*Failure)(nil); errors.As(err, &f) {
		return &Failure{Reason: f.Reason, Terminal: f.Terminal, After: f.After, Err: err}
	}
	return &Failure{Reason: otherwise, Err: err}
}
