// Package git reads a bundle from one commit of a Git repository: a local one opened in place, or one fetched over https or ssh.
//
// It uses go-git's object store and packet formats with transports of its own: no program is executed (go-git's file transport does),
// every transfer has a deadline and limits before anything is inflated, and credentials go to one origin. Only regular files are read,
// from the commit's tree, never from a working copy. It has no worktree, runs no hook or filter, and reads no submodule.
package git

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	gogit "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/storer"

	"danm.io/danm/reconcile/source/snapshot"
	"danm.io/danm/spec/diag"
)

// Options say which repository, which commit and how to reach it.
type Options struct {
	Scheme   string // "file", "https" or "ssh"
	URL      string // with file: the repository's directory, bare or with a worktree
	Subdir   string // "." for all
	Ref      string // tag, branch, commit (≥ 7 hex), full reference name; "" = HEAD
	Semver   string // range over the tags, instead of Ref
	Auth     Auth
	Signers  string // file of keys one of which must have signed the commit, see verify; "" asks for no signature
	CacheDir string // "" keeps nothing between fetches
	Timeout  time.Duration
	Limits   snapshot.Limits
}

// dialer gives up early: a connection that was begun while a node's routes were others keeps the source address of then and
// never gets an answer, while the next attempt would.
var dialer = &net.Dialer{Timeout: 5 * time.Second}

// Source is one place in one repository.
type Source struct{ o Options }

// New returns the source; nothing is read yet.
func New(o Options) *Source { return &Source{o: o} }

// Fetch returns the documents at the reference as it stands now. With a cache, only new objects travel, and an unmoved reference
// costs one request; a full commit id that is in the cache costs none.
func (s *Source) Fetch(ctx context.Context) (snapshot.Snapshot, error) {
	limited, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	var snap snapshot.Snapshot
	var err error
	if s.o.Scheme == "file" {
		snap, err = s.local()
	} else {
		snap, err = s.remote(limited)
	}
	switch {
	case err == nil:
		return snap, nil
	case ctx.Err() != nil:
		return snapshot.Snapshot{}, fmt.Errorf("fetch: %w", ctx.Err())
	case limited.Err() != nil:
		return snapshot.Snapshot{}, snapshot.Errorf(diag.FetchTimeout, "no snapshot within %s: %w", s.o.Timeout, limited.Err())
	}
	return snapshot.Snapshot{}, clean(failure(err), s.o.Auth.secrets())
}

// local opens a repository where it stands. Its transport would run git.
func (s *Source) local() (snapshot.Snapshot, error) {
	repo, err := gogit.PlainOpenWithOptions(s.o.URL, &gogit.PlainOpenOptions{EnableDotGitCommonDir: true})
	if err != nil {
		return snapshot.Snapshot{}, snapshot.Errorf(diag.RepositoryUnreachable, "open repository %s: %w", s.o.URL, err)
	}
	if c, ok := repo.Storer.(interface{ Close() error }); ok {
		defer c.Close()
	}
	r, err := localRefs(repo)
	if err != nil {
		return snapshot.Snapshot{}, snapshot.Errorf(diag.RepositoryCorrupt, "read references: %w", err)
	}
	t, warnings, err := resolve(r, s.o.Ref, s.o.Semver)
	if err != nil {
		return snapshot.Snapshot{}, err
	}
	if t.prefix != "" {
		if t.hash, err = expand(repo.Storer, t.prefix); err != nil {
			return snapshot.Snapshot{}, err
		}
	}
	if t.name == "" && repo.Storer.HasEncodedObject(t.hash) != nil {
		return snapshot.Snapshot{}, snapshot.Errorf(diag.RefNotFound, "no commit %s", t.hash)
	}
	return s.snapshot(repo.Storer, t, warnings)
}

func localRefs(repo *gogit.Repository) (refs, error) {
	r := refs{names: map[string]plumbing.Hash{}}
	iter, err := repo.References()
	if err != nil {
		return r, err
	}
	err = iter.ForEach(func(ref *plumbing.Reference) error {
		if ref.Type() == plumbing.HashReference && ref.Name() != plumbing.HEAD {
			r.names[ref.Name().String()] = ref.Hash()
		}
		return nil
	})
	if err != nil {
		return r, err
	}
	head, err := repo.Reference(plumbing.HEAD, false)
	switch {
	case errors.Is(err, plumbing.ErrReferenceNotFound):
	case err != nil:
		return r, err
	case head.Type() == plumbing.SymbolicReference:
		r.head = head.Target().String()
		r.headHash = r.names[r.head]
	default:
		r.headHash = head.Hash()
	}
	return r, nil
}

