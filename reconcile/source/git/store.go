package git

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/go-git/go-billy/v5"
	"github.com/go-git/go-billy/v5/memfs"
	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/plumbing/storer"
	"github.com/go-git/go-git/v5/storage/filesystem"

	"danm.io/danm/reconcile/source/snapshot"
)

// havePrefix names the references under which a store remembers what it holds completely.
const havePrefix = "refs/danm/"

// store is a bare object store, on disk or in memory. What it holds is content-addressed, so it can be lost at any time; a damaged
// one is wiped and fetched again.
type store struct {
	*filesystem.Storage
	fs  billy.Filesystem
	dir string // "" in memory
}

func openStore(dir string) (*store, error) {
	var fsys billy.Filesystem
	if dir == "" {
		fsys = memfs.New()
	} else {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("create source cache: %w", err)
		}
		fsys = osfs.New(dir)
	}
	s := &store{Storage: filesystem.NewStorage(fsys, cache.NewObjectLRU(8*cache.MiByte)), fs: fsys, dir: dir}
	if err := s.Init(); err != nil {
		return nil, errors.Join(fmt.Errorf("create source cache: %w", err), s.Close())
	}
	return s, nil
}

func (s *store) wipe() error {
	err := s.Close()
	if s.dir != "" {
		err = errors.Join(err, os.RemoveAll(s.dir))
	}
	return err
}

// size is what the store takes on disk, in bytes.
func (s *store) size() int64 {
	var total int64
	if s.dir == "" {
		return 0
	}
	_ = filepath.WalkDir(s.dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		if info, err := d.Info(); err == nil {
			total += info.Size()
		}
		return nil
	})
	return total
}

// ingest takes one pack. It is spooled and checked first: go-git would inflate whatever it is given. A thin pack, whose deltas may
// build on what the store holds, ends as loose objects.
func (s *store) ingest(r io.Reader, thin bool, limits snapshot.Limits) (err error) {
	spool, err := s.fs.TempFile("", "incoming-")
	if err != nil {
		return fmt.Errorf("spool pack: %w", err)
	}
	defer func() {
		err = errors.Join(err, spool.Close(), s.fs.Remove(spool.Name()))
	}()
	if _, err := io.Copy(spool, r); err != nil {
		return err
	}
	if _, err := spool.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if err := checkPack(bufio.NewReader(spool), limits.UnpackedBytes); err != nil {
		return err
	}
	if _, err := spool.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if !thin {
		return packfile.UpdateObjectStorage(s.Storage, spool)
	}
	// The wrapping hides LazyWriter, with which the parser would keep a file open for each object.
	parser, err := packfile.NewParserWithStorage(packfile.NewScanner(spool), struct{ storer.EncodedObjectStorer }{s.Storage})
	if err != nil {
		return err
	}
	_, err = parser.Parse()
	return err
}

// haves are the objects that the store holds with everything they reach (up to shallow commits).
func (s *store) haves() []plumbing.Hash {
	var out []plumbing.Hash
	refs, err := s.IterReferences()
	if err != nil {
		return nil
	}
	_ = refs.ForEach(func(r *plumbing.Reference) error {
		if s.HasEncodedObject(r.Hash()) == nil {
			out = append(out, r.Hash())
		}
		return nil
	})
	return out
}

// remember replaces what haves returns.
func (s *store) remember(hashes, shallow []plumbing.Hash) error {
	refs, err := s.IterReferences()
	if err != nil {
		return fmt.Errorf("read cache references: %w", err)
	}
	var old []plumbing.ReferenceName
	_ = refs.ForEach(func(r *plumbing.Reference) error { old = append(old, r.Name()); return nil })
	keep := map[plumbing.ReferenceName]bool{}
	if err := s.SetShallow(shallow); err != nil {
		return fmt.Errorf("write cache: %w", err)
	}
	for _, h := range hashes {
		name := plumbing.ReferenceName(havePrefix + h.String())
		keep[name] = true
		if err := s.SetReference(plumbing.NewHashReference(name, h)); err != nil {
			return fmt.Errorf("write cache: %w", err)
		}
	}
	for _, name := range old {
		if !keep[name] {
			if err := s.RemoveReference(name); err != nil {
				return fmt.Errorf("write cache: %w", err)
			}
		}
	}
	return nil
}
