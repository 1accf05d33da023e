package source

import (
	"net"
	"net/url"
	"path"
	"strings"

	"github.com/Masterminds/semver/v3"

	"danm.io/danm/reconcile/source/snapshot"
	"danm.io/danm/spec/diag"
)

// Location says where a bundle is. String and Endpoint hold no secret.
type Location struct {
	Dir    string // a directory; all else but Subdir is empty
	URL    string // https://…, ssh://… or, for a local repository, its absolute path
	Scheme string // "dir", "file", "https" or "ssh"
	Subdir string // slash-separated, "." for the root
	Ref    string // tag, branch, commit (≥ 7 hex) or full reference name; "" = HEAD
	Semver string // a range; then Ref is ""
}

// ParseLocation reads a directory name, ROOT//SUBDIR, or git+file|git+https|git+ssh://HOST/REPO//SUBDIR?ref=REF|semver=RANGE.
// It fails with LocationInvalid, or PathEscape if the subdirectory leaves the repository. The text is never echoed with its userinfo.
func ParseLocation(s string) (Location, error) {
	if s == "" {
		return Location{}, snapshot.Errorf(diag.LocationInvalid, "no location given")
	}
	scheme, ok := strings.CutPrefix(s, "git+")
	if !ok {
		if name, _, isURL := strings.Cut(s, "://"); isURL {
			return Location{}, snapshot.Errorf(diag.LocationInvalid, "%q is not a kind of location; write a directory or git+file, git+https, git+ssh", name)
		}
		return directory(s)
	}
	u, err := url.Parse(scheme)
	if err != nil { // url's error repeats the URL, which may hold a password
		return Location{}, snapshot.Errorf(diag.LocationInvalid, "the location is not a URL")
	}
	if u.Fragment != "" || u.Opaque != "" {
		return Location{}, snapshot.Errorf(diag.LocationInvalid, "expected git+%s://HOST/REPO//SUBDIR?ref=REF", u.Scheme)
	}
	l := Location{Scheme: u.Scheme}
	if err := l.setRepository(u); err != nil {
		return Location{}, err
	}
	return l, l.setQuery(u.RawQuery)
}

// directory splits ROOT//SUBDIR, which lets overlays below ROOT reach their bases.
func directory(s string) (Location, error) {
	root, sub, ok := strings.Cut(s, "//")
	if !ok || root == "" {
		return Location{Dir: s, Scheme: "dir", Subdir: "."}, nil
	}
	l := Location{Dir: root, Scheme: "dir"}
	return l, l.setSubdir(sub)
}

func (l *Location) setRepository(u *url.URL) error {
	repo, sub, _ := strings.Cut(u.Path, "//")
	if repo == "" || repo == "/" {
		return snapshot.Errorf(diag.LocationInvalid, "no repository in the location")
	}
	if err := l.setSubdir(sub); err != nil {
		return err
	}
	_, hasPassword := u.User.Password()
	switch u.Scheme {
	case "file":
		if u.Host != "" || u.User != nil {
			return snapshot.Errorf(diag.LocationInvalid, "git+file takes an absolute path: git+file:///srv/bundle.git")
		}
		l.URL = path.Clean(repo)
		return nil
	case "https":
		if u.User != nil {
			return snapshot.Errorf(diag.LocationInvalid, "credentials must not stand in the location; give a token or password file")
		}
	case "ssh":
		if hasPassword {
			return snapshot.Errorf(diag.LocationInvalid, "a password must not stand in the location; ssh uses a key file")
		}
	case "http":
		return snapshot.Errorf(diag.LocationInvalid, "plain http is refused; use https or ssh")
	default:
		return snapshot.Errorf(diag.LocationInvalid, "git+%s is not supported; use git+file, git+https or git+ssh", u.Scheme)
	}
	if u.Hostname() == "" {
		return snapshot.Errorf(diag.LocationInvalid, "no host in the location")
	}
	l.URL = (&url.URL{Scheme: u.Scheme, User: u.User, Host: u.Host, Path: repo}).String()
	return nil
}

func (l *Location) setSubdir(sub string) error {
	sub = strings.Trim(sub, "/")
	if sub == "" {
		l.Subdir = "."
		return nil
	}
	for _, part := range strings.Split(sub, "/") {
		if part == ".." {
			return snapshot.Errorf(diag.PathEscape, "the subdirectory %q leaves the repository", sub)
		}
	}
	l.Subdir = path.Clean(sub)
	return nil
}

func (l *Location) setQuery(raw string) error {
	q, err := url.ParseQuery(raw)
	if err != nil {
		return snapshot.Errorf(diag.LocationInvalid, "the location's query does not parse; write %%2B for +, %%26 for &")
	}
	for key, values := range q {
		if (key != "ref" && key != "semver") || len(values) != 1 || values[0] == "" {
			return snapshot.Errorf(diag.LocationInvalid, "the query takes ref=REF or semver=RANGE, once, not %q", key)
		}
	}
	l.Ref, l.Semver = q.Get("ref"), q.Get("semver")
	if l.Ref != "" && l.Semver != "" {
		return snapshot.Errorf(diag.LocationInvalid, "ref and semver exclude each other")
	}
	if strings.ContainsAny(l.Ref, " \t\n\r~^:?*[\\") || strings.Contains(l.Ref, "..") { // git-check-ref-format(1)
		return snapshot.Errorf(diag.LocationInvalid, "%q cannot be a reference", l.Ref)
	}
	if l.Semver != "" {
		if _, err := semver.NewConstraint(l.Semver); err != nil {
			return snapshot.Errorf(diag.LocationInvalid, "semver range %q: %w", l.Semver, err)
		}
	}
	return nil
}

// String is the location in its canonical spelling.
func (l Location) String() string {
	if l.Scheme == "dir" && l.Subdir != "." {
		return l.Dir + "//" + l.Subdir
	}
	if l.Scheme == "dir" {
		return l.Dir
	}
	s := "git+" + l.URL
	if l.Scheme == "file" {
		s = "git+file://" + escaped(l.URL)
	}
	if l.Subdir != "." {
		s += "//" + escaped(l.Subdir)
	}
	switch {
	case l.Ref != "":
		s += "?ref=" + url.QueryEscape(l.Ref)
	case l.Semver != "":
		s += "?semver=" + url.QueryEscape(l.Semver)
	}
	return s
}

func escaped(path string) string { return (&url.URL{Path: path}).EscapedPath() }

// Endpoint is host:port of a remote repository, "" for local ones: what the source probe connects to.
func (l Location) Endpoint() string {
	port := map[string]string{"https": "443", "ssh": "22"}[l.Scheme]
	if port == "" {
		return ""
	}
	u, err := url.Parse(l.URL)
	if err != nil {
		return ""
	}
	if p := u.Port(); p != "" {
		port = p
	}
	return net.JoinHostPort(u.Hostname(), port)
}
