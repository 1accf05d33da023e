package v1

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

// documents splits a file at its --- lines.
func documents(t *testing.T, path string) []string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, d := range strings.Split("\n"+string(data), "\n---") {
		if strings.TrimSpace(d) != "" {
			out = append(out, d)
		}
	}
	return out
}

// sameFields compares a manifest with what its decoded object marshals to: nothing is lost, nothing invented.
func sameFields(t *testing.T, manifest string, object any) {
	t.Helper()
	var want, got map[string]any
	if err := yaml.Unmarshal([]byte(manifest), &want); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	want["apiVersion"] = APIVersion
	prune(want)
	prune(got)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("decoded object differs (-manifest +object):\n%s", d)
	}
}

// prune drops empty values: DANM stores "" where a value is absent.
func prune(m map[string]any) {
	for k, v := range m {
		if sub, ok := v.(map[string]any); ok {
			prune(sub)
			if len(sub) == 0 {
				delete(m, k)
			}
		}
		if v == "" || v == nil || v == 0.0 {
			delete(m, k)
		}
	}
}

func TestFixtures(t *testing.T) {
	seen := map[string]bool{}
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("fixtures: %v %v", files, err)
	}
	for _, f := range files {
		for _, doc := range documents(t, f) {
			object, err := Decode([]byte(doc))
			if err != nil {
				t.Errorf("%s: %v", f, err)
				continue
			}
			seen[reflect.TypeOf(object).Elem().Name()] = true
			sameFields(t, doc, object)
		}
	}
	for _, kind := range []string{KindDanmNet, KindTenantNetwork, KindClusterNetwork, KindTenantConfig, KindDanmEp} {
		if !seen[kind] {
			t.Errorf("no fixture of kind %s", kind)
		}
	}
}

// TestFieldNames holds DANM's names against the fixtures: every field of the types but ours and the status appears in one.
func TestFieldNames(t *testing.T) {
	data, err := os.ReadFile("testdata/all.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, typ := range []reflect.Type{
		reflect.TypeFor[NetworkSpec](), reflect.TypeFor[NetworkOptions](), reflect.TypeFor[IPPool](), reflect.TypeFor[IPPoolV6](),
		reflect.TypeFor[NetworkExtension](), reflect.TypeFor[TenantConfig](), reflect.TypeFor[IfaceProfile](), reflect.TypeFor[AllowedClusterNetwork](),
		reflect.TypeFor[ReservedAddress](), reflect.TypeFor[Delegate](), reflect.TypeFor[TenantExtension](), reflect.TypeFor[TenantFabric](), reflect.TypeFor[Quotas](),
		reflect.TypeFor[DanmEpSpec](), reflect.TypeFor[DanmEpIface](),
	} {
		for i := range typ.NumField() {
			name, _, _ := strings.Cut(typ.Field(i).Tag.Get("json"), ",")
			if name != "" && name != "status" && !strings.Contains(string(data), name+":") {
				t.Errorf("%s.%s: no fixture has %q", typ.Name(), typ.Field(i).Name, name)
			}
		}
	}
}

func TestDecodeCorpus(t *testing.T) {
	dir := os.Getenv("DANM_CORPUS")
	if dir == "" {
		t.Skip("DANM_CORPUS is not set")
	}
	read := 0
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".yaml" {
			return err
		}
		for _, doc := range documents(t, path) {
			object, err := Decode([]byte(doc))
			if errors.Is(err, ErrNotOurs) {
				continue
			}
			if err != nil {
				t.Errorf("%s: %v", path, err)
				continue
			}
			sameFields(t, doc, object)
			read++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if read < 10 {
		t.Errorf("read %d documents of DANM's API, expected at least 10", read)
	}
}

func TestDecodeRefuses(t *testing.T) {
	const head = "apiVersion: danm.io/v1\nkind: DanmNet\nmetadata: {name: a}\n"
	for _, tc := range []struct {
		name, manifest string
		want           error
		mentions       []string
	}{
		{"unknown fields, all named", head + "spec: {NetworkID: a, Bogus: 1, Options: {vlna: 3}}", ErrInvalid, []string{"Bogus", "vlna"}},
		{"duplicate field", head + "spec: {NetworkID: a, NetworkID: b}", ErrInvalid, []string{"NetworkID"}},
		{"case matters", head + "spec: {networkid: a}", ErrInvalid, []string{"networkid"}},
		{"wrong type", head + "spec: {Options: {vlan: x}}", ErrInvalid, []string{"vlan"}},
		{"no YAML", "a: [", ErrInvalid, nil},
		{"other group", "apiVersion: apps/v1\nkind: Deployment", ErrNotOurs, nil},
		{"group that begins like ours", "apiVersion: danm.example.org/v1\nkind: DanmNet", ErrNotOurs, nil},
		{"other version", "apiVersion: danm.io/v2\nkind: DanmNet", ErrNotOurs, nil},
		{"other kind", "apiVersion: danm.io/v1\nkind: Pod", ErrNotOurs, nil},
		{"nothing", "", ErrNotOurs, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			object, err := Decode([]byte(tc.manifest))
			if !errors.Is(err, tc.want) {
				t.Fatalf("Decode = %v, %v, want %v", object, err, tc.want)
			}
			for _, m := range tc.mentions {
				if !strings.Contains(err.Error(), m) {
					t.Errorf("error does not mention %s: %v", m, err)
				}
			}
		})
	}
}

// TestAbsentIsNotWritten: what a manifest leaves out is not there afterwards, as null, 0 or an empty text.
func TestAbsentIsNotWritten(t *testing.T) {
	for _, manifest := range []string{
		`{"apiVersion":"danm.io/v1","kind":"DanmNet","metadata":{"name":"a"},"spec":{"NetworkID":"a","Options":{"vlan":7,"allocation_pool_v6":{"cidr":"fd00::/64"}}}}`,
		`{"apiVersion":"danm.io/v1","kind":"ClusterNetwork","metadata":{"name":"a"},"spec":{"extension":{"reserved":[{"name":"r","ip":"10.0.0.1"}],"delegate":{"file":"f"}}}}`,
		`{"apiVersion":"danm.io/v1","kind":"TenantConfig","metadata":{"name":"a"},"hostDevices":[{"name":"e"}],"extension":{"fabrics":[{"name":"f"}],"quotas":{"endpoints":5}}}`,
		`{"apiVersion":"danm.io/v1","kind":"DanmEp","metadata":{"name":"a"},"spec":{"Host":"h","Interface":{"Name":"eth0"}}}`,
	} {
		object, err := Decode([]byte(manifest))
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(object)
		if err != nil {
			t.Fatal(err)
		}
		var want, got any
		if err := errors.Join(json.Unmarshal([]byte(manifest), &want), json.Unmarshal(text, &got)); err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("(-manifest +object):\n%s", d)
		}
	}
}

func TestLegacyGroup(t *testing.T) {
	object, err := Decode([]byte("apiVersion: danm.k8s.io/v1\nkind: ClusterNetwork\nmetadata: {name: x}\nspec: {NetworkID: x}"))
	if err != nil {
		t.Fatal(err)
	}
	if got := object.(*ClusterNetwork).APIVersion; got != APIVersion {
		t.Errorf("apiVersion %q, want %q", got, APIVersion)
	}
}
