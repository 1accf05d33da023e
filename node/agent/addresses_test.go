package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"danm.io/danm/ipam"
	"danm.io/danm/node/mirror"
)

func TestStickyIsByOrdinalOfAStatefulSetOnly(t *testing.T) {
	for _, c := range []struct {
		in   mirror.PodInfo
		want ipam.Sticky
	}{
		{mirror.PodInfo{Namespace: "acme", Name: "web-3"}, ipam.Sticky{}},
		{mirror.PodInfo{Namespace: "acme", Name: "web-3", StatefulSet: "web", StatefulSetUID: "u"}, ipam.Sticky{Namespace: "acme", StatefulSet: "web", UID: "u", Ordinal: 3}},
		{mirror.PodInfo{Namespace: "acme", Name: "odd", StatefulSet: "web", StatefulSetUID: "u"}, ipam.Sticky{}},
		{mirror.PodInfo{Namespace: "acme", Name: "other-3", StatefulSet: "web", StatefulSetUID: "u"}, ipam.Sticky{}},
		{mirror.PodInfo{Namespace: "acme", Name: "web-03", StatefulSet: "web", StatefulSetUID: "u"}, ipam.Sticky{}},
		{mirror.PodInfo{Namespace: "acme", Name: "web-+3", StatefulSet: "web", StatefulSetUID: "u"}, ipam.Sticky{}},
		{mirror.PodInfo{Namespace: "acme", Name: "web--3", StatefulSet: "web", StatefulSetUID: "u"}, ipam.Sticky{}},
		{mirror.PodInfo{Namespace: "acme", Name: "web-2147483648", StatefulSet: "web", StatefulSetUID: "u"}, ipam.Sticky{}},
	} {
		if got := stickyOf(c.in); got != c.want {
			t.Errorf("%+v: %+v, want %+v", c.in, got, c.want)
		}
	}
}

func TestNamespacesAreThoseThatRuntimesMake(t *testing.T) {
	root := t.TempDir()
	if got, err := namespaces(root); err != nil || len(got) != 0 {
		t.Fatal(got, err)
	}
	dir := filepath.Join(root, "run/netns")
	must(t, os.MkdirAll(dir, 0o755))
	must(t, os.WriteFile(filepath.Join(dir, "cni-1"), nil, 0o600))
	if got, err := namespaces(root); err != nil || !slices.Equal(got, []string{"netns/cni-1"}) {
		t.Fatal(got, err)
	}
}

// A journal that takes nothing more ends the agent with its reason; one that works does not.
func TestABrokenJournalEndsTheAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var broken atomic.Pointer[error]
		ctx, fail := context.WithCancelCause(t.Context())
		go heed(ctx, func() error {
			if err := broken.Load(); err != nil {
				return *err
			}
			return nil
		}, fail)
		time.Sleep(time.Minute)
		synctest.Wait()
		if err := ctx.Err(); err != nil {
			t.Fatal("a working journal ended the agent: ", err)
		}
		broken.Store(&ipam.ErrFailed)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if err := context.Cause(ctx); !errors.Is(err, ipam.ErrFailed) {
			t.Fatal(err)
		}
	})
}

type fewPods struct {
	known, api map[string]mirror.PodInfo // by UID; by namespace/name
	gets       int
	err        error
}

func (f *fewPods) Known(uid string) (mirror.PodInfo, bool) { p, ok := f.known[uid]; return p, ok }
func (f *fewPods) Get(_ context.Context, namespace, name string) (mirror.PodInfo, error) {
	f.gets++
	p, ok := f.api[namespace+"/"+name]
	if !ok && f.err == nil {
		return p, mirror.ErrNoPod
	}
	return p, f.err
}

// A Pod is believed only if it is the one that the runtime means; one that the mirror does not have yet is asked for once.
func TestPodsAreThoseThatTheRuntimeMeans(t *testing.T) {
	pod := func(uid, name, static string) mirror.PodInfo {
		return mirror.PodInfo{UID: uid, Namespace: "acme", Name: name, Static: static, StatefulSet: "web", StatefulSetUID: "set", Annotations: map[string]string{"danm.io/interfaces": uid}}
	}
	f := &fewPods{known: map[string]mirror.PodInfo{"u1": pod("u1", "web-1", ""), "hash": pod("mirror", "etcd-n1", "hash")},
		api: map[string]mirror.PodInfo{"acme/web-2": pod("u2", "web-2", ""), "acme/etcd-n2": pod("mirror2", "etcd-n2", "hash2")}}
	for _, c := range []struct {
		name, uid string
		want      string // its annotation, "" = an error
		gets      int
	}{
		{"web-1", "u1", "u1", 0}, {"etcd-n1", "hash", "mirror", 0}, {"web-2", "u2", "u2", 1}, {"etcd-n2", "hash2", "mirror2", 1}, {"web-2", "", "u2", 1},
		{"web-2", "u9", "", 1},   // deleted and made anew
		{"web-9", "u1", "", 0},   // another's UID
		{"gone", "u10", "", 1},   // nowhere
		{"etcd-n2", "u9", "", 1}, // a mirror of another one
	} {
		f.gets = 0
		got, err := podFrom(f)(t.Context(), "acme", c.name, c.uid)
		if (err == nil) != (c.want != "") || got.Annotations["danm.io/interfaces"] != c.want || f.gets != c.gets {
			t.Errorf("%+v: %+v, %v, %d questions", c, got, err, f.gets)
		}
		if err != nil && !errors.Is(err, mirror.ErrNoPod) {
			t.Errorf("%+v: %v", c, err)
		}
	}
	if got, _ := podFrom(f)(t.Context(), "acme", "web-1", "u1"); got.Sticky.Ordinal != 1 || got.Sticky.UID != "set" {
		t.Errorf("%+v", got.Sticky)
	}
	f.err = context.DeadlineExceeded
	if _, err := podFrom(f)(t.Context(), "acme", "web-2", "u2"); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if podsBy(nil) != nil || reportTo(nil) != nil {
		t.Error("without an API something is asked")
	}
}
