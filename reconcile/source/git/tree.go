package git

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/storer"

	"danm.io/danm/reconcile/source/snapshot"
	"danm.io/danm/spec/diag"
)

// peel follows annotated tags to their commit.
func peel(s storer.EncodedObjectStorer, h plumbing.Hash) (*object.Commit, error) {
	for range 8 { // a tag of a tag of a tag… is legal and nobody's need
		o, err := s.EncodedObject(plumbing.AnyObject, h)
		if err != nil {
			return nil, corrupt("object %s", h, err)
		}
		switch o.Type() {
		case plumbing.CommitObject:
			c, err := object.DecodeCommit(s, o)
			if err != nil {
				return nil, corrupt("commit %s", h, err)
			}
			return c, nil
		case plumbing.TagObject:
			tag, err := object.DecodeTag(s, o)
			if err != nil {
				return nil, corrupt("tag %s", h, err)
			}
			h = tag.Target
		default:
			return nil, snapshot.Errorf(diag.RefNotFound, "%s is a %s, not a commit", h, o.Type())
		}
	}
	return nil, snapshot.Errorf(diag.RefNotFound, "%s is a tag of tags without end", h)
}

func corrupt(what string, h plumbing.Hash, err error) error {
	return snapshot.Errorf(diag.RepositoryCorrupt, what+": %w", h, err)
}

// reader collects the documents below one directory of one commit.
type reader struct {
	objects  storer.EncodedObjectStorer
	collect  *snapshot.Collector
	warnings diag.List
}

// readTree returns the documents of commit c below subdir ("." = all). Paths are relative to subdir.
func readTree(s storer.EncodedObjectStorer, c *object.Commit, subdir string, limits snapshot.Limits) ([]snapshot.File, diag.List, error) {
	r := &reader{objects: s, collect: snapshot.NewCollector(limits)}
	root := c.TreeHash
	if subdir != "." {
		var err error
		if root, err = r.descend(root, subdir); err != nil {
			return nil, nil, err
		}
	}
	if err := r.tree(root, "", strings.Trim(subdir, "."), 0); err != nil {
		return nil, nil, err
	}
	files, err := r.collect.Files()
	return files, r.warnings, err
}

func (r *reader) entries(h plumbing.Hash) ([]object.TreeEntry, error) {
	t, err := object.GetTree(r.objects, h)
	if err != nil {
		return nil, corrupt("tree %s", h, err)
	}
	return t.Entries, nil
}

// descend finds a directory without following links.
func (r *reader) descend(h plumbing.Hash, subdir string) (plumbing.Hash, error) {
next:
	for part := range strings.SplitSeq(subdir, "/") {
		entries, err := r.entries(h)
		if err != nil {
			return h, err
		}
		for _, e := range entries {
			switch {
			case e.Name != part:
			case e.Mode == filemode.Dir:
				h = e.Hash
				continue next
			case e.Mode == filemode.Symlink:
				return h, snapshot.Errorf(diag.SymlinkRefused, "%s in the subdirectory is a link", part).In(subdir)
			default:
				return h, snapshot.Errorf(diag.PathNotFound, "%s is not a directory", part).In(subdir)
			}
		}
		return h, snapshot.Errorf(diag.PathNotFound, "no directory %s in this commit", subdir)
	}
	return h, nil
}

// tree reads one directory. dir is its path in the bundle; base, in front of it, the bundle's in the repository.
func (r *reader) tree(h plumbing.Hash, dir, base string, depth int) error {
	entries, err := r.entries(h)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := r.collect.Visit(dir, depth); err != nil {
			return err
		}
		// Crafted trees may hold any bytes. Without this check a "name" could contain a slash or be "..".
		if e.Name == "." || !fs.ValidPath(e.Name) || strings.Contains(e.Name, "/") {
			return snapshot.Errorf(diag.PathEscape, "the tree holds the name %q", e.Name).In(dir)
		}
		if snapshot.IsHidden(e.Name) {
			continue
		}
		name := path.Join(dir, e.Name)
		switch e.Mode {
		case filemode.Dir:
			err = r.tree(e.Hash, name, base, depth+1)
		case filemode.Symlink:
			err = r.link(e.Hash, name, base)
		case filemode.Submodule:
			r.warnings = append(r.warnings, diag.Diagnostic{Severity: diag.Warning, Code: diag.SubmoduleIgnored, File: name, Summary: "a submodule stands here and is not read"})
		default:
			err = r.file(e.Hash, name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *reader) file(h plumbing.Hash, name string) error {
	if !snapshot.IsDocument(name) {
		return nil
	}
	b, err := object.GetBlob(r.objects, h)
	if err != nil {
		return corrupt("blob %s", h, err)
	}
	if err := r.collect.Reserve(name, b.Size); err != nil {
		return err
	}
	data, err := contents(b)
	if err != nil {
		return corrupt("blob %s", h, err)
	}
	return r.collect.Add(name, data)
}

func contents(b *object.Blob) ([]byte, error) {
	f, err := b.Reader()
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, b.Size))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	return data, nil
}

// link refuses what would change the bundle if it were followed; a link to any other file is of no interest.
func (r *reader) link(h plumbing.Hash, name, base string) error {
	b, err := object.GetBlob(r.objects, h)
	if err != nil {
		return corrupt("link %s", h, err)
	}
	if b.Size > 4096 { // PATH_MAX
		return snapshot.Errorf(diag.SymlinkEscape, "a link of %d bytes", b.Size).In(name)
	}
	data, err := contents(b)
	if err != nil {
		return corrupt("link %s", h, err)
	}
	to := path.Join(path.Dir(path.Join(base, name)), string(data))
	switch {
	case path.IsAbs(string(data)) || to == ".." || strings.HasPrefix(to, "../"):
		return snapshot.Errorf(diag.SymlinkEscape, "the link points out of the repository").In(name)
	case base != "" && to != base && !strings.HasPrefix(to, base+"/"):
		return snapshot.Errorf(diag.SymlinkEscape, "the link points out of the bundle's directory").In(name)
	case path.Ext(name) == "" || snapshot.IsDocument(name):
		return snapshot.Errorf(diag.SymlinkRefused, "links to documents and directories are not followed").In(name)
	}
	return nil
}
