package sync_test

import (
	"bytes"
	"errors"
	"fmt"
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

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"danm.io/danm/reconcile/controller"
	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
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

// TestClusterTheAPIServerIsAway: frozen in the middle of a rollout, then gone and back: the controller goes on where it was.
func TestClusterTheAPIServerIsAway(t *testing.T) {
	s := newSite(t, 4)
	api := bed.Shared(t)
	good := files(1500)
	s.commit("edge", good)
	s.bundle("edge")
	s.done("edge", good)
	s.judge(func(node string, l v1alpha1.Layer) string {
		if l.Revision != digest(good) {
			return "silent"
		}
		return ""
	})
	next := files(1400)
	s.commit("edge", next)
	s.until("edge", "under way", func(b *v1alpha1.NetworkBundle) bool {
		return b.Status.Rollout != nil && b.Status.Rollout.Revision == digest(next) && b.Status.Rollout.Wave == 1
	})
	s.must(api.Freeze())
	time.Sleep(8 * time.Second)
	s.must(api.Thaw())
	s.judge(func(string, v1alpha1.Layer) string { return "" })
	s.done("edge", next)

	last := files(1300)
	s.commit("edge", last)
	api.StopServer()
	s.must(api.Restart(nil))
	b := s.done("edge", last)
	if b.Status.Nodes != "4/4" || len(b.Status.Quarantined) != 0 {
		t.Errorf("%+v", b.Status)
	}
}

// TestClusterTwoControllers: one leads, the other waits; when the leader is killed the other takes over in the middle of a rollout.
func TestClusterTwoControllers(t *testing.T) {
	s := newSite(t, 4)
	s.stop()
	elected := func(o *controller.Options) { o.LeaderElection = true }
	var wrote [2]atomic.Int64
	var stops [2]func()
	for i := range stops {
		config := rest.CopyConfig(s.config)
		config.Wrap(func(next http.RoundTripper) http.RoundTripper {
			return roundTrip(func(q *http.Request) (*http.Response, error) {
				if q.Method != http.MethodGet && strings.Contains(q.URL.Path, "danm.io") {
					wrote[i].Add(1)
				}
				return next.RoundTrip(q)
			})
		})
		stops[i] = s.run(config, elected)
		t.Cleanup(stops[i])
	}
	s.judge(func(string, v1alpha1.Layer) string { return "silent" })
	content := files(1500)
	s.commit("edge", content)
	s.bundle("edge")
	s.until("edge", "in the first wave", func(b *v1alpha1.NetworkBundle) bool { return b.Status.Rollout != nil && b.Status.Rollout.Wave == 1 })
	a, b := wrote[0].Load(), wrote[1].Load()
	if a > 0 == (b > 0) {
		t.Fatalf("both controllers wrote, or none: %d and %d", a, b)
	}
	leader := 0
	if b > 0 {
		leader = 1
	}
	stops[leader]()
	s.judge(func(string, v1alpha1.Layer) string { return "" })
	if done := s.done("edge", content); done.Status.Nodes != "4/4" || len(done.Status.Rollout.Late) != 0 {
		t.Errorf("%+v", done.Status)
	}
	if wrote[1-leader].Load() == 0 {
		t.Error("nobody took over")
	}
	var lease coordinationv1.Lease
	s.must(s.c.Get(t.Context(), client.ObjectKey{Namespace: namespace, Name: "danm-controller"}, &lease))
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(q *http.Request) (*http.Response, error) { return f(q) }

var errKilled = errors.New("the process was killed")

// TestClusterKilledAtEveryWrite: the controller dies before (odd n) or after (even n; with DANM_TEST_LONG both) its nth write to
// the API, for every n; the next one brings the
// bundle to the same end, and whatever exists of it at any time is in the inventory or named by a plan.
func TestClusterKilledAtEveryWrite(t *testing.T) {
	s := newSite(t, 3)
	s.stop()
	good, next := files(1500), files(1400, "net__data.yaml", "")
	var last int64
	for n := int64(1); n <= 60; n++ {
		both := []bool{n%2 == 0}
		if os.Getenv("DANM_TEST_LONG") != "" {
			both = []bool{false, true}
		}
		for _, after := range both {
			s.commit("edge", good)
			s.bundle("edge")
			writes, dead := s.dyingController(n, after, func() {
				s.mayBe("edge", good)
				s.commit("edge", next)
				s.mayBe("edge", next)
			})
			s.tracked()
			s.start()
			s.commit("edge", next)
			b := s.done("edge", next)
			s.stop()
			if b.Status.Nodes != "3/3" || len(b.Status.Inventory) != 2 || len(b.Status.Assignments) != 1 || b.Status.Assignments[0].ID != 100 {
				t.Fatalf("killed at write %d (after: %v): %+v", n, after, b.Status)
			}
			if !s.leaving("ClusterNetwork /data") {
				t.Fatalf("killed at write %d (after: %v): data is there", n, after)
			}
			s.start()
			s.must(s.c.Delete(t.Context(), &v1alpha1.NetworkBundle{ObjectMeta: metav1.ObjectMeta{Name: "edge"}}))
			s.gone("edge")
			for end := time.Now().Add(20 * time.Second); len(s.versions()) != 0 && time.Now().Before(end); { // networks wait for what nodes report
				time.Sleep(50 * time.Millisecond)
			}
			s.stop()
			if left := s.versions(); len(left) != 0 {
				t.Fatalf("killed at write %d (after: %v): left over: %v", n, after, left)
			}
			if last = writes; !dead {
				t.Logf("killed at each of %d writes", n-1)
				if n < 10 {
					t.Error("too few writes to mean anything")
				}
				return
			}
		}
	}
	t.Errorf("the story has more than 60 writes (%d): it was not killed at all of them", last)
}

// dyingController runs the story with a controller whose nth write is its last. after: the API has it, and the answer is lost.
func (s *site) dyingController(n int64, after bool, story func()) (writes int64, dead bool) {
	var count atomic.Int64
	var killed atomic.Bool
	config := rest.CopyConfig(s.config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTrip(func(q *http.Request) (*http.Response, error) {
			if killed.Load() {
				return nil, errKilled
			}
			if q.Method == http.MethodGet || strings.Contains(q.URL.Path, "/events") {
				return next.RoundTrip(q)
			}
			if count.Add(1) < n {
				return next.RoundTrip(q)
			}
			killed.Store(true)
			if after {
				if r, err := next.RoundTrip(q); err == nil {
					_ = r.Body.Close()
				}
			}
			return nil, errKilled
		})
	})
	stop := s.run(config, func(*controller.Options) {})
	s.dying = &killed
	story()
	s.dying = nil
	stop()
	return count.Load(), killed.Load()
}

// mayBe waits for a revision, or for the controller's death.
func (s *site) mayBe(name string, content map[string]string) {
	s.t.Helper()
	want := digest(content)
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline) && !s.dying.Load(); time.Sleep(20 * time.Millisecond) {
		b := &v1alpha1.NetworkBundle{}
		if err := s.c.Get(s.t.Context(), client.ObjectKey{Name: name}, b); err != nil {
			continue
		}
		if is, _ := ready(b); is && b.Status.RolledOut != nil && b.Status.RolledOut.Name == want {
			return
		}
	}
	if !s.dying.Load() {
		s.t.Fatalf("%s was not rolled out and nobody died", want)
	}
}

