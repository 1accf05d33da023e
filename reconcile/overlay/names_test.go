package overlay

import (
	"os"
	"strings"
	"testing"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// TestShippedNameReferences: kustomize itself, with the configuration in deploy/, lets plain references follow a prefix; without
// it they are left behind. Each field that holds references is named in it.
func TestShippedNameReferences(t *testing.T) {
	shipped, err := os.ReadFile("../../deploy/kustomize/bundle-names.yaml")
	if err != nil {
		t.Fatal(err)
	}
	documents := `apiVersion: bundle.danm.io/v1
kind: Network
metadata: {name: shared}
spec: {allowedTenants: [acme], sharedWith: [other]}
---
apiVersion: bundle.danm.io/v1
kind: Network
metadata: {name: other}
spec: {sharedWith: [shared]}
---
apiVersion: bundle.danm.io/v1
kind: Tenant
metadata: {name: acme}
spec: {networks: [shared], defaultNetwork: shared}
`
	build := func(extra string) string {
		fs := filesys.MakeFsInMemory()
		for name, text := range map[string]string{"/site/names.yaml": string(shipped), "/site/all.yaml": documents,
			"/site/kustomization.yaml": "resources: [all.yaml]\nnamePrefix: a-\n" + extra} {
			if err := fs.WriteFile(name, []byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		all, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(fs, "/site")
		if err != nil {
			t.Fatal(err)
		}
		out, err := all.AsYaml()
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	for _, want := range []string{"- a-acme", "- a-other", "- a-shared", "defaultNetwork: a-shared"} {
		if got := build("configurations: [names.yaml]\n"); !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
		if got := build(""); strings.Contains(got, want) {
			t.Errorf("without the configuration %q is there too:\n%s", want, got)
		}
	}
	for kind, fields := range references {
		for name, names := range fields {
			if want := "path: spec/" + name + ", kind: " + kind; !strings.Contains(string(shipped), want) {
				t.Errorf("%s.spec.%s names a %s and is not in the configuration", kind, name, names)
			}
		}
	}
}
