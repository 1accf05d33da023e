package bed

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// clusterDir names the directories of clusters, and their cgroups with them.
const clusterDir = "danm-cluster-"

// ownerFile marks a cluster's directory as ours; its run holds a lock on it that the kernel drops when the run ends, however.
const ownerFile = "owner"

// claim makes a directory in dir whose lock this process holds until the file is closed.
func claim(dir string) (string, *os.File, error) {
	path, err := os.MkdirTemp(dir, clusterDir)
	if err != nil {
		return "", nil, err
	}
	// Locked before it has its name: a sweep that sees it finds it held.
	f, err := os.Create(filepath.Join(path, ownerFile+".new"))
	if err != nil {
		return "", nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return "", nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
	}
	return path, f, os.Rename(f.Name(), filepath.Join(path, ownerFile))
}

// Sweep removes what runs left in dir that were killed: their directories and cgroups. Their processes, mounts and namespaces the
// kernel has ended with them. Directories that are in use, and those without our mark, stay. It returns the names removed.
func Sweep(dir string) ([]string, error) {
	owners, err := filepath.Glob(filepath.Join(dir, clusterDir+"*", ownerFile))
	if err != nil {
		return nil, err
	}
	var swept []string
	var errs []error
	for _, owner := range owners {
		f, err := os.Open(owner)
		if errors.Is(err, os.ErrNotExist) {
			continue // another sweep took it
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			name := filepath.Base(filepath.Dir(owner))
			errs = append(errs, removeCgroup(cgroupFS, name), os.RemoveAll(filepath.Dir(owner)))
			swept = append(swept, name)
		}
		errs = append(errs, f.Close())
	}
	return swept, errors.Join(errs...)
}