// tracked: every object with the bundle's label stands in its inventory.
func (s *site) tracked() {
	s.t.Helper()
	b := &v1alpha1.NetworkBundle{}
	s.must(s.c.Get(s.t.Context(), client.ObjectKey{Name: "edge"}, b))
	there := map[string]string{}
	for _, kind := range []string{"TenantNetwork", "ClusterNetwork", "TenantConfig"} {
		s.list(danmv1.APIVersion, kind, there)
	}
	for key := range there {
		if !slices.ContainsFunc(b.Status.Inventory, func(r v1alpha1.ObjectReference) bool {
			return key == fmt.Sprintf("%s %s/%s", r.Kind, r.Namespace, r.Name)
		}) && !s.leaving(key) {
			s.t.Fatalf("%s is not in the inventory %v", key, b.Status.Inventory)
		}
	}
}

// leaving says whether an object of DANM's API is being deleted: nothing is left to do then, and the inventory lets it go.
func (s *site) leaving(key string) bool {
	s.t.Helper()
	kind, name, _ := strings.Cut(key, " ")
	namespace, name, _ := strings.Cut(name, "/")
	o := &unstructured.Unstructured{}
	o.SetAPIVersion(danmv1.APIVersion)
	o.SetKind(kind)
	err := s.c.Get(s.t.Context(), client.ObjectKey{Namespace: namespace, Name: name}, o)
	s.must(client.IgnoreNotFound(err))
	return err != nil || o.GetDeletionTimestamp() != nil
}

