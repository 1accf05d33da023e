package cli

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	danmv1 "danm.io/danm/spec/danm/v1"
)

// openBundle is of the cluster home; its network's number is open.
const openBundle = `apiVersion: bundle.danm.io/v1
kind: Bundle
metadata: {name: b}
spec: {version: 1.0.0}
---
apiVersion: bundle.danm.io/v1
kind: Topology
metadata: {name: t}
spec:
  groups:
  - {name: g, selector: {}, interfaces: [{name: eth0}]}
  fabrics:
  - {name: f, groups: [g], device: eth0, vlanRanges: ["100-199"]}
---
apiVersion: bundle.danm.io/v1
kind: Network
metadata: {name: net}
spec: {fabric: f, vlan: auto, ipv4: {cidr: 10.0.0.0/24}}
`

// TestOpenNumbers: offline nobody knows which number a cluster will take, so none is shown; the one it took before is.
func TestOpenNumbers(t *testing.T) {
	write := func(text string) string {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "b.yaml"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	with := write(openBundle)
	none := write(openBundle[:strings.LastIndex(openBundle, "---")])
	fixed := write(strings.Replace(openBundle, "vlan: auto", "vlan: 150", 1))
	kept := filepath.Join(t.TempDir(), "inventory.yaml")
	if err := os.WriteFile(kept, []byte("assignments: {net: 123}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ old, new, inventory, want string }{
		{none, with, "", "vlan <at publish> on fabric f"},
		{with, fixed, "", "vlan <at publish> -> 150"},
		{none, with, kept, "vlan 123 on fabric f"},
		{with, fixed, kept, "vlan 123 -> 150"},
	} {
		var out, errs bytes.Buffer
		if code := Diff(context.Background(), DiffOptions{Old: c.old, New: c.new, Inventory: c.inventory, Output: "text"}, IO{Out: &out, Err: &errs}); code != Differences || !strings.Contains(out.String(), c.want) {
			t.Errorf("want %q, got %d:\n%s%s", c.want, code, out.String(), errs.String())
		}
	}
}

// TestLiveOpenNumbers: a live diff shows the number that the controller will choose, and says so if it may not see what that depends on.
func TestLiveOpenNumbers(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "b.yaml"), []byte(openBundle), 0o600); err != nil {
		t.Fatal(err)
	}
	const unsure = "may come out as another"
	for _, c := range []struct {
		refuse    map[string]int
		code      int
		want, not string
	}{
		{nil, Differences, "vlan 101 on fabric f", unsure},
		{map[string]int{"danmnets": 403}, Differences, "vlan 101 on fabric f", "\x00"},
		{map[string]int{"clusternetworks": 403}, Differences, unsure, "vlan 101"},
		{map[string]int{"tenantnetworks": 404}, Differences, unsure, "\x00"},
		{map[string]int{"clusternetworks": 500}, Failed, "refused: clusternetworks", "vlan"},
	} {
		o := &objects{refuse: c.refuse, nodes: []corev1.Node{{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}},
			cluster: []danmv1.ClusterNetwork{{ObjectMeta: metav1.ObjectMeta{Name: "theirs"}, Spec: danmv1.NetworkSpec{Options: danmv1.NetworkOptions{Device: "eth0", Vlan: 100}}}}}
		out, code := run(func(io IO) int { return DiffLive(t.Context(), dir, o.serve(t), "text", io) })
		if code != c.code || !strings.Contains(out, c.want) || strings.Contains(out, c.not) {
			t.Errorf("refused %v, want %q: %d\n%s", c.refuse, c.want, code, out)
		}
	}
}
