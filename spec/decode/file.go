package decode

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"danm.io/danm/spec/bundle/v1"
	"danm.io/danm/spec/diag"
	"go.yaml.in/yaml/v3"
)

// decoder is one run of Decode.
type decoder struct {
	docs      *Documents
	problems  diag.List
	count     int // documents so far
	expansion int // nodes that aliases may still add
	stop      bool
	unparsed  int // files that are no YAML

	source string // of the document at hand
	broken bool
	path   []step
}

func (d *decoder) add(code diag.Code, line, col int, path, summary, hint string) {
	d.problems = append(d.problems, diag.Diagnostic{
		Severity: diag.Error, Code: code, File: d.source, Line: line, Col: col, Path: path, Summary: summary, Hint: hint,
	})
}

// limit reports a bound that is passed and ends the run: what follows would be as large again.
func (d *decoder) limit(file string, line int, format string, args ...any) {
	d.source = file
	d.add(diag.BundleTooLarge, line, 0, "", fmt.Sprintf(format, args...), "split the bundle, or point to the subdirectory that holds it")
	d.docs.Incomplete, d.stop = true, true
}

func (d *decoder) file(f File) {
	d.source = f.Path
	if len(f.Data) > MaxFileSize {
		d.docs.Incomplete = true
		d.add(diag.FileTooLarge, 0, 0, "", fmt.Sprintf("the file has %d bytes, more than 1 MiB", len(f.Data)), "split the file")
		return
	}
	reader := yaml.NewDecoder(bytes.NewReader(f.Data))
	for !d.stop {
		var doc yaml.Node
		switch err := next(reader, &doc); {
		case errors.Is(err, io.EOF):
			return
		case err != nil:
			d.docs.Incomplete = true
			line, text := yamlProblem(err)
			line = d.pinpoint(f.Data, line)
			d.add(diag.BrokenYAML, line, 0, "", "this is not YAML: "+text, yamlHint(text))
			return
		}
		if d.count++; d.count > MaxDocuments {
			d.limit(f.Path, doc.Line, "the bundle has more than %d documents", MaxDocuments)
			return
		}
		d.document(doc.Content[0])
	}
}

// next reads one document. The parser answers some malformed input with a panic of its own; a bundle may come from
// anyone, and no input may end a daemon.
func next(reader *yaml.Decoder, doc *yaml.Node) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("yaml: %v", r)
		}
	}()
	return reader.Decode(doc)
}

var yamlLine = regexp.MustCompile(`^(?:yaml: )?(?:line (\d+): )?`)

// yamlProblem takes the line out of the parser's message; it names none on the first line.
func yamlProblem(err error) (line int, text string) {
	text = err.Error()
	m := yamlLine.FindStringSubmatch(text)
	line = 1
	if m[1] != "" {
		line, _ = strconv.Atoi(m[1])
	}
	return line, text[len(m[0]):]
}

// Bounds of pinpoint: it parses again and again.
const (
	pinpointFiles = 20
	pinpointLines = 200
	pinpointBytes = 64 << 10
)

// pinpoint is the line behind the longest beginning of a file that still is YAML. The parser's own line is often that of
// the map around the problem (its context mark), many lines above.
func (d *decoder) pinpoint(data []byte, line int) int {
	if d.unparsed++; d.unparsed > pinpointFiles || len(data) > pinpointBytes {
		return line
	}
	end, best := 0, line
	for number := 1; number < line+pinpointLines; number++ {
		i := bytes.IndexByte(data[end:], '\n')
		if i < 0 {
			break
		}
		if end += i + 1; number >= line-1 && parses(data[:end]) {
			best = number + 1
		}
	}
	return best
}

func parses(data []byte) bool {
	reader := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var doc yaml.Node
		if err := next(reader, &doc); err != nil {
			return errors.Is(err, io.EOF)
		}
	}
}

