package link

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"danm.io/danm/spec/model"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// maxSysctl bounds what is read of one parameter, in bytes: the longest that a bundle can set are three numbers.
const maxSysctl = 4096

// sysctlPath is where a parameter stands: dots part names, "/" is a dot in one (sysctl(8)). Only what is below net has
// namespaces, so only that is ours to touch.
func (k *Kernel) sysctlPath(key string) (string, error) {
	parts := strings.Split(key, ".")
	for i, p := range parts {
		parts[i] = strings.ReplaceAll(p, "/", ".")
		if parts[i] == "" || parts[i] == "." || parts[i] == ".." || strings.ContainsRune(parts[i], 0) {
			return "", fmt.Errorf("kernel parameter %q: %w", key, ErrStep)
		}
	}
	if len(parts) < 3 || parts[0] != "net" {
		return "", fmt.Errorf("kernel parameter %q: %w", key, ErrStep)
	}
	return filepath.Join(append([]string{k.sysRoot, "proc/sys"}, parts...)...), nil
}

// readSysctls reads the parameters that the patterns name: a key, or one with * for every link, all and default. Those that
// do not exist are left out.
func (k *Kernel) readSysctls(patterns []string) ([]model.Sysctl, error) {
	var out []model.Sysctl
	err := k.inside(func() error {
		out = nil
		for _, pattern := range patterns {
			keys, err := k.expand(pattern)
			if err != nil {
				return err
			}
			for _, key := range keys {
				value, err := k.readSysctl(key)
				if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENODEV) {
					continue // its link went while we read, or there never was one
				}
				if err != nil {
					return fmt.Errorf("read kernel parameter %s: %w", key, err)
				}
				out = append(out, model.Sysctl{Key: key, Value: value})
			}
		}
		return nil
	})
	slices.SortFunc(out, func(a, b model.Sysctl) int { return strings.Compare(a.Key, b.Key) })
	return slices.Compact(out), err
}

// expand puts the names of all links in the place of a *.
func (k *Kernel) expand(pattern string) ([]string, error) {
	before, after, wild := strings.Cut(pattern, ".*.")
	if !wild {
		return []string{pattern}, nil
	}
	dir, err := k.sysctlPath(before)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	var keys []string
	for _, e := range entries {
		keys = append(keys, before+"."+strings.ReplaceAll(e.Name(), ".", "/")+"."+after)
	}
	return keys, err
}

func (k *Kernel) readSysctl(key string) (string, error) {
	path, err := k.sysctlPath(key)
	if err != nil {
		return "", err
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSysctl))
	return strings.Join(strings.Fields(string(b)), " "), errors.Join(err, f.Close())
}

func (k *Kernel) writeSysctl(key, value string) error {
	path, err := k.sysctlPath(key)
	if err != nil {
		return err
	}
	err = k.inside(func() error {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteString(value)
		return errors.Join(err, f.Close())
	})
	return wrap("write kernel parameter", err)
}

// inside runs do on a thread in the kernel's network namespace: /proc/sys/net shows that of whoever looks.
func (k *Kernel) inside(do func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread()
		here, err := netns.Get()
		if err != nil {
			result <- fmt.Errorf("own network namespace: %w", err)
			return
		}
		same := here.Equal(k.ns)
		err = here.Close()
		if err == nil && !same {
			err = netns.Set(k.ns) // the thread is not unlocked and ends with this goroutine
		} else {
			defer runtime.UnlockOSThread()
		}
		if err == nil {
			err = do()
		}
		result <- err
	}()
	return <-result
}
