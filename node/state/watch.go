package state

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// pollEvery is how often the file is looked at when inotify cannot be had (its instances are a scarce kernel resource).
const pollEvery = time.Second

// Watch wakes the receiver after the state file may have changed, and once at the start. Wakes are coalesced and say
// nothing: read to know. The channel is closed when ctx ends. Without inotify it polls.
func (d *Dir) Watch(ctx context.Context) <-chan struct{} {
	out := make(chan struct{}, 1)
	out <- struct{}{}
	events, stop := d.events()
	go func() {
		defer close(out)
		defer stop()
		poll := time.NewTicker(pollEvery)
		defer poll.Stop()
		last := d.stamp()
		for {
			select {
			case <-ctx.Done():
				return
			case name, ok := <-events:
				if !ok {
					events = nil
					continue
				}
				if filepath.Base(name) != fileName {
					continue
				}
			case <-poll.C: // also the safety net for a directory that was replaced under the watch
				now := d.stamp()
				if now == last {
					continue
				}
			}
			last = d.stamp()
			select {
			case out <- struct{}{}:
			default:
			}
		}
	}()
	return out
}

type stamp struct {
	mod  time.Time
	size int64
}

func (d *Dir) stamp() stamp {
	fi, err := os.Stat(filepath.Join(d.path, fileName))
	if err != nil {
		return stamp{}
	}
	return stamp{fi.ModTime(), fi.Size()}
}

// events gives the names of changed files, or nil when there is no inotify.
func (d *Dir) events() (<-chan string, func()) {
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return nil, func() {}
	}
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, func() {}
	}
	if err := w.Add(d.path); err != nil {
		_ = w.Close()
		return nil, func() {}
	}
	names := make(chan string)
	done := make(chan struct{})
	go func() {
		defer close(names)
		for {
			select {
			case e, ok := <-w.Events:
				if !ok {
					return
				}
				select {
				case names <- e.Name:
				case <-done:
					return
				}
			case _, ok := <-w.Errors: // an overflow lost events: wake
				if !ok {
					return
				}
				select {
				case names <- fileName:
				case <-done:
					return
				}
			case <-done:
				return
			}
		}
	}()
	return names, func() { close(done); _ = w.Close() }
}
