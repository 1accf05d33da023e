package sync_test

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"danm.io/danm/reconcile/controller"
	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/test/cluster/bed"
	"danm.io/danm/test/gitserver"
)

// repo is a Git server with one repository, and a working tree to commit in by the git program, signed or not.
type repo struct {
	t          *testing.T
	dir        string
	server     *gitserver.Server
	token      atomic.Value // that is let in
	public     string       // key of the signer
	url, where string
}

func newRepo(t *testing.T) *repo {
	t.Helper()
	r := &repo{t: t, dir: t.TempDir()}
	r.token.Store("letmein")
	r.git("init", "-q", "--bare", "-b", "main", "site.git")
	r.git("init", "-q", "-b", "main", "work")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(r.dir, "key"), "-C", "admin@example.org").CombinedOutput(); err != nil {
		t.Fatalf("%s", out)
	}
	public, err := os.ReadFile(filepath.Join(r.dir, "key.pub"))
	if err != nil {
		t.Fatal(err)
	}
	r.public = strings.TrimSpace(string(public))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.where = l.Addr().String()
	r.serve(l)
	t.Cleanup(func() { _ = r.server.Close() })
	return r
}

func (r *repo) serve(l net.Listener) {
	r.t.Helper()
	s, err := gitserver.Start(gitserver.Options{Listener: l, Root: r.dir, Allow: func(q *http.Request) bool {
		return q.Header.Get("Authorization") == "Bearer "+r.token.Load().(string)
	}})
	if err != nil {
		r.t.Fatal(err)
	}
	r.server, r.url = s, s.URL+"/site.git"
}

func (r *repo) git(args ...string) string {
	r.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "HOME="+r.dir, "GIT_CONFIG_NOSYSTEM=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		r.t.Fatalf("git %v: %s", args, out)
	}
	return strings.TrimSpace(string(out))
}

// commit makes the repository hold the files and returns the revision as statuses name it.
func (r *repo) commit(files map[string]string, signed bool) string {
	r.t.Helper()
	for name, text := range files {
		path := filepath.Join(r.dir, "work", strings.ReplaceAll(name, "__", "/"))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			r.t.Fatal(err)
		}
	}
	r.git("-C", "work", "add", "-A")
	args := []string{"-C", "work", "-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "gpg.format=ssh", "-c", "user.signingkey=" + filepath.Join(r.dir, "key"), "commit", "-q", "--allow-empty", "-m", "change"}
	if signed {
		args = append(args, "-S")
	}
	r.git(args...)
	r.git("-C", "work", "push", "-q", filepath.Join(r.dir, "site.git"), "main")
	return "main@sha1:" + r.git("-C", "work", "rev-parse", "HEAD")
}

func (s *site) secret(name string, data map[string]string) {
	s.t.Helper()
	o := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	s.must(client.IgnoreNotFound(s.c.Delete(s.t.Context(), o.DeepCopy())))
	o.StringData = data
	s.must(s.c.Create(s.t.Context(), o))
	s.t.Cleanup(func() { _, _ = bed.Shared(s.t).Kubectl(nil, "delete", "secret", "-n", namespace, name) })
}

func (s *site) poke(name string) {
	s.annotate(name, v1alpha1.AnnotationRequestedAt, time.Now().String())
}

