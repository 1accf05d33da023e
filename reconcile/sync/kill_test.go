package sync_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"danm.io/danm/reconcile/controller"
	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
)

func TestClusterControllerKilledMidWave(t *testing.T) {
	s := newSite(t, 6)
	s.judge(func(string, v1alpha1.Layer) string { return "silent" })
	content := files(1500)
	s.commit("edge", content)
	s.bundle("edge")
	s.until("edge", "in the first wave", func(b *v1alpha1.NetworkBundle) bool { return b.Status.Rollout != nil && b.Status.Rollout.Wave == 1 })
	s.stop()
	s.judge(func(string, v1alpha1.Layer) string { return "" })
	s.start()
	if b := s.done("edge", content); b.Status.Nodes != "6/6" || len(b.Status.Rollout.Late) != 0 {
		t.Fatalf("%+v", b.Status)
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
		s.list(danmv1.APIVersion, kind, there, s.said)
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
