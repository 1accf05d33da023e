package overlay

import (
	"strings"

	"go.yaml.in/yaml/v3"
)

// references are the fields that name other documents, by kind of document: field of spec → kind that it names.
var references = map[string]map[string]string{
	"Tenant":  {"networks": "Network", "defaultNetwork": "Network"},
	"Network": {"allowedTenants": "Tenant", "sharedWith": "Network"},
}

// mendReferences lets references follow documents that a prefix or suffix renamed. Where a base is included more than
// once, a reference means the document that was renamed as its own document was.
func mendReferences(docs []document) {
	byOldKey := map[string][]*document{}
	for i := range docs {
		d := &docs[i]
		k := d.kind + " " + key(d.namespace, d.name)
		byOldKey[k] = append(byOldKey[k], d)
	}
	for i := range docs {
		for name, kind := range references[docs[i].kind] {
			for _, n := range scalars(field(field(docs[i].node, "spec"), name)) {
				if to := target(&docs[i], byOldKey[kind+" "+n.Value]); to != nil {
					n.Value = key(to.namespace, to.now)
				}
			}
		}
	}
}

func key(namespace, name string) string {
	if namespace == "" {
		return name
	}
	return namespace + "/" + name
}

// scalars are a value itself, or the values of a list.
func scalars(n *yaml.Node) []*yaml.Node {
	switch {
	case n == nil:
		return nil
	case n.Kind == yaml.ScalarNode:
		return []*yaml.Node{n}
	}
	return n.Content
}

func target(from *document, candidates []*document) *document {
	if len(candidates) == 1 {
		return candidates[0]
	}
	for _, c := range candidates {
		if affixes(c) == affixes(from) {
			return c
		}
	}
	return nil
}

// affixes are what stands around the name it had.
func affixes(d *document) [2]string {
	before, after, found := strings.Cut(d.now, d.name)
	if !found {
		return [2]string{d.now, d.now}
	}
	return [2]string{before, after}
}
