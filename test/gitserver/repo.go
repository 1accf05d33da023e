package gitserver

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	gogit "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
)

// Repo is a bare repository that is written to without a worktree and without the git program.
type Repo struct {
	Dir string
	Git *gogit.Repository
}

// InitBare makes an empty bare repository whose HEAD is branch main.
func InitBare(dir string) (*Repo, error) {
	r, err := gogit.PlainInitWithOptions(dir, &gogit.PlainInitOptions{
		Bare: true, InitOptions: gogit.InitOptions{DefaultBranch: plumbing.NewBranchReferenceName("main")},
	})
	if err != nil {
		return nil, fmt.Errorf("init %s: %w", dir, err)
	}
	return &Repo{Dir: dir, Git: r}, nil
}

// OpenBare opens a repository made by InitBare.
func OpenBare(dir string) (*Repo, error) {
	r, err := gogit.PlainOpen(dir)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	return &Repo{Dir: dir, Git: r}, nil
}

// Commit puts a commit with exactly these files on a branch (created if need be) and returns its id.
func (r *Repo) Commit(branch, message string, files map[string]string) (string, error) {
	tree, err := r.Tree(files)
	if err != nil {
		return "", err
	}
	return r.CommitTree(branch, message, tree)
}

// CommitTree is Commit for a tree that is there already, whatever is in it.
func (r *Repo) CommitTree(branch, message string, tree plumbing.Hash) (string, error) {
	name := plumbing.NewBranchReferenceName(branch)
	who := object.Signature{Name: "test", Email: "test@example.org", When: time.Unix(1_700_000_000, 0).UTC()}
	c := &object.Commit{Author: who, Committer: who, Message: message, TreeHash: tree}
	if ref, err := r.Git.Reference(name, true); err == nil {
		c.ParentHashes = []plumbing.Hash{ref.Hash()}
	}
	h, err := r.store(c)
	if err != nil {
		return "", fmt.Errorf("write commit: %w", err)
	}
	return h.String(), r.Git.Storer.SetReference(plumbing.NewHashReference(name, h))
}

// Point moves a branch to a commit, backwards or sideways too.
func (r *Repo) Point(branch, commit string) error {
	return r.Git.Storer.SetReference(plumbing.NewHashReference(plumbing.NewBranchReferenceName(branch), plumbing.NewHash(commit)))
}

// Tag makes a tag, annotated if message is not empty.
func (r *Repo) Tag(name, commit, message string) error {
	var opts *gogit.CreateTagOptions
	if message != "" {
		opts = &gogit.CreateTagOptions{Message: message, Tagger: &object.Signature{Name: "test", Email: "test@example.org"}}
	}
	_, err := r.Git.CreateTag(name, plumbing.NewHash(commit), opts)
	return err
}

// Blob writes a file's content.
func (r *Repo) Blob(data []byte) (plumbing.Hash, error) {
	o := r.Git.Storer.NewEncodedObject()
	o.SetType(plumbing.BlobObject)
	w, err := o.Writer()
	if err != nil {
		return plumbing.ZeroHash, err
	}
	if _, err := w.Write(data); err != nil {
		return plumbing.ZeroHash, err
	}
	return r.Git.Storer.SetEncodedObject(o)
}

// Tree writes the tree of these files, directories included.
func (r *Repo) Tree(files map[string]string) (plumbing.Hash, error) {
	var entries []object.TreeEntry
	below := map[string]map[string]string{}
	for name, data := range files {
		if first, rest, nested := strings.Cut(path.Clean(name), "/"); nested {
			if below[first] == nil {
				below[first] = map[string]string{}
			}
			below[first][rest] = data
			continue
		}
		h, err := r.Blob([]byte(data))
		if err != nil {
			return h, fmt.Errorf("write %s: %w", name, err)
		}
		entries = append(entries, object.TreeEntry{Name: name, Mode: filemode.Regular, Hash: h})
	}
	for dir, content := range below {
		h, err := r.Tree(content)
		if err != nil {
			return h, err
		}
		entries = append(entries, object.TreeEntry{Name: dir, Mode: filemode.Dir, Hash: h})
	}
	return r.TreeOf(entries)
}

// TreeOf writes a tree of these entries, unchecked, so that tests can craft what git would refuse.
func (r *Repo) TreeOf(entries []object.TreeEntry) (plumbing.Hash, error) {
	sortName := func(e object.TreeEntry) string { // git sorts a directory as if its name ended in a slash
		if e.Mode == filemode.Dir {
			return e.Name + "/"
		}
		return e.Name
	}
	slices.SortStableFunc(entries, func(a, b object.TreeEntry) int { return strings.Compare(sortName(a), sortName(b)) })
	o := r.Git.Storer.NewEncodedObject()
	o.SetType(plumbing.TreeObject)
	w, err := o.Writer()
	if err != nil {
		return plumbing.ZeroHash, err
	}
	for _, e := range entries {
		if _, err := fmt.Fprintf(w, "%o %s\x00%s", e.Mode, e.Name, e.Hash[:]); err != nil {
			return plumbing.ZeroHash, err
		}
	}
	return r.Git.Storer.SetEncodedObject(o)
}

func (r *Repo) store(c *object.Commit) (plumbing.Hash, error) {
	o := r.Git.Storer.NewEncodedObject()
	if err := c.Encode(o); err != nil {
		return plumbing.ZeroHash, err
	}
	return r.Git.Storer.SetEncodedObject(o)
}
