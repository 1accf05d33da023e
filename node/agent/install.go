package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const programMode = 0o755

// Programs are the names by which runtimes and other plugins execute the CNI binary, in the order of installing: the one that
// runtimes look for comes last.
var Programs = []string{"fakeipam", "danm"}

// Install puts a program where it is executed from: a whole new file takes the old one's name, on disk before it does. Whoever
// runs the old one goes on with it, and a crash at any moment leaves one of the two. It says whether it changed anything.
//
// It replaces a file or a link of that name and nothing else; left-overs of an installation that was killed are removed.
func Install(binary, path string) (changed bool, err error) {
	data, err := os.ReadFile(binary)
	if err != nil {
		return false, fmt.Errorf("install: %w", err)
	}
	if len(data) == 0 {
		return false, fmt.Errorf("install: %s is empty: build or copy it again", binary)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return false, fmt.Errorf("install: %w", err)
	}
	sweep(path)
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return false, fmt.Errorf("install: %w", err)
	case !info.Mode().IsRegular() && info.Mode().Type() != fs.ModeSymlink:
		return false, fmt.Errorf("install: %s is there and is no file: move it away", path)
	case info.Mode() == programMode:
		if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) {
			return false, nil
		}
	}
	if err := replaceProgram(path, data); err != nil {
		return false, fmt.Errorf("install: %w", err)
	}
	return true, nil
}

// newNames are the names of files that are not complete yet; a dot, since nobody executes those.
func newNames(path string) (dir, pattern string) {
	return filepath.Dir(path), "." + filepath.Base(path) + ".new-*"
}

// replaceProgram writes beside path, since rename(2) is atomic within one file system only. The file is closed before it gets
// its name: one that is open for writing cannot be executed (ETXTBSY).
func replaceProgram(path string, data []byte) (err error) {
	f, unlock, err := createLocked(path)
	if err != nil {
		return err
	}
	defer unlock()
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(programMode) // whatever the umask
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// createLocked makes a file whose lock tells it from a left-over, until unlock. The lock is held through a descriptor of its own,
// since the one that writes is closed before the end. Another installation may sweep the file away before it is locked.
func createLocked(path string) (f *os.File, unlock func(), err error) {
	for {
		if f, err = os.CreateTemp(newNames(path)); err != nil {
			return nil, nil, err
		}
		lock, err := os.Open(f.Name())
		if err == nil {
			if err = unix.Flock(int(lock.Fd()), unix.LOCK_EX); err == nil {
				_, err = os.Lstat(f.Name())
			}
			if err == nil {
				return f, func() { _ = lock.Close() }, nil
			}
			_ = lock.Close()
		}
		_ = f.Close()
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, errors.Join(err, os.Remove(f.Name()))
		}
	}
}

// sweep removes the files of installations that were killed. What it cannot remove does no harm.
func sweep(path string) {
	dir, pattern := newNames(path)
	left, _ := filepath.Glob(filepath.Join(dir, pattern))
	for _, name := range left {
		f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW, 0)
		if err != nil {
			continue
		}
		if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			_ = os.Remove(name)
		}
		_ = f.Close()
	}
}
