// Package decode turns the files of a bundle into typed documents, strictly, and reports every problem at once.
//
// It knows where each field stands, so that spec/validate can point at it. It does not read files, it follows no
// references between documents, and it judges no values beyond their YAML type. Everything is bounded: files, documents,
// depth, and what aliases expand to.
package decode

import (
	"cmp"
	"path"
	"slices"
	"strings"

	"danm.io/danm/spec/bundle/v1"
	"danm.io/danm/spec/diag"
	"go.yaml.in/yaml/v3"
)

// Bounds of a bundle. They are far above honest use and keep a hostile one from taking memory or time.
const (
	MaxFileSize  = 1 << 20  // bytes of one file
	MaxTotalSize = 32 << 20 // bytes of all files
	MaxFiles     = 10_000
	MaxDocuments = 20_000
	MaxDepth     = 32      // nested lists and maps of one document, aliases followed
	MaxExpansion = 100_000 // nodes that all aliases of the bundle add
)

// File is one raw file of a bundle. Path is relative to the bundle's root, with forward slashes.
type File struct {
	Path string
	Data []byte
}

// Doc is one document with the place it came from.
type Doc[T any] struct {
	Value T
	Where
}

// Where is the place of a document and of its fields.
type Where struct {
	File   string
	Line   int  // of the document's first key
	Broken bool // a field of it could not be decoded: its value is not whole
	root   *yaml.Node
}

// Documents is a decoded bundle, each kind in the order of files' paths and of documents in them.
type Documents struct {
	Bundles    []Doc[v1.Bundle]
	Topologies []Doc[v1.Topology]
	Networks   []Doc[v1.Network]
	Tenants    []Doc[v1.Tenant]
	SRIOVPools []Doc[v1.SRIOVPool]
	// Incomplete says that some file or document could not be read at all, so a reference to nowhere may be its fault.
	Incomplete bool
}

// Len is the number of documents of every kind.
func (d *Documents) Len() int {
	return len(d.Bundles) + len(d.Topologies) + len(d.Networks) + len(d.Tenants) + len(d.SRIOVPools)
}

// Decode decodes the .yaml, .yml and .json files among files; others, and hidden ones, are ignored. The result does not
// depend on the order of files. Documents that could not be decoded whole are there too, marked Broken.
func Decode(files []File) (*Documents, diag.List) {
	d := &decoder{docs: &Documents{}, expansion: MaxExpansion}
	var mine []File
	for _, f := range files {
		if isDocument(f.Path) {
			mine = append(mine, f)
		}
	}
	slices.SortFunc(mine, func(a, b File) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), slices.Compare(a.Data, b.Data))
	})
	total := 0
	for i, f := range mine { // before any is parsed
		if total += len(f.Data); i >= MaxFiles || total > MaxTotalSize {
			d.limit(f.Path, 0, "the bundle has more than %d files, or more than %d MiB", MaxFiles, MaxTotalSize>>20)
			return d.docs, d.problems
		}
	}
	for _, f := range mine {
		if d.file(f); d.stop {
			break
		}
	}
	return d.docs, d.problems.Sorted()
}

// isDocument says whether a file takes part. Hidden files and directories belong to tools (.github, .sops.yaml).
func isDocument(name string) bool {
	for part := range strings.SplitSeq(name, "/") {
		if strings.HasPrefix(part, ".") && part != "." && part != ".." {
			return false
		}
	}
	switch path.Ext(name) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}
