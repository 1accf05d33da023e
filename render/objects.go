package render

import "danm.io/danm/spec/model"

// Object is one API object. Value marshals to its manifest.
type Object struct {
	APIVersion string
	Kind       string
	Namespace  string
	Name       string
	Value      any
}

func objects(b model.Bundle, networks []model.Network) []Object { return nil }