func yamlHint(text string) string {
	switch {
	case strings.Contains(text, "cannot start any token"):
		return "indent with spaces, not tabs; quote values that begin with @, ` or %"
	case strings.Contains(text, "mapping values are not allowed"):
		return "check the indentation, and quote values that contain \": \""
	case strings.Contains(text, "did not find expected key"), strings.Contains(text, "did not find expected '-' indicator"):
		return "check the indentation of this line and of the one before"
	}
	return ""
}

// document decodes one document into the kind it names.
func (d *decoder) document(root *yaml.Node) {
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return // nothing between two ---, or comments only
	}
	d.path, d.broken = d.path[:0], false
	if !d.bounded(root) {
		d.docs.Incomplete = true
		return
	}
	root = resolve(root)
	if root.Kind != yaml.MappingNode {
		d.docs.Incomplete = true
		d.add(diag.WrongType, root.Line, root.Column, "", "a document is a map of fields, not "+describe(root), "begin it with apiVersion: "+v1.APIVersion)
		return
	}
	kind, ok := d.kind(root)
	if !ok {
		d.docs.Incomplete = true
		return
	}
	switch kind {
	case v1.KindBundle:
		decodeInto(d, root, &d.docs.Bundles)
	case v1.KindTopology:
		decodeInto(d, root, &d.docs.Topologies)
	case v1.KindNetwork:
		decodeInto(d, root, &d.docs.Networks)
	case v1.KindTenant:
		decodeInto(d, root, &d.docs.Tenants)
	case v1.KindSRIOVPool:
		decodeInto(d, root, &d.docs.SRIOVPools)
	}
}

func decodeInto[T any](d *decoder, root *yaml.Node, list *[]Doc[T]) {
	var doc Doc[T]
	d.value(root, planOf(reflect.TypeFor[T]()), reflect.ValueOf(&doc.Value).Elem())
	doc.Where = Where{File: d.source, Line: root.Line, Broken: d.broken, root: root}
	*list = append(*list, doc)
}

var kinds = []string{v1.KindBundle, v1.KindTopology, v1.KindNetwork, v1.KindTenant, v1.KindSRIOVPool}

// kind reads apiVersion and kind, and reports what is no document of a bundle.
func (d *decoder) kind(root *yaml.Node) (string, bool) {
	version, kind := field(root, "apiVersion"), field(root, "kind")
	switch {
	case version == nil:
		d.add(diag.WrongVersion, root.Line, root.Column, "apiVersion", "the document has no apiVersion", "begin it with apiVersion: "+v1.APIVersion)
		return "", false
	case version.Value != v1.APIVersion:
		d.add(diag.WrongVersion, version.Line, version.Column, "apiVersion", fmt.Sprintf("apiVersion %q is none of a bundle", version.Value), versionHint(version.Value))
		return "", false
	case kind == nil:
		d.add(diag.WrongKind, root.Line, root.Column, "kind", "the document has no kind", "one of "+strings.Join(kinds, ", "))
		return "", false
	}
	for _, k := range kinds {
		if kind.Value == k {
			return k, true
		}
	}
	hint := diag.Suggest(kind.Value, kinds)
	if hint == "" {
		hint = "one of " + strings.Join(kinds, ", ")
	}
	d.add(diag.WrongKind, kind.Line, kind.Column, "kind", fmt.Sprintf("kind %q is none of %s", kind.Value, v1.APIVersion), hint)
	return "", false
}

func versionHint(version string) string {
	group, _, _ := strings.Cut(version, "/")
	switch group {
	case "kustomize.config.k8s.io":
		return "overlays are built where their kustomization stands: give that directory, as ROOT//SUBDIRECTORY if it reaches files beside it"
	case "danm.io", "danm.k8s.io":
		return "this is an object as DANM serves it; a bundle declares networks and tenants as " + v1.APIVersion
	case "bundle.danm.io":
		return "this program reads " + v1.APIVersion
	}
	if hint := diag.Suggest(version, []string{v1.APIVersion}); hint != "" {
		return hint
	}
	return "only documents of " + v1.APIVersion + " may stand in a bundle; move other files out of its directory"
}
