package dir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"

	"danm.io/danm/reconcile/source/snapshot"
)

// A burst of events is one change: it ends with quiet, or after burst if the writer never pauses.
const (
	quiet = 150 * time.Millisecond
	burst = 2 * time.Second
)

// dataLink is what the kubelet swaps when a mounted ConfigMap changes; the only hidden name whose events count.
const dataLink = "..data"

// Watch delivers one value per burst of changes below the directory. It fails if the directory cannot be watched at all; directories
// that appear later are watched from then on, as far as the system's limit of watches allows.
func (s *Source) Watch(ctx context.Context) (<-chan struct{}, error) {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", s.path, err)
	}
	if err := s.addAll(w); err != nil {
		return nil, errors.Join(fmt.Errorf("watch %s: %w", s.path, err), w.Close())
	}
	out := make(chan struct{}, 1)
	go func() {
		defer close(out)
		defer w.Close()
		s.pump(ctx, w, out)
	}()
	return out, nil
}

func (s *Source) pump(ctx context.Context, w *fsnotify.Watcher, out chan<- struct{}) {
	var fire <-chan time.Time
	var first time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case ev, ok := <-w.Events:
			if !ok {
				return
			}
			if !counts(ev) {
				continue
			}
			if fire == nil {
				first = time.Now()
			}
			fire = time.After(min(quiet, max(0, burst-time.Since(first))))
		case _, ok := <-w.Errors:
			if !ok {
				return
			}
			fire = time.After(quiet) // the queue overflowed: something changed
		case <-fire:
			fire = nil
			_ = s.addAll(w) // a directory that cannot be watched is still polled
			select {
			case out <- struct{}{}:
			default: // a wake-up is pending already
			}
		}
	}
}

func counts(ev fsnotify.Event) bool {
	name := filepath.Base(ev.Name)
	return ev.Op != fsnotify.Chmod && (!snapshot.IsHidden(name) || name == dataLink)
}

// addAll watches the directory and all below it. Watching a watched directory again changes nothing.
func (s *Source) addAll(w *fsnotify.Watcher) error {
	root, err := filepath.EvalSymlinks(s.path)
	if err != nil {
		return err
	}
	if err := w.Add(root); err != nil {
		return err
	}
	left := s.limits.Entries
	return filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if left--; left < 0 {
			return fs.SkipAll
		}
		if err != nil || !d.IsDir() || p == root {
			return nil // what vanished meanwhile sends its own event
		}
		if snapshot.IsHidden(d.Name()) {
			return fs.SkipDir
		}
		return w.Add(p)
	})
}
