package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/protocol/packp"

	"danm.io/danm/reconcile/source/snapshot"
	"danm.io/danm/spec/diag"
)

// maxAdvert bounds the list of references a server may send; 16 MiB are some 200,000 references.
const maxAdvert = 16 << 20

// session is one conversation with a git-upload-pack, protocol version 0.
type session interface {
	// advertise returns the server's references; an empty repository is an empty list.
	advertise(ctx context.Context) (*packp.AdvRefs, error)
	// request sends what is wanted and returns the raw answer.
	request(ctx context.Context, req *packp.UploadPackRequest) (io.ReadCloser, error)
	close()
}

// httpSession speaks the smart HTTP protocol (gitprotocol-http(5)). Credentials go to the location's own origin only, because a
// redirect to another one is an error.
type httpSession struct {
	base   string // the repository's URL
	client *http.Client
	sign   func(*http.Request)
}

func newHTTPSession(base string, auth Auth) (*httpSession, error) {
	sign, err := auth.authorize()
	if err != nil {
		return nil, err
	}
	tlsConfig, err := auth.tlsConfig()
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, DialContext: dialer.DialContext, TLSClientConfig: tlsConfig, ForceAttemptHTTP2: true}
	return &httpSession{
		base: strings.TrimSuffix(base, "/"), sign: sign,
		client: &http.Client{Transport: transport, CheckRedirect: sameOrigin},
	}, nil
}

var errRedirect = errors.New("redirects elsewhere")

// sameOrigin follows the redirects hosting services use for renamed repositories, for reads only.
func sameOrigin(req *http.Request, via []*http.Request) error {
	first := via[0]
	switch {
	case req.URL.Scheme != first.URL.Scheme || !strings.EqualFold(req.URL.Host, first.URL.Host):
		return fmt.Errorf("%w: to %s://%s", errRedirect, req.URL.Scheme, req.URL.Host)
	case first.Method != http.MethodGet || len(via) > 3:
		return fmt.Errorf("%w: too often or for a request that cannot be repeated", errRedirect)
	}
	return nil
}

func (s *httpSession) advertise(ctx context.Context) (*packp.AdvRefs, error) {
	const path = "/info/refs"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.base+path+"?service=git-upload-pack", nil)
	if err != nil {
		return nil, withoutURL(diag.LocationInvalid, err)
	}
	res, err := s.do(req, "application/x-git-upload-pack-advertisement")
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if final := *res.Request.URL; strings.HasSuffix(final.Path, path) { // where a redirect has led
		moved := url.URL{Scheme: final.Scheme, Host: final.Host, Path: strings.TrimSuffix(final.Path, path)}
		s.base = moved.String()
	}
	return decodeAdvert(res.Body)
}

func (s *httpSession) request(ctx context.Context, want *packp.UploadPackRequest) (io.ReadCloser, error) {
	var body bytes.Buffer
	if err := encodeRequest(&body, want, false); err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.base+"/git-upload-pack", &body)
	if err != nil {
		return nil, withoutURL(diag.LocationInvalid, err)
	}
	req.Header.Set("Content-Type", "application/x-git-upload-pack-request")
	res, err := s.do(req, "application/x-git-upload-pack-result")
	if err != nil {
		return nil, err
	}
	return res.Body, nil
}

// do sends a request. The answer's body never reaches an error: it is foreign text and could quote our credentials.
func (s *httpSession) do(req *http.Request, wantType string) (*http.Response, error) {
	req.Header.Set("User-Agent", "git/danm")
	req.Header.Set("Accept", wantType)
	s.sign(req)
	res, err := s.client.Do(req)
	if err != nil {
		return nil, withoutURL(diag.RepositoryUnreachable, err)
	}
	err = nil
	switch got := res.Header.Get("Content-Type"); {
	case res.StatusCode == http.StatusUnauthorized || res.StatusCode == http.StatusForbidden:
		err = snapshot.Errorf(diag.AuthFailed, "%s answers %d", req.URL.Host, res.StatusCode)
	case res.StatusCode == http.StatusNotFound || res.StatusCode == http.StatusGone:
		err = snapshot.Errorf(diag.RepositoryUnreachable, "%s has no such repository (%d)", req.URL.Host, res.StatusCode)
	case res.StatusCode != http.StatusOK:
		err = snapshot.Errorf(diag.RepositoryUnreachable, "%s answers %d", req.URL.Host, res.StatusCode)
	case got != wantType:
		err = snapshot.Errorf(diag.RepositoryUnreachable, "%s does not speak git's smart protocol", req.URL.Host)
	}
	if err != nil {
		_ = res.Body.Close()
		return nil, err
	}
	return res, nil
}

func withoutURL(code diag.Code, err error) error {
	if u := (*url.Error)(nil); errors.As(err, &u) {
		err = u.Err // without the URL, which the location tells already
	}
	return snapshot.Errorf(code, "%w", err)
}

func (s *httpSession) close() { s.client.CloseIdleConnections() }

// failure is err as an Error, RepositoryUnreachable unless it is one already.
func failure(err error) *snapshot.Error {
	if e := (*snapshot.Error)(nil); errors.As(err, &e) {
		return e
	}
	return snapshot.Errorf(diag.RepositoryUnreachable, "%w", err)
}
