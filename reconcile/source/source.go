// Package source finds a bundle's documents wherever they are kept and delivers them as one Snapshot: a directory, or a commit of a
// Git repository that is local or reached over https or ssh.
//
// It delivers bytes and knows nothing of their meaning, executes no program and follows no link out of the source. Every failure is an
// Error with a code of spec/diag. It does not retry and does not decide when to fetch: reconcile/local does.
package source

import (
	"context"
	"os"
	"time"

	"danm.io/danm/reconcile/source/dir"
	"danm.io/danm/reconcile/source/git"
	"danm.io/danm/reconcile/source/snapshot"
)

// The shared values, under the names that users of this package know.
type (
	Snapshot = snapshot.Snapshot
	File     = snapshot.File
	Limits   = snapshot.Limits
	Error    = snapshot.Error
	Auth     = git.Auth
)

// Fetcher delivers the present state of one source. Fetch may be called again and again, by one goroutine at a time; it fails with
// an *Error or with the context's error.
type Fetcher interface {
	Fetch(ctx context.Context) (Snapshot, error)
}

// Watcher is implemented by fetchers that can tell when a fetch is worth while. The channel delivers one value for a burst of changes
// and is closed when ctx ends. A missed event is possible: poll as well.
type Watcher interface {
	Watch(ctx context.Context) (<-chan struct{}, error)
}

// Options say how to reach a source. The zero value takes credentials from the environment (see git.AuthFromEnv) and default limits.
type Options struct {
	Auth     *Auth         // nil: from the environment
	Signers  string        // file of keys that commits must be signed with; "": from DANM_GIT_SIGNERS_FILE
	CacheDir string        // keeps fetched objects between fetches; "" keeps nothing
	Timeout  time.Duration // of one fetch, 0 = 60 s
	Limits   *Limits       // nil: DefaultLimits
}

// Open returns the fetcher of a location. It reads nothing yet; it fails if the location cannot be understood.
func Open(location string, o Options) (Fetcher, error) {
	l, err := ParseLocation(location)
	if err != nil {
		return nil, err
	}
	limits := snapshot.DefaultLimits()
	if o.Limits != nil {
		limits = *o.Limits
	}
	if l.Scheme == "dir" {
		return dir.New(l.Dir, l.Subdir, limits), nil
	}
	timeout := o.Timeout
	if timeout == 0 {
		timeout = time.Minute
	}
	auth := git.AuthFromEnv()
	if o.Auth != nil {
		auth = *o.Auth
	}
	signers := o.Signers
	if signers == "" {
		signers = os.Getenv("DANM_GIT_SIGNERS_FILE")
	}
	return git.New(git.Options{
		Signers: signers,
		Scheme:  l.Scheme, URL: l.URL, Subdir: l.Subdir, Ref: l.Ref, Semver: l.Semver,
		Auth: auth, CacheDir: o.CacheDir, Timeout: timeout, Limits: limits,
	}), nil
}