func (s *site) gone(name string) {
	s.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if err := s.c.Get(s.t.Context(), client.ObjectKey{Name: name}, &v1alpha1.NetworkBundle{}); err != nil && client.IgnoreNotFound(err) == nil {
			return
		}
	}
	s.t.Fatalf("%s does not go", name)
}

// TestClusterADefinitionIsMissing: what the API server does not know yet stops nothing else, and comes when it is known.
func TestClusterADefinitionIsMissing(t *testing.T) {
	s := newSite(t, 2)
	api := bed.Shared(t)
	kubectl := func(args ...string) {
		t.Helper()
		if out, err := api.Kubectl(nil, args...); err != nil {
			t.Fatalf("%s", out)
		}
	}
	manifest := filepath.Join(bed.Root(), "test", "cluster", "testdata", "crd", "nad.yaml")
	kubectl("delete", "--wait", "-f", manifest)
	t.Cleanup(func() { _ = api.InstallCRDs(nil) })
	content := files(1500, "net__nad.yaml", "apiVersion: bundle.danm.io/v1\nkind: Network\nmetadata: {name: multus, namespace: acme}\nspec: {type: macvlan, fabric: f, vlan: 150, render: nad}\n")
	s.commit("edge", content)
	s.bundle("edge")
	b := s.until("edge", "without the definition", because("DefinitionMissing"))
	if got := s.judged("edge"); got != "InProgress" {
		t.Errorf("kstatus says %s of %+v", got, b.Status.Conditions)
	}
	s.must(s.c.Get(t.Context(), client.ObjectKey{Namespace: "acme", Name: "voice"}, &danmv1.TenantNetwork{}))
	s.must(api.InstallCRDs(nil))
	s.done("edge", content)
}

// TestClusterTheSpecIsItsOwners: the controller marks a NetworkBundle without touching a field that somebody applies. An update wrote the
// interval as Go prints it, and the next apply of the very same file met a conflict.
func TestClusterTheSpecIsItsOwners(t *testing.T) {
	s := newSite(t, 0)
	const manifest = "apiVersion: danm.io/v1alpha1\nkind: NetworkBundle\nmetadata: {name: owned}\n" +
		"spec: {suspend: true, interval: 1m, configMaps: {namespace: danm-system, selector: {bundle: owned}}}\n"
	apply := func() {
		t.Helper()
		if out, err := bed.Shared(t).KubectlInput(nil, manifest, "apply", "--server-side", "-f", "-"); err != nil {
			t.Fatal(string(out))
		}
	}
	apply()
	s.until("owned", "seen", because("Suspended"))
	s.annotate("owned", v1alpha1.AnnotationRetry, "sha256:0")
	b := s.until("owned", "rid of its request", func(b *v1alpha1.NetworkBundle) bool { return b.Annotations[v1alpha1.AnnotationRetry] == "" })
	if b.Generation != 1 {
		t.Errorf("the spec was written %d times", b.Generation)
	}
	apply()
	s.must(s.c.Delete(t.Context(), b))
	s.gone("owned")
}

// TestClusterAnOldReadIsNoFailure: a NetworkBundle that somebody changes in the middle of a round is looked at again, and nobody hears of
// an API server that is away; and what was fetched in that round is told by the next one, though it fetches nothing.
func TestClusterAnOldReadIsNoFailure(t *testing.T) {
	s := newSite(t, 2)
	content := files(1500)
	s.commit("touched", content) // a name of its own: events of other tests are still there
	s.bundle("touched")
	s.done("touched", content)
	for i := range 4 {
		content = files(1400 + i)
		s.commit("touched", content)
		for j := range 40 {
			s.annotate("touched", "example.org/touched", fmt.Sprint(i, j))
			time.Sleep(5 * time.Millisecond)
		}
		if b := s.done("touched", content); b.Status.Fetched.Name != digest(content) {
			t.Errorf("told to be of %s", b.Status.Fetched.Name)
		}
	}
	if s.event("NetworkBundle touched", "APIUnavailable", "") {
		t.Error("told of an API server that is away")
	}
}
