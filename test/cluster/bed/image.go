package bed

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// Image is a container image that is made here, since a bed has no registry to pull from.
type Image struct {
	Name       string            // with a tag, as Pods name it
	Files      map[string]string // path in the image → file of this machine; all are executable
	Links      map[string]string // path in the image → what it points to
	Entrypoint []string
}

// BusyboxName is the image of Pods' sandboxes, and of Pods that tests make: a shell with ip, ping, nc, httpd. Without a command
// it sleeps.
const BusyboxName = "localhost/danm-bed/busybox:1"

// ErrNoBusybox names the remedy.
var ErrNoBusybox = errors.New("busybox is not installed: apt-get install busybox-static")

// Busybox is made of the machine's static busybox.
func Busybox() (Image, error) {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return Image{}, ErrNoBusybox
	}
	i := Image{Name: BusyboxName, Files: map[string]string{"bin/busybox": path}, Links: map[string]string{}, Entrypoint: []string{"/bin/sleep", "1000000"}}
	for _, applet := range []string{"sh", "sleep", "ls", "cat", "echo", "hostname", "ip", "ping", "arping", "httpd", "nc", "mkdir", "id"} {
		i.Links["bin/"+applet] = "busybox"
	}
	return i, nil
}

// descriptor and the other types are those of the OCI image specification 1.1, as far as they are needed.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Platform    map[string]string `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

const (
	typeLayer    = "application/vnd.oci.image.layer.v1.tar"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeIndex    = "application/vnd.oci.image.index.v1+json"
)

// Write writes the image as a tar of an OCI image layout. The same files make the same bytes.
func (i Image) Write(w io.Writer) error {
	layer, err := i.layer()
	if err != nil {
		return fmt.Errorf("image %s: %w", i.Name, err)
	}
	blobs := map[string][]byte{}
	add := func(mediaType string, data []byte) descriptor {
		digest := fmt.Sprintf("%x", sha256.Sum256(data))
		blobs["blobs/sha256/"+digest] = data
		return descriptor{MediaType: mediaType, Digest: "sha256:" + digest, Size: len(data)}
	}
	l := add(typeLayer, layer)
	platform := map[string]string{"os": "linux", "architecture": runtime.GOARCH}
	config := add(typeConfig, document(map[string]any{
		"os": "linux", "architecture": runtime.GOARCH, "config": map[string]any{"Entrypoint": i.Entrypoint, "Env": []string{"PATH=/usr/local/bin:/bin"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{l.Digest}},
	}))
	manifest := add(typeManifest, document(map[string]any{"schemaVersion": 2, "mediaType": typeManifest, "config": config, "layers": []descriptor{l}}))
	manifest.Platform = platform
	// The full name, where containerd's importer looks for it; ref.name alone would be only a tag.
	manifest.Annotations = map[string]string{"io.containerd.image.name": i.Name, "org.opencontainers.image.ref.name": i.Name[strings.LastIndex(i.Name, ":")+1:]}
	blobs["index.json"] = document(map[string]any{"schemaVersion": 2, "mediaType": typeIndex, "manifests": []descriptor{manifest}})
	blobs["oci-layout"] = document(map[string]any{"imageLayoutVersion": "1.0.0"})
	out := tar.NewWriter(w)
	for _, name := range slices.Sorted(maps.Keys(blobs)) {
		if err := entry(out, &tar.Header{Name: name, Mode: 0o644, Size: int64(len(blobs[name]))}, blobs[name]); err != nil {
			return fmt.Errorf("image %s: %w", i.Name, err)
		}
	}
	return out.Close()
}

// WriteFile writes the image into a directory and returns the file's path.
func (i Image) WriteFile(dir string) (string, error) {
	name := filepath.Join(dir, strings.NewReplacer("/", "-", ":", "-").Replace(i.Name)+".tar")
	f, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	return name, errors.Join(i.Write(f), f.Close())
}

func (i Image) layer() ([]byte, error) {
	var buf bytes.Buffer
	out := tar.NewWriter(&buf)
	dirs := map[string]bool{"tmp": true}
	for _, names := range []map[string]string{i.Files, i.Links} {
		for name := range names {
			for d := path.Dir(name); d != "."; d = path.Dir(d) {
				dirs[d] = true
			}
		}
	}
	for _, d := range slices.Sorted(maps.Keys(dirs)) {
		if err := entry(out, &tar.Header{Typeflag: tar.TypeDir, Name: d + "/", Mode: 0o755}, nil); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(i.Files)) {
		data, err := os.ReadFile(i.Files[name])
		if err != nil {
			return nil, err
		}
		if err := entry(out, &tar.Header{Name: name, Mode: 0o755, Size: int64(len(data))}, data); err != nil {
			return nil, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(i.Links)) {
		if err := entry(out, &tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: i.Links[name], Mode: 0o777}, nil); err != nil {
			return nil, err
		}
	}
	err := out.Close()
	return buf.Bytes(), err
}

func entry(out *tar.Writer, h *tar.Header, data []byte) error {
	if err := out.WriteHeader(h); err != nil {
		return err
	}
	_, err := out.Write(data)
	return err
}

func document(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // maps of strings and numbers
	}
	return b
}