func (s *Source) snapshot(objects storer.EncodedObjectStorer, t target, warnings diag.List) (snapshot.Snapshot, error) {
	commit, err := peel(objects, t.hash)
	if err != nil {
		return snapshot.Snapshot{}, err
	}
	if s.o.Signers != "" {
		if err := verify(commit, s.o.Signers, time.Now()); err != nil {
			return snapshot.Snapshot{}, err
		}
	}
	files, more, err := readTree(objects, commit, s.o.Subdir, s.o.Limits)
	if err != nil {
		return snapshot.Snapshot{}, err
	}
	out := snapshot.Snapshot{Revision: t.label(commit.Hash), Files: files}
	if slices.ContainsFunc(files, func(f snapshot.File) bool { return slices.Contains(snapshot.KustomizationNames, f.Path) }) {
		out.Dir = s.o.Subdir
		if s.o.Subdir != "." { // overlays may reach their bases
			if out.Files, more, err = readTree(objects, commit, ".", s.o.Limits); err != nil {
				return snapshot.Snapshot{}, err
			}
		}
	}
	out.Warnings = slices.Concat(warnings, more)
	return out, nil
}

// expand finds the one commit that starts with the digits.
func expand(objects storer.EncodedObjectStorer, prefix string) (plumbing.Hash, error) {
	finder, ok := objects.(interface {
		HashesWithPrefix([]byte) ([]plumbing.Hash, error)
	})
	if !ok {
		return plumbing.ZeroHash, fmt.Errorf("storage %T cannot search", objects)
	}
	whole, err := hex.DecodeString(prefix[:len(prefix)/2*2])
	if err != nil {
		return plumbing.ZeroHash, snapshot.Errorf(diag.RefNotFound, "no commit %q", prefix)
	}
	hashes, err := finder.HashesWithPrefix(whole)
	if err != nil {
		return plumbing.ZeroHash, snapshot.Errorf(diag.RepositoryCorrupt, "search commit: %w", err)
	}
	found := map[plumbing.Hash]bool{}
	for _, h := range hashes {
		if _, err := objects.EncodedObject(plumbing.CommitObject, h); err == nil && strings.HasPrefix(h.String(), prefix) {
			found[h] = true
		}
	}
	switch len(found) {
	case 0:
		return plumbing.ZeroHash, snapshot.Errorf(diag.RefNotFound, "no tag, branch or commit %q", prefix)
	case 1:
		for h := range found {
			return h, nil
		}
	}
	return plumbing.ZeroHash, snapshot.Errorf(diag.RefAmbiguous, "%d commits start with %s", len(found), prefix)
}

// remote fetches. A cache that turns out damaged, or that the server cannot continue from, is wiped and the fetch done once more.
func (s *Source) remote(ctx context.Context) (snapshot.Snapshot, error) {
	snap, hadCache, err := s.attempt(ctx)
	if err == nil || ctx.Err() != nil || !hadCache {
		return snap, err
	}
	switch snapshot.Code(err) {
	case diag.RepositoryCorrupt, diag.RepositoryUnreachable, "":
		for _, dir := range []string{s.cache(tipCache), s.cache(fullCache)} {
			if rmErr := os.RemoveAll(dir); rmErr != nil {
				return snap, errors.Join(err, rmErr)
			}
		}
		snap, _, err = s.attempt(ctx)
	}
	return snap, err
}

// A tip cache holds single commits without history, a full one all branches and tags; one cannot be continued as the other.
const (
	tipCache  = "tip"
	fullCache = "full"
)

func (s *Source) cache(kind string) string {
	if s.o.CacheDir == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(s.o.URL))
	return filepath.Join(s.o.CacheDir, hex.EncodeToString(sum[:8])+"-"+kind)
}

func (s *Source) connect(ctx context.Context) (session, error) {
	if s.o.Scheme == "ssh" {
		return newSSHSession(ctx, s.o.URL, s.o.Auth)
	}
	return newHTTPSession(s.o.URL, s.o.Auth)
}

// attempt fetches once. hadCache says whether anything old took part.
func (s *Source) attempt(ctx context.Context) (snap snapshot.Snapshot, hadCache bool, err error) {
	if len(s.o.Ref) == 40 && isCommit(s.o.Ref) {
		if snap, err := s.cached(plumbing.NewHash(s.o.Ref)); err == nil {
			return snap, true, nil
		}
	}
	conn, err := s.connect(ctx)
	if err != nil {
		return snap, false, err
	}
	defer conn.close()
	adv, err := conn.advertise(ctx)
	if err != nil {
		return snap, false, err
	}
	t, warnings, err := resolve(remoteRefs(adv), s.o.Ref, s.o.Semver)
	if err != nil {
		return snap, false, err
	}
	kind := tipCache
	if t.name == "" && !direct(adv, t) {
		kind = fullCache
	}
	_, err = os.Stat(s.cache(kind))
	hadCache = err == nil
	objects, err := s.open(kind)
	if err != nil {
		return snap, hadCache, err
	}
	defer objects.Close()
	have := objects.haves()
	if kind == tipCache {
		err = fetchTip(ctx, conn, adv, t.hash, have, objects, s.o.Limits)
	} else {
		t.hash, err = fetchAll(ctx, conn, adv, t, have, objects, s.o.Limits)
	}
	if err != nil {
		return snap, hadCache, err
	}
	snap, err = s.snapshot(objects, t, warnings)
	return snap, hadCache, err
}

