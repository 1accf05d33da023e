package overlay

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"danm.io/danm/spec/diag"
	"go.yaml.in/yaml/v3"
)

// maxNesting bounds a document's depth; spec/decode has the same for documents of a bundle.
const maxNesting = 32

// parseAll reads every document of a file and refuses what kustomize would take and expand or overlook: aliases and keys
// that are given twice.
func parseAll(data []byte) (docs []*yaml.Node, problem *diag.Diagnostic) {
	defer func() {
		if r := recover(); r != nil { // the parser answers some malformed input with a panic of its own
			problem = &diag.Diagnostic{Severity: diag.Error, Code: diag.BrokenYAML, Summary: fmt.Sprintf("this is not YAML: %v", r)}
		}
	}()
	reader := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var doc yaml.Node
		err := reader.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			return nil, &diag.Diagnostic{Severity: diag.Error, Code: diag.BrokenYAML, Summary: "this is not YAML: " + strings.TrimPrefix(err.Error(), "yaml: ")}
		}
		root := doc.Content[0]
		if root.Tag == "!!null" {
			continue
		}
		if problem := plain(root, 0); problem != nil {
			return nil, problem
		}
		docs = append(docs, root)
	}
}

func plain(n *yaml.Node, depth int) *diag.Diagnostic {
	fail := func(code diag.Code, summary, hint string) *diag.Diagnostic {
		return &diag.Diagnostic{Severity: diag.Error, Code: code, Line: n.Line, Col: n.Column, Summary: summary, Hint: hint}
	}
	switch {
	case n.Kind == yaml.AliasNode:
		return fail(diag.AliasBomb, "aliases are not read in kustomizations and patches", "write the value out")
	case depth > maxNesting:
		return fail(diag.TooDeep, fmt.Sprintf("nested more than %d deep", maxNesting), "")
	}
	if n.Kind == yaml.MappingNode {
		seen := map[string]bool{}
		for i := 0; i < len(n.Content); i += 2 {
			if key := n.Content[i]; seen[key.Value] {
				return &diag.Diagnostic{Severity: diag.Error, Code: diag.DuplicateField, Line: key.Line, Col: key.Column, Summary: fmt.Sprintf("field %q is given twice", key.Value), Hint: "keep one of them"}
			}
			seen[n.Content[i].Value] = true
		}
	}
	for _, c := range n.Content {
		if problem := plain(c, depth+1); problem != nil {
			return problem
		}
	}
	return nil
}
