package local

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"danm.io/danm/reconcile/source"
)

// A failed fetch is repeated after firstRetry, then after twice the time, up to the larger of maxRetry and the interval.
const (
	firstRetry = time.Second
	maxRetry   = time.Minute
)

// pause is how long to wait after a round. failures counts the fetches that failed in a row; random in [0,1) spreads many nodes that
// ask one server. Pure.
func pause(interval time.Duration, failures int, random float64) time.Duration {
	if failures == 0 {
		return time.Duration(float64(interval) * (0.9 + 0.2*random))
	}
	d := min(firstRetry, interval)
	limit := max(maxRetry, interval)
	for i := 1; i < failures && d < limit; i++ {
		d *= 2
	}
	return time.Duration(float64(min(d, limit)) * (0.5 + 0.5*random))
}

// loop runs rounds until ctx ends: after a pause, or at once when the source tells of a change or somebody asks.
func (s *syncer) loop(ctx context.Context) error {
	var changes <-chan struct{}
	failures := 0
	for {
		if changes == nil {
			changes = s.watch(ctx) // before the round, so that a change during it is not missed
		}
		err := s.round(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if fetch := (*source.Error)(nil); errors.As(err, &fetch) {
			failures++
		} else {
			failures = 0
		}
		timer := time.NewTimer(pause(s.Interval, failures, rand.Float64()))
		select {
		case <-ctx.Done():
		case <-timer.C:
		case _, open := <-s.Wake:
			if !open {
				s.Wake = nil
			}
		case _, open := <-changes:
			if !open {
				changes = nil
			}
		}
		timer.Stop()
		if ctx.Err() != nil {
			return nil
		}
	}
}

// watch is nil, which never delivers, for a source that cannot tell of changes or cannot be watched now.
func (s *syncer) watch(ctx context.Context) <-chan struct{} {
	w, ok := s.fetcher.(source.Watcher)
	if !ok {
		return nil
	}
	changes, err := w.Watch(ctx)
	if err != nil {
		s.Log.Info("source is polled, not watched", "reason", err.Error())
		return nil
	}
	return changes
}
