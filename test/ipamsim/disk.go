package ipamsim

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"

	"danm.io/danm/ipam"
)

// What a disk answers.
var (
	ErrKilled = errors.New("the process was killed")
	ErrFull   = errors.New("no space left on device")
	ErrIO     = errors.New("input/output error")
)

const (
	sector = 512
	page   = 4096
)

// Disk is the disk of one machine. What was written and not synced survives the end of a process, but a power cut only in
// part, sector by sector; names survive a power cut in the order in which they were changed.
type Disk struct {
	mu       sync.Mutex
	names    map[string]*inode // as programs see it
	durable  map[string]*inode // as of the last Sync
	dirOps   []func(map[string]*inode)
	marked   bool  // a journal was made here
	capacity int64 // bytes of all files, 0 = unlimited
	Writes   int   // calls that change something, of all processes
}

type inode struct {
	now, durable []byte
	dirty        map[int64]bool // sectors
}

// NewDisk is an empty disk.
func NewDisk() *Disk {
	return &Disk{names: map[string]*inode{}, durable: map[string]*inode{}}
}

// Limit makes the disk full at so many bytes more than it holds now; below 0: no limit.
func (d *Disk) Limit(more int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.capacity = 0
	if more >= 0 {
		d.capacity = d.used() + more + 1
	}
}

// PowerCut loses what was not synced, in part. All processes must be dead.
func (d *Disk) PowerCut(rng *rand.Rand) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, op := range d.dirOps[:rng.IntN(len(d.dirOps)+1)] {
		op(d.durable)
	}
	names := map[string]*inode{}
	for _, name := range slices.Sorted(maps.Keys(d.durable)) {
		b := d.durable[name].remains(rng)
		names[name] = &inode{now: b, durable: slices.Clone(b), dirty: map[int64]bool{}}
	}
	d.names, d.durable, d.dirOps = names, maps.Clone(names), nil
}

// Image is what is durable on the disk now: a snapshot of a running machine.
func (d *Disk) Image() *Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := NewDisk()
	out.marked = d.marked
	for name, n := range d.durable {
		out.names[name] = &inode{now: slices.Clone(n.durable), durable: slices.Clone(n.durable), dirty: map[int64]bool{}}
	}
	out.durable = maps.Clone(out.names)
	return out
}

// Become makes the disk equal to an image, as a restored backup. All processes must be dead.
func (d *Disk) Become(image *Disk) {
	c := image.Image()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.names, d.durable, d.dirOps, d.marked = c.names, c.durable, nil, c.marked
}

// Lose removes the journal; with its mark, it looks as if there had never been one.
func (d *Disk) Lose(mark bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.names, d.durable, d.dirOps = map[string]*inode{}, map[string]*inode{}, nil
	d.marked = d.marked && !mark
}

func (d *Disk) used() (n int64) {
	for _, i := range d.names {
		n += int64(len(i.now))
	}
	return n
}

// remains is what a power cut leaves of a file.
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
	for _, s := range slices.Sorted(maps.Keys(n.dirty)) {
		if mode == 0 || mode == 2 && rng.IntN(2) == 0 {
			continue
		}
		from, to := min(s*sector, int64(size)), min((s+1)*sector, int64(size))
		clear(out[from:to])
		copy(out[from:to], n.now[min(from, int64(len(n.now))):])
	}
	return out
}

// tear is how much of a write is made.
type tear int

const (
	whole tear = iota
	half
	pages // half, but whole pages
)

// process is one program's way to the disk. It implements ipam.Disk.
type process struct {
	d    *Disk
	mu   sync.Mutex
	dead bool
	left int         // calls that it still makes, 0 = any number
	fail int         // calls until one fails, 0 = none does
	cut  func() bool // at the last of them: how much of the call is made
	died func()
}

// Process is the disk as one process sees it. After left calls that change something, of which the last is made in part if
// torn says so, the process is dead; 0 is never. died is called then, and must not call back.
func (d *Disk) Process(left int, torn func() bool, died func()) *process {
	return &process{d: d, left: left, cut: torn, died: died}
}

// Kill makes all later calls fail without effect.
func (p *process) Kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.dead = true
}

// DieAfter sets how many calls the process still makes; 0: any number.
func (p *process) DieAfter(left int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left = left
}

// FailAfter makes one call fail, the how manieth is given; it may have been made, or in part. 0: none.
func (p *process) FailAfter(calls int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail = calls
}

// ForgetJournal is what truncating the lock file does when a damaged journal was set aside.
func (p *process) ForgetJournal() {
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	p.d.marked = false
}

// HadJournal says whether a journal was ever made here.
func (p *process) HadJournal() bool {
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	return p.d.marked
}

