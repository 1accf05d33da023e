// Package snapshot is what every source delivers: the documents of a bundle at one revision, within limits.
//
// It holds the values and the limits that the fetchers share. It does not fetch, and it does not look into documents.
package snapshot

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"danm.io/danm/spec/diag"
)

// File is one document file. Path is relative to the bundle's root, slash-separated, without "." or "..".
type File struct {
	Path string
	Data []byte
}

// Snapshot is one state of a source. Files are sorted by path, each path once. Warnings do not stop it.
//
// Dir is where the bundle's kustomization stands: then Files are all of the source's, since overlays may reach their bases above
// it. It is "" where Files are the bundle itself.
//
// Revision is "main@sha1:<40 hex>" for a branch or tag, "sha1:<40 hex>" for a commit, "dir@sha256:<64 hex>" for a directory.
type Snapshot struct {
	Revision string
	Files    []File
	Dir      string
	Warnings diag.List
}

// Limits bound what a source may deliver. Sizes are bytes.
type Limits struct {
	FileBytes     int64 // of one document
	TotalBytes    int64 // of all documents
	Files         int   // number of documents
	Entries       int   // directory entries looked at, documents or not
	Depth         int   // nested directories
	TransferBytes int64 // of one pack on the wire
	UnpackedBytes int64 // of all objects of one pack, inflated
	CacheBytes    int64 // of a cache on disk before it is started anew
}

// DefaultLimits are the limits of design and documentation: 1 MiB a file, 32 MiB and 10,000 files in all.
func DefaultLimits() Limits {
	return Limits{
		FileBytes: 1 << 20, TotalBytes: 32 << 20, Files: 10_000, Entries: 100_000, Depth: 64,
		TransferBytes: 64 << 20, UnpackedBytes: 256 << 20, CacheBytes: 256 << 20,
	}
}

// Error is a failed fetch. Its text holds no secret. errors.As finds a *diag.ListError in it too.
type Error struct {
	Code    diag.Code
	File    string // of the source, "" if it is not about a file
	Summary string
	Err     error // the cause; may be nil
}

// Errorf makes an Error; a %w in the format becomes its cause.
func Errorf(code diag.Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Summary: err.Error(), Err: errors.Unwrap(err)}
}

// In names the file an Error is about.
func (e *Error) In(file string) *Error {
	e.File = file
	return e
}

func (e *Error) Error() string { return e.Diagnostic().String() }

func (e *Error) Unwrap() error { return e.Err }

// Diagnostic is the error in the form that users are told problems in.
func (e *Error) Diagnostic() diag.Diagnostic {
	return diag.Diagnostic{Severity: diag.Error, Code: e.Code, File: e.File, Summary: e.Summary}
}

// As lets callers that only know diag find the diagnostics.
func (e *Error) As(target any) bool {
	if l, ok := target.(**diag.ListError); ok {
		*l = &diag.ListError{List: diag.List{e.Diagnostic()}}
		return true
	}
	return false
}

// Code is the code of the first Error in err's chain, "" if there is none.
func Code(err error) diag.Code {
	if e := (*Error)(nil); errors.As(err, &e) {
		return e.Code
	}
	return ""
}

// IsDocument says whether a file of this name is read: those that spec/decode looks at.
func IsDocument(name string) bool {
	switch path.Ext(name) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}

// KustomizationNames are the files that make a directory an overlay.
var KustomizationNames = []string{"kustomization.yaml", "kustomization.yml"}

// IsHidden says whether a file or directory of this name is passed over, with all below it.
func IsHidden(name string) bool { return strings.HasPrefix(name, ".") }

// Collector gathers documents and enforces the limits; every fetcher uses it, so that all refuse alike.
type Collector struct {
	limits  Limits
	files   []File
	total   int64
	entries int
}

// NewCollector returns an empty Collector.
func NewCollector(l Limits) *Collector { return &Collector{limits: l} }

// Visit counts one directory entry at the given depth (0 = in the root).
func (c *Collector) Visit(dir string, depth int) error {
	if c.entries++; c.entries > c.limits.Entries {
		return Errorf(diag.RepositoryTooLarge, "more than %d directory entries", c.limits.Entries).In(dir)
	}
	if depth > c.limits.Depth {
		return Errorf(diag.RepositoryTooLarge, "directories nested more than %d deep", c.limits.Depth).In(dir)
	}
	return nil
}

// Reserve accounts for a document of size bytes before it is read.
func (c *Collector) Reserve(file string, size int64) error {
	if size > c.limits.FileBytes {
		return Errorf(diag.FileTooLarge, "%d bytes, the limit is %d", size, c.limits.FileBytes).In(file)
	}
	if len(c.files) >= c.limits.Files {
		return Errorf(diag.RepositoryTooLarge, "more than %d documents", c.limits.Files)
	}
	if c.total+size > c.limits.TotalBytes {
		return Errorf(diag.RepositoryTooLarge, "the documents hold more than %d bytes", c.limits.TotalBytes)
	}
	return nil
}

// Add takes a document that was read; its real size counts, whatever was reserved.
func (c *Collector) Add(file string, data []byte) error {
	if err := c.Reserve(file, int64(len(data))); err != nil {
		return err
	}
	c.total += int64(len(data))
	c.files = append(c.files, File{Path: file, Data: data})
	return nil
}

// Files returns the documents sorted by path. It fails with RepositoryEmpty if there are none and with PathEscape if a path stands
// there twice, which only a crafted tree can do.
func (c *Collector) Files() ([]File, error) {
	if len(c.files) == 0 {
		return nil, Errorf(diag.RepositoryEmpty, "no *.yaml, *.yml or *.json file found")
	}
	slices.SortFunc(c.files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	for i := 1; i < len(c.files); i++ {
		if c.files[i].Path == c.files[i-1].Path {
			return nil, Errorf(diag.PathEscape, "the tree names this file twice").In(c.files[i].Path)
		}
	}
	return c.files, nil
}

// Digest is the hex sha256 over files sorted by path: each length-prefixed path, then length-prefixed content.
func Digest(files []File) string {
	h := sha256.New()
	put := func(b []byte) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(b)))
		h.Write(n[:])
		h.Write(b)
	}
	for _, f := range files {
		put([]byte(f.Path))
		put(f.Data)
	}
	return hex.EncodeToString(h.Sum(nil))
}
