package state

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// attendName is locked by the agent that works in the directory for as long as it lives. The lock is the open file description's
// (fcntl(2), F_OFD_SETLK), so that who asks takes nothing for even a moment, and it ends with the process however that ends.
const attendName = "agent.lock"

// ErrAttended says that another agent works in the directory.
var ErrAttended = errors.New("another agent works in this state directory")

// Attend says until release is called, or the process ends, that an agent works in this directory. ErrAttended: another one does.
func (d *Dir) Attend() (release func(), err error) {
	if err := os.MkdirAll(d.path, 0o700); err != nil {
		return nil, fmt.Errorf("create state directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(d.path, attendName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("attend %s: %w", d.path, err)
	}
	err = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	if err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			err = ErrAttended
		}
		return nil, fmt.Errorf("attend %s: %w", d.path, err)
	}
	return func() { _ = f.Close() }, nil
}

// Attended says whether an agent works in the directory. fs.ErrNotExist: none of a version that says so ever did.
func (d *Dir) Attended() (bool, error) {
	f, err := os.Open(filepath.Join(d.path, attendName))
	if errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if err != nil {
		return false, fmt.Errorf("ask for the agent: %w", err)
	}
	defer f.Close()
	lock := unix.Flock_t{Type: unix.F_RDLCK}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &lock); err != nil {
		return false, fmt.Errorf("ask for the agent in %s: %w", d.path, err)
	}
	return lock.Type != unix.F_UNLCK, nil
}
