package git_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"danm.io/danm/reconcile/source/git"
	"danm.io/danm/reconcile/source/snapshot"
	"danm.io/danm/spec/diag"
)

func TestAuthentication(t *testing.T) {
	h := newHistory(t)
	const token, password = "s3cr3t-t0ken", "pa55-w0rd"
	bearer := "Bearer " + token
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte("bob:"+password))
	basicToken := "Basic " + base64.StdEncoding.EncodeToString([]byte("ci:"+token))
	url, ca, _ := serve(t, filepath.Dir(h.Dir), func(r *http.Request) bool {
		a := r.Header.Get("Authorization")
		return a == bearer || a == basic || a == basicToken
	})
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	good := []git.Auth{{Token: token}, {TokenFile: file}, {Username: "bob", Password: password}, {Username: "ci", TokenFile: file}}
	bad := []git.Auth{{}, {Token: token + "x"}, {Username: "bob", Password: token}, {TokenFile: file + "x"}, {Username: "eve", TokenFile: file}}
	o := options(url + "/bundle.git")
	for i, a := range good {
		a.CAFile = ca
		o.Auth = a
		if s := fetch(t, o); s.Revision != "main@sha1:"+h.second {
			t.Errorf("good %d: %s", i, s.Revision)
		}
	}
	for i, a := range bad {
		a.CAFile = ca
		o.Auth = a
		err := wantCode(t, o, diag.AuthFailed)
		for _, out := range []string{err.Error(), fmt.Sprintf("%+v %#v", err, err), fmt.Sprintf("%v %+v %#v", o, o, o)} {
			for _, secret := range []string{token, password, base64.StdEncoding.EncodeToString([]byte("bob:" + token))} {
				if strings.Contains(out, secret) {
					t.Errorf("bad %d: %q leaks %q", i, out, secret)
				}
			}
		}
	}
	o.Auth = good[0] // without the CA: nobody vouches for the certificate
	wantCode(t, o, diag.RepositoryUnreachable)
}

// TestHostileAnswers: servers that reflect credentials, redirect, stall, or are no Git server at all.
func TestHostileAnswers(t *testing.T) {
	const token = "s3cr3t-t0ken"
	var leaked atomic.Value
	leaked.Store("")
	elsewhere := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		leaked.Store(leaked.Load().(string) + r.Header.Get("Authorization") + "!")
	}))
	defer elsewhere.Close()
	advert := func(lines string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
			_, _ = w.Write([]byte("001e# service=git-upload-pack\n0000" + lines))
		}
	}
	stall := make(chan struct{})
	defer close(stall)
	rows := []struct {
		name   string
		answer http.HandlerFunc
		code   diag.Code
		inText string
	}{
		{"reflects", func(w http.ResponseWriter, r *http.Request) { http.Error(w, r.Header.Get("Authorization"), 500) }, diag.RepositoryUnreachable, "500"},
		{"reflects in ERR", func(w http.ResponseWriter, r *http.Request) {
			text := "ERR no access for " + r.Header.Get("Authorization") + "\n"
			advert(fmt.Sprintf("%04x%s", len(text)+4, text))(w, r)
		}, diag.RepositoryUnreachable, "no access"},
		{"redirects elsewhere", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL+r.URL.Path, 307) }, diag.RepositoryUnreachable, "redirects elsewhere"},
		{"redirects to http", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://"+r.Host+"/other"+r.URL.Path, 301)
		}, diag.RepositoryUnreachable, "redirects elsewhere"},
		{"redirects for ever", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.String(), 302) }, diag.RepositoryUnreachable, "redirects"},
		{"is a web page", func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte("<html>")) }, diag.RepositoryUnreachable, "smart protocol"},
		{"404", http.NotFound, diag.RepositoryUnreachable, "404"},
		{"sends garbage", advert("zzzz"), diag.RepositoryUnreachable, "references"},
		{"cuts the list", advert("003f" + strings.Repeat("a", 20)), diag.RepositoryUnreachable, "references"},
		{"lists references without end", func(w http.ResponseWriter, r *http.Request) {
			advert("")(w, r)
			capabilities := "\x00"
			for i := 0; i < 600_000 && r.Context().Err() == nil; i++ { // 40 MiB
				line := fmt.Sprintf("%040x refs/heads/b%016d%s\n", i+1, i, capabilities)
				_, _ = fmt.Fprintf(w, "%04x%s", len(line)+4, line)
				capabilities = ""
			}
			_, _ = w.Write([]byte("0000"))
		}, diag.RepositoryTooLarge, "exceeds"},
		{"never answers", func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-stall:
			case <-r.Context().Done():
			}
		}, diag.FetchTimeout, "within"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			s := httptest.NewTLSServer(row.answer)
			defer s.Close()
			o := options(s.URL + "/bundle.git")
			o.Auth, o.Timeout = git.Auth{Token: token, CAFile: caOf(t, s)}, 500*time.Millisecond
			if row.code != diag.FetchTimeout {
				o.Timeout = time.Minute // it is not what ends these, and 40 MiB take a busy machine long
			}
			err := wantCode(t, o, row.code)
			if text := fmt.Sprintf("%v %+v", err, err); strings.Contains(text, token) || !strings.Contains(text, row.inText) {
				t.Errorf("text %q", text)
			}
		})
	}
	if got := leaked.Load().(string); got != "" {
		t.Errorf("another host was contacted, with %q", got)
	}
}

