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
