package overlay

import (
	"bytes"
	"fmt"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"danm.io/danm/spec/decode"
	"danm.io/danm/spec/diag"
	"go.yaml.in/yaml/v3"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/kustomize/api/types"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

// mark is the annotation by which a document is known again after kustomize; its value is the index of its origin.
const mark = "overlay.danm.io/origin"

// origin is a document as it stands in the repository.
type origin struct {
	file      string
	line      int
	text      []byte // of this document alone
	kind      string
	namespace string
	name      string
}

// document is what became of one.
type document struct {
	origin
	node *yaml.Node
	now  string // name
}

// Files are the documents of a bundle after overlays, with the way back to where they came from.
type Files struct {
	Documents []decode.File
	places    map[string]place // of documents that overlays changed, by the path they were given
}

type place struct {
	file string
	line int
	what string
}

// IsKustomization says whether a directory, given from the root, holds a kustomization.
func IsKustomization(files []decode.File, dir string) bool {
	return newGraph(files).kustomizationIn(path.Clean(dir)) != ""
}

// Build runs the kustomization of a directory. files are those of the whole repository, by path from its root. If the
// list has errors there are no documents.
func Build(files []decode.File, dir string) (Files, diag.List) {
	g := newGraph(files)
	dir = path.Clean(dir)
	if g.kustomizationIn(dir) == "" {
		return Files{}, diag.List{{Severity: diag.Error, Code: diag.PathNotFound, File: dir, Summary: "no kustomization.yaml in this directory"}}
	}
	g.visit(dir, nil)
	g.problems = append(g.problems, g.decodeRaw()...)
	if g.problems.HasErrors() {
		return Files{}, g.problems.Sorted()
	}
	var origins []origin
	disk := filesys.MakeFsInMemory()
	for _, p := range g.resources {
		marked, err := g.markAll(g.all[p], &origins)
		if err == nil {
			err = disk.WriteFile(path.Join("/", p), marked)
		}
		if err != nil {
			return Files{}, failed(p, err)
		}
	}
	for p := range g.all {
		if g.kustomizations[p] || g.patches[p] {
			if err := disk.WriteFile(path.Join("/", p), g.all[p].Data); err != nil {
				return Files{}, failed(p, err)
			}
		}
	}
	res, err := run(disk, path.Join("/", dir))
	if err != nil {
		return Files{}, failed(g.kustomizationIn(dir), err)
	}
	return collect(res, origins)
}

// run is kustomize without plugins and helm; all it can read is in memory.
func run(disk filesys.FileSystem, dir string) (res resmap.ResMap, err error) {
	defer func() {
		if r := recover(); r != nil { // a library of many parsers, fed by strangers
			err = fmt.Errorf("kustomize panicked: %v", r)
		}
	}()
	return krusty.MakeKustomizer(&krusty.Options{
		Reorder: krusty.ReorderOptionNone, LoadRestrictions: types.LoadRestrictionsNone, PluginConfig: types.DisabledPluginConfig(),
	}).Run(disk, dir)
}

// failed cuts kustomize's message, which repeats whole documents, to one line.
func failed(file string, err error) diag.List {
	text, _, _ := strings.Cut(err.Error(), "\n")
	if len(text) > 400 {
		text = text[:400] + "..."
	}
	return diag.List{{Severity: diag.Error, Code: diag.OverlayFailed, File: file, Summary: strings.ReplaceAll(text, "'/", "'"), Hint: "kustomize could not put the overlays together"}}
}

// decodeRaw judges the resources as they stand, but for what an overlay may still add.
func (g *graph) decodeRaw() diag.List {
	var raw []decode.File
	for _, p := range g.resources {
		raw = append(raw, g.all[p])
	}
	_, found := decode.Decode(raw)
	return slices.DeleteFunc(found, func(d diag.Diagnostic) bool { return d.Code == diag.MissingField && strings.HasPrefix(d.Path, "spec") })
}

var separator = regexp.MustCompile(`(?m)^---(\s.*)?$`)

// markAll puts the mark into each document of a file and adds the origins.
func (g *graph) markAll(f decode.File, origins *[]origin) ([]byte, error) {
	var out bytes.Buffer
	line := 1
	for _, text := range split(f.Data) {
		start := line
		line += bytes.Count(text, []byte("\n"))
		var doc yaml.Node
		if err := yaml.Unmarshal(text, &doc); err != nil {
			return nil, err
		}
		if len(doc.Content) == 0 || doc.Content[0].Kind != yaml.MappingNode {
			continue
		}
		root := doc.Content[0]
		meta := field(root, "metadata")
		*origins = append(*origins, origin{file: f.Path, line: start + root.Line - 1, text: text[offset(text, root.Line):],
			kind: scalar(root, "kind"), namespace: scalar(meta, "namespace"), name: scalar(meta, "name")})
		meta.Style = 0
		meta.Content = append(meta.Content, text1("annotations"), &yaml.Node{Kind: yaml.MappingNode, Content: []*yaml.Node{text1(mark), text1("o" + strconv.Itoa(len(*origins)-1))}})
		data, err := yaml.Marshal(root)
		if err != nil {
			return nil, err
		}
		out.WriteString("---\n")
		out.Write(data)
	}
	return out.Bytes(), nil
}

// split cuts a file before each document marker, and blanks the marker.
func split(data []byte) [][]byte {
	var out [][]byte
	from := 0
	for _, m := range separator.FindAllIndex(data, -1) {
		out = append(out, data[from:m[0]])
		from = m[0]
	}
	out = append(out, data[from:])
	for i, text := range out {
		if loc := separator.FindIndex(text); loc != nil && loc[0] == 0 {
			out[i] = append([]byte("   "), text[3:]...)
		}
	}
	return out
}

// offset is where a line of a text begins; lines count from 1.
func offset(text []byte, line int) int {
	at := 0
	for range line - 1 {
		at += bytes.IndexByte(text[at:], '\n') + 1
	}
	return at
}

func text1(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s} }

