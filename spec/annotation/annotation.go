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
)

// Keys are those of a Pod's annotations that say which interfaces it asks for.
var Keys = []string{Key, LegacyKey, NPWGKey}

// Bounds of one Pod's request.
const (
	MaxBytes      = 1 << 20
	MaxInterfaces = 64
)

// Parse reads the requests out of a Pod's annotations. Without a DANM annotation, or with an empty array, it returns no
// request and no diagnostic: the Pod gets its default network. Any error means that nothing may be attached.
func Parse(annotations map[string]string) ([]model.InterfaceRequest, diag.List) {
	text, current := annotations[Key]
	legacy, old := annotations[LegacyKey]
	_, npwg := annotations[NPWGKey]
	switch {
	case npwg && (current || old):
		return nil, problem(diag.AnnotationDialects, NPWGKey, "the Pod carries both "+NPWGKey+" and a DANM annotation")
	case npwg:
		return nil, problem(diag.AnnotationDialects, NPWGKey, NPWGKey+" is not read; its interfaces would be missing")
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
