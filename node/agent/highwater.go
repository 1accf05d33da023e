package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// highWater is what outlives a killed process and ends with the boot: a mapped file beside the socket, on a file system that a
// boot begins empty (tmpfs). A store costs no system call.
type highWater struct {
	word   *atomic.Uint64 // frames of the journal
	anchor *atomic.Uint64 // what the clock was when the boot began, by the first agent of the boot: Unix time in nanoseconds
}

func openHighWater(path string) (*highWater, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close() // the mapping stays
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err != nil {
		return nil, err
	}
	if fs.Type != unix.TMPFS_MAGIC && fs.Type != unix.RAMFS_MAGIC {
		return nil, errors.Join(fmt.Errorf("%s is not on a file system that ends with the boot", path), os.Remove(path))
	}
	if err := f.Truncate(16); err != nil {
		return nil, err
	}
	b, err := unix.Mmap(int(f.Fd()), 0, 16, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", path, err)
	}
	h := &highWater{(*atomic.Uint64)(unsafe.Pointer(&b[0])), (*atomic.Uint64)(unsafe.Pointer(&b[8]))} //nolint:gosec // a page is aligned
	h.anchor.CompareAndSwap(0, uint64(time.Now().Add(-boottime()).UnixNano()))                        //nolint:gosec // after 1970
	return h, nil
}

// Clock goes on evenly from one agent to the next: setting the time of day during a boot must not shorten a cooldown or a lease.
func (h *highWater) Clock() time.Time {
	return time.Unix(0, int64(h.anchor.Load())).Add(boottime()) //nolint:gosec // it came from an int64
}

// Load is ipam.HighWater's.
func (h *highWater) Load() uint64 { return h.word.Load() }

// Store is ipam.HighWater's.
func (h *highWater) Store(frames uint64) { h.word.Store(frames) }
