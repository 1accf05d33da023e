package local

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"danm.io/danm/reconcile/source"
	"danm.io/danm/spec/diag"
	"danm.io/danm/test/gitserver"
)

// TestRemoteGit syncs over https: Source is the server, secrets appear nowhere, and an absent server changes nothing.
func TestRemoteGit(t *testing.T) {
	const token = "s3cr3t-t0ken"
	reposDir, dir := t.TempDir(), t.TempDir()
	repo, err := gitserver.InitBare(filepath.Join(reposDir, "site.git"))
	if err != nil {
		t.Fatal(err)
	}
	commit := func(files map[string]string) string {
		nested := map[string]string{}
		for k, v := range files {
			nested["bundle/"+k] = v
		}
		h, err := repo.Commit("main", "c", nested)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	head := commit(good(1400))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, err := gitserver.Start(gitserver.Options{
		Listener: listener, Root: reposDir,
		Allow: func(r *http.Request) bool { return r.Header.Get("Authorization") == "Bearer "+token },
	})
	if err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, server.CAPEM, 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	o := Options{
		Location: "git+" + server.URL + "/site.git//bundle?ref=main", StateDir: dir, Node: "edge-1", Once: true,
		Source: source.Options{Auth: &source.Auth{Token: token, CAFile: ca}}, Out: &out,
		Log: slog.New(slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if err := Run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	st := read(t, dir)
	if st.Revision != "main@sha1:"+head || st.Source != listener.Addr().String() {
		t.Errorf("revision %s, source %q", st.Revision, st.Source)
	}
	commit(with(good(1), "net/lan.yaml", "a: ["))
	before := dump(t, dir)
	if err := Run(t.Context(), o); !errors.Is(err, ErrRefused) {
		t.Errorf("got %v", err)
	}
	o.Source.Auth.Token = token + "-expired"
	if err := Run(t.Context(), o); !slices.Contains(codes(err), diag.AuthFailed) {
		t.Errorf("got %v", err)
	}
	if err := server.Close(); err != nil {
		t.Error(err)
	}
	if err := Run(t.Context(), o); !slices.Contains(codes(err), diag.RepositoryUnreachable) {
		t.Errorf("got %v", err)
	}
	if !reflect.DeepEqual(before, dump(t, dir)) {
		t.Error("the state changed")
	}
	all := out.String()
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			b, _ := os.ReadFile(p)
			all += string(b)
		}
		return nil
	})
	if strings.Contains(all, token) || strings.Contains(fmt.Sprintf("%+v %#v %s", o, o.Source, o.Source.Auth), token) {
		t.Error("the token leaks")
	}
}

// TestReflectedSecret: a server that quotes our credentials back does not get them into the status file.
func TestReflectedSecret(t *testing.T) {
	const token = "s3cr3t-t0ken"
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
		text := "ERR " + r.Header.Get("Authorization") + " is bad\n"
		_, _ = fmt.Fprintf(w, "001e# service=git-upload-pack\n0000%04x%s", len(text)+4, text)
	}))
	defer server.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	err := Run(t.Context(), Options{
		Location: "git+" + server.URL + "/x.git", StateDir: dir, Node: "edge-1", Once: true,
		Source: source.Options{Auth: &source.Auth{Token: token, CAFile: ca}},
	})
	b, readErr := os.ReadFile(filepath.Join(dir, StatusFile))
	if err == nil || readErr != nil || strings.Contains(err.Error()+string(b), token) || !strings.Contains(string(b), "is bad") {
		t.Errorf("%v, %v, %s", err, readErr, b)
	}
}
