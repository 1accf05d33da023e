package overlay

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"danm.io/danm/spec/decode"
	"danm.io/danm/spec/diag"
	"go.yaml.in/yaml/v3"
)

// Bounds of what one build may read. A base that is included twice on each of n levels would be built 2^n times.
const (
	maxVisits = 256
	maxDepth  = 16
)

// fileNames are those kustomize looks for; the one without an ending is not read by sources.
var fileNames = []string{"kustomization.yaml", "kustomization.yml"}

// refused are fields of a kustomization that are not for bundles, with the way out.
var refused = map[string]string{
	"components":                  "write what the component does as patches",
	"helmCharts":                  "render the chart first and commit its output",
	"helmChartInflationGenerator": "render the chart first and commit its output",
	"helmGlobals":                 "render the chart first and commit its output",
	"generators":                  "plugins are not run; write the documents out",
	"transformers":                "plugins are not run; write a patch",
	"validators":                  "plugins are not run; danmctl validate is the rule book",
	"configMapGenerator":          "a bundle holds no ConfigMaps",
	"secretGenerator":             "a bundle holds no Secrets",
	"generatorOptions":            "a bundle holds no ConfigMaps or Secrets",
	"configurations":              "references between documents follow a prefix or suffix by themselves",
	"openapi":                     "patches of bundle documents are merge patches (RFC 7386)",
	"crds":                        "patches of bundle documents are merge patches (RFC 7386)",
	"namespace":                   "only networks have a namespace; set metadata.namespace in the documents or by a patch",
	"labels":                      "documents of a bundle have no labels",
	"commonLabels":                "documents of a bundle have no labels",
	"commonAnnotations":           "documents of a bundle have no annotations",
	"images":                      "a bundle has no containers",
	"imageTags":                   "a bundle has no containers",
	"replicas":                    "a bundle has no workloads",
	"vars":                        "write a patch",
	"replacements":                "write a patch",
	"patchesStrategicMerge":       "list them under patches: [{path: FILE}]",
	"patchesJson6902":             "list them under patches: [{path: FILE, target: {kind: KIND, name: NAME}}]",
	"bases":                       "list them under resources",
	"buildMetadata":               "origins are told anyway",
	"sortOptions":                 "the order of documents means nothing",
	"metadata":                    "a kustomization needs no metadata",
}

// allowed are the fields that a kustomization of a bundle may have.
var allowed = []string{"apiVersion", "kind", "resources", "patches", "namePrefix", "nameSuffix"}

// graph collects what a build needs, by path from the repository's root.
type graph struct {
	all            map[string]decode.File
	kustomizations map[string]bool
	resources      []string // files, in the order they are met, each once
	patches        map[string]bool
	seen           map[string]bool
	visits         int
	tooLarge       bool
	problems       diag.List
}

func newGraph(files []decode.File) *graph {
	g := &graph{all: map[string]decode.File{}, kustomizations: map[string]bool{}, patches: map[string]bool{}, seen: map[string]bool{}}
	for _, f := range files {
		g.all[f.Path] = f
	}
	return g
}

// kustomizationIn is the path of the kustomization of a directory, "" if it has none.
func (g *graph) kustomizationIn(dir string) string {
	for _, name := range fileNames {
		if _, ok := g.all[path.Join(dir, name)]; ok {
			return path.Join(dir, name)
		}
	}
	return ""
}

func (g *graph) error(code diag.Code, file string, n *yaml.Node, summary, hint string) {
	d := diag.Diagnostic{Severity: diag.Error, Code: code, File: file, Summary: summary, Hint: hint}
	if n != nil {
		d.Line, d.Col = n.Line, n.Column
	}
	g.problems = append(g.problems, d)
}

// visit reads the kustomization of a directory and all that it names. above are the directories that led here.
func (g *graph) visit(dir string, above []string) {
	file := g.kustomizationIn(dir)
	if g.visits++; g.visits > maxVisits || len(above) > maxDepth {
		if !g.tooLarge {
			g.tooLarge = true
			g.error(diag.OverlayTooLarge, file, nil, fmt.Sprintf("more than %d kustomizations, or nested more than %d deep", maxVisits, maxDepth), "a base that is included twice on every level is built many times; include it once")
		}
		return
	}
	if slices.Contains(above, dir) {
		g.error(diag.OverlayCycle, file, nil, fmt.Sprintf("the kustomizations include each other: %s", strings.Join(append(above, dir), " -> ")), "remove one of the references")
		return
	}
	g.kustomizations[file] = true
	root, ok := g.parse(file, g.all[file].Data)
	if !ok {
		return
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, value := root.Content[i], root.Content[i+1]
		switch key.Value {
		case "resources":
			g.each(file, value, func(n *yaml.Node) { g.resource(dir, file, n, append(slices.Clone(above), dir)) })
		case "patches":
			g.each(file, value, func(n *yaml.Node) { g.patch(dir, file, n) })
		case "kind":
			if value.Value != "Kustomization" {
				g.error(diag.OverlayRefused, file, value, fmt.Sprintf("kind %q is not read", value.Value), "kind: Kustomization")
			}
		case "apiVersion":
			if value.Value != "kustomize.config.k8s.io/v1beta1" {
				g.error(diag.OverlayRefused, file, value, fmt.Sprintf("apiVersion %q is not read", value.Value), "apiVersion: kustomize.config.k8s.io/v1beta1")
			}
		default:
			if hint, known := refused[key.Value]; known {
				g.error(diag.OverlayRefused, file, key, fmt.Sprintf("%s is not for bundles", key.Value), hint)
			} else if !slices.Contains(allowed, key.Value) {
				g.error(diag.UnknownField, file, key, fmt.Sprintf("unknown field %q", key.Value), diag.Suggest(key.Value, allowed))
			}
		}
	}
}

