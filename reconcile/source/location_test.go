package source_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"danm.io/danm/reconcile/source"
	"danm.io/danm/reconcile/source/snapshot"
	"danm.io/danm/spec/diag"
	"danm.io/danm/test/gitserver"
)

func TestParseLocation(t *testing.T) {
	rows := []struct {
		in       string
		want     source.Location
		endpoint string
		code     diag.Code
		back     string // String, if not in
	}{
		{in: "/srv/bundle", want: source.Location{Dir: "/srv/bundle", Scheme: "dir", Subdir: "."}},
		{in: "/srv/net//sites/a", want: source.Location{Dir: "/srv/net", Scheme: "dir", Subdir: "sites/a"}},
		{in: "/srv/net//sites/../../x", code: diag.PathEscape},
		{in: ".", want: source.Location{Dir: ".", Scheme: "dir", Subdir: "."}},
		{in: "git+file:///srv/b.git", want: source.Location{URL: "/srv/b.git", Scheme: "file", Subdir: "."}},
		{in: "git+file:///srv/b.git//sites/edge?ref=v1.2.0", want: source.Location{URL: "/srv/b.git", Scheme: "file", Subdir: "sites/edge", Ref: "v1.2.0"}},
		{in: "git+file:///srv/../etc/b//./x/", want: source.Location{URL: "/etc/b", Scheme: "file", Subdir: "x"}, back: "git+file:///etc/b//x"},
		{in: "git+https://git.example.org/a/b.git", want: source.Location{URL: "https://git.example.org/a/b.git", Scheme: "https", Subdir: "."}, endpoint: "git.example.org:443"},
		{in: "git+https://[2001:db8::1]:8443/b//s?semver=%5E1.2", want: source.Location{URL: "https://[2001:db8::1]:8443/b", Scheme: "https", Subdir: "s", Semver: "^1.2"}, endpoint: "[2001:db8::1]:8443"},
		{in: "git+ssh://git@git.example.org/a.git?ref=feature%2Fx", want: source.Location{URL: "ssh://git@git.example.org/a.git", Scheme: "ssh", Subdir: ".", Ref: "feature/x"}, endpoint: "git.example.org:22"},
		{in: "git+ssh://h:2222/a.git", want: source.Location{URL: "ssh://h:2222/a.git", Scheme: "ssh", Subdir: "."}, endpoint: "h:2222"},
		{in: "git+file:///a%3Fb%25c//d%23e", want: source.Location{URL: "/a?b%c", Scheme: "file", Subdir: "d#e"}},
		{in: "", code: diag.LocationInvalid},
		{in: "https://h/r", code: diag.LocationInvalid},
		{in: "git+http://h/r", code: diag.LocationInvalid},
		{in: "git+git://h/r", code: diag.LocationInvalid},
		{in: "git+ext::sh -c x", code: diag.LocationInvalid},
		{in: "git+file://host/r", code: diag.LocationInvalid},
		{in: "git+https://h", code: diag.LocationInvalid},
		{in: "git+https:///r", code: diag.LocationInvalid},
		{in: "git+https://bob:S3CRET@h/r", code: diag.LocationInvalid},
		{in: "git+https://S3CRET@h/r", code: diag.LocationInvalid},
		{in: "git+ssh://git:S3CRET@h/r", code: diag.LocationInvalid},
		{in: "git+https://bob:S3CRET%zz@h/r", code: diag.LocationInvalid},
		{in: "git+https://h/r//..", code: diag.PathEscape},
		{in: "git+https://h/r//a/../../b", code: diag.PathEscape},
		{in: "git+https://h/r//a/%2e%2e/b", code: diag.PathEscape},
		{in: "git+https://h/r?ref=a&ref=b", code: diag.LocationInvalid},
		{in: "git+https://h/r?ref=", code: diag.LocationInvalid},
		{in: "git+https://h/r?rev=a", code: diag.LocationInvalid},
		{in: "git+https://h/r?ref=a&semver=1", code: diag.LocationInvalid},
		{in: "git+https://h/r?ref=a%20b", code: diag.LocationInvalid},
		{in: "git+https://h/r?ref=a..b", code: diag.LocationInvalid},
		{in: "git+https://h/r?ref=main~1", code: diag.LocationInvalid},
		{in: "git+https://h/r?semver=latest", code: diag.LocationInvalid},
		{in: "git+https://h/r#main", code: diag.LocationInvalid},
	}
	for _, r := range rows {
		l, err := source.ParseLocation(r.in)
		if snapshot.Code(err) != r.code {
			t.Errorf("%q: got %v, want code %q", r.in, err, r.code)
			continue
		}
		if err != nil {
			if strings.Contains(err.Error(), "S3CRET") {
				t.Errorf("%q: the error quotes the password: %v", r.in, err)
			}
			if _, openErr := source.Open(r.in, source.Options{}); snapshot.Code(openErr) != r.code {
				t.Errorf("%q: Open says %v", r.in, openErr)
			}
			continue
		}
		if l != r.want || l.Endpoint() != r.endpoint {
			t.Errorf("%q: got %+v, endpoint %q", r.in, l, l.Endpoint())
		}
		if r.back == "" {
			r.back = r.in
		}
		again, err := source.ParseLocation(l.String())
		if l.String() != r.back || err != nil || again != l {
			t.Errorf("%q: String is %q, which parses to %+v, %v", r.in, l, again, err)
		}
	}
}

// TestSignersFromTheEnvironment: an operator who set the variable must not get commits that nobody signed.
func TestSignersFromTheEnvironment(t *testing.T) {
	repo, err := gitserver.InitBare(filepath.Join(t.TempDir(), "bundle.git"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := repo.Commit("main", "unsigned", map[string]string{"a.yaml": "a"}); err != nil {
		t.Fatal(err)
	}
	signers := filepath.Join(t.TempDir(), "signers")
	if err := os.WriteFile(signers, []byte("admin ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBmMmsiZ3ylqGBVJbbXzFVwAdxqkm+mmg6yqdAH3Ol7n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, r := range []struct {
		env, option string
		code        diag.Code
	}{{"", "", ""}, {signers, "", diag.SignatureInvalid}, {"", signers, diag.SignatureInvalid}} {
		t.Setenv("DANM_GIT_SIGNERS_FILE", r.env)
		f, err := source.Open("git+file://"+repo.Dir, source.Options{Signers: r.option})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Fetch(t.Context()); snapshot.Code(err) != r.code {
			t.Errorf("environment %q, option %q: %v", r.env, r.option, err)
		}
	}
}

// FuzzParseLocation: whatever is accepted survives its own String, and never has a way out in its subdirectory.
func FuzzParseLocation(f *testing.F) {
	for _, s := range []string{"x", "git+file:///a//b?ref=c", "git+https://h:1/a//b/../c?semver=1", "git+ssh://u@h/a%2F..//%2e%2e"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := source.ParseLocation(s)
		if err != nil {
			if e := (*source.Error)(nil); !errors.As(err, &e) || e.Code == "" {
				t.Fatalf("no code: %v", err)
			}
			return
		}
		if again, err := source.ParseLocation(l.String()); err != nil || again != l {
			t.Fatalf("%+v prints as %q, which parses to %+v, %v", l, l, again, err)
		}
		for _, part := range strings.Split(l.Subdir, "/") {
			if part == ".." {
				t.Fatalf("subdirectory %q", l.Subdir)
			}
		}
	})
}
