package cli

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"danm.io/danm/node/plan"
	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/model"
)

const edgeSite = "../../examples/edge-site"

// editedSite is a copy of the example with an edit by file.
func editedSite(t *testing.T, edits map[string][2]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "bundle")
	if err := os.CopyFS(dir, os.DirFS(edgeSite)); err != nil {
		t.Fatal(err)
	}
	for file, e := range edits {
		path := filepath.Join(dir, file)
		b, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(b), e[0]) {
			t.Fatalf("%s has no %q: %v", file, e[0], err)
		}
		if err := os.WriteFile(path, []byte(strings.ReplaceAll(string(b), e[0], e[1])), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func liveJSON(t *testing.T, o LiveOptions, dir string, code int) Difference {
	t.Helper()
	var d Difference
	out, got := run(func(io IO) int { return DiffLive(t.Context(), dir, o, "json", io) })
	if got != code {
		t.Fatalf("exit code %d, want %d:\n%s", got, code, out)
	}
	if err := json.Unmarshal([]byte(out), &d); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	return d
}

// TestLiveIsTheDiffOfTheBundles: against a cluster that has OLD, the steps and documents are those of diff OLD NEW, which goes another
// way: it renders both sides and knows no NodePlan.
func TestLiveIsTheDiffOfTheBundles(t *testing.T) {
	for name, edits := range map[string]map[string][2]string{
		"nothing":          {},
		"an MTU":           {"topology.yaml": {"mtu: 1500", "mtu: 9000"}},
		"another number":   {"networks/beta.yaml": {"5002", "5004"}, "tenants.yaml": {"5002-5002", "5004-5004"}},
		"the bundle alone": {"bundle.yaml": {"15s", "20s"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := editedSite(t, edits)
			was, err := load(t.Context(), edgeSite, "")
			if err != nil {
				t.Fatal(err)
			}
			now, err := load(t.Context(), dir, "")
			if err != nil {
				t.Fatal(err)
			}
			want := difference(was, now)
			code := Differences
			if len(edits) == 0 {
				code = OK
			}
			got := liveJSON(t, rolledOut(t, edgeSite).serve(t), dir, code)
			if len(got.Nodes) != len(want.Nodes) || got.Total != want.Total {
				t.Fatalf("%d of %d nodes, want %d of %d", len(got.Nodes), got.Total, len(want.Nodes), want.Total)
			}
			for i := range want.Nodes {
				a, b := asGeneric(got.Nodes[i]), asGeneric(want.Nodes[i])
				if !reflect.DeepEqual(a, b) {
					t.Errorf("node %s:\n got %v\nwant %v", want.Nodes[i].Node, a, b)
				}
			}
			for _, c := range want.Changes {
				if !slices.ContainsFunc(got.Changes, func(g Change) bool {
					return g.Sign == c.Sign && g.Kind == c.Kind && (g.Key == c.Key || c.Kind == "Bundle")
				}) {
					t.Errorf("%+v is missing in %+v", c, got.Changes)
				}
			}
		})
	}
}

// TestLiveKnowsTheNode: cards by their real names, Pods by their endpoints, what a node undid, whose node it is.
func TestLiveKnowsTheNode(t *testing.T) {
	dir := editedSite(t, map[string][2]string{"topology.yaml": {"mtu: 1500", "mtu: 9000"}})
	steps := func(o *objects) []NodeDiff { return liveJSON(t, o.serve(t), dir, Differences).Nodes }
	base := steps(rolledOut(t, edgeSite))
	if len(base) < 2 {
		t.Fatalf("%+v", base)
	}

	o := rolledOut(t, edgeSite)
	o.plans[0].Spec.Bundle = "other"
	if got := steps(o); len(got) != len(base) {
		t.Errorf("a node of a bundle that is no more is not changed: %d nodes", len(got))
	}
	o.bundles = append(o.bundles, v1alpha1.NetworkBundle{ObjectMeta: metav1.ObjectMeta{Name: "other"}})
	edge := o.serve(t)
	edge.Bundle = "edge"
	if got := liveJSON(t, edge, dir, Differences).Nodes; len(got) != len(base)-1 || got[0].Node == base[0].Node {
		t.Errorf("a node of another bundle is changed: %d nodes", len(got))
	}

	o = rolledOut(t, edgeSite)
	o.plans[0].Status.Applied = nil
	if got := steps(o); got[0].Note == "" || len(got[0].Plan.Steps) <= len(base[0].Plan.Steps) {
		t.Errorf("a node that has applied nothing: %q, %d steps", got[0].Note, len(got[0].Plan.Steps))
	}

	// The node went back to the plan before: that is what it has, not what it is told.
	o = rolledOut(t, edgeSite)
	good := o.plans[0].Spec.Layers.Bundle
	bad := good.DeepCopy()
	bad.Digest, bad.Segments = model.NodePlan{}.Digest(), nil
	o.plans[0].Spec.Layers.Bundle, o.plans[0].Spec.LastGood = bad, good
	if got := steps(o); !reflect.DeepEqual(asGeneric(got[0].Plan), asGeneric(base[0].Plan)) {
		t.Errorf("undone plan: %+v", got[0])
	}

	// MTU 9000 is more than the card can.
	o = rolledOut(t, edgeSite)
	card := physical(t, base[0])
	o.plans[0].Status.Hardware = []v1alpha1.NIC{{Name: card, MaxMTU: 1600, Speed: 1000}}
	if got := steps(o); len(got[0].Plan.Blocked) == 0 {
		t.Errorf("the card's limit is not seen: %+v", got[0].Plan)
	}

	o = rolledOut(t, edgeSite)
	o.endpoints = []danmv1.DanmEp{
		{ObjectMeta: metav1.ObjectMeta{Namespace: "acme", Name: "e"}, Spec: danmv1.DanmEpSpec{Host: base[0].Node, Pod: "sip-0", NetworkName: "voice", ApiType: "TenantNetwork"}},
		{ObjectMeta: metav1.ObjectMeta{Namespace: "acme", Name: "f"}, Spec: danmv1.DanmEpSpec{Host: "elsewhere", Pod: "sip-1", NetworkName: "voice", ApiType: "TenantNetwork"}},
	}
	o.endpoints = append(o.endpoints, o.endpoints[0])
	if net := firstNetwork(t); net != "" {
		ns, name, _ := strings.Cut(net, "/")
		for i := range o.endpoints {
			o.endpoints[i].Namespace, o.endpoints[i].Spec.NetworkName = ns, name
		}
	}
	want := []string{o.endpoints[0].Namespace + "/sip-0"}
	named := 0
	number := editedSite(t, map[string][2]string{"networks/acme.yaml": {"5001", "5003"}, "tenants.yaml": {"5001-5001", "5003-5003"}})
	for _, n := range liveJSON(t, o.serve(t), number, Differences).Nodes {
		for _, s := range n.Plan.Steps {
			if len(s.Pods) > 0 {
				named++
				if n.Node != base[0].Node || !slices.Equal(s.Pods, want) {
					t.Errorf("%s: %v", n.Node, s.Pods)
				}
			}
		}
	}
	if named == 0 {
		t.Error("no step names the Pod")
	}
	o.refuse = map[string]int{"danmeps": 403}
	if out, code := run(func(io IO) int { return DiffLive(t.Context(), number, o.serve(t), "text", io) }); code != Differences || !strings.Contains(out, "Pods are not shown") {
		t.Errorf("%d %s", code, out)
	}
}

// physical is the card whose MTU a node's steps set.
func physical(t *testing.T, n NodeDiff) string {
	t.Helper()
	for _, s := range n.Plan.Steps {
		if s.Op == plan.SetLink && s.Property == "mtu" && s.To == "9000" {
			return s.LinkName
		}
	}
	t.Fatalf("%+v", n.Plan)
	return ""
}

// firstNetwork is the network of the example whose number is 5001.
func firstNetwork(t *testing.T) string {
	t.Helper()
	d, err := load(t.Context(), edgeSite, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range d.Networks {
		if n.ID() == 5001 {
			return n.Key()
		}
	}
	t.Fatal("no network 5001")
	return ""
}

// TestLiveErrors: each names the remedy.
func TestLiveErrors(t *testing.T) {
	t.Setenv("HOME", t.TempDir())
	t.Setenv("KUBECONFIG", "")
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	two := rolledOut(t, edgeSite)
	two.bundles = append(two.bundles, v1alpha1.NetworkBundle{ObjectMeta: metav1.ObjectMeta{Name: "core"}})
	refusing := func(code int) LiveOptions {
		o := rolledOut(t, edgeSite)
		o.refuse = map[string]int{"nodeplans": code}
		return o.serve(t)
	}
	named := func(o LiveOptions, bundle, context string) LiveOptions {
		o.Bundle, o.Context = bundle, context
		return o
	}
	for name, x := range map[string]struct {
		o    LiveOptions
		says []string
		diff bool // status has nothing to choose
	}{
		"no kubeconfig":      {LiveOptions{Live: true}, []string{"no cluster is configured", "--kubeconfig", "KUBECONFIG"}, false},
		"kubeconfig missing": {LiveOptions{Kubeconfig: "/none/such"}, []string{"/none/such", "--kubeconfig"}, false},
		"no such context":    {named(two.serve(t), "", "there"), []string{`no context "there"`, "get-contexts"}, false},
		"API away":           {LiveOptions{Kubeconfig: kubeconfig(t, "http://127.0.0.1:1")}, []string{"does not answer", "127.0.0.1:1", "--context"}, false},
		"forbidden":          {refusing(403), []string{"nodeplans", "danm-viewer", "viewer-rbac.yaml"}, false},
		"unauthorized":       {refusing(401), []string{"does not know you", "credentials"}, false},
		"no definitions":     {refusing(404), []string{"kubectl apply --server-side -k deploy/crd"}, false},
		"unknown bundle":     {named(rolledOut(t, edgeSite).serve(t), "edgy", ""), []string{`no NetworkBundle "edgy"`, `"edge"`}, false},
		"none named":         {two.serve(t), []string{"2 NetworkBundles", "--bundle", "edge, core"}, true},
	} {
		commands := map[string]func(IO) int{"diff": func(io IO) int { return DiffLive(t.Context(), edgeSite, x.o, "text", io) }}
		if !x.diff {
			commands["status"] = func(io IO) int { return StatusLive(t.Context(), x.o, "text", io) }
			commands["retry"] = func(io IO) int { return RetryLive(t.Context(), x.o, strings.Repeat("a", 64), io) }
		}
		for command, f := range commands {
			out, code := run(f)
			if code != Failed {
				t.Errorf("%s, %s: exit code %d\n%s", name, command, code, out)
			}
			for _, part := range x.says {
				if !strings.Contains(out, part) {
					t.Errorf("%s, %s: no %q in %s", name, command, part, out)
				}
			}
		}
	}
	if _, code := run(func(io IO) int {
		return DiffLive(t.Context(), edgeSite, named(two.serve(t), "edge", "here"), "text", io)
	}); code != OK {
		t.Errorf("with everything right: exit code %d", code)
	}
}

// TestLiveRefusals: a revision that the controller would not publish is no difference, it is an error with the same reason.
func TestLiveRefusals(t *testing.T) {
	o := rolledOut(t, edgeSite)
	dir := editedSite(t, map[string][2]string{"bundle.yaml": {"spec:", "spec:\n  prune: {maxNetworks: 0}"}})
	o.bundles[0].Status.Inventory = append(o.bundles[0].Status.Inventory, v1alpha1.ObjectReference{APIVersion: "danm.io/v1", Kind: "TenantNetwork", Namespace: "beta", Name: "gone"})
	out, code := run(func(io IO) int { return DiffLive(t.Context(), dir, o.serve(t), "text", io) })
	if code != Failed || !strings.Contains(out, "danmctl explain PruneLimit") {
		t.Errorf("%d %s", code, out)
	}
	broken := editedSite(t, map[string][2]string{"networks/acme.yaml": {"vxlan:", "vxlans:"}})
	out, code = run(func(io IO) int { return DiffLive(t.Context(), broken, o.serve(t), "text", io) })
	if code != Failed || !strings.Contains(out, "networks/acme.yaml:") {
		t.Errorf("%d %s", code, out)
	}
	first := v1alpha1.NetworkBundle{ObjectMeta: metav1.ObjectMeta{Name: "first"}}
	first.Status.Inventory, o.bundles[0].Status.Inventory = o.bundles[0].Status.Inventory[:1:1], nil
	o.bundles = append(o.bundles, first)
	edge := o.serve(t)
	edge.Bundle = "edge"
	out, code = run(func(io IO) int { return DiffLive(t.Context(), edgeSite, edge, "text", io) })
	if code != Failed || !strings.Contains(out, "danmctl explain ObjectOwnedByOther") || !strings.Contains(out, "(first)") {
		t.Errorf("%d %s", code, out)
	}
	o.bundles = o.bundles[:1]
	o.segments = nil
	out, code = run(func(io IO) int { return DiffLive(t.Context(), edgeSite, o.serve(t), "text", io) })
	if code != Failed || !strings.Contains(out, "run it again") {
		t.Errorf("%d %s", code, out)
	}
}

// TestFirstBundle: a cluster without any shows what the first one would do, and a rendered file is compared as it is.
func TestFirstBundle(t *testing.T) {
	o := rolledOut(t, edgeSite)
	nodes := len(o.nodes)
	o.bundles, o.plans, o.segments, o.peers = nil, nil, nil, nil
	d := liveJSON(t, o.serve(t), edgeSite, Differences)
	if len(d.Nodes) != nodes || d.Nodes[0].Note != "has no plan yet" || len(d.Changes) == 0 || d.Changes[0].Sign != "+" || d.Changes[0].File == "" {
		t.Errorf("%+v", d.Changes)
	}
	rendered := filepath.Join(t.TempDir(), "rendered.yaml")
	text, code := run(func(io IO) int { return Render(t.Context(), RenderOptions{Path: edgeSite, Output: "yaml"}, io) })
	if code != OK || os.WriteFile(rendered, []byte(text), 0o600) != nil {
		t.Fatal(text)
	}
	if out, code := run(func(io IO) int { return DiffLive(t.Context(), rendered, rolledOut(t, edgeSite).serve(t), "text", io) }); code != OK {
		t.Errorf("%d %s", code, out)
	}
}
