// Package local is the local home's loop: it keeps a node's state directory in step with a bundle's source, without a cluster.
//
// Each round fetches, validates, renders, picks the node and writes its state; the decision in the middle is pure (decide). A bad
// bundle, a source that is away, or a bundle that forgot the node change nothing: the last good state stays, byte for byte, and the
// round is repeated. It needs no privilege, touches no kernel, keeps no memory that a restart would miss, and tears nothing down.
package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	"danm.io/danm/node/state"
	"danm.io/danm/reconcile/source"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// ErrRefused marks a round whose bundle was fetched and is not usable; a *diag.ListError with the reasons is in the same error.
// Other errors of Run are a *source.Error (not fetched) or concern the state directory.
var ErrRefused = errors.New("bundle refused")

// DefaultInterval is how often a source is asked when nothing else wakes the loop.
const DefaultInterval = 30 * time.Second

// Options of Run. Location, StateDir and Node are needed.
type Options struct {
	Location string         // as for source.Open
	Source   source.Options // an empty CacheDir means StateDir/source
	StateDir string         // created if it is not there; one writer at a time
	Node     string
	Interval time.Duration   // 0 = DefaultInterval
	Once     bool            // one round, then return its result
	Wake     <-chan struct{} // a round now, please (SIGHUP); may be nil
	Log      *slog.Logger    // nil = discard
	Out      io.Writer       // results and diagnostics for people; nil = discard

	// NoRecords asserts that no address record exists (nil result), so that slots may change; see state.Dir.AllowIdentity.
	NoRecords func() error

	step func(string) // tests: called after each step
}

// Run syncs until ctx ends (then it returns nil), or once. It fails at once if the location is malformed or another process is the
// directory's writer; with Once it returns the round's error, whose diagnostics are then the caller's to print.
func Run(ctx context.Context, o Options) error {
	s, err := newSyncer(o)
	if err != nil {
		return err
	}
	release, err := s.dir.Lock()
	if err != nil {
		return fmt.Errorf("sync into %s: %w", o.StateDir, err)
	}
	defer release()
	if o.Once {
		return s.round(ctx)
	}
	return s.loop(ctx)
}

type syncer struct {
	Options
	fetcher  source.Fetcher
	dir      *state.Dir
	target   target
	location string // as printed

	seen    string // the last revision decided upon, and what came of it: not decided again while nothing changes
	verdict error
	said    string // what Out was told last, to say it once
}

func newSyncer(o Options) (*syncer, error) {
	if o.Node == "" || o.StateDir == "" {
		return nil, errors.New("sync: node and state directory are needed")
	}
	if o.Interval <= 0 {
		o.Interval = DefaultInterval
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Out == nil {
		o.Out = io.Discard
	}
	if o.step == nil {
		o.step = func(string) {}
	}
	if o.Source.CacheDir == "" {
		o.Source.CacheDir = filepath.Join(o.StateDir, "source")
	}
	location, err := source.ParseLocation(o.Location)
	if err != nil {
		return nil, err
	}
	fetcher, err := source.Open(o.Location, o.Source)
	if err != nil {
		return nil, err
	}
	s := &syncer{
		Options: o, fetcher: fetcher, dir: state.Open(o.StateDir), location: location.String(),
		target: target{node: o.Node, endpoint: location.Endpoint()},
	}
	s.dir.AllowIdentity(o.NoRecords)
	return s, nil
}

// round is fetch, decide, write, report. The state directory changes only if all of the first two went well.
func (s *syncer) round(ctx context.Context) error {
	previous, damaged := s.previous()
	snap, err := s.fetcher.Fetch(ctx)
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("sync: %w", ctx.Err())
	}
	s.step("fetched")
	var diags diag.List
	if err == nil {
		diags, err = s.apply(snap, previous, damaged)
	}
	s.report(snap.Revision, diags, err)
	s.step("reported")
	return err
}

