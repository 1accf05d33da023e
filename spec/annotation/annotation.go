package annotation

import (
	"fmt"

	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// The annotation keys, matched exactly.
const (
	Key       = "danm.io/interfaces"
	LegacyKey = "danm.k8s.io/interfaces"
	NPWGKey   = "k8s.v1.cni.cncf.io/networks"
	// DefaultNetworkKey is Multus's, for another network in the default network's place.
	DefaultNetworkKey = "v1.multus-cni.io/default-network"
)

// Keys are those of a Pod's annotations that say which interfaces it asks for.
var Keys = []string{Key, LegacyKey, NPWGKey, DefaultNetworkKey}

// Bounds of one Pod's request.
const (
	MaxBytes      = 1 << 20
	MaxInterfaces = 64
)

// Parse reads the requests out of a Pod's annotations, in whichever dialect they are. Without any, or with an empty array, it returns
// no request and no diagnostic: the Pod gets its default network. In the NPWG's dialect the requests come beside the default network,
// unless the first takes its place (Selection.Default). Any error means that nothing may be attached.
func Parse(annotations map[string]string) ([]model.InterfaceRequest, diag.List) {
	text, current := annotations[Key]
	legacy, old := annotations[LegacyKey]
	theirs := NPWGKey
	_, npwg := annotations[NPWGKey]
	if _, has := annotations[DefaultNetworkKey]; has && !npwg {
		theirs, npwg = DefaultNetworkKey, true
	}
	switch {
	case npwg && (current || old):
		return nil, problem(diag.AnnotationDialects, theirs, "the Pod carries both "+theirs+" and a DANM annotation")
	case npwg:
		return parseSelections(annotations)
	case current && old && text != legacy:
		return nil, problem(diag.AnnotationTwice, LegacyKey, fmt.Sprintf("%s and %s differ", Key, LegacyKey))
	case current:
		return ParseInterfaces(Key, []byte(text))
	case old:
		return ParseInterfaces(LegacyKey, []byte(legacy))
	}
	return nil, nil
}

// ParseInterfaces reads the JSON array of interfaces. Diagnostics carry path, the array's name for the user ("interfaces"
// of a CNI conf, or an annotation key), and the byte offset. All problems of a well-formed array are reported at once.
func ParseInterfaces(path string, raw []byte) ([]model.InterfaceRequest, diag.List) {
	if len(raw) > MaxBytes {
		return nil, problem(diag.AnnotationTooBig, path, fmt.Sprintf("%d bytes, at most %d are read", len(raw), MaxBytes))
	}
	root, err := parseJSON(raw)
	if err != nil {
		return nil, problem(diag.AnnotationSyntax, path, err.Error())
	}
	if root.kind != array {
		return nil, problem(diag.AnnotationSyntax, path, fmt.Sprintf("at byte %d: %s instead of an array of interfaces", root.offset, root.kind))
	}
	if len(root.items) > MaxInterfaces {
		return nil, problem(diag.AnnotationTooBig, path, fmt.Sprintf("%d interfaces, at most %d are attached", len(root.items), MaxInterfaces))
	}
	r := reader{}
	var out []model.InterfaceRequest
	for i, item := range root.items {
		out = append(out, r.request(fmt.Sprintf("%s[%d]", path, i), item))
	}
	if r.problems.HasErrors() {
		return nil, r.problems
	}
	return out, nil
}

func problem(code diag.Code, path, summary string) diag.List {
	return diag.List{{Severity: diag.Error, Code: code, Path: path, Summary: summary}}
}