func field(n *yaml.Node, name string) *yaml.Node {
	if n == nil || n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return n.Content[i+1]
		}
	}
	return nil
}

func scalar(n *yaml.Node, name string) string {
	if v := field(n, name); v != nil {
		return v.Value
	}
	return ""
}

// collect reads kustomize's result, mends references and gives each document the best place there is.
func collect(res resmap.ResMap, origins []origin) (Files, diag.List) {
	docs := make([]document, 0, res.Size())
	for _, r := range res.Resources() {
		data, err := r.AsYAML()
		if err != nil {
			return Files{}, failed("", err)
		}
		var doc yaml.Node
		if err := yaml.Unmarshal(data, &doc); err != nil {
			return Files{}, failed("", err)
		}
		root := doc.Content[0]
		i, err := unmark(root)
		if err != nil || i >= len(origins) {
			return Files{}, diag.List{{Severity: diag.Error, Code: diag.OverlayFailed, Summary: fmt.Sprintf("%s %s: a patch replaced the document's annotations or made a document", scalar(root, "kind"), scalar(field(root, "metadata"), "name")), Hint: "patches change documents; list new ones under resources"}}
		}
		docs = append(docs, document{origin: origins[i], node: root, now: scalar(field(root, "metadata"), "name")})
	}
	mendReferences(docs)
	out := Files{places: map[string]place{}}
	for i, d := range docs {
		if unchanged(d) {
			padded := append(bytes.Repeat([]byte("\n"), d.line-1), d.text...)
			out.Documents = append(out.Documents, decode.File{Path: d.file, Data: padded})
			continue
		}
		data, err := yaml.Marshal(d.node)
		if err != nil {
			return Files{}, failed(d.file, err)
		}
		name := fmt.Sprintf("%s#%d.yaml", d.file, i)
		out.places[name] = place{file: d.file, line: d.line, what: d.kind + " " + key(d.namespace, d.now)}
		out.Documents = append(out.Documents, decode.File{Path: name, Data: data})
	}
	return out, nil
}

// unmark takes the mark off and says which origin it named.
func unmark(root *yaml.Node) (int, error) {
	meta := field(root, "metadata")
	value := scalar(field(meta, "annotations"), mark)
	index, err := strconv.Atoi(strings.TrimPrefix(value, "o"))
	if err != nil {
		return 0, err
	}
	for i := 0; i+1 < len(meta.Content); i += 2 {
		if meta.Content[i].Value == "annotations" {
			meta.Content = slices.Delete(meta.Content, i, i+2)
			break
		}
	}
	return index, nil
}

// unchanged compares values, not spelling.
func unchanged(d document) bool {
	var was, is any
	if yaml.Unmarshal(d.text, &was) != nil || d.node.Decode(&is) != nil {
		return false
	}
	return reflect.DeepEqual(was, is)
}

// Locate puts diagnostics about documents that overlays changed at the beginning of their origin, and says so.
func (f Files) Locate(l diag.List) diag.List {
	out := slices.Clone(l)
	for i, d := range out {
		if p, ok := f.places[d.File]; ok {
			out[i].File, out[i].Line, out[i].Col = p.file, p.line, 0
			out[i].Summary = d.Summary + " (in " + p.what + ", after overlays)"
		}
	}
	return out
}

// Origin is where a document stands in the repository, given where it stood for spec/decode.
func (f Files) Origin(file string, line int) (string, int) {
	if p, ok := f.places[file]; ok {
		return p.file, p.line
	}
	return file, line
}
