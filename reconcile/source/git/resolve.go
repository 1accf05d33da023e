package git

import (
	"encoding/hex"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"
	"github.com/go-git/go-git/v5/plumbing"

	"danm.io/danm/reconcile/source/snapshot"
	"danm.io/danm/spec/diag"
)

const (
	headsPrefix = "refs/heads/"
	tagsPrefix  = "refs/tags/"
)

// refs are a repository's references as listed.
type refs struct {
	head     string        // full name of the branch HEAD stands on, "" if detached or unknown
	headHash plumbing.Hash // zero if there is none
	names    map[string]plumbing.Hash
}

// target is what a location means in a repository.
type target struct {
	name   string        // short name of branch or tag, "" for a commit
	hash   plumbing.Hash // of a commit or an annotated tag
	prefix string        // instead of hash: the first digits of a commit
}

// label is the revision string for a commit reached through the target.
func (t target) label(commit plumbing.Hash) string {
	if t.name == "" {
		return "sha1:" + commit.String()
	}
	return t.name + "@sha1:" + commit.String()
}

// isCommit says whether ref is all hexadecimal digits and long enough to be a commit.
func isCommit(ref string) bool {
	if len(ref) < 7 || len(ref) > 40 || strings.ToLower(ref) != ref {
		return false
	}
	_, err := hex.DecodeString(ref + strings.Repeat("0", len(ref)%2))
	return err == nil
}

// resolve is pure. A tag wins over a branch of the same name, as in gitrevisions(7), with a warning.
func resolve(r refs, ref, versions string) (target, diag.List, error) {
	if len(r.names) == 0 && r.headHash.IsZero() {
		return target{}, nil, snapshot.Errorf(diag.RepositoryEmpty, "the repository has no commit")
	}
	switch {
	case versions != "":
		t, err := newest(r, versions)
		return t, nil, err
	case ref == "" || ref == "HEAD":
		if r.headHash.IsZero() {
			return target{}, nil, snapshot.Errorf(diag.RefNotFound, "HEAD points to no commit; give ?ref=")
		}
		return target{name: strings.TrimPrefix(r.head, headsPrefix), hash: r.headHash}, nil, nil
	case len(ref) == 40 && isCommit(ref):
		return target{hash: plumbing.NewHash(ref)}, nil, nil
	}
	if h, ok := r.names[ref]; ok && strings.HasPrefix(ref, "refs/") {
		short := strings.TrimPrefix(strings.TrimPrefix(ref, headsPrefix), tagsPrefix)
		return target{name: short, hash: h}, nil, nil
	}
	tag, isTag := r.names[tagsPrefix+ref]
	branch, isBranch := r.names[headsPrefix+ref]
	switch {
	case isTag && isBranch:
		warn := diag.Diagnostic{Severity: diag.Warning, Code: diag.RefAmbiguous, Summary: ref + " is a tag and a branch; the tag is taken"}
		return target{name: ref, hash: tag}, diag.List{warn}, nil
	case isTag:
		return target{name: ref, hash: tag}, nil, nil
	case isBranch:
		return target{name: ref, hash: branch}, nil, nil
	case isCommit(ref):
		return target{prefix: ref}, nil, nil
	}
	if branch, ok := strings.CutPrefix(ref, headsPrefix); ok {
		return target{}, nil, snapshot.Errorf(diag.RefNotFound, "no branch %q", branch)
	}
	if tag, ok := strings.CutPrefix(ref, tagsPrefix); ok {
		return target{}, nil, snapshot.Errorf(diag.RefNotFound, "no tag %q", tag)
	}
	return target{}, nil, snapshot.Errorf(diag.RefNotFound, "no tag, branch or commit %q", ref)
}

// newest picks the highest version among the tags that the range allows; of tags that are equal as versions, the first by name.
func newest(r refs, versions string) (target, error) {
	allowed, err := semver.NewConstraint(versions)
	if err != nil {
		return target{}, snapshot.Errorf(diag.LocationInvalid, "semver range %q: %w", versions, err)
	}
	var tags []string
	for name := range r.names {
		if tag, ok := strings.CutPrefix(name, tagsPrefix); ok {
			tags = append(tags, tag)
		}
	}
	slices.Sort(tags)
	var best *semver.Version
	var t target
	for _, tag := range tags {
		v, err := semver.NewVersion(tag)
		if err != nil || !allowed.Check(v) || best != nil && !v.GreaterThan(best) {
			continue
		}
		best, t = v, target{name: tag, hash: r.names[tagsPrefix+tag]}
	}
	if best == nil {
		return target{}, snapshot.Errorf(diag.RefNotFound, "no tag is a version in %q", versions)
	}
	return t, nil
}
