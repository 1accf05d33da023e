package guard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"danm.io/danm/node/plan"
)

// ErrAway means that the guard does not answer; what was asked may or may not have happened. Ask Status.
var ErrAway = errors.New("the guard does not answer")

// callTimeout bounds a call whose context has no deadline; a submission takes at most its window and a revert.
const callTimeout = time.Minute

// Client calls the guard of a state directory. It holds no connection: each call dials, so a restarted guard is found.
type Client struct{ Dir string }

func (c Client) call(ctx context.Context, req request) (response, error) {
	var resp response
	path, err := socketPath(c.Dir)
	if err != nil {
		return resp, err
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, callTimeout)
		defer cancel()
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return resp, fmt.Errorf("%w: %w (does danm-node guard run with this --state-dir, and may you open its socket?)", ErrAway, err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	req.Version = ProtocolVersion
	if err := json.NewEncoder(conn).Encode(req); err != nil {
		return resp, fmt.Errorf("%w: %s: %w", ErrAway, req.Op, err)
	}
	if err := json.NewDecoder(io.LimitReader(conn, maxMessage)).Decode(&resp); err != nil {
		return resp, fmt.Errorf("%w: %s: %w", ErrAway, req.Op, err)
	}
	return resp, resp.err()
}

func (c Client) outcome(ctx context.Context, req request) (Outcome, error) {
	resp, err := c.call(ctx, req)
	if resp.Outcome == nil {
		return Outcome{}, err
	}
	return *resp.Outcome, err
}

// Submit is Guard.Submit.
func (c Client) Submit(ctx context.Context, s Submission) (Outcome, error) {
	return c.outcome(ctx, request{Op: opSubmit, Submit: &s})
}

// Repair is Guard.Repair.
func (c Client) Repair(ctx context.Context, d plan.Desired, skip []plan.ObjectID) (Outcome, error) {
	return c.outcome(ctx, request{Op: opRepair, Desired: &d, Skip: skip})
}

// Confirm is Guard.Confirm.
func (c Client) Confirm(ctx context.Context, digest string) error {
	return c.do(ctx, request{Op: opConfirm, Digest: digest})
}

// Judge is Guard.Judge.
func (c Client) Judge(ctx context.Context, digest string, v Verdict, probe string) error {
	return c.do(ctx, request{Op: opJudge, Digest: digest, Verdict: v, Probe: probe})
}

// Retry is Guard.Retry.
func (c Client) Retry(ctx context.Context, digest string) error {
	return c.do(ctx, request{Op: opRetry, Digest: digest})
}

// Pause is Guard.Pause.
func (c Client) Pause(ctx context.Context) error { return c.do(ctx, request{Op: opPause}) }

// Resume is Guard.Resume.
func (c Client) Resume(ctx context.Context) error { return c.do(ctx, request{Op: opResume}) }

// Restore is Guard.Restore.
func (c Client) Restore(ctx context.Context) ([]plan.Step, error) {
	resp, err := c.call(ctx, request{Op: opRestore})
	return resp.Steps, err
}

// Status is Guard.Status.
func (c Client) Status(ctx context.Context) (Status, error) {
	resp, err := c.call(ctx, request{Op: opStatus})
	if resp.Status == nil {
		return Status{}, err
	}
	return *resp.Status, err
}

func (c Client) do(ctx context.Context, req request) error {
	_, err := c.call(ctx, req)
	return err
}
