package ipam

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
)

// memDisk is a disk that forgets: what was written and not synced survives a crash only in part, sector by sector, and
// names survive in the order in which they were changed. Any call can be made to fail, or be the last one before a crash.
type memDisk struct {
	names    map[string]*inode // as the program sees it
	durable  map[string]*inode // as of the last Sync
	dirOps   []func(map[string]*inode)
	capacity int64 // bytes of all files, 0 = unlimited

	calls   int
	failAt  int // this call fails, 0 = none
	crashAt int // this call is made in part, then all calls fail
	crashed bool
	rng     *rand.Rand
}

type inode struct {
	now, durable []byte
	dirty        map[int64]bool // sectors
}

var (
	errCrashed  = errors.New("the machine is off")
	errInjected = errors.New("injected failure")
	errFull     = errors.New("no space left on device")
)

func newMemDisk(seed uint64) *memDisk {
	return &memDisk{names: map[string]*inode{}, durable: map[string]*inode{}, rng: rand.New(rand.NewPCG(seed, 99))}
}

// call counts a call that changes something and says whether it may be made.
func (d *memDisk) call() error {
	d.calls++
	switch {
	case d.crashed:
		return errCrashed
	case d.calls == d.failAt:
		return errInjected
	case d.calls == d.crashAt:
		d.crashed = true
	}
	return nil
}

// reboot is what is found after a power cut.
func (d *memDisk) reboot() *memDisk {
	out := newMemDisk(d.rng.Uint64())
	for _, op := range d.dirOps[:d.rng.IntN(len(d.dirOps)+1)] {
		op(d.durable)
	}
	for name, n := range d.durable {
		out.names[name] = &inode{now: n.remains(d.rng), dirty: map[int64]bool{}}
		out.names[name].durable = slices.Clone(out.names[name].now)
	}
	out.durable = maps.Clone(out.names)
	return out
}

func (n *inode) remains(rng *rand.Rand) []byte {
	lo, hi := min(len(n.now), len(n.durable)), max(len(n.now), len(n.durable))
	size := lo
	switch rng.IntN(3) {
	case 0:
		size = hi
	case 1:
		size = lo + rng.IntN(hi-lo+1)
	}
	out := make([]byte, size)
	copy(out, n.durable)
	mode := rng.IntN(3) // nothing, everything or some of it was written
	for s := range n.dirty {
		if from := min(s*sectorLen, int64(size)); mode == 1 || mode == 2 && rng.IntN(2) == 0 {
			to := min((s+1)*sectorLen, int64(size))
			clear(out[from:to])
			copy(out[from:to], n.now[min(from, int64(len(n.now))):])
		}
	}
	return out
}

func (d *memDisk) Open(name string) (file, error) {
	n, ok := d.names[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return &memFile{d, n}, nil
}

func (d *memDisk) Create(name string) (file, error) {
	if err := d.call(); err != nil {
		return nil, err
	}
	n := &inode{dirty: map[int64]bool{}}
	d.change(func(m map[string]*inode) { m[name] = n })
	return &memFile{d, n}, nil
}

func (d *memDisk) change(op func(map[string]*inode)) {
	op(d.names)
	d.dirOps = append(d.dirOps, op)
}

func (d *memDisk) Rename(from, to string) error {
	if err := d.call(); err != nil {
		return err
	}
	n := d.names[from]
	d.change(func(m map[string]*inode) { delete(m, from); m[to] = n })
	return nil
}

func (d *memDisk) Remove(name string) error {
	if err := d.call(); err != nil {
		return err
	}
	d.change(func(m map[string]*inode) { delete(m, name) })
	return nil
}

func (d *memDisk) List() ([]string, error) { return slices.Sorted(maps.Keys(d.names)), nil }

func (d *memDisk) Sync() error {
	if err := d.call(); err != nil {
		return err
	}
	if d.crashed {
		return errCrashed
	}
	d.durable, d.dirOps = maps.Clone(d.names), nil
	return nil
}

func (d *memDisk) used() (n int64) {
	for _, i := range d.names {
		n += int64(len(i.now))
	}
	return n
}

type memFile struct {
	d *memDisk
	n *inode
}

func (f *memFile) ReadAt(b []byte, off int64) (int, error) {
	if off >= int64(len(f.n.now)) {
		return 0, io.EOF
	}
	n := copy(b, f.n.now[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(b []byte, off int64) (int, error) {
	err := f.d.call()
	if err == errInjected { // a failing write may have written something
		b = b[:f.d.rng.IntN(len(b)+1)]
	} else if err != nil {
		return 0, err
	}
	end := off + int64(len(b))
	if room := f.d.capacity - f.d.used() + int64(len(f.n.now)); f.d.capacity > 0 && end > room {
		b, end, err = b[:max(0, room-off)], max(off, room), errFull
	}
	if grown := end - int64(len(f.n.now)); grown > 0 {
		f.n.now = append(f.n.now, make([]byte, grown)...)
	}
	copy(f.n.now[off:], b)
	for s := off / sectorLen; s*sectorLen < end; s++ {
		f.n.dirty[s] = true
	}
	if err == nil && f.d.crashed {
		err = errCrashed
	}
	return len(b), err
}

func (f *memFile) Truncate(size int64) error {
	if err := f.d.call(); err != nil {
		return err
	}
	for s := size / sectorLen; s*sectorLen < int64(len(f.n.now)); s++ {
		f.n.dirty[s] = true
	}
	f.n.now = f.n.now[:size:size]
	return nil
}

func (f *memFile) Sync() error {
	if err := f.d.call(); err != nil {
		return err
	}
	if f.d.crashed {
		return errCrashed
	}
	n := f.n
	n.durable = append(n.durable[:min(len(n.durable), len(n.now))], make([]byte, max(0, len(n.now)-len(n.durable)))...)
	for s := range n.dirty {
		if from := min(s*sectorLen, int64(len(n.now))); from < int64(len(n.now)) {
			copy(n.durable[from:], n.now[from:min(from+sectorLen, int64(len(n.now)))])
		}
	}
	clear(n.dirty)
	return nil
}

func (f *memFile) Size() (int64, error) { return int64(len(f.n.now)), nil }
func (f *memFile) Close() error         { return nil }
