package local

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"danm.io/danm/node/state"
	"danm.io/danm/spec/diag"
)

// StatusFile stands in the state directory.
const StatusFile = "sync-status.json"

// Status is what the last rounds came to, for those who look at a node later. It is replaced only when it changes.
type Status struct {
	Location    string      `json:"location"`
	Node        string      `json:"node"`
	Since       time.Time   `json:"since"`             // when it became so, UTC
	Fetched     string      `json:"fetched,omitempty"` // the newest revision that was delivered, good or bad
	Applied     string      `json:"applied,omitempty"` // the revision of the state in force
	Digest      string      `json:"digest,omitempty"`  // of the plan in force
	Errors      []diag.Code `json:"errors,omitempty"`  // of the last round, sorted, each once; empty: all is well
	Diagnostics diag.List   `json:"diagnostics,omitempty"`
	Total       int         `json:"total,omitempty"` // diagnostics there were; at most shownDiagnostics are listed
}

const shownDiagnostics = 10

// ReadStatus reads the status file of a state directory. fs.ErrNotExist: nothing was ever synced into it.
func ReadStatus(stateDir string) (Status, error) {
	path := filepath.Join(stateDir, StatusFile)
	b, err := os.ReadFile(path)
	if err != nil {
		return Status{}, fmt.Errorf("read sync status: %w", err)
	}
	var s Status
	if err := state.Decode(path, b, &s); err != nil {
		return Status{}, fmt.Errorf("read sync status: %w", err)
	}
	return s, nil
}

// setDiagnostics files what a round found.
func (s *Status) setDiagnostics(l diag.List) {
	s.Total = len(l)
	s.Errors, s.Diagnostics = nil, nil
	for _, severity := range []diag.Severity{diag.Error, diag.Warning} { // errors must not be crowded out
		for _, d := range l {
			if d.Severity != severity {
				continue
			}
			if severity == diag.Error {
				s.Errors = append(s.Errors, d.Code)
			}
			if len(s.Diagnostics) < shownDiagnostics {
				s.Diagnostics = append(s.Diagnostics, d)
			}
		}
	}
	slices.Sort(s.Errors)
	s.Errors = slices.Compact(s.Errors)
}

// save writes the status unless the file says the same already. A status is for people: a failure to write it is reported and
// stops nothing.
func (s Status) save(stateDir string, now time.Time) error {
	old, err := ReadStatus(stateDir)
	if err == nil {
		same := old
		same.Since = s.Since
		if a, b := encoded(same), encoded(s); a != "" && a == b {
			return nil
		}
	} else if refused := (*state.Refused)(nil); !errors.Is(err, os.ErrNotExist) && !errors.As(err, &refused) {
		return err
	}
	s.Since = now.UTC().Truncate(time.Second)
	b, err := state.Encode(s)
	if err != nil {
		return err
	}
	return state.WriteFile(filepath.Join(stateDir, StatusFile), b, nil)
}

func encoded(s Status) string {
	b, err := state.Encode(s)
	if err != nil {
		return ""
	}
	return string(b)
}