// parse reads one document without aliases, whose expansion kustomize would not bound.
func (g *graph) parse(file string, data []byte) (*yaml.Node, bool) {
	docs, problem := parseAll(data)
	if problem != nil {
		problem.File = file
		g.problems = append(g.problems, *problem)
		return nil, false
	}
	if len(docs) != 1 || docs[0].Kind != yaml.MappingNode {
		g.error(diag.WrongType, file, nil, "a kustomization is one map of fields", "")
		return nil, false
	}
	return docs[0], true
}

func (g *graph) each(file string, list *yaml.Node, do func(*yaml.Node)) {
	if list.Kind != yaml.SequenceNode {
		g.error(diag.WrongType, file, list, "expected a list", "")
		return
	}
	for _, n := range list.Content {
		do(n)
	}
}

// local is the path, from the root, of what a kustomization in dir names; false, and a problem, if it leads elsewhere.
func (g *graph) local(dir, file string, n *yaml.Node) (string, bool) {
	name := n.Value
	switch {
	case n.Kind != yaml.ScalarNode || name == "":
		g.error(diag.WrongType, file, n, "expected a path", "")
		return "", false
	case remote(name):
		g.error(diag.OverlayRemote, file, n, fmt.Sprintf("%q is not a path in this repository", name), "commit what it names into the repository: a bundle's revision must say all of it")
		return "", false
	case path.IsAbs(name), strings.Contains(name, `\`):
		g.error(diag.PathEscape, file, n, fmt.Sprintf("%q is not a path relative to the kustomization", name), "")
		return "", false
	}
	p := path.Join(dir, name)
	if p == ".." || strings.HasPrefix(p, "../") {
		g.error(diag.PathEscape, file, n, fmt.Sprintf("%q leaves the repository's root", name), "give the location as ROOT//SUBDIRECTORY, with a root that holds the base too")
		return "", false
	}
	return p, true
}

// remote is what kustomize would take for a repository or a URL. It is generous: a local path looks like none of these.
func remote(name string) bool {
	lower := strings.ToLower(name)
	for _, sign := range []string{"://", "git::", "git@", "github.com", "gitlab.com", "bitbucket.org", "?ref=", "?version=", "_git/", "//"} {
		if strings.Contains(lower, sign) {
			return true
		}
	}
	return strings.HasSuffix(lower, ".git") || strings.Contains(lower, ".git/") || strings.Contains(lower, ":")
}

func (g *graph) resource(dir, file string, n *yaml.Node, above []string) {
	p, ok := g.local(dir, file, n)
	if !ok {
		return
	}
	if _, isFile := g.all[p]; isFile {
		if !g.seen[p] {
			g.seen[p] = true
			g.resources = append(g.resources, p)
		}
		return
	}
	if g.kustomizationIn(p) != "" {
		g.visit(p, above)
		return
	}
	g.error(diag.PathNotFound, file, n, fmt.Sprintf("%s is neither a document nor a directory with a kustomization", p), "resources lists files, or directories that hold a kustomization.yaml")
}

// patch checks one entry of patches: {path | patch, target, options}.
func (g *graph) patch(dir, file string, n *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		g.error(diag.WrongType, file, n, "a patch is a map: {path: FILE} or {patch: TEXT}, with an optional target", "")
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch key.Value {
		case "target", "options":
		case "patch":
			if _, problem := parseAll([]byte(value.Value)); problem != nil {
				g.error(problem.Code, file, value, "in the patch: "+problem.Summary, problem.Hint)
			}
		case "path":
			p, ok := g.local(dir, file, value)
			if !ok {
				continue
			}
			f, there := g.all[p]
			if !there {
				g.error(diag.PathNotFound, file, value, fmt.Sprintf("no file %s", p), "")
				continue
			}
			g.patches[p] = true
			if _, problem := parseAll(f.Data); problem != nil {
				problem.File = p
				g.problems = append(g.problems, *problem)
			}
		default:
			g.error(diag.UnknownField, file, key, fmt.Sprintf("unknown field %q of a patch", key.Value), "fields here: options, patch, path, target")
		}
	}
}
