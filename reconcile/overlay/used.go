package overlay

import (
	"slices"

	"danm.io/danm/spec/decode"
	"danm.io/danm/spec/diag"
)

// Used are those of a repository's files that the kustomization of dir needs: kustomizations, resources and patches, in the
// order of files. What else the repository holds is none of the bundle's.
func Used(files []decode.File, dir string) ([]decode.File, diag.List) {
	g := newGraph(files)
	g.visit(dir, nil)
	if g.problems.HasErrors() {
		return nil, g.problems
	}
	var out []decode.File
	for _, f := range files {
		if g.kustomizations[f.Path] || g.patches[f.Path] || slices.Contains(g.resources, f.Path) {
			out = append(out, f)
		}
	}
	return out, g.problems
}
