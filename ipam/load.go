package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
)

// markedDir is a directory whose lock file remembers that a journal was made in it: without the journal it is damaged,
// not new.
type markedDir struct {
	dirDisk
	lock   *os.File
	marked bool
}

const dirMark = "danm address journal\n"

func openDir(dir string) (*markedDir, func() error, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make directory of address journal: %w", err)
	}
	lock, err := lockDir(dir)
	if err != nil {
		return nil, nil, err
	}
	info, err := lock.Stat()
	if err != nil {
		return nil, nil, errors.Join(err, lock.Close())
	}
	return &markedDir{dirDisk(dir), lock, info.Size() > 0}, lock.Close, nil
}

// hadJournal says whether the directory should have one.
func (d *markedDir) hadJournal() bool { return d.marked }

// remember notes that the directory has a journal.
func (d *markedDir) remember() error {
	if d.marked {
		return nil
	}
	if _, err := d.lock.WriteAt([]byte(dirMark), 0); err != nil {
		return err
	}
	return d.lock.Sync()
}

// load reads the journal into the state, or makes a new one.
func (s *Service) load(d disk) error {
	gens, err := segments(d)
	if err != nil {
		return err
	}
	if len(gens) == 0 {
		if m, ok := d.(interface{ hadJournal() bool }); ok && m.hadJournal() {
			return fmt.Errorf("%w: it is gone", ErrCorrupt)
		}
		return s.create(d)
	}
	// A process that was killed between a rename and the directory's sync leaves a name that is seen and not durable: what
	// is appended behind it would go with it in a power cut.
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync directory of address journal: %w", err)
	}
	s.j = &journal{disk: d}
	if err := s.loadSegments(d, gens); err != nil {
		return errors.Join(err, s.closeFiles())
	}
	if h := s.opts.HighWater; h != nil {
		had := h.Load()
		switch {
		case had > s.j.seq:
			return errors.Join(fmt.Errorf("%w: it was set back, from %d frames to %d", ErrCorrupt, had, s.j.seq), s.closeFiles())
		case had == 0:
			s.coolAnew()
		}
		h.Store(s.j.seq)
	}
	return nil
}

// coolAnew begins the cooldown again of addresses that were still cooling when the journal was written last, in an earlier boot:
// how long ago that was only a clock tells that may have been set since. The journal says so, too, for the next open.
func (s *Service) coolAnew() {
	now := s.opts.Clock().UnixNano()
	hot := s.latest - int64(s.opts.Cooldown)
	framed := make([]byte, headerLen)
	for _, ss := range s.st.spaces {
		var again []netip.Addr
		ss.space.EachFreed(func(a netip.Addr, at int64) {
			if at > hot && at < now {
				again = append(again, a)
			}
		})
		for _, a := range again {
			s.st.tx.Cool(ss.space, a, now)
			framed = appendCool(framed, ss.id, a, now)
		}
	}
	s.st.commit(now - int64(s.opts.Cooldown))
	if len(framed) == headerLen {
		return
	}
	if err := s.j.append(append(framed, tagEnd)); err != nil {
		s.opts.Log.Warn("what cools anew is not in the journal", "reason", err)
	}
}

func (s *Service) create(d disk) error {
	if h := s.opts.HighWater; h != nil && h.Load() > 0 {
		return fmt.Errorf("%w: it is gone, and had %d frames", ErrCorrupt, h.Load())
	}
	first := append(make([]byte, headerLen), tagHead, formatVersion, 0, tagEnd)
	seg, seq, err := writeSegment(d, 1, 1, s.opts.extendBy, [][]byte{first})
	if err != nil {
		return fmt.Errorf("make address journal: %w", err)
	}
	if err := publish(d, seg); err != nil {
		return fmt.Errorf("make address journal: %w", err)
	}
	s.j = &journal{disk: d, cur: seg, seq: seq}
	return nil
}

func (s *Service) closeFiles() error {
	if s.j.cur == nil {
		return nil
	}
	return s.j.close()
}

// loadSegments reads the last segment and, if that one needs it, the one before.
func (s *Service) loadSegments(d disk, gens []uint64) error {
	last := gens[len(gens)-1]
	cur, err := openSegment(d, last, s.opts.extendBy)
	if err != nil {
		return err
	}
	s.j.cur = cur
	needsOld, err := survey(cur)
	if err != nil {
		return err
	}
	var first uint64
	for _, g := range gens[:len(gens)-1] {
		if needsOld && g == last-1 {
			if s.j.old, err = openSegment(d, g, s.opts.extendBy); err != nil {
				return err
			}
		} else if err := d.Remove(fmt.Sprint(segmentPrefix, g)); err != nil {
			return err
		}
	}
	if needsOld {
		if s.j.old == nil {
			return fmt.Errorf("%w: segment %d is gone", ErrCorrupt, last-1)
		}
		r, err := s.replay(s.j.old, 0)
		if err != nil {
			return err
		}
		if r.torn {
			return fmt.Errorf("%w: segment %d ends in the middle of a frame", ErrCorrupt, last-1)
		}
		first = r.next
	}
	r, err := s.replay(cur, first)
	if err != nil {
		return err
	}
	if r.frames == 0 {
		return fmt.Errorf("%w: segment %d is empty", ErrCorrupt, last)
	}
	cur.end, s.j.seq = r.end, r.next
	if r.torn {
		return cur.wipe()
	}
	return nil
}

func openSegment(d disk, gen uint64, step int64) (*segment, error) {
	s := &segment{gen: gen, step: step}
	f, err := d.Open(s.name())
	if err != nil {
		return nil, err
	}
	s.f = f
	if s.size, err = f.Size(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	s.end = s.size // while it is read; everything in it is on disk
	return s, nil
}

// wipe clears the remains of a torn write, lest they be taken for a frame later.
func (s *segment) wipe() error {
	if err := s.f.Truncate(s.end); err != nil {
		return fmt.Errorf("clear torn write in %s: %w", s.name(), err)
	}
	s.size = s.end
	return s.f.Sync()
}

// survey reads a segment for nothing but whether records of the one before are needed.
func survey(seg *segment) (needsOld bool, err error) {
	frames := 0
	_, err = scan(seg.f, seg.gen, 0, func(body []byte, _ int64) error {
		if frames == 0 {
			if err := checkHead(body); err != nil {
				return err
			}
		}
		d := decoder{b: body}
		for !d.bad && len(d.b) > 0 {
			switch d.skip() {
			case tagHead:
				if frames > 0 {
					return ErrCorrupt
				}
				needsOld = body[2] == 1
			case tagWhole:
				needsOld = false
			}
		}
		frames++
		if d.bad {
			return ErrCorrupt
		}
		return nil
	})
	return needsOld, err
}
