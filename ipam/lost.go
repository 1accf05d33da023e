package ipam

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// lostMark is there from before a damaged journal is set aside until the new one says that something was lost.
const lostMark = "lost"

// OpenAnyway is Open, but a damaged journal is set aside (as damaged-<time>, the newest one only), and a new one begins that
// says so: nothing that may be live is given out until every sandbox there is now has gone. sandboxes lists them; while it
// fails, so does OpenAnyway.
func OpenAnyway(ctx context.Context, dir string, opts Options, sandboxes func(context.Context) ([]string, error)) (*Service, error) {
	s, err := Open(dir, opts)
	mark := filepath.Join(dir, lostMark)
	_, marked := os.Lstat(mark)
	if errors.Is(err, ErrCorrupt) {
		opts.logger().Error("the address journal is damaged and set aside; what it gave out is frozen", "reason", err)
		if err := setAside(dir, mark, time.Now()); err != nil {
			return nil, fmt.Errorf("set a damaged journal aside: %w", err)
		}
		marked = nil
		if opts.HighWater != nil {
			opts.HighWater.Store(0)
		}
		s, err = Open(dir, opts)
	}
	if err != nil || marked != nil {
		return s, err
	}
	seen, err := sandboxes(ctx)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("list the sandboxes of this machine: %w", err), s.Close())
	}
	if err := s.change(func(e *edit) error { e.lose(seen); return nil }); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := os.Remove(mark); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func setAside(dir, mark string, now time.Time) error {
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		return err
	}
	if err := dirDisk(dir).Sync(); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	aside := filepath.Join(dir, now.UTC().Format("damaged-20060102T150405"))
	if err := os.MkdirAll(aside, 0o700); err != nil {
		return err
	}
	for _, e := range entries {
		switch {
		case strings.HasPrefix(e.Name(), "damaged-") && filepath.Join(dir, e.Name()) != aside:
			err = os.RemoveAll(filepath.Join(dir, e.Name()))
		case strings.HasPrefix(e.Name(), segmentPrefix):
			err = os.Rename(filepath.Join(dir, e.Name()), filepath.Join(aside, e.Name()))
		}
		if err != nil {
			return err
		}
	}
	// The lock file says that a journal was here; without one that would be damage again.
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return dirDisk(dir).Sync()
	}
	if err != nil {
		return err
	}
	err = errors.Join(lock.Truncate(0), lock.Sync(), lock.Close())
	return errors.Join(err, dirDisk(dir).Sync())
}

// Unfreeze ends the loss of a journal in a home without blocks, when all that was seen then is gone.
func (s *Service) Unfreeze(ctx context.Context, sandboxes func(context.Context) ([]string, error)) error {
	free, err := s.Recheck(ctx, sandboxes)
	if err != nil || !free || s.Meta().LostSince == 0 {
		return err
	}
	return s.change(func(e *edit) error { e.meta(func(m *Meta) { m.LostSince = 0 }); return nil })
}
