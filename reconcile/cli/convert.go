package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"danm.io/danm/reconcile/source"
	"danm.io/danm/spec/bundle/v1"
	"danm.io/danm/spec/convert"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
	npwgv1 "danm.io/danm/spec/npwg/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// ConvertOptions are danmctl convert's.
type ConvertOptions struct {
	Paths []string // files, or directories of manifests; "-" is the standard input
	Dir   string   // must not exist, or be empty
	Name  string   // of the bundle; "" = the directory's
	// ResourcePrefix is that of the sriov-network-operator's resources, "" = its default.
	ResourcePrefix string
	Output         string // text or json
	Stdin          io.Reader
}

// Converted is the JSON form of convert's result.
type Converted struct {
	Valid       bool            `json:"valid"` // nothing was refused, and the bundle validates
	Directory   string          `json:"directory"`
	Objects     int             `json:"objects"` // read
	Networks    int             `json:"networks"`
	Tenants     int             `json:"tenants"`
	Pools       int             `json:"pools"`
	Notes       []ConvertedNote `json:"notes"`
	Diagnostics diag.List       `json:"diagnostics"`
}

// ConvertedNote says of an object what was not carried over as it stands.
type ConvertedNote struct {
	Object  string `json:"object"` // kind and key
	Text    string `json:"text"`
	Refused bool   `json:"refused,omitempty"` // it is not in the bundle
}

// maxManifests bounds one input, bytes.
const maxManifests = 64 << 20

// Convert writes a bundle of DANM's manifests, of NetworkAttachmentDefinitions, and of the sriov-network-operator's objects, and says what it could not carry over: OK,
// Invalid if the bundle needs work before it validates, or Failed. Nothing is written before everything was read.
func Convert(_ context.Context, o ConvertOptions, io IO) int {
	if err := oneOf(o.Output, "text", "json"); err != nil {
		return io.fail(err)
	}
	if problems := validation.IsDNS1123Subdomain(o.ResourcePrefix); o.ResourcePrefix != "" && len(problems) > 0 {
		return io.fail(&UsageError{fmt.Sprintf("--resource-prefix %q is what stands before the / of a resource's name, such as %s: %s", o.ResourcePrefix, convert.DefaultResourcePrefix, problems[0])})
	}
	found := manifests{}
	for _, path := range o.Paths {
		if err := found.read(path, o.Stdin); err != nil {
			return io.fail(err)
		}
	}
	if len(found.objects) == 0 {
		return io.fail(errors.New("no network, tenant configuration, NetworkAttachmentDefinition or policy of the sriov-network-operator in there"))
	}
	if o.Name == "" {
		abs, err := filepath.Abs(o.Dir)
		if err != nil {
			return io.fail(err)
		}
		o.Name = filepath.Base(abs)
	}
	o.Name = documentName(o.Name)
	b := convert.Objects(convert.Options{Name: o.Name, ResourcePrefix: o.ResourcePrefix}, found.objects)
	files, err := bundleFiles(o.Name, b)
	if err != nil {
		return io.fail(err)
	}
	if err := writeNew("convert", o.Dir, files); err != nil {
		return io.fail(err)
	}
	_, _, diags := compile(source.Snapshot{Files: files}, model.Inventory{})
	c := converted(o.Dir, b, found, diags)
	if o.Output == "json" {
		err = io.print("json", c)
	} else {
		err = io.text(c.text())
	}
	if err != nil {
		return io.fail(err)
	}
	if !c.Valid {
		return Invalid
	}
	return OK
}

func converted(dir string, b convert.Bundle, found manifests, diags diag.List) Converted {
	c := Converted{Valid: !diags.HasErrors(), Directory: dir, Objects: len(found.objects), Networks: len(b.Networks), Tenants: len(b.Tenants), Pools: len(b.Pools),
		Notes: []ConvertedNote{}, Diagnostics: append(diag.List{}, diags...)}
	for _, n := range append(b.Notes, found.notes...) {
		c.Notes = append(c.Notes, ConvertedNote{Object: n.Object, Text: n.Text, Refused: n.Refused})
		c.Valid = c.Valid && !n.Refused
	}
	return c
}

func (c Converted) text() string {
	made := plural(c.Networks, "network") + ", " + plural(c.Tenants, "tenant")
	if c.Pools > 0 {
		made += ", " + plural(c.Pools, "pool")
	}
	out := fmt.Sprintf("%s: %s of %s\n", c.Directory, made, plural(c.Objects, "object"))
	for _, n := range c.Notes {
		word := "note"
		if n.Refused {
			word = "refused"
		}
		out += fmt.Sprintf("%s: %s: %s\n", word, n.Object, n.Text)
	}
	for _, d := range c.Diagnostics {
		out += d.String() + "\n"
	}
	switch {
	case c.Valid:
		return out + "the bundle validates; check the notes\n"
	case c.Diagnostics.HasErrors():
		return out + "the bundle does not validate yet: see above\n"
	}
	return out + "the bundle validates without what is refused\n"
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
	Data       json.RawMessage   `json:"data"`
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
	case group == convert.OperatorGroup:
		return m.operator(h, doc)
	case h.Kind == "ConfigMap":
		m.devicePlugin(h)
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

func (m *manifests) operator(h header, doc []byte) error {
	data, err := yaml.YAMLToJSON(doc)
	if err != nil {
		return oneLine(err)
	}
	o, note, err := convert.OperatorObject(h.Kind, data)
	switch {
	case err != nil:
		return oneLine(err)
	case o != nil:
		m.objects = append(m.objects, o)
	case note != "":
		m.note(h, note)
	}
	return nil
}

// devicePlugin names what a device plugin's configuration offers.
func (m *manifests) devicePlugin(h header) {
	var data map[string]string
	if json.Unmarshal(h.Data, &data) != nil {
		return
	}
	for _, key := range slices.Sorted(maps.Keys(data)) {
		for _, resource := range convert.DevicePlugin([]byte(data[key])) {
			m.note(h, "offers "+resource+": write an SRIOVPool with this resourceName and numVFs, which is not said here")
		}
	}
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
	var bundle, networks, tenants, pools bytes.Buffer
	err := write(&bundle, v1.Bundle{APIVersion: v1.APIVersion, Kind: v1.KindBundle, Metadata: v1.Metadata{Name: name}, Spec: v1.BundleSpec{Version: "0.1.0"}})
	for _, n := range b.Networks {
		err = errors.Join(err, write(&networks, n))
	}
	for _, t := range b.Tenants {
		err = errors.Join(err, write(&tenants, t))
	}
	for _, p := range b.Pools {
		err = errors.Join(err, write(&pools, p))
	}
	files := []source.File{{Path: "bundle.yaml", Data: bundle.Bytes()}, {Path: "networks.yaml", Data: networks.Bytes()}}
	if tenants.Len() > 0 {
		files = append(files, source.File{Path: "tenants.yaml", Data: tenants.Bytes()})
	}
	if pools.Len() > 0 {
		files = append(files, source.File{Path: "pools.yaml", Data: pools.Bytes()})
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