// previous is the state in force, nil if none can be read; damaged says that the directory needs a new write in any case.
func (s *syncer) previous() (st *model.NodeState, damaged bool) {
	loaded, err := s.dir.Load()
	switch {
	case errors.Is(err, state.ErrNone):
		return nil, true
	case err != nil:
		s.Log.Warn("state in force is not readable", "reason", err.Error())
		return nil, true
	}
	return &loaded.State, len(loaded.Refused) > 0
}

// apply decides upon a snapshot and writes the state. A snapshot that was decided upon and is in force is not rendered again.
func (s *syncer) apply(snap source.Snapshot, previous *model.NodeState, damaged bool) (diag.List, error) {
	if s.seen == snap.Revision && (s.verdict != nil || !damaged && previous.Revision == snap.Revision) {
		var list *diag.ListError
		if errors.As(s.verdict, &list) {
			return list.List, s.verdict
		}
		return snap.Warnings, nil
	}
	inventory, err := s.dir.ReadInventory()
	if err != nil { // the agent writes it anew
		s.Log.Warn("hardware is not known", "reason", err.Error())
	}
	st, diags := decide(snap, s.target, previous, inventory)
	s.seen, s.verdict = snap.Revision, nil
	if err := diags.Err(); err != nil {
		s.verdict = fmt.Errorf("%w: %w", ErrRefused, err)
		return diags, s.verdict
	}
	s.step("decided")
	changed, err := s.dir.Write(st)
	if err != nil {
		s.seen = "" // the disk may have room next time
		code := diag.StateWriteFailed
		if errors.Is(err, state.ErrIdentity) {
			code = diag.IdentityChanged
		}
		d := diag.Diagnostic{Severity: diag.Error, Code: code, Summary: err.Error()}
		return append(diags, d), &writeError{err: err, diagnostic: d}
	}
	s.step("written")
	s.Log.Info("state", "revision", st.Revision, "node", st.Node, "digest", st.Digest, "changed", changed)
	return diags, nil
}

// writeError is a failure of the state directory: the state's own error, and the diagnostic for people.
type writeError struct {
	err        error
	diagnostic diag.Diagnostic
}

func (e *writeError) Error() string { return "write state: " + e.err.Error() }
func (e *writeError) Unwrap() error { return e.err }

// As finds the diagnostics in it.
func (e *writeError) As(target any) bool {
	if l, ok := target.(**diag.ListError); ok {
		*l = &diag.ListError{List: diag.List{e.diagnostic}}
		return true
	}
	return false
}

// report tells people, the log and the status file what came of a round.
func (s *syncer) report(fetched string, diags diag.List, err error) {
	st := Status{Location: s.location, Node: s.Node, Fetched: fetched}
	if old, readErr := ReadStatus(s.StateDir); fetched == "" && readErr == nil && old.Location == s.location {
		st.Fetched = old.Fetched
	}
	if now, _ := s.previous(); now != nil {
		st.Applied, st.Digest = now.Revision, now.Digest
	}
	if list := (*diag.ListError)(nil); len(diags) == 0 && errors.As(err, &list) {
		diags = list.List
	}
	st.setDiagnostics(diags)
	if saveErr := st.save(s.StateDir, time.Now()); saveErr != nil {
		s.Log.Warn("sync status not written", "reason", saveErr.Error())
	}
	s.say(st, diags, err)
}

// say prints what is new. With Once the caller prints the error.
func (s *syncer) say(st Status, diags diag.List, err error) {
	var text string
	for _, d := range diags {
		if d.Severity == diag.Warning || !s.Once {
			text += d.String() + "\n"
		}
	}
	switch {
	case err == nil:
		text += fmt.Sprintf("%s: state written for node %s, plan %s\n", st.Applied, st.Node, st.Digest)
	case !s.Once && st.Applied != "":
		text += fmt.Sprintf("the state of %s stays in force\n", st.Applied)
	}
	if err != nil {
		reason, _, _ := strings.Cut(err.Error(), "\n") // the others are in the status file, and counted
		s.Log.Warn("sync failed", "reason", reason, "codes", st.Errors, "problems", st.Total, "in_force", st.Applied)
	}
	if text != s.said {
		s.said = text
		_, _ = io.WriteString(s.Out, text) // nobody reads any more: no reason to stop syncing
	}
}