// call counts a call that changes something, and makes it, unless the process is dead. The last call of a process that is
// to die is made (whole, if torn did not say otherwise), but it never hears of it.
func (p *process) call(do func(how tear) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		return ErrKilled
	}
	last := false
	if p.left > 0 {
		p.left--
		last = p.left == 0
	}
	fails := p.fail == 1
	p.fail = max(0, p.fail-1)
	p.d.mu.Lock()
	p.d.Writes++
	how := whole
	if (last || fails) && p.cut() {
		if how = half; last {
			how = pages
		}
	}
	err := do(how)
	p.d.mu.Unlock()
	if fails && err == nil {
		err = ErrIO
	}
	if last {
		p.dead = true
		p.died()
		return ErrKilled
	}
	return err
}

func (p *process) Open(name string) (ipam.File, error) {
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	n, ok := p.d.names[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return &openFile{p, n}, nil
}

func (p *process) Create(name string) (ipam.File, error) {
	n := &inode{dirty: map[int64]bool{}}
	err := p.call(func(tear) error {
		p.d.change(func(m map[string]*inode) { m[name] = n })
		return nil
	})
	if err != nil {
		return nil, err
	}
	return &openFile{p, n}, nil
}

func (d *Disk) change(op func(map[string]*inode)) {
	op(d.names)
	d.dirOps = append(d.dirOps, op)
}

func (p *process) Rename(from, to string) error {
	return p.call(func(tear) error {
		n, ok := p.d.names[from]
		if !ok {
			return fs.ErrNotExist
		}
		p.d.change(func(m map[string]*inode) { delete(m, from); m[to] = n })
		return nil
	})
}

func (p *process) Remove(name string) error {
	return p.call(func(tear) error {
		if _, ok := p.d.names[name]; !ok {
			return fs.ErrNotExist
		}
		p.d.change(func(m map[string]*inode) { delete(m, name) })
		return nil
	})
}

func (p *process) List() ([]string, error) {
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	return slices.Sorted(maps.Keys(p.d.names)), nil
}

// Sync also notes that there is a journal now, as the lock file of a real directory does.
func (p *process) Sync() error {
	return p.call(func(tear) error {
		p.d.durable, p.d.dirOps = maps.Clone(p.d.names), nil
		p.d.marked = p.d.marked || len(p.d.names) > 0
		return nil
	})
}

type openFile struct {
	p *process
	n *inode
}

func (f *openFile) ReadAt(b []byte, off int64) (int, error) {
	f.p.d.mu.Lock()
	defer f.p.d.mu.Unlock()
	if off >= int64(len(f.n.now)) {
		return 0, io.EOF
	}
	n := copy(b, f.n.now[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (f *openFile) WriteAt(b []byte, off int64) (int, error) {
	err := f.p.call(func(how tear) (err error) {
		switch how {
		case half:
			b = b[:len(b)/2]
		case pages: // a signal ends a write between two pages, not in one
			b = b[:max(0, (off+int64(len(b))/2)/page*page-off)]
		}
		d, end := f.p.d, off+int64(len(b))
		if d.capacity > 0 {
			if room := d.capacity - d.used() + int64(len(f.n.now)); end > room {
				b, end, err = b[:max(0, room-off)], max(off, room), ErrFull
			}
		}
		f.n.write(b, off)
		return err
	})
	return len(b), err
}

func (n *inode) write(b []byte, off int64) {
	end := off + int64(len(b))
	if grown := end - int64(len(n.now)); grown > 0 {
		n.now = append(n.now, make([]byte, grown)...)
	}
	copy(n.now[off:], b)
	for s := off / sector; s*sector < end; s++ {
		n.dirty[s] = true
	}
}

func (f *openFile) Truncate(size int64) error {
	return f.p.call(func(tear) error {
		for s := size / sector; s*sector < int64(len(f.n.now)); s++ {
			f.n.dirty[s] = true
		}
		if size <= int64(len(f.n.now)) {
			f.n.now = f.n.now[:size:size]
		} else {
			f.n.write(make([]byte, size-int64(len(f.n.now))), int64(len(f.n.now)))
		}
		return nil
	})
}

func (f *openFile) Sync() error {
	return f.p.call(func(tear) error { f.n.sync(); return nil })
}

func (n *inode) sync() {
	if len(n.durable) > len(n.now) {
		n.durable = n.durable[:len(n.now)]
	} else if grown := len(n.now) - len(n.durable); grown > 0 {
		n.durable = append(n.durable, make([]byte, grown)...)
	}
	for s := range n.dirty {
		if from := min(s*sector, int64(len(n.now))); from < int64(len(n.now)) {
			copy(n.durable[from:], n.now[from:min(from+sector, int64(len(n.now)))])
		}
	}
	clear(n.dirty)
}

func (f *openFile) Size() (int64, error) {
	f.p.d.mu.Lock()
	defer f.p.d.mu.Unlock()
	return int64(len(f.n.now)), nil
}

func (f *openFile) Close() error { return nil }
