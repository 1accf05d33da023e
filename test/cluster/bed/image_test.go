package bed

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestImage reads an image back as the OCI image layout says, by its digests: what its Pod would see must be what went in.
func TestImage(t *testing.T) {
	program := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(program, []byte("a program"), 0o600); err != nil {
		t.Fatal(err)
	}
	i := Image{Name: "registry.example.org/danm/node:devel", Files: map[string]string{"usr/local/bin/danm-node": program}, Links: map[string]string{"bin/sh": "busybox"}, Entrypoint: []string{"/x", "y"}}
	var once, twice bytes.Buffer
	if err := i.Write(&once); err != nil {
		t.Fatal(err)
	}
	if err := i.Write(&twice); err != nil || !bytes.Equal(once.Bytes(), twice.Bytes()) {
		t.Errorf("the same files make other bytes: %v", err)
	}
	files := untar(t, once.Bytes())
	for name, f := range files {
		if digest, ok := strings.CutPrefix(name, "blobs/sha256/"); ok && digest != fmt.Sprintf("%x", sha256.Sum256(f.data)) {
			t.Errorf("%s has another digest", name)
		}
	}
	type ref struct {
		Digest      string
		Size        int
		Annotations map[string]string
	}
	follow := func(r ref, into any) {
		t.Helper()
		f, ok := files["blobs/sha256/"+strings.TrimPrefix(r.Digest, "sha256:")]
		if !ok || len(f.data) != r.Size {
			t.Fatalf("no blob %+v", r)
		}
		if raw, ok := into.(*[]byte); ok {
			*raw = f.data
		} else if err := json.Unmarshal(f.data, into); err != nil {
			t.Fatal(err)
		}
	}
	var index struct{ Manifests []ref }
	if err := json.Unmarshal(files["index.json"].data, &index); err != nil || len(index.Manifests) != 1 || string(files["oci-layout"].data) != `{"imageLayoutVersion":"1.0.0"}` {
		t.Fatalf("%+v %v", index, err)
	}
	if a := index.Manifests[0].Annotations; a["io.containerd.image.name"] != i.Name || a["org.opencontainers.image.ref.name"] != "devel" {
		t.Errorf("annotations %v", a)
	}
	var manifest struct {
		Config ref
		Layers []ref
	}
	follow(index.Manifests[0], &manifest)
	var config struct {
		OS     string
		Config struct{ Entrypoint []string }
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	follow(manifest.Config, &config)
	var layer []byte
	follow(manifest.Layers[0], &layer)
	if config.OS != "linux" || strings.Join(config.Config.Entrypoint, " ") != "/x y" || len(manifest.Layers) != 1 || config.RootFS.DiffIDs[0] != manifest.Layers[0].Digest {
		t.Errorf("config %+v of %+v", config, manifest)
	}
	root := untar(t, layer)
	if f := root["usr/local/bin/danm-node"]; string(f.data) != "a program" || f.head.Mode != 0o755 {
		t.Errorf("the program: %+v", f.head)
	}
	if f := root["bin/sh"]; f.head == nil || f.head.Linkname != "busybox" {
		t.Errorf("the link: %+v", f.head)
	}
	for _, dir := range []string{"usr/", "usr/local/", "usr/local/bin/", "bin/", "tmp/"} {
		if root[dir].head == nil {
			t.Errorf("no directory %s", dir)
		}
	}
	i.Files["x"] = program + ".absent"
	if err := i.Write(io.Discard); err == nil || !strings.Contains(err.Error(), i.Name) {
		t.Errorf("a missing file: %v", err)
	}
}

type file struct {
	head *tar.Header
	data []byte
}

func untar(t *testing.T, data []byte) map[string]file {
	t.Helper()
	out := map[string]file{}
	in := tar.NewReader(bytes.NewReader(data))
	for {
		head, err := in.Next()
		if err == io.EOF {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		out[head.Name] = file{head, content}
	}
}
