package ipam

import (
	"context"
	"time"
)

// rest waits for a reason to look again, and for those that come with it.
func (k *Keeper) rest(ctx context.Context, most time.Duration) {
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case <-k.poke:
	case <-k.o.Wake:
	}
	_ = k.o.Sleep(ctx, gather)
	for {
		select {
		case <-k.poke:
		case <-k.o.Wake:
		default:
			return
		}
	}
}

// gather is how long a round waits for more reasons to come: many come together.
const gather = time.Millisecond

func backoff(failures int) time.Duration {
	return min(time.Second<<min(failures, 5), retryMost)
}
