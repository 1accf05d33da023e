package v1

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

// schema is the part of JSON Schema that documents need. Field order is output order.
type schema struct {
	Schema      string             `json:"$schema,omitempty"`
	ID          string             `json:"$id,omitempty"`
	Title       string             `json:"title,omitempty"`
	Description string             `json:"description,omitempty"`
	Ref         string             `json:"$ref,omitempty"`
	Type        string             `json:"type,omitempty"`
	Const       string             `json:"const,omitempty"`
	Enum        []string           `json:"enum,omitempty"`
	Examples    []string           `json:"examples,omitempty"` // known words where others are possible: editors offer them
	Pattern     string             `json:"pattern,omitempty"`
	Minimum     *int64             `json:"minimum,omitempty"`
	Maximum     *int64             `json:"maximum,omitempty"`
	Items       *schema            `json:"items,omitempty"`
	Properties  map[string]*schema `json:"properties,omitempty"` // encoding/json sorts the keys
	Required    []string           `json:"required,omitempty"`
	Additional  any                `json:"additionalProperties,omitempty"` // false, or the schema of the values
	OneOf       []*schema          `json:"oneOf,omitempty"`
	Defs        map[string]*schema `json:"$defs,omitempty"`
}

// Schema is the JSON Schema (draft 2020-12) of one document of a bundle, for editors and other checkers. It says what
// can be said of one field at a time; rules between fields and documents are spec/validate's.
func Schema() ([]byte, error) {
	root := &schema{
		Schema: "https://json-schema.org/draft/2020-12/schema",
		ID:     "https://" + APIVersion + "/schema.json",
		Title:  "A document of a DANM bundle, " + APIVersion,
		Defs:   map[string]*schema{},
	}
	for _, t := range []reflect.Type{
		reflect.TypeFor[Bundle](), reflect.TypeFor[Topology](), reflect.TypeFor[Network](),
		reflect.TypeFor[Tenant](), reflect.TypeFor[SRIOVPool](),
	} {
		ref, err := describe(t, root.Defs)
		if err != nil {
			return nil, err
		}
		def := root.Defs[t.Name()]
		def.Properties["apiVersion"].Const = APIVersion
		def.Properties["kind"].Const = t.Name()
		root.OneOf = append(root.OneOf, ref)
	}
	return json.MarshalIndent(root, "", "  ")
}

// describe is the schema of a type; structs go into defs and are referred to.
func describe(t reflect.Type, defs map[string]*schema) (*schema, error) {
	if t == reflect.TypeFor[ID]() {
		return &schema{OneOf: []*schema{{Type: "integer"}, {Const: "auto"}}}, nil
	}
	if t == reflect.TypeFor[Share]() {
		return &schema{OneOf: []*schema{{Type: "integer"}, {Type: "string", Pattern: "^[0-9]+%$"}}}, nil
	}
	switch t.Kind() {
	case reflect.Pointer:
		return describe(t.Elem(), defs)
	case reflect.Struct:
		return &schema{Ref: "#/$defs/" + t.Name()}, structure(t, defs)
	case reflect.Slice:
		items, err := describe(t.Elem(), defs)
		return &schema{Type: "array", Items: items}, err
	case reflect.Map:
		values, err := describe(t.Elem(), defs)
		return &schema{Type: "object", Additional: values}, err
	case reflect.String:
		return &schema{Type: "string"}, nil
	case reflect.Bool:
		return &schema{Type: "boolean"}, nil
	case reflect.Int, reflect.Int64:
		return &schema{Type: "integer"}, nil
	}
	return nil, fmt.Errorf("schema of %s: no rule for %s", t, t.Kind())
}

func structure(t reflect.Type, defs map[string]*schema) error {
	if defs[t.Name()] != nil {
		return nil
	}
	def := &schema{Type: "object", Description: docs[t.Name()], Properties: map[string]*schema{}, Additional: false}
	defs[t.Name()] = def
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		s, err := describe(f.Type, defs)
		if err != nil {
			return fmt.Errorf("field %s of %s: %w", name, t.Name(), err)
		}
		s.Description = docs[t.Name()+"."+name]
		required, err := s.restrict(f.Tag.Get("schema"))
		if err != nil {
			return fmt.Errorf("field %s of %s: %w", name, t.Name(), err)
		}
		if required {
			def.Required = append(def.Required, name)
		}
		def.Properties[name] = s
	}
	return nil
}

// restrict applies a field's schema tag: "required,min=1,max=4094".
func (s *schema) restrict(tag string) (required bool, err error) {
	target := s
	if len(s.OneOf) > 0 {
		target = s.OneOf[0] // bounds are those of the number
	}
	for part := range strings.SplitSeq(tag, ",") {
		word, value, _ := strings.Cut(part, "=")
		switch word {
		case "":
		case "required":
			required = true
		case "enum":
			target.Enum = strings.Split(value, "|")
		case "known":
			target.Examples = strings.Split(value, "|")
		case "pattern":
			target.Pattern = value
		case "min", "max":
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return false, fmt.Errorf("tag %s: %w", part, err)
			}
			if word == "min" {
				target.Minimum = &n
			} else {
				target.Maximum = &n
			}
		default:
			return false, fmt.Errorf("tag %s: unknown word", part)
		}
	}
	return required, nil
}