// TestReflectedBasicCredentials: sent back as they went over the wire, they are as secret as the password.
func TestReflectedBasicCredentials(t *testing.T) {
	const password = "pa55-w0rd"
	wire := base64.StdEncoding.EncodeToString([]byte("bob:" + password))
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
		text := "ERR no access for " + r.Header.Get("Authorization") + "\n"
		_, _ = fmt.Fprintf(w, "001e# service=git-upload-pack\n0000%04x%s", len(text)+4, text)
	}))
	defer s.Close()
	o := options(s.URL + "/bundle.git")
	o.Auth = git.Auth{Username: "bob", Password: password, CAFile: caOf(t, s)}
	err := wantCode(t, o, diag.RepositoryUnreachable)
	if text := err.Error(); strings.Contains(text, wire) || strings.Contains(text, password) || !strings.Contains(text, "no access for Basic") {
		t.Errorf("text %q", text)
	}
}

// TestSameOriginRedirect: a renamed repository is followed, with the pack asked at the new place.
func TestSameOriginRedirect(t *testing.T) {
	h := newHistory(t)
	url, ca, _ := serve(t, filepath.Dir(h.Dir), nil)
	front := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rest, ok := strings.CutPrefix(r.URL.Path, "/old"); ok {
			http.Redirect(w, r, rest+"?"+r.URL.RawQuery, http.StatusMovedPermanently)
			return
		}
		proxy(t, w, r, url, ca)
	}))
	defer front.Close()
	o := options(front.URL + "/old/bundle.git")
	o.Auth.CAFile = caOf(t, front)
	if s := fetch(t, o); s.Revision != "main@sha1:"+h.second {
		t.Error(s.Revision)
	}
}

func TestUnreachable(t *testing.T) {
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	addr := l.Addr().String()
	_ = l.Close()
	wantCode(t, options("https://"+addr+"/x.git"), diag.RepositoryUnreachable)
}

// TestSilentListener: a connection that is accepted and never served ends at the deadline, in the TLS handshake already, and at once
// when the caller gives up.
func TestSilentListener(t *testing.T) {
	l := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer l.Close()
	o := options("https://" + l.Addr().String() + "/x.git")
	o.Timeout = 200 * time.Millisecond
	start := time.Now()
	wantCode(t, o, diag.FetchTimeout)
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("took %s", d)
	}
	o.Timeout = time.Hour
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if _, err := git.New(o).Fetch(ctx); !errors.Is(err, context.DeadlineExceeded) || snapshot.Code(err) != "" {
		t.Errorf("the caller's own end is reported as %v", err)
	}
}
