package cli

import (
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"danm.io/danm/spec/api/v1alpha1"
)

// TestClusterStatus reads as the sample does.
func TestClusterStatus(t *testing.T) {
	now := time.Unix(1e9, 0)
	born := metav1.NewTime(now.Add(-41 * 24 * time.Hour))
	good, bad := "main@sha1:3f2c9d1"+strings.Repeat("0", 33), "main@sha1:8ab01c2"+strings.Repeat("0", 33)
	digest := "sha256:" + strings.Repeat("ab", 32)
	nb := v1alpha1.NetworkBundle{ObjectMeta: metav1.ObjectMeta{Name: "edge", CreationTimestamp: born}, Status: v1alpha1.NetworkBundleStatus{
		Conditions: []metav1.Condition{{Type: "Ready", Status: "False", Reason: "RevisionQuarantined", Message: "edge-2 undid it"}}, Nodes: "3/3",
		Fetched: &v1alpha1.Revision{Name: bad, Short: "main@8ab01c2"}, RolledOut: &v1alpha1.Revision{Name: good, Short: "main@3f2c9d1"},
		Quarantined: []v1alpha1.QuarantinedPlan{{Digest: digest, Revision: bad, Node: "edge-2", Reason: "gateway 10.0.0.1 silent"}},
		Diagnostics: []string{"a.yaml:1:1: warning[X] x"}, DiagnosticsTotal: 3}}
	layer := &v1alpha1.Layer{Revision: good}
	plan := v1alpha1.NodePlan{ObjectMeta: metav1.ObjectMeta{Name: "edge-2", CreationTimestamp: born}, Spec: v1alpha1.NodePlanSpec{Bundle: "edge", Layers: v1alpha1.Layers{Bundle: layer}},
		Status: v1alpha1.NodePlanStatus{Phase: "RolledBack", Reason: "8ab01c2: gateway 10.0.0.1 silent", Applied: &v1alpha1.AppliedPlan{Revision: good}}}
	want := `NAME  READY  STATUS               FETCHED       ROLLED OUT    NODES  AGE
edge  False  RevisionQuarantined  main@8ab01c2  main@3f2c9d1  3/3    41d
  edge: edge-2 undid it (danmctl explain RevisionQuarantined)
  edge: a.yaml:1:1: warning[X] x
  edge: and 2 more problems; danmctl validate shows all
  edge: quarantined ` + digest + ` of main@8ab01c2: node edge-2 undid it: gateway 10.0.0.1 silent
    lift it with a commit that changes the plan, or: danmctl retry --live --bundle edge ` + digest + `

NAME    DESIRED  APPLIED  STATUS      REASON                             DRIFT  AGE
edge-2  3f2c9d1  3f2c9d1  RolledBack  8ab01c2: gateway 10.0.0.1 silent   0      41d
  edge-2: no sign of life of its agent for 21m; kubectl -n danm-system get pods -o wide --field-selector spec.nodeName=edge-2
`
	heard := func(ago time.Duration) coordinationv1.Lease {
		at := metav1.NewMicroTime(now.Add(-ago))
		return coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "danm-node-edge-2"}, Spec: coordinationv1.LeaseSpec{RenewTime: &at}}
	}
	status := func(ago time.Duration) string {
		return clusterStatus([]v1alpha1.NetworkBundle{nb}, []v1alpha1.NodePlan{plan}, map[string]coordinationv1.Lease{"edge-2": heard(ago), "other": heard(24 * time.Hour)}, now).text(now)
	}
	got := status(21 * time.Minute)
	if squeeze(got) != squeeze(want) {
		t.Errorf("\n%s\nwant\n%s", got, want)
	}
	if got := status(19 * time.Minute); strings.Contains(got, "sign of life") {
		t.Errorf("an agent that is well:\n%s", got)
	}
	for _, c := range []struct {
		leases map[string]coordinationv1.Lease
		age    time.Duration
		want   string
	}{{map[string]coordinationv1.Lease{}, 21 * time.Minute, "21m"}, {map[string]coordinationv1.Lease{}, 19 * time.Minute, ""}, {nil, 21 * time.Minute, ""}} {
		if got := silent(&v1alpha1.NodePlan{ObjectMeta: metav1.ObjectMeta{Name: "edge-2", CreationTimestamp: metav1.NewTime(now.Add(-c.age))}}, c.leases, now); got != c.want {
			t.Errorf("never heard of for %s, leases %v: %q", c.age, c.leases, got)
		}
	}
	o := &objects{bundles: []v1alpha1.NetworkBundle{nb}, plans: []v1alpha1.NodePlan{plan}, leases: []coordinationv1.Lease{heard(0)}}
	if out, code := run(func(io IO) int { return StatusLive(t.Context(), o.serve(t), "json", io) }); code != NotReady || !strings.Contains(out, digest) || !strings.Contains(out, `"silent"`) {
		t.Errorf("%d %s", code, out)
	}
	if out, code := run(func(io IO) int { return StatusLive(t.Context(), o.serve(t), "xml", io) }); code != Failed || !strings.Contains(out, "text or json") {
		t.Errorf("%d %s", code, out)
	}
	o.refuse = map[string]int{"leases": 403} // rights of an older danm-viewer
	if out, code := run(func(io IO) int { return StatusLive(t.Context(), o.serve(t), "json", io) }); code != NotReady || strings.Contains(out, `"silent"`) || !strings.Contains(out, "which agents are silent is not known") {
		t.Errorf("%d %s", code, out)
	}
	o.bundles[0].Status.Conditions[0].Status = "True"
	if _, code := run(func(io IO) int { return StatusLive(t.Context(), o.serve(t), "text", io) }); code != OK {
		t.Errorf("ready: exit code %d", code)
	}
	o.bundles[0].Status.Conditions = nil
	if out, code := run(func(io IO) int { return StatusLive(t.Context(), o.serve(t), "text", io) }); code != NotReady || !strings.Contains(out, "does danm-controller run?") {
		t.Errorf("not seen: exit code %d\n%s", code, out)
	}
}

