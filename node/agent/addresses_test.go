package agent

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

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
		{mirror.PodInfo{Namespace: "acme", Name: "web-3", StatefulSet: "web", StatefulSetUID: "u", Ordinal: "7"}, ipam.Sticky{Namespace: "acme", StatefulSet: "web", UID: "u", Ordinal: 7}},
		{mirror.PodInfo{Namespace: "acme", Name: "odd", StatefulSet: "web", StatefulSetUID: "u"}, ipam.Sticky{}},
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
