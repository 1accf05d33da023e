package guard

import (
	"errors"
	"fmt"
	"path/filepath"

	"danm.io/danm/node/plan"
)

// SocketName is the guard's socket in the state directory, mode 0600. The protocol on it is one JSON request and one JSON
// response a connection, each with its version; a guard serves its own version and the one before.
const SocketName = "guard.sock"

// ProtocolVersion is what this program speaks.
const ProtocolVersion = 1

// maxMessage bounds a request and a response: 1,000 links are about 200 KB.
const maxMessage = 64 << 20

// maxSocketPath is what sockaddr_un holds (unix(7)).
const maxSocketPath = 107

type request struct {
	Version int             `json:"version"`
	Op      string          `json:"op"`
	Submit  *Submission     `json:"submit,omitempty"`
	Digest  string          `json:"digest,omitempty"`
	Verdict Verdict         `json:"verdict,omitempty"`
	Probe   string          `json:"probe,omitempty"`
	Desired *plan.Desired   `json:"desired,omitempty"`
	Skip    []plan.ObjectID `json:"skip,omitempty"`
}

type response struct {
	Version int         `json:"version"`
	Code    string      `json:"code,omitempty"` // of sentinels, "Failed" for other errors, "" = success
	Message string      `json:"message,omitempty"`
	Outcome *Outcome    `json:"outcome,omitempty"`
	Status  *Status     `json:"status,omitempty"`
	Steps   []plan.Step `json:"steps,omitempty"`
}

const (
	opSubmit  = "submit"
	opConfirm = "confirm"
	opRepair  = "repair"
	opStatus  = "status"
	opPause   = "pause"
	opResume  = "resume"
	opRestore = "restore"
	opJudge   = "judge"
	opRetry   = "retry"
)

// sentinels are the errors a client can tell apart.
var sentinels = map[string]error{
	"Paused": ErrPaused, "Busy": ErrBusy, "Quarantined": ErrQuarantined, "NotWaiting": ErrNotWaiting,
	"NotConfirmed": ErrNotConfirmed, "StepFailed": ErrStepFailed,
}

func codeOf(err error) string {
	if err == nil {
		return ""
	}
	for code, s := range sentinels {
		if errors.Is(err, s) {
			return code
		}
	}
	return "Failed"
}

// remoteError is an error of the guard as its client sees it.
type remoteError struct {
	message string
	is      error
}

func (e *remoteError) Error() string { return "guard: " + e.message }
func (e *remoteError) Unwrap() error { return e.is }

func (r response) err() error {
	if r.Code == "" {
		return nil
	}
	return &remoteError{message: r.Message, is: sentinels[r.Code]}
}

func socketPath(dir string) (string, error) {
	path := filepath.Join(dir, SocketName)
	if len(path) > maxSocketPath {
		return "", fmt.Errorf("guard socket %s: longer than %d bytes, choose a shorter state directory", path, maxSocketPath)
	}
	return path, nil
}
