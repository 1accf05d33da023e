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

// keyed is a lock for each of many names, which can be waited for with a context, first come, first served.
type keyed struct {
	mu   sync.Mutex
	held map[string]*[]chan struct{} // who waits
}

func (k *keyed) lock(ctx context.Context, name string) (unlock func(), err error) {
	k.mu.Lock()
	if k.held == nil {
		k.held = map[string]*[]chan struct{}{}
	}
	queue, busy := k.held[name]
	if !busy {
		k.held[name] = &[]chan struct{}{}
		k.mu.Unlock()
		return func() { k.unlock(name) }, nil
	}
	mine := make(chan struct{}, 1)
	*queue = append(*queue, mine)
	k.mu.Unlock()
	select {
	case <-mine:
		return func() { k.unlock(name) }, nil
	case <-ctx.Done():
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for i, c := range *queue {
		if c == mine {
			*queue = append((*queue)[:i:i], (*queue)[i+1:]...)
			return nil, ctx.Err()
		}
	}
	go k.unlock(name) // it came just now
	return nil, ctx.Err()
}

func (k *keyed) unlock(name string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	queue := k.held[name]
	if len(*queue) == 0 {
		delete(k.held, name)
		return
	}
	next := (*queue)[0]
	*queue = (*queue)[1:]
	next <- struct{}{}
}
