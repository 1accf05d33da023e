// Package dir reads a bundle from a directory, a mounted ConfigMap included, and tells when it changes.
//
// Links are followed only inside the directory (os.Root), so that a ConfigMap's ..data links work and nothing outside is read; links
// with an absolute target are refused even if they point inside. Hidden files and directories are passed over. It never writes.
package dir

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"danm.io/danm/reconcile/source/snapshot"
	"danm.io/danm/spec/diag"
)

// readings is how often a changing directory is read before Fetch gives up.
const readings = 8

// Source is one directory.
type Source struct {
	path   string
	subdir string
	limits snapshot.Limits
}

// New returns the source of what stands in subdir ("." = all) of a directory; it is looked at only by Fetch and Watch. If subdir
// holds a kustomization, all of the directory is read, and nothing outside of it.
func New(path, subdir string, limits snapshot.Limits) *Source {
	return &Source{path: path, subdir: subdir, limits: limits}
}

// Fetch reads every document. A snapshot is one that two readings in a row agree on, so a writer at work (rsync, a ConfigMap being
// swapped) does not yield half of an old and half of a new state.
func (s *Source) Fetch(ctx context.Context) (snapshot.Snapshot, error) {
	var last string
	for range readings {
		if err := ctx.Err(); err != nil {
			return snapshot.Snapshot{}, err
		}
		files, overlay, err := s.read()
		if vanished := (*changedError)(nil); errors.As(err, &vanished) {
			last = ""
			continue
		}
		if err != nil {
			return snapshot.Snapshot{}, err
		}
		digest := snapshot.Digest(files)
		if digest == last {
			return snapshot.Snapshot{Revision: "dir@sha256:" + digest, Files: files, Dir: overlay}, nil
		}
		last = digest
	}
	return snapshot.Snapshot{}, snapshot.Errorf(diag.SourceChanging, "%s changed during each of %d readings", s.path, readings)
}

// read returns the files, and the subdirectory if that holds a kustomization.
func (s *Source) read() (files []snapshot.File, overlay string, err error) {
	root, err := os.OpenRoot(s.path)
	if err != nil {
		if info, statErr := os.Stat(s.path); statErr == nil && !info.IsDir() {
			return nil, "", snapshot.Errorf(diag.PathNotFound, "%s is a file; a bundle is given by its directory", s.path)
		}
		return nil, "", snapshot.Errorf(notRead(err), "open directory: %w", err)
	}
	defer root.Close()
	info, err := root.Stat(s.subdir)
	if err != nil && notRead(err) == diag.PathUnreadable {
		return nil, "", snapshot.Errorf(diag.PathUnreadable, "directory %s in %s: %w", s.subdir, s.path, err)
	}
	if err != nil || !info.IsDir() {
		return nil, "", snapshot.Errorf(diag.PathNotFound, "no directory %s in %s", s.subdir, s.path)
	}
	from := s.subdir
	for _, name := range snapshot.KustomizationNames {
		if info, err := root.Stat(path.Join(s.subdir, name)); err == nil && info.Mode().IsRegular() {
			from, overlay = ".", s.subdir
		}
	}
	w := walker{root: root, collect: snapshot.NewCollector(s.limits)}
	if err := w.dir(from, nil); err != nil {
		return nil, "", err
	}
	files, err = w.collect.Files()
	for i := range files {
		if from != "." {
			files[i].Path = strings.TrimPrefix(files[i].Path, from+"/")
		}
	}
	return files, overlay, err
}

// changedError is an entry that was there when its directory was listed and is not any more.
type changedError struct{ err error }

func (e *changedError) Error() string { return e.err.Error() }
func (e *changedError) Unwrap() error { return e.err }

type walker struct {
	root    *os.Root
	collect *snapshot.Collector
}

// dir reads one directory; above are the directories it was reached through, to notice a link that leads back.
func (w *walker) dir(name string, above []fs.FileInfo) error {
	d, err := w.root.Open(name)
	if err != nil {
		return w.classify(name, err)
	}
	defer d.Close()
	info, err := d.Stat()
	if err != nil {
		return w.classify(name, err)
	}
	if slices.ContainsFunc(above, func(a fs.FileInfo) bool { return os.SameFile(a, info) }) {
		return snapshot.Errorf(diag.SymlinkEscape, "the link leads back to a directory above itself").In(name)
	}
	for {
		entries, err := d.ReadDir(256)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return w.classify(name, err)
		}
		for _, e := range entries {
			if err := w.collect.Visit(name, len(above)); err != nil {
				return err
			}
			if snapshot.IsHidden(e.Name()) {
				continue
			}
			if err := w.entry(path.Join(name, e.Name()), append(above, info)); err != nil {
				return err
			}
		}
	}
}

func (w *walker) entry(name string, above []fs.FileInfo) error {
	info, err := w.root.Stat(name) // follows links, inside the root only
	if err != nil {
		return w.link(name, err)
	}
	switch {
	case info.IsDir():
		return w.dir(name, above)
	case !snapshot.IsDocument(name) || !info.Mode().IsRegular():
		return nil
	}
	if err := w.collect.Reserve(name, info.Size()); err != nil {
		return err
	}
	f, err := w.root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a FIFO put in its place must not block
	if err != nil {
		return w.classify(name, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, info.Size()+1)) // a file that grows is a changing one: the next reading tells
	if err != nil {
		return w.classify(name, err)
	}
	return w.collect.Add(name, data)
}

// link explains why an entry could not be looked at: gone, a link out of the root, or a dangling link.
func (w *walker) link(name string, err error) error {
	info, lerr := w.root.Lstat(name)
	switch {
	case errors.Is(lerr, fs.ErrNotExist):
		return &changedError{err}
	case lerr == nil && info.Mode()&fs.ModeSymlink != 0 && errors.Is(err, fs.ErrNotExist):
		if snapshot.IsDocument(name) {
			return snapshot.Errorf(diag.PathNotFound, "the link points to nothing").In(name)
		}
		return nil
	case lerr == nil && info.Mode()&fs.ModeSymlink != 0 && notRead(err) != diag.PathUnreadable:
		return snapshot.Errorf(diag.SymlinkEscape, "the link leaves the directory, or cannot be followed inside it").In(name)
	}
	return w.classify(name, err)
}

func (w *walker) classify(name string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return &changedError{err}
	}
	return snapshot.Errorf(notRead(err), "read: %w", err).In(name)
}

// notRead is the code for what could not be opened.
func notRead(err error) diag.Code {
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EIO) {
		return diag.PathUnreadable
	}
	return diag.PathNotFound
}
