package cli

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"danm.io/danm/reconcile/local"
)

// SyncOptions are danmctl sync's.
type SyncOptions struct {
	Path      string
	StateDir  string
	Node      string
	Interval  time.Duration
	Once      bool
	LogFormat string // text or json, on Err
}

// Sync keeps a node's state directory in step with a bundle until ctx ends, or for one round. It returns OK, Invalid if the
// one round refused the bundle (the diagnostics are on Out, the state is as it was), or Failed.
func Sync(ctx context.Context, o SyncOptions, io IO) int {
	var handler slog.Handler
	switch o.LogFormat {
	case "text":
		handler = slog.NewTextHandler(io.Err, nil)
	case "json":
		handler = slog.NewJSONHandler(io.Err, nil)
	default:
		return io.fail(&UsageError{"unknown log format " + o.LogFormat})
	}
	if o.Interval <= 0 {
		return io.fail(&UsageError{"--interval must be above zero"})
	}
	err := local.Run(ctx, local.Options{
		Location: o.Path, StateDir: o.StateDir, Node: o.Node, Interval: o.Interval, Once: o.Once,
		Log: slog.New(handler), Out: io.Out,
	})
	switch {
	case err == nil:
		return OK
	case errors.Is(err, local.ErrRefused):
		IO{Out: io.Out, Err: io.Out}.fail(err) // findings, as validate reports them
		return Invalid
	}
	return io.fail(err)
}
