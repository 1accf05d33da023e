package deploy

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	kustomizev1 "github.com/fluxcd/kustomize-controller/api/v1"
	sourcev1 "github.com/fluxcd/source-controller/api/v1"
	"github.com/google/cel-go/cel"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"danm.io/danm/reconcile/status"
	"danm.io/danm/spec/api/v1alpha1"
)

// fluxTree is deploy/flux as a user has it: a copy, with a bundle in it.
func fluxTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	must(t, os.CopyFS(dir, os.DirFS(filepath.Join(root, "deploy/flux"))))
	must(t, os.MkdirAll(filepath.Join(dir, "bundle/networks"), 0o700))
	b, err := os.ReadFile(filepath.Join(root, "examples/minimal/bundle.yaml"))
	must(t, err)
	topology, network, _ := strings.Cut(string(b), "---\napiVersion: bundle.danm.io/v1\nkind: Network\n")
	must(t, os.WriteFile(filepath.Join(dir, "bundle/bundle.yaml"), []byte(topology), 0o600))
	must(t, os.WriteFile(filepath.Join(dir, "bundle/networks/data.yaml"), []byte("apiVersion: bundle.danm.io/v1\nkind: Network\n"+network), 0o600))
	return dir
}

// TestFluxBuilds: what Flux applies is one ConfigMap under its own name, which the NetworkBundle's selector finds, and no NodePlan.
func TestFluxBuilds(t *testing.T) {
	var nb v1alpha1.NetworkBundle
	var cm struct {
		Metadata struct {
			Name, Namespace string
			Labels          map[string]string
		}
		Data map[string]string
	}
	for _, r := range build(t, fluxTree(t)).Resources() {
		switch r.GetKind() {
		case "ConfigMap":
			must(t, yaml.Unmarshal([]byte(r.MustYaml()), &cm))
		case "NetworkBundle":
			must(t, yaml.UnmarshalStrict([]byte(r.MustYaml()), &nb))
		default:
			t.Errorf("Flux would apply %s %s", r.GetKind(), r.GetName())
		}
	}
	from := nb.Spec.ConfigMaps
	if from == nil || cm.Metadata.Name != "edge-bundle" || cm.Metadata.Namespace != from.Namespace || len(from.Selector) == 0 {
		t.Fatalf("%+v %+v", nb.Spec, cm.Metadata)
	}
	for k, v := range from.Selector {
		if cm.Metadata.Labels[k] != v {
			t.Errorf("the ConfigMap has no label %s=%s", k, v)
		}
	}
	if len(cm.Data) != 2 || !strings.Contains(cm.Data["networks__data.yaml"], "kind: Network") {
		t.Errorf("%v", cm.Data)
	}
}

func fluxObjects(t *testing.T) (repository sourcev1.GitRepository, sync kustomizev1.Kustomization) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, "deploy/flux/sync.yaml"))
	must(t, err)
	docs := bytes.Split(b, []byte("\n---\n"))
	if len(docs) != 2 {
		t.Fatalf("%d documents", len(docs))
	}
	must(t, yaml.UnmarshalStrict(docs[0], &repository))
	must(t, yaml.UnmarshalStrict(docs[1], &sync))
	return repository, sync
}

// TestFluxObjects: Flux's own types take sync.yaml without a word, and it says what it should: wait for the NetworkBundle, long enough.
func TestFluxObjects(t *testing.T) {
	repository, sync := fluxObjects(t)
	if repository.APIVersion != sourcev1.GroupVersion.String() || repository.Kind != sourcev1.GitRepositoryKind || sync.APIVersion != kustomizev1.GroupVersion.String() || sync.Kind != kustomizev1.KustomizationKind {
		t.Errorf("%+v %+v", repository.TypeMeta, sync.TypeMeta)
	}
	if ref := sync.Spec.SourceRef; ref.Kind != repository.Kind || ref.Name != repository.Name || sync.Namespace != repository.Namespace {
		t.Errorf("the source is %+v", ref)
	}
	checks := sync.Spec.HealthChecks
	if len(checks) != 1 || checks[0].APIVersion != v1alpha1.APIVersion || checks[0].Kind != v1alpha1.KindNetworkBundle || checks[0].Name != "edge" || checks[0].Namespace != "" {
		t.Errorf("%+v", checks)
	}
	if sync.Spec.Timeout.Minutes() < 10 || !sync.Spec.Prune {
		t.Errorf("%+v", sync.Spec)
	}
	var wrong kustomizev1.Kustomization
	if err := yaml.UnmarshalStrict([]byte("spec: {healthCheck: []}"), &wrong); err == nil {
		t.Error("control: an unknown field passes")
	}
}

// TestFluxExpressions: for every way a round can end, exactly the expression is true that kstatus's verdict names; for an object that
// nobody has looked at, which kstatus calls current, none says so.
func TestFluxExpressions(t *testing.T) {
	_, sync := fluxObjects(t)
	if len(sync.Spec.HealthCheckExprs) != 1 {
		t.Fatal(sync.Spec.HealthCheckExprs)
	}
	env, err := cel.NewEnv(cel.Variable("metadata", cel.DynType), cel.Variable("status", cel.DynType))
	must(t, err)
	programs := map[string]cel.Program{}
	x := sync.Spec.HealthCheckExprs[0]
	for word, text := range map[string]string{"Progressing": x.InProgress, "Degraded": x.Failed, "Healthy": x.Current} {
		ast, issues := env.Compile(text)
		must(t, issues.Err())
		programs[word], err = env.Program(ast)
		must(t, err)
	}
	// Flux asks in this order; an expression that fails, as without any status, means: not yet.
	say := func(nb *v1alpha1.NetworkBundle) string {
		b, err := yaml.Marshal(nb)
		must(t, err)
		var object map[string]any
		must(t, yaml.Unmarshal(b, &object))
		for _, word := range []string{"Progressing", "Degraded", "Healthy"} {
			if got, _, err := programs[word].Eval(object); err != nil || fmt.Sprint(got.Value()) == "true" {
				if err != nil {
					return "Progressing"
				}
				return word
			}
		}
		return "Progressing"
	}
	for name, o := range outcomes() {
		nb := bundle()
		nb.Status.ObservedGeneration = 3
		status.Conclude(&nb.Status.Conditions, 3, o.Outcome)
		if got := say(nb); got != o.want {
			t.Errorf("%s: %s, want %s", name, got, o.want)
		}
		nb.Generation = 4
		if got := say(nb); got != "Progressing" {
			t.Errorf("%s, an older generation: %s", name, got)
		}
	}
	if got := say(bundle()); got != "Progressing" {
		t.Errorf("fresh: %s", got)
	}
	partial := bundle()
	partial.Status.Conditions = []metav1.Condition{{Type: "Fetched", Status: "True"}}
	if got := say(partial); got != "Progressing" {
		t.Errorf("no observed generation: %s", got)
	}
}
