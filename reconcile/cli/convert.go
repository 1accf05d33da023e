package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"danm.io/danm/reconcile/source"
	"danm.io/danm/spec/bundle/v1"
	"danm.io/danm/spec/convert"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/model"
	npwgv1 "danm.io/danm/spec/npwg/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// ConvertOptions are danmctl convert's.
type ConvertOptions struct {
	Paths []string // files, or directories of manifests; "-" is the standard input
	Dir   string   // must not exist, or be empty
	Name  string   // of the bundle; "" = the directory's
	Stdin io.Reader
}

// maxManifests bounds one input, bytes.
const maxManifests = 64 << 20

// Convert writes a bundle of DANM's manifests and of NetworkAttachmentDefinitions, and says what it could not carry over: OK,
// Invalid if the bundle needs work before it validates, or Failed. Nothing is written before everything was read.
func Convert(_ context.Context, o ConvertOptions, io IO) int {
	found := manifests{}
	for _, path := range o.Paths {
		if err := found.read(path, o.Stdin); err != nil {
			return io.fail(err)
		}
	}
	if len(found.objects) == 0 {
		return io.fail(errors.New("no network, tenant configuration or NetworkAttachmentDefinition in there"))
	}
	if o.Name == "" {
		abs, err := filepath.Abs(o.Dir)
		if err != nil {
			return io.fail(err)
		}
		o.Name = filepath.Base(abs)
	}
	o.Name = documentName(o.Name)
	b := convert.Objects(o.Name, found.objects)
	files, err := bundleFiles(o.Name, b)
	if err != nil {
		return io.fail(err)
	}
	if err := writeNew(o.Dir, files); err != nil {
		return io.fail(err)
	}
	refused := false
	fmt.Fprintf(io.Out, "%s: %s, %s of %s\n", o.Dir, plural(len(b.Networks), "network"), plural(len(b.Tenants), "tenant"), plural(len(found.objects), "object"))
	for _, n := range append(b.Notes, found.notes...) {
		word := "note"
		if n.Refused {
			word, refused = "refused", true
		}
		fmt.Fprintf(io.Out, "%s: %s: %s\n", word, n.Object, n.Text)
	}
	_, _, diags := compile(source.Snapshot{Files: files}, model.Inventory{})
	for _, d := range diags {
		fmt.Fprintln(io.Out, d)
	}
	if diags.HasErrors() {
		fmt.Fprintln(io.Out, "the bundle does not validate yet: see above")
		return Invalid
	}
	if refused {
		fmt.Fprintln(io.Out, "the bundle validates without what is refused")
		return Invalid
	}
	fmt.Fprintln(io.Out, "the bundle validates; check the notes")
	return OK
}

// manifests is what was found in the input.
type manifests struct {
	objects []any
	notes   []convert.Note
}

func (m *manifests) read(path string, stdin io.Reader) error {
	if path == "-" {
		return m.stream("standard input", stdin)
	}
	return filepath.WalkDir(path, func(name string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		ext := filepath.Ext(name)
		if d.IsDir() || name != path && ext != ".yaml" && ext != ".yml" && ext != ".json" {
			return nil
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		return m.stream(name, f)
	})
}

func (m *manifests) stream(name string, r io.Reader) error {
	reader := utilyaml.NewYAMLReader(newBounded(r))
	for i := 1; ; i++ {
		doc, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = m.document(doc)
		}
		if err != nil {
			return fmt.Errorf("%s, document %d: %w", name, i, err)
		}
	}
}

// header is what tells objects apart.
type header struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Items      []json.RawMessage `json:"items"`
	Metadata   struct {
		Name        string            `json:"name"`
		Namespace   string            `json:"namespace"`
		Annotations map[string]string `json:"annotations"`
	} `json:"metadata"`
}

func (m *manifests) document(doc []byte) error {
	if len(bytes.TrimSpace(doc)) == 0 {
		return nil
	}
	var h header
	if err := yaml.Unmarshal(doc, &h); err != nil {
		return oneLine(err)
	}
	group, _, _ := strings.Cut(h.APIVersion, "/")
	switch {
	case strings.HasSuffix(h.Kind, "List") && h.Items != nil:
		for _, item := range h.Items {
			if err := m.document(item); err != nil {
				return err
			}
		}
	case h.Kind == danmv1.KindDanmEp && (group == danmv1.Group || group == danmv1.LegacyGroup):
		m.note(h, "an endpoint belongs to a running Pod and is no configuration")
	case group == danmv1.Group || group == danmv1.LegacyGroup:
		o, err := danmv1.Decode(doc)
		if err != nil {
			return oneLine(err)
		}
		m.objects = append(m.objects, o)
	case h.APIVersion == npwgv1.APIVersion && h.Kind == npwgv1.Kind:
		var o npwgv1.NetworkAttachmentDefinition
		if err := yaml.Unmarshal(doc, &o); err != nil {
			return oneLine(err)
		}
		m.objects = append(m.objects, &o)
	case h.Kind == "Service":
		for key := range h.Metadata.Annotations {
			if strings.HasPrefix(key, danmv1.Group+"/") || strings.HasPrefix(key, danmv1.LegacyGroup+"/") {
				m.note(h, "keeps its annotations: Services stay objects of the cluster, no part of a bundle")
				break
			}
		}
	}
	return nil
}

func (m *manifests) note(h header, text string) {
	m.notes = append(m.notes, convert.Note{Object: h.Kind + " " + strings.TrimPrefix(h.Metadata.Namespace+"/"+h.Metadata.Name, "/"), Text: text})
}

func oneLine(err error) error {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return errors.New(line)
}

// newBounded ends a stream that is too long with an error, where a plain limit would cut a document in two.
func newBounded(r io.Reader) *bufio.Reader {
	return bufio.NewReader(&boundedReader{r: r, left: maxManifests})
}

type boundedReader struct {
	r    io.Reader
	left int64
}

func (b *boundedReader) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, fmt.Errorf("over %d MiB", maxManifests>>20)
	}
	n, err := b.r.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}

// bundleFiles writes the documents down.
func bundleFiles(name string, b convert.Bundle) ([]source.File, error) {
	var bundle, networks, tenants bytes.Buffer
	err := write(&bundle, v1.Bundle{APIVersion: v1.APIVersion, Kind: v1.KindBundle, Metadata: v1.Metadata{Name: name}, Spec: v1.BundleSpec{Version: "0.1.0"}})
	for _, n := range b.Networks {
		err = errors.Join(err, write(&networks, n))
	}
	for _, t := range b.Tenants {
		err = errors.Join(err, write(&tenants, t))
	}
	files := []source.File{{Path: "bundle.yaml", Data: bundle.Bytes()}, {Path: "networks.yaml", Data: networks.Bytes()}}
	if tenants.Len() > 0 {
		files = append(files, source.File{Path: "tenants.yaml", Data: tenants.Bytes()})
	}
	if len(b.Topology.Spec.Groups) > 0 {
		var topology bytes.Buffer
		err = errors.Join(err, write(&topology, b.Topology))
		files = append(files, source.File{Path: "topology.yaml", Data: topology.Bytes()})
	}
	return files, err
}

func write(b *bytes.Buffer, v any) error {
	data, err := yaml.Marshal(v)
	if b.Len() > 0 {
		b.WriteString("---\n")
	}
	b.Write(data)
	return err
}
