// Package validate is the one rule book: it turns decoded documents into spec/model, or says everything that is wrong.
//
// It is pure. It does not know what a node's kernel looks like (node/plan) nor what a cluster holds already (admission).
package validate

import (
	"danm.io/danm/spec/decode"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// Files decodes and validates a bundle in one go: the call of the CLI and of the sync loops. The bundle is usable only if
// the list has no errors (it is the zero value otherwise); warnings may accompany a good one. The list is sorted.
func Files(files []decode.File) (model.Bundle, diag.List) {
	docs, problems := decode.Decode(files)
	bundle, more := Documents(docs)
	problems = append(problems, more...).Sorted()
	if problems.HasErrors() {
		return model.Bundle{}, problems
	}
	return bundle, problems
}

// Documents validates decoded documents. The bundle is usable only if neither list, this one and decode's, has errors.
func Documents(docs *decode.Documents) (model.Bundle, diag.List) { return model.Bundle{}, nil }
