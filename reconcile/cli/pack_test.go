package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/yaml"

	"danm.io/danm/reconcile/source"
	"danm.io/danm/reconcile/source/configmap"
	"danm.io/danm/reconcile/source/snapshot"
	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/spec/model"
)

func packs(t *testing.T, o PackOptions) (out, problems string, code int) {
	t.Helper()
	var b, e bytes.Buffer
	code = Pack(t.Context(), o, IO{Out: &b, Err: &e})
	return b.String(), e.String(), code
}

// unpack is what the API server would hold: read with the API's own types, unknown fields refused.
func unpack(t *testing.T, text string) (maps []corev1.ConfigMap, nb v1alpha1.NetworkBundle) {
	t.Helper()
	docs := strings.Split(strings.TrimPrefix(text, "---\n"), "\n---\n")
	for i, doc := range docs {
		var m corev1.ConfigMap
		into := any(&m)
		if i == len(docs)-1 {
			into = &nb
		}
		if err := yaml.UnmarshalStrict([]byte(doc), into); err != nil {
			t.Fatalf("document %d: %v\n%s", i, err, doc)
		}
		if i < len(docs)-1 {
			if m.Kind != "ConfigMap" {
				t.Fatalf("document %d is a %s", i, m.Kind)
			}
			maps = append(maps, m)
		}
	}
	if nb.Kind != "NetworkBundle" {
		t.Fatalf("the last document is a %s: what turns to the ConfigMaps must come after them", nb.Kind)
	}
	return maps, nb
}

// fetchPacked reads them as the controller does.
func fetchPacked(t *testing.T, maps []corev1.ConfigMap, nb v1alpha1.NetworkBundle) (source.Snapshot, error) {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	c := fake.NewClientBuilder().WithScheme(scheme)
	for i := range maps {
		c = c.WithObjects(&maps[i])
	}
	from := nb.Spec.ConfigMaps
	return configmap.Source{Client: c.Build(), Namespace: from.Namespace, Selector: from.Selector, Dir: from.Path, Limits: snapshot.DefaultLimits()}.Fetch(t.Context())
}

// bundleOf is all that a bundle is, for people who compare.
func bundleOf(t *testing.T, s source.Snapshot) string {
	t.Helper()
	b, r, diags := compile(s, model.Inventory{})
	text, err := json.MarshalIndent([]any{newDocument(b, r, "r"), diags}, "", " ")
	if err != nil || diags.HasErrors() {
		t.Fatal(err, diags)
	}
	return string(text)
}

