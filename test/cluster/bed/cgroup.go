package bed

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const cgroupFS = "/sys/fs/cgroup"

// hierarchies are the roots of the machine's cgroup trees below fs: one of version 2, or the many of version 1.
func hierarchies(fs string) ([]string, error) {
	if _, err := os.Stat(filepath.Join(fs, "cgroup.controllers")); err == nil {
		return []string{fs}, nil
	}
	all, err := filepath.Glob(filepath.Join(fs, "*", "cgroup.procs"))
	if err != nil {
		return nil, err
	}
	var out []string
	for _, f := range all {
		if dir := filepath.Dir(f); filepath.Base(dir) != "unified" { // systemd's own of a hybrid machine has no controllers
			out = append(out, dir)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s has no cgroups: mount cgroup2 there", fs)
	}
	return out, nil
}

// makeCgroup makes name, such as "danm-cluster-1/n1", in every hierarchy: the root below which a node's kubelet works.
func makeCgroup(fs, name string) error {
	roots, err := hierarchies(fs)
	if err != nil {
		return err
	}
	for _, root := range roots {
		dir := root
		for part := range strings.SplitSeq(name, "/") {
			parent := dir
			if err := delegate(parent); err != nil {
				return fmt.Errorf("cgroup %s: %w", parent, err)
			}
			dir = filepath.Join(dir, part)
			if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
				return fmt.Errorf("make cgroup: %w", err)
			}
			if err := inheritCpuset(parent, dir); err != nil {
				return fmt.Errorf("cgroup %s: %w", dir, err)
			}
		}
		if err := delegate(dir); err != nil {
			return fmt.Errorf("cgroup %s: %w", dir, err)
		}
	}
	return nil
}

// delegate lets a version 2 cgroup's children have its controllers; in version 1 they have them always.
func delegate(dir string) error {
	have, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, c := range strings.Fields(string(have)) {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0o644); err != nil && c != "misc" && c != "rdma" {
			return fmt.Errorf("delegate %s: %w", c, err)
		}
	}
	return nil
}

// inheritCpuset: a new cpuset of version 1 is empty, and no process can enter it (cgroup-v1/cpusets.rst).
func inheritCpuset(parent, dir string) error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		have, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil || strings.TrimSpace(string(have)) != "" {
			continue
		}
		value, err := os.ReadFile(filepath.Join(parent, file))
		if err != nil {
			return err
		}
		if len(strings.TrimSpace(string(value))) == 0 {
			continue // version 2: empty means the parent's
		}
		if err := os.WriteFile(filepath.Join(dir, file), value, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// removeCgroup removes name and what is below it from every hierarchy. It waits a moment for processes that were just killed.
func removeCgroup(fs, name string) error {
	roots, err := hierarchies(fs)
	if err != nil {
		return err
	}
	var errs []error
	for _, root := range append(roots, filepath.Join(fs, "unified")) { // runc puts containers into that of a hybrid machine, too
		errs = append(errs, removeTree(filepath.Join(root, name)))
	}
	return errors.Join(errs...)
}

func removeTree(dir string) error {
	var err error
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if err = removeDirs(dir); err == nil || !errors.Is(err, syscall.EBUSY) || time.Now().After(deadline) {
			return err
		}
	}
}

func removeDirs(top string) error {
	var dirs []string
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		return err
	})
	for _, d := range slices.Backward(dirs) {
		// rmdir alone: a cgroup's files go with it, and os.Remove would try unlink first.
		if e := syscall.Rmdir(d); e != nil && !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, fmt.Errorf("remove cgroup %s: %w", d, e))
		}
	}
	return err
}
