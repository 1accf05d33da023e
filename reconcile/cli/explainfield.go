package cli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	v1 "danm.io/danm/spec/bundle/v1"
	"danm.io/danm/spec/diag"
)

// field is the part of a bundle's JSON Schema that people want to read.
type field struct {
	Description string
	Ref         string `json:"$ref"`
	Type        string
	Const       string
	Enum        []string
	Examples    []string // known words, where others are possible
	Pattern     string
	Minimum     *int64
	Maximum     *int64
	Items       *field
	Properties  map[string]field
	Required    []string
	Additional  json.RawMessage `json:"additionalProperties"` // false, or the schema of the values
	OneOf       []field
}

// documentFields are the definitions of all objects in a bundle's documents, and the kinds among them.
type documentFields struct {
	Defs  map[string]field `json:"$defs"`
	OneOf []field          // kinds
}

func readFields() (d documentFields, err error) {
	b, err := v1.Schema()
	if err == nil {
		err = json.Unmarshal(b, &d)
	}
	return d, err
}

// Kinds are the kinds of a bundle's documents, for completion.
func Kinds() []string {
	d, err := readFields()
	if err != nil { // of our own making, and tested
		return nil
	}
	return d.kinds()
}

func (d documentFields) kinds() (out []string) {
	for _, ref := range d.OneOf {
		out = append(out, ref.name())
	}
	return out
}

// explainField prints what a kind, or a field given as Kind.field.field, is, and the fields in it; known is false if the first word is no kind.
func explainField(path string, io IO) (known bool, err error) {
	d, err := readFields()
	if err != nil {
		return false, err
	}
	words := strings.Split(path, ".")
	kinds := d.kinds()
	i := slices.IndexFunc(kinds, func(kind string) bool { return strings.EqualFold(kind, words[0]) })
	if i < 0 {
		return false, nil
	}
	words[0] = kinds[i]
	f, text := d.Defs[kinds[i]], d.Defs[kinds[i]].Description
	for i, word := range words[1:] {
		inside := d.inside(f)
		next, has := inside.Properties[word]
		if !has && len(inside.Properties) == 0 {
			return true, &UsageError{fmt.Sprintf("%s holds %s, which has no fields", strings.Join(words[:i+1], "."), d.kind(f))}
		}
		if !has {
			where := strings.Join(words[:i+1], ".")
			return true, &UsageError{fmt.Sprintf("%s has no field %q; %s", where, word, cmp.Or(diag.Suggest(word, sortedNames(inside.Properties)), "danmctl explain "+where+" lists them"))}
		}
		f, text = next, next.Description
	}
	out := fmt.Sprintf("%s (%s, %s)\n\n%s", strings.Join(words, "."), d.kind(f), v1.APIVersion, wrapped(text, ""))
	inside := d.inside(f)
	if len(words) > 1 && inside.Description != "" && inside.Description != text {
		out += wrapped(inside.Description, "")
	}
	if len(inside.Properties) > 0 {
		var cells [][]string
		for _, name := range sortedNames(inside.Properties) {
			p := inside.Properties[name]
			kind := d.kind(p)
			if slices.Contains(inside.Required, name) {
				kind += ", required"
			}
			cells = append(cells, []string{name, kind})
		}
		lines := strings.SplitAfter(columns("  ", []string{"  "}, cells), "\n")
		out += "\n"
		for i, c := range cells {
			out += lines[i] + wrapped(inside.Properties[c[0]].Description, "      ")
		}
	}
	return true, io.text(out)
}

func sortedNames(m map[string]field) []string {
	out := make([]string, 0, len(m))
	for name := range m {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

func (f field) name() string { return strings.TrimPrefix(f.Ref, "#/$defs/") }

// values is the schema of a map's values, nil if it is none.
func (f field) values() *field {
	var v field
	if f.Type != "object" || len(f.Additional) == 0 || json.Unmarshal(f.Additional, &v) != nil {
		return nil
	}
	return &v
}

// inside is the object whose fields follow a dot behind f: itself, or what a list or a map holds.
func (d documentFields) inside(f field) field {
	switch {
	case f.Ref != "":
		return d.Defs[f.name()]
	case f.Items != nil:
		return d.inside(*f.Items)
	case f.values() != nil:
		return d.inside(*f.values())
	}
	return f
}

// kind says what a field holds.
func (d documentFields) kind(f field) string {
	switch {
	case f.Ref != "" || len(f.Properties) > 0:
		return "object"
	case f.Items != nil:
		return "list of " + d.kind(*f.Items)
	case f.values() != nil:
		return "map of " + d.kind(*f.values())
	case f.Const != "":
		return f.Const
	case len(f.Enum) > 0:
		return strings.Join(f.Enum, " or ")
	case len(f.Examples) > 0:
		return strings.Join(f.Examples, ", ") + " or another"
	case len(f.OneOf) > 0:
		kinds := make([]string, len(f.OneOf))
		for i, o := range f.OneOf {
			kinds[i] = d.kind(o)
		}
		return strings.Join(kinds, " or ")
	case f.Minimum != nil && f.Maximum != nil:
		return fmt.Sprintf("%s %d to %d", f.Type, *f.Minimum, *f.Maximum)
	case f.Minimum != nil:
		return fmt.Sprintf("%s from %d on", f.Type, *f.Minimum)
	case f.Maximum != nil:
		return fmt.Sprintf("%s up to %d", f.Type, *f.Maximum)
	case f.Pattern != "":
		return f.Type + " " + f.Pattern
	}
	return f.Type
}
