package server

import (
	"context"
	"sync"
)

// keyedLock is a lock a key. The zero value is ready for use.
type keyedLock struct {
	mu   sync.Mutex
	held map[string]*entry
}

type entry struct {
	turn chan struct{} // holds one token while the lock is free
	uses int           // holder and waiters
}

// lock waits for its turn or for the end of ctx.
func (k *keyedLock) lock(ctx context.Context, key string) (unlock func(), err error) {
	k.mu.Lock()
	if k.held == nil {
		k.held = map[string]*entry{}
	}
	e := k.held[key]
	if e == nil {
		e = &entry{turn: make(chan struct{}, 1)}
		e.turn <- struct{}{}
		k.held[key] = e
	}
	e.uses++
	k.mu.Unlock()
	select {
	case <-e.turn:
		return func() { e.turn <- struct{}{}; k.leave(key, e) }, nil
	case <-ctx.Done():
		k.leave(key, e)
		return nil, ctx.Err()
	}
}

// tryLock takes the lock if it is free.
func (k *keyedLock) tryLock(key string) (unlock func(), free bool) {
	k.mu.Lock()
	busy := k.held[key] != nil
	if busy {
		k.mu.Unlock()
		return nil, false
	}
	if k.held == nil {
		k.held = map[string]*entry{}
	}
	e := &entry{turn: make(chan struct{}, 1), uses: 1}
	k.held[key] = e
	k.mu.Unlock()
	return func() { e.turn <- struct{}{}; k.leave(key, e) }, true
}

func (k *keyedLock) leave(key string, e *entry) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if e.uses--; e.uses == 0 {
		delete(k.held, key)
	}
}
