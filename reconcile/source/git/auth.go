package git

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"regexp"
	"strings"

	"danm.io/danm/reconcile/source/snapshot"
	"danm.io/danm/spec/diag"
)

// Auth is how to prove who we are and to check who they are. Files are read at each fetch, so a rotated secret needs no restart.
// It prints and logs as "[credentials]".
type Auth struct {
	Token, TokenFile       string // https: bearer token, unless Username is set
	Username               string // https: basic
	Password, PasswordFile string // https: basic; the token serves if both are empty
	CAFile                 string // https: PEM; besides the system's
	KeyFile                string // ssh: private key without passphrase; "" = ~/.ssh/id_{ed25519,ecdsa,rsa}, the first that exists
	KnownHostsFile         string // ssh: "" = ~/.ssh/known_hosts
}

// AuthFromEnv reads DANM_GIT_TOKEN, DANM_GIT_TOKEN_FILE, DANM_GIT_USERNAME, DANM_GIT_PASSWORD, DANM_GIT_PASSWORD_FILE,
// DANM_GIT_CA_FILE, DANM_GIT_SSH_KEY_FILE and DANM_GIT_KNOWN_HOSTS.
func AuthFromEnv() Auth {
	return Auth{
		Token: os.Getenv("DANM_GIT_TOKEN"), TokenFile: os.Getenv("DANM_GIT_TOKEN_FILE"),
		Username: os.Getenv("DANM_GIT_USERNAME"),
		Password: os.Getenv("DANM_GIT_PASSWORD"), PasswordFile: os.Getenv("DANM_GIT_PASSWORD_FILE"),
		CAFile:  os.Getenv("DANM_GIT_CA_FILE"),
		KeyFile: os.Getenv("DANM_GIT_SSH_KEY_FILE"), KnownHostsFile: os.Getenv("DANM_GIT_KNOWN_HOSTS"),
	}
}

const hidden = "[credentials]"

func (Auth) String() string       { return hidden }
func (Auth) GoString() string     { return hidden }
func (Auth) LogValue() slog.Value { return slog.StringValue(hidden) }

// MarshalJSON keeps secrets out of dumps of whole option structs.
func (Auth) MarshalJSON() ([]byte, error) { return []byte(`"` + hidden + `"`), nil }

// httpSecrets resolves the files. What it returns must not reach a log or an error.
func (a Auth) httpSecrets() (token, password string, err error) {
	token, password = a.Token, a.Password
	for _, f := range []struct {
		path string
		into *string
	}{{a.TokenFile, &token}, {a.PasswordFile, &password}} {
		if f.path == "" {
			continue
		}
		b, err := os.ReadFile(f.path)
		if err != nil {
			return "", "", snapshot.Errorf(diag.AuthFailed, "read credentials: %w", err)
		}
		*f.into = strings.TrimRight(string(b), "\r\n")
	}
	return token, password, nil
}

// authorize returns the function that signs requests.
func (a Auth) authorize() (sign func(*http.Request), err error) {
	token, password, err := a.httpSecrets()
	if err != nil {
		return nil, err
	}
	if password == "" {
		password = token
	}
	switch {
	case a.Username != "":
		return func(r *http.Request) { r.SetBasicAuth(a.Username, password) }, nil
	case token != "":
		return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }, nil
	}
	return func(*http.Request) {}, nil
}

// secrets are the texts that must not appear in an error, in every spelling in which a server could send them back.
func (a Auth) secrets() []string {
	token, password, err := a.httpSecrets()
	if err != nil {
		return nil // then none was sent
	}
	var out []string
	for _, s := range []string{token, password} {
		if s != "" {
			out = append(out, base64.StdEncoding.EncodeToString([]byte(a.Username+":"+s)), s)
		}
	}
	return out
}

func (a Auth) tlsConfig() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if a.CAFile == "" {
		return c, nil
	}
	pem, err := os.ReadFile(a.CAFile)
	if err != nil {
		return nil, snapshot.Errorf(diag.RepositoryUnreachable, "read CA bundle: %w", err)
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(bytes.TrimSpace(pem)) {
		return nil, snapshot.Errorf(diag.RepositoryUnreachable, "CA bundle %s holds no certificate", a.CAFile)
	}
	c.RootCAs = pool
	return c, nil
}

// clean is the one way out for errors of a fetch: scrubbed, and without the cause, whose text would not be; only the context's and
// the file system's sentinels stay, for errors.Is.
func clean(e *snapshot.Error, secrets []string) *snapshot.Error {
	out := &snapshot.Error{Code: e.Code, File: e.File, Summary: scrub(e.Summary, secrets)}
	for _, cause := range []error{context.DeadlineExceeded, context.Canceled, fs.ErrNotExist, fs.ErrPermission} {
		if errors.Is(e.Err, cause) {
			out.Err = cause
		}
	}
	return out
}

var userinfo = regexp.MustCompile(`://[^/@\s]+@`)

// scrub makes text that may quote a URL or a server fit for a log: no secret, no control characters, one line, 300 bytes.
func scrub(text string, secrets []string) string {
	for _, s := range secrets {
		text = strings.ReplaceAll(text, s, hidden)
	}
	text = userinfo.ReplaceAllString(text, "://")
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text)
	if len(text) > 300 {
		text = strings.ToValidUTF8(text[:300], "") + "..."
	}
	return strings.TrimSpace(text)
}
