package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// highWater is a number in a mapped file beside the socket, on the file system that a boot begins empty (tmpfs): a store
// costs no system call, outlives a killed process, and ends with the boot.
type highWater struct{ word *atomic.Uint64 }

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
	if err := f.Truncate(8); err != nil {
		return nil, err
	}
	b, err := unix.Mmap(int(f.Fd()), 0, 8, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map %s: %w", path, err)
	}
	return &highWater{(*atomic.Uint64)(unsafe.Pointer(&b[0]))}, nil //nolint:gosec // a page is aligned
}

// Load is ipam.HighWater's.
func (h *highWater) Load() uint64 { return h.word.Load() }

// Store is ipam.HighWater's.
func (h *highWater) Store(frames uint64) { h.word.Store(frames) }
