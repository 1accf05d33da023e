package ipamsim

import (
	"context"
	"sync"
	"time"
)

// clock lets every wait of a run end at an instant of its own: what wakes at one instant runs in an order that nobody knows.
type clock struct {
	mu   sync.Mutex
	ends map[int64]bool
}

func newClock() *clock { return &clock{ends: map[int64]bool{}} }

// sleep waits, at least a nanosecond, or until ctx ends.
func (c *clock) sleep(ctx context.Context, d time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	now := time.Now().UnixNano()
	end := now + int64(max(d, 1))
	c.mu.Lock()
	for c.ends[end] {
		end++
	}
	c.ends[end] = true
	c.mu.Unlock()
	t := time.NewTimer(time.Duration(end - now))
	defer t.Stop()
	var err error
	select {
	case <-t.C:
	case <-ctx.Done():
		err = ctx.Err()
	}
	c.mu.Lock()
	delete(c.ends, end)
	c.mu.Unlock()
	return err
}

// keyed is a lock for each of many names, which can be waited for with a context.
type keyed struct {
	mu   sync.Mutex
	held map[string]chan struct{} // closed when it is free again
}

func (k *keyed) lock(ctx context.Context, name string) (unlock func(), err error) {
	for {
		k.mu.Lock()
		if k.held == nil {
			k.held = map[string]chan struct{}{}
		}
		busy, ok := k.held[name]
		if !ok {
			free := make(chan struct{})
			k.held[name] = free
			k.mu.Unlock()
			return func() {
				k.mu.Lock()
				delete(k.held, name)
				k.mu.Unlock()
				close(free)
			}, nil
		}
		k.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