// TestClusterStatusSaysItOnce: what is wrong with a bundle stands in its condition and in its diagnostics.
func TestClusterStatusSaysItOnce(t *testing.T) {
	problems := []string{"n.yaml:7:3: error[UnknownField]: unknown field \"fabrik\"", "n.yaml:8:3: error[UnknownField]: unknown field \"vlam\""}
	b := BundleStatus{Name: "edge", Ready: "False", Reason: "BundleInvalid", Message: problems[0] + "\n  hint: fabric\n" + problems[1],
		Diagnostics: append(problems, "n.yaml:9:1: warning[X] x"), DiagnosticsTotal: 3}
	want := "  edge: " + problems[0] + "\n      hint: fabric\n    " + problems[1] + "\n    (danmctl explain BundleInvalid)\n  edge: n.yaml:9:1: warning[X] x\n"
	if got := b.details(); got != want {
		t.Errorf("\n%s\nwant\n%s", got, want)
	}
	if got := (ClusterStatus{}).text(time.Now()); !strings.Contains(got, "docs/gitops.md") {
		t.Errorf("the way to a first NetworkBundle: %s", got)
	}
}

func squeeze(s string) string { return strings.Join(strings.Fields(s), " ") }

func TestQuarantinedIsNamed(t *testing.T) {
	a, b := "sha256:"+strings.Repeat("a", 64), "sha256:"+strings.Repeat("a", 60)+"bbbb"
	bundle := func(name string, digests ...string) v1alpha1.NetworkBundle {
		nb := v1alpha1.NetworkBundle{ObjectMeta: metav1.ObjectMeta{Name: name}}
		for _, d := range digests {
			nb.Status.Quarantined = append(nb.Status.Quarantined, v1alpha1.QuarantinedPlan{Digest: d})
		}
		return nb
	}
	all := []v1alpha1.NetworkBundle{bundle("edge", a, b), bundle("core", "sha256:"+strings.Repeat("c", 64)), bundle("calm")}
	for _, x := range []struct {
		bundle, digest string
		from           string
		count          int // 0: an error
	}{
		{"", a, "edge", 1}, {"", b[:len(b)-2], "edge", 1}, {"edge", "", "edge", 2}, {"", "ccccccc", "core", 1}, {"core", "sha256:ccccccc", "core", 1},
		{"", "", "", 0}, {"", "aaaaaaa", "", 0}, {"", "ccc", "", 0}, {"", "ddddddd", "", 0}, {"calm", "", "", 0}, {"edge", "ccccccc", "", 0}, {"none", "", "", 0},
	} {
		from, digests, err := quarantined(all, x.bundle, x.digest)
		if (err == nil) != (x.count > 0) || from != x.from && err == nil || err == nil && len(digests) != x.count {
			t.Errorf("%q %q: %s %v %v", x.bundle, x.digest, from, digests, err)
		}
	}
}