// TestPackIsTheBundle: what the controller reads from the ConfigMaps is the bundle that stands in the directory, for each example, in
// one part and in many; the same again gives the same bytes.
func TestPackIsTheBundle(t *testing.T) {
	for _, path := range []string{"minimal", "edge-site", "telco-core", "site-overlays//sites/oslo", "site-overlays//sites/porto"} {
		path = "../../examples/" + path
		want, err := fetch(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range []int{0, 400} {
			o := PackOptions{Path: path, Name: "b", Namespace: "ns", Part: part}
			out, problems, code := packs(t, o)
			if code != OK {
				t.Fatalf("%s: %d %s", path, code, problems)
			}
			if again, _, _ := packs(t, o); again != out {
				t.Errorf("%s: other bytes the second time", path)
			}
			maps, nb := unpack(t, out)
			if part > 0 && len(want.Files) > 3 && len(maps) < 2 {
				t.Errorf("%s: not divided", path)
			}
			got, err := fetchPacked(t, maps, nb)
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			if diff := cmp.Diff(bundleOf(t, got), bundleOf(t, want)); diff != "" {
				t.Errorf("%s, parts of %d:\n%s", path, part, diff)
			}
			if len(maps) > 1 {
				if _, err := fetchPacked(t, maps[1:], nb); snapshot.Code(err) != "SourceChanging" {
					t.Errorf("%s: a part is missing and nobody minds: %v", path, err)
				}
			}
		}
	}
}

func bundleDir(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	b, err := os.ReadFile("../../examples/minimal/bundle.yaml")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{"bundle.yaml": string(b)}
	for name, text := range files {
		all[name] = text
	}
	for name, text := range all {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestPackRefuses: nothing is printed for a bundle that is wrong, that a ConfigMap cannot hold, or that holds a Secret.
func TestPackRefuses(t *testing.T) {
	secret := "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {password: hunter2}\n"
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"a fault":       {map[string]string{"x.yaml": "apiVersion: bundle.danm.io/v1\nkind: Network\nmetadata: {name: x}\nspec: {typo: 1}\n"}, "typo"},
		"a Secret":      {map[string]string{"secret.yaml": secret}, "secret.yaml"},
		"a double __":   {map[string]string{"a__b.yaml": "---\n"}, "rename"},
		"a blank":       {map[string]string{"a b.yaml": "---\n"}, "rename"},
		"a large file":  {map[string]string{"large.yaml": "---\n# " + strings.Repeat("x", 1<<20) + "\n"}, "large.yaml"},
		"a long name":   {map[string]string{strings.Repeat("d/", 40) + strings.Repeat("x", 200) + ".yaml": "---\n"}, "rename"},
		"a nested name": {map[string]string{"n/s.yaml": secret}, "n/s.yaml"},
	} {
		out, problems, code := packs(t, PackOptions{Path: bundleDir(t, c.files), Name: "b"})
		if code != Failed || out != "" || !strings.Contains(problems, c.want) || strings.Contains(problems, "hunter2") {
			t.Errorf("%s: %d %q\n%s", name, code, out, problems)
		}
	}
	if out, _, code := packs(t, PackOptions{Path: bundleDir(t, nil), Name: "b"}); code != OK || out == "" {
		t.Error("control: the bundle without all that is refused, too")
	}
	minimal := "../../examples/minimal"
	for _, o := range []PackOptions{{Name: "b"}, {Path: minimal}, {Path: minimal, Name: "X_y"}, {Path: minimal, Name: "a..b"}, {Path: minimal, Name: strings.Repeat("a", 250)}} {
		if _, _, code := packs(t, o); code != Failed {
			t.Errorf("%+v is no wrong call", o)
		}
	}
	// Of a repository with an overlay only what the overlay reads is packed.
	dir := bundleDir(t, map[string]string{"site/kustomization.yaml": "resources: [../bundle.yaml]\n", "secret.yaml": secret, ".hidden.yaml": secret})
	out, problems, code := packs(t, PackOptions{Path: dir + "//site", Name: "b"})
	maps, nb := unpack(t, out)
	if code != OK || len(maps) != 1 || len(maps[0].Data) != 2 || strings.Contains(out, "hunter2") || nb.Spec.ConfigMaps.Path != "site" {
		t.Errorf("%d %s\n%s", code, problems, out)
	}
}

// TestPackTurnsAtOnce: a change of one file is a new set with new names, which the old selector does not find, nor the new one the
// old: while both are there, each NetworkBundle sees its own.
func TestPackTurnsAtOnce(t *testing.T) {
	dir := bundleDir(t, map[string]string{"more.yaml": "---\n# one\n"})
	o := PackOptions{Path: dir, Name: strings.Repeat("n", 70), Part: 300}
	was, _, _ := packs(t, o)
	if err := os.WriteFile(filepath.Join(dir, "more.yaml"), []byte("---\n# two\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	is, _, _ := packs(t, o)
	old, oldBundle := unpack(t, was)
	now, newBundle := unpack(t, is)
	both := append(append([]corev1.ConfigMap{}, old...), now...)
	for i := range both {
		for j := range both[:i] {
			if both[i].Name == both[j].Name {
				t.Errorf("%s twice", both[i].Name)
			}
		}
		for _, v := range both[i].Labels {
			if len(v) > 63 {
				t.Errorf("a label of %d bytes", len(v))
			}
		}
	}
	for nb, word := range map[*v1alpha1.NetworkBundle]string{&oldBundle: "# one", &newBundle: "# two"} {
		got, err := fetchPacked(t, both, *nb)
		if err != nil || !strings.Contains(fmt.Sprintf("%s", got.Files), word) || len(got.Files) != 2 {
			t.Errorf("%s: %v %s", word, err, got.Files)
		}
	}
}

// TestPackForArgoCD: what Argo CD says of an Application is enough.
func TestPackForArgoCD(t *testing.T) {
	root, err := filepath.Abs("../../examples/site-overlays")
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"ARGOCD_APP_NAME": "app", "ARGOCD_APP_SOURCE_PATH": "sites/oslo", "ARGOCD_APP_NAMESPACE": "elsewhere"}
	o := PackOptions{Getenv: func(k string) string { return env[k] }, Dir: filepath.Join(root, "sites/oslo")}
	out, problems, code := packs(t, o)
	if code != OK {
		t.Fatal(problems)
	}
	maps, nb := unpack(t, out)
	if nb.Name != "app" || nb.Annotations["argocd.argoproj.io/sync-wave"] != "1" || maps[0].Namespace != "danm-system" || nb.Spec.ConfigMaps.Path != "sites/oslo" {
		t.Errorf("%s", out)
	}
	if _, err := fetchPacked(t, maps, nb); err != nil {
		t.Error(err)
	}
	env["ARGOCD_ENV_BUNDLE_NAME"], env["ARGOCD_ENV_BUNDLE_NAMESPACE"] = "edge", "team"
	out, _, _ = packs(t, o)
	if maps, nb = unpack(t, out); nb.Name != "edge" || maps[0].Namespace != "team" || nb.Spec.ConfigMaps.Namespace != "team" {
		t.Errorf("%s", out)
	}
	o.Dir, o.Path = "", "../../examples/minimal"
	if out, _, code = packs(t, o); code != OK || strings.Contains(out, "path:") {
		t.Errorf("a path that was given is not taken: %s", out)
	}
}
