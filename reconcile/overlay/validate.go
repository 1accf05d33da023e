package overlay

import (
	"danm.io/danm/spec/decode"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
	"danm.io/danm/spec/validate"
)

// Validate is validate.Files for a source: dir, if not "", is where its kustomization stands among files. Diagnostics and
// origins name the files of the source.
func Validate(files []decode.File, dir string) (model.Bundle, diag.List) {
	if dir == "" {
		return validate.Files(files)
	}
	built, problems := Build(files, dir)
	if problems.HasErrors() {
		return model.Bundle{}, problems
	}
	bundle, problems := validate.Files(built.Documents)
	for name, o := range bundle.Origins {
		o.File, o.Line = built.Origin(o.File, o.Line)
		bundle.Origins[name] = o
	}
	return bundle, built.Locate(problems).Sorted()
}