// TestClusterGitFaults: whatever is wrong with the repository or the way to it, the last good revision stays and the reason is
// told; the token is never told.
func TestClusterGitFaults(t *testing.T) {
	s := newSite(t, 2)
	var log bytes.Buffer
	var mu sync.Mutex
	s.stop()
	s.stop = s.run(s.config, func(o *controller.Options) {
		o.Log = slog.New(slog.NewTextHandler(lockedWriter{&mu, &log}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	r := newRepo(t)
	rolledOut := func(revision string) {
		t.Helper()
		s.until("edge", "rolled out "+revision, func(b *v1alpha1.NetworkBundle) bool {
			is, _ := ready(b)
			return is && b.Status.RolledOut != nil && b.Status.RolledOut.Name == revision && s.judgedTenants() && s.toldReady()
		})
	}
	first := r.commit(files(1500), false)
	const token = "letmein"
	s.bundle("edge", func(b *v1alpha1.NetworkBundle) {
		b.Spec.ConfigMaps = nil
		b.Spec.Git = &v1alpha1.GitSource{URL: r.url, Ref: &v1alpha1.GitRef{Branch: "main"}, SecretRef: &v1alpha1.LocalReference{Name: "git"}}
	})
	s.until("edge", "without its Secret", because("SecretMissing"))
	s.secret("git", map[string]string{"bearerToken": "wrong-token", "ca.crt": string(r.server.CAPEM)})
	s.poke("edge")
	s.until("edge", "not let in", because("AuthFailed"))
	s.secret("git", map[string]string{"bearerToken": token, "ca.crt": string(r.server.CAPEM)})
	s.poke("edge")
	rolledOut(first)
	before := s.versions()
	unchanged := func(what string) {
		t.Helper()
		if c := changed(before, s.versions()); len(c) != 0 {
			t.Errorf("%s changed %v", what, c)
		}
		b := &v1alpha1.NetworkBundle{}
		s.must(s.c.Get(t.Context(), client.ObjectKey{Name: "edge"}, b))
		if b.Status.RolledOut == nil || b.Status.RolledOut.Name != first {
			t.Errorf("%s: rolled out is %+v", what, b.Status.RolledOut)
		}
	}

	r.token.Store("rotated")
	s.poke("edge")
	s.until("edge", "locked out", because("AuthFailed"))
	unchanged("a token that was rotated")
	r.token.Store(token)

	s.must(os.Rename(filepath.Join(r.dir, "site.git"), filepath.Join(r.dir, "away.git")))
	s.poke("edge")
	s.until("edge", "told that the repository is gone", func(b *v1alpha1.NetworkBundle) bool {
		_, reason := ready(b)
		return slices.Contains([]string{"RepositoryUnreachable", "PathNotFound"}, reason)
	})
	unchanged("a repository that is gone")
	s.must(os.Rename(filepath.Join(r.dir, "away.git"), filepath.Join(r.dir, "site.git")))

	s.must(r.server.Close())
	s.poke("edge")
	s.until("edge", "told that the server is away", because("RepositoryUnreachable"))
	unchanged("a server that is away")
	l, err := net.Listen("tcp", r.where)
	s.must(err)
	r.serve(l) // with a certificate of another authority
	s.poke("edge")
	time.Sleep(time.Second)
	unchanged("a server with an unknown certificate")
	s.secret("git", map[string]string{"bearerToken": token, "ca.crt": string(r.server.CAPEM)})
	s.poke("edge")
	rolledOut(first)

	s.edit("edge", func(b *v1alpha1.NetworkBundle) { b.Spec.Git.Ref = &v1alpha1.GitRef{Branch: "nowhere"} })
	s.until("edge", "told that the branch is not there", because("RefNotFound"))
	unchanged("a branch that is not there")

	s.secret("signers", map[string]string{"signers": "admin " + r.public})
	s.edit("edge", func(b *v1alpha1.NetworkBundle) {
		b.Spec.Git.Ref, b.Spec.Git.Verify = &v1alpha1.GitRef{Branch: "main"}, &v1alpha1.Verify{SecretRef: v1alpha1.LocalReference{Name: "signers"}}
	})
	r.commit(files(1400), false)
	s.poke("edge")
	s.until("edge", "told that the signature is missing", because("SignatureInvalid"))
	unchanged("a commit without a signature")
	s.secret("signers", map[string]string{"signers": "admin ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE"})
	r.commit(files(1401), true)
	s.poke("edge")
	s.until("edge", "told that another one signed", because("SignatureInvalid"))
	unchanged("a commit that somebody else signed")
	s.secret("signers", map[string]string{"signers": "admin " + r.public})
	signed := r.commit(files(1402), true)
	s.poke("edge")
	rolledOut(signed)

	out, err := bed.Shared(t).Kubectl(nil, "get", "networkbundles,nodeplans,events", "-A", "-o", "yaml")
	s.must(err)
	mu.Lock()
	defer mu.Unlock()
	for _, hidden := range []string{"wrong-token", "Bearer " + token, "bearerToken: " + token} {
		if strings.Contains(string(out), hidden) || strings.Contains(log.String(), hidden) {
			t.Errorf("%q was told", hidden)
		}
	}
	if !strings.Contains(string(out), "SignatureInvalid") {
		t.Error("no event tells of the signature")
	}
}

type lockedWriter struct {
	mu *sync.Mutex
	w  *bytes.Buffer
}

func (l lockedWriter) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}