// open opens a cache, starting anew when it has grown too large.
func (s *Source) open(kind string) (*store, error) {
	objects, err := openStore(s.cache(kind))
	if err != nil || objects.size() <= s.o.Limits.CacheBytes {
		return objects, err
	}
	if err := objects.wipe(); err != nil {
		return nil, fmt.Errorf("empty source cache: %w", err)
	}
	return openStore(s.cache(kind))
}

// cached answers from the caches alone.
func (s *Source) cached(commit plumbing.Hash) (snapshot.Snapshot, error) {
	err := error(plumbing.ErrObjectNotFound)
	for _, kind := range []string{tipCache, fullCache} {
		if _, statErr := os.Stat(s.cache(kind)); s.o.CacheDir == "" || statErr != nil {
			continue
		}
		objects, openErr := s.open(kind)
		if openErr != nil {
			return snapshot.Snapshot{}, openErr
		}
		var snap snapshot.Snapshot
		if err = objects.HasEncodedObject(commit); err == nil {
			snap, err = s.snapshot(objects, target{hash: commit}, nil)
		}
		if closeErr := objects.Close(); err == nil && closeErr == nil {
			return snap, nil
		}
	}
	return snapshot.Snapshot{}, err
}

func remoteRefs(adv *packp.AdvRefs) refs {
	r := refs{names: adv.References}
	if adv.Head != nil {
		r.headHash = *adv.Head
	}
	for _, link := range adv.Capabilities.Get(capability.SymRef) {
		if name, ok := strings.CutPrefix(link, "HEAD:"); ok {
			r.head = name
		}
	}
	return r
}

// direct says whether a commit may be asked for by its id.
func direct(adv *packp.AdvRefs, t target) bool {
	if t.prefix != "" {
		return false
	}
	for _, h := range adv.References {
		if h == t.hash {
			return true
		}
	}
	return adv.Capabilities.Supports(capability.AllowReachableSHA1InWant)
}

// fetchTip gets one commit without history. What the cache holds of its predecessor does not travel again.
func fetchTip(ctx context.Context, conn session, adv *packp.AdvRefs, want plumbing.Hash, have []plumbing.Hash, into *store, limits snapshot.Limits) error {
	if slices.Contains(have, want) {
		return nil
	}
	shallow, err := into.Shallow()
	if err != nil {
		shallow, have = nil, nil
	}
	a := ask{wants: []plumbing.Hash{want}, have: have, shallow: shallow, tip: true}
	if !adv.Capabilities.Supports(capability.Shallow) {
		a.have, a.shallow = nil, nil
	}
	now, err := download(ctx, conn, adv.Capabilities, a, into, limits)
	if err != nil {
		return err
	}
	return into.remember(a.wants, now)
}

// fetchAll gets all branches and tags with their history and finds the commit among them.
func fetchAll(ctx context.Context, conn session, adv *packp.AdvRefs, t target, have []plumbing.Hash, into *store, limits snapshot.Limits) (plumbing.Hash, error) {
	var tips, wants []plumbing.Hash
	for name, h := range adv.References {
		if strings.HasPrefix(name, headsPrefix) || strings.HasPrefix(name, tagsPrefix) {
			tips = append(tips, h)
		}
	}
	plumbing.HashesSort(tips)
	tips = slices.Compact(tips)
	for _, h := range tips {
		if !slices.Contains(have, h) {
			wants = append(wants, h)
		}
	}
	if len(wants) > 0 {
		if _, err := download(ctx, conn, adv.Capabilities, ask{wants: wants, have: have}, into, limits); err != nil {
			return t.hash, err
		}
		if err := into.remember(tips, nil); err != nil {
			return t.hash, err
		}
	}
	if t.prefix != "" {
		return expand(into.Storage, t.prefix)
	}
	if into.HasEncodedObject(t.hash) != nil {
		return t.hash, snapshot.Errorf(diag.RefNotFound, "no branch or tag reaches commit %s", t.hash)
	}
	return t.hash, nil
}
