package ipam

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

const (
	segmentPrefix = "journal."
	extendBy      = 256 << 10 // zeros written ahead: a commit that does not grow the file is one flush of data alone
)

// segment is one file of the journal.
type segment struct {
	gen  uint64
	f    file
	end  int64 // where the next frame goes
	size int64 // of the file; zeros from end on
	step int64 // the file grows by multiples of this
}

func (s *segment) name() string { return segmentPrefix + strconv.FormatUint(s.gen, 10) }

// journal appends frames to the current segment. While records are being carried over from the one before it, both are
// needed; then old goes. Its methods are called by one goroutine.
type journal struct {
	disk   disk
	cur    *segment
	old    *segment // nil unless carrying
	seq    uint64   // of the next frame
	failed error    // set once, for ever
}

// append makes a body durable as one frame: afterwards it is on disk as a whole, or, with an error, not at all. Where
// not even that is sure, the error is ErrFailed, now and from now on. The body has headerLen bytes of room in front.
func (j *journal) append(framed []byte) error {
	if j.failed != nil {
		return j.failed
	}
	body := framed[headerLen:]
	h := header{length: uint32(len(body)), bodyCRC: checksum(body), seq: j.seq, gen: j.cur.gen}
	h.put(framed)
	s := j.cur
	if err := s.extend(s.end + frameLen(len(body))); err != nil {
		return j.takeBack(err, s.size)
	}
	if _, err := s.f.WriteAt(framed, s.end); err != nil {
		return j.takeBack(err, s.end)
	}
	if err := s.f.Sync(); err != nil {
		// The kernel may have dropped the dirty pages and report success the next time.
		return j.fail(fmt.Errorf("sync %s: %w", s.name(), err))
	}
	s.end += frameLen(len(body))
	j.seq++
	return nil
}

// extend fills the file with zeros so that it reaches upTo.
func (s *segment) extend(upTo int64) error {
	if upTo <= s.size {
		return nil
	}
	size := (upTo + s.step - 1) / s.step * s.step
	if _, err := s.f.WriteAt(make([]byte, size-s.size), s.size); err != nil {
		return err
	}
	s.size = size
	return nil
}

// takeBack cuts off what a failed write may have left. Zeros written ahead stay: on a full disk they are the room in
// which a release is still possible.
func (j *journal) takeBack(cause error, size int64) error {
	cause = fmt.Errorf("write %s: %w", j.cur.name(), cause)
	if err := j.cur.f.Truncate(size); err != nil {
		return j.fail(errors.Join(cause, err))
	}
	j.cur.size = size
	return cause
}

func (j *journal) fail(err error) error {
	j.failed = fmt.Errorf("%w: %w", ErrFailed, err)
	return j.failed
}

// rotate starts the next segment with the given bodies (framed as for append). Until dropOld the old one stays.
func (j *journal) rotate(bodies [][]byte) error {
	if j.failed != nil {
		return j.failed
	}
	next, seq, err := writeSegment(j.disk, j.cur.gen+1, j.seq, j.cur.step, bodies)
	if err != nil {
		return fmt.Errorf("start a new journal segment: %w", err)
	}
	// From here on the name decides which segment is read: a failure leaves that open.
	if err := publish(j.disk, next); err != nil {
		return j.fail(err)
	}
	j.old, j.cur, j.seq = j.cur, next, seq
	return nil
}

// writeSegment writes and syncs a segment under a temporary name.
func writeSegment(d disk, gen, seq uint64, step int64, bodies [][]byte) (*segment, uint64, error) {
	s := &segment{gen: gen, step: step}
	f, err := d.Create(s.name() + ".tmp")
	if err != nil {
		return nil, 0, err
	}
	s.f = f
	t := journal{disk: d, cur: s, seq: seq}
	for _, b := range bodies {
		if err := t.append(b); err != nil {
			return nil, 0, errors.Join(err, f.Close(), d.Remove(s.name()+".tmp"))
		}
	}
	return s, t.seq, nil
}

func publish(d disk, s *segment) error {
	if err := d.Rename(s.name()+".tmp", s.name()); err != nil {
		return errors.Join(err, s.f.Close())
	}
	return d.Sync()
}

// dropOld removes the old segment, which must not be needed any more. A failure leaves a file that the next open or
// the next call removes.
func (j *journal) dropOld() error {
	if j.old == nil {
		return nil
	}
	if err := j.disk.Remove(j.old.name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", j.old.name(), err)
	}
	err := j.old.f.Close()
	j.old = nil
	return err
}

// read returns n bytes at off of the segment gen.
func (j *journal) read(gen uint32, off int64, n int) ([]byte, error) {
	s := j.cur
	if gen != uint32(s.gen) {
		s = j.old
	}
	b := make([]byte, n)
	if _, err := s.f.ReadAt(b, off); err != nil {
		return nil, fmt.Errorf("read %s: %w", s.name(), err)
	}
	return b, nil
}

func (j *journal) close() error {
	err := j.cur.f.Close()
	if j.old != nil {
		err = errors.Join(err, j.old.f.Close())
	}
	return err
}

// segments lists the generations on disk in order, and removes what an interrupted rotation left.
func segments(d disk) ([]uint64, error) {
	names, err := d.List()
	if err != nil {
		return nil, err
	}
	var gens []uint64
	for _, n := range names {
		rest, ok := strings.CutPrefix(n, segmentPrefix)
		if !ok {
			continue
		}
		if strings.HasSuffix(rest, ".tmp") {
			if err := d.Remove(n); err != nil {
				return nil, err
			}
			continue
		}
		gen, err := strconv.ParseUint(rest, 10, 64)
		if err != nil || gen == 0 {
			return nil, fmt.Errorf("%w: unknown file %s", ErrCorrupt, n)
		}
		gens = append(gens, gen)
	}
	slices.Sort(gens)
	return gens, nil
}
