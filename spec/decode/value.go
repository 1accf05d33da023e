package decode

import (
	"encoding"
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"danm.io/danm/spec/diag"
	"go.yaml.in/yaml/v3"
)

// step is one part of a field's path: a name, a list index, or a key of a free map.
type step struct {
	name  string
	index int // -1 = by name
	key   bool
}

// String is "spec.fabrics[0].labels[\"a.b/c\"]".
func pathString(steps []step) string {
	var b strings.Builder
	for _, s := range steps {
		switch {
		case s.key:
			b.WriteString("[" + strconv.Quote(s.name) + "]")
		case s.index >= 0:
			b.WriteString("[" + strconv.Itoa(s.index) + "]")
		case b.Len() > 0:
			b.WriteString("." + s.name)
		default:
			b.WriteString(s.name)
		}
	}
	return b.String()
}

func (d *decoder) push(s step) { d.path = append(d.path, s) }
func (d *decoder) pop()        { d.path = d.path[:len(d.path)-1] }

// fail reports a field that cannot be decoded; the document is not whole then.
func (d *decoder) fail(code diag.Code, n *yaml.Node, summary, hint string) {
	d.broken = true
	d.add(code, n.Line, n.Column, pathString(d.path), summary, hint)
}

func (d *decoder) wrongType(n, at *yaml.Node, want, hint string) {
	d.fail(diag.WrongType, at, fmt.Sprintf("expected %s, got %s", want, describe(n)), hint)
}

// value decodes a node into v. Aliases were bounded before, so following them is safe.
func (d *decoder) value(at *yaml.Node, p *plan, v reflect.Value) {
	n := resolve(at)
	switch p.kind {
	case structPlan:
		d.structure(n, at, p, v)
	case listPlan:
		d.list(n, at, p, v)
	case mapPlan:
		d.table(n, at, p, v)
	case pointerPlan:
		v.Set(reflect.New(p.elem.typ))
		d.value(at, p.elem, v.Elem())
	case textPlan:
		d.text(n, at, v)
	case stringPlan:
		if n.Kind != yaml.ScalarNode || n.Tag != "!!str" && n.Tag != "!!merge" { // a plain << means something as a key only
			hint := ""
			if n.Kind == yaml.ScalarNode {
				hint = "write it " + inWords(pathString(d.path), n.Value)
			}
			d.wrongType(n, at, "a string", hint)
			return
		}
		v.SetString(n.Value)
	case boolPlan:
		if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" {
			d.wrongType(n, at, "true or false", "write true or false, without quotes")
			return
		}
		v.SetBool(strings.EqualFold(n.Value, "true"))
	case intPlan:
		d.integer(n, at, v)
	}
}

// inWords says how a value is written that YAML took for a number or a truth value where a string is meant. Durations and
// versions would not be right in quotes alone.
func inWords(path, value string) string {
	_, number := strconv.ParseFloat(value, 64)
	switch field := path[strings.LastIndexByte(path, '.')+1:]; {
	case number == nil && (field == "confirmTimeout" || field == "timeout" || field == "soak"):
		return "with its unit: " + value + "s"
	case number == nil && field == "version":
		return "as three numbers: " + value + strings.Repeat(".0", max(0, 2-strings.Count(value, ".")))
	}
	return "in quotes: " + strconv.Quote(value)
}

// decimal is the one way to write a number: 010 would be eight in YAML 1.1, and a VLAN is no place for riddles.
var decimal = regexp.MustCompile(`^-?(0|[1-9][0-9]*)$`)

// digits is what a word must not be: a number in quotes, perhaps with a leading zero.
var digits = regexp.MustCompile(`^[-+]?[0-9]+$`)

func (d *decoder) integer(n, at *yaml.Node, v reflect.Value) {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!int" {
		hint := ""
		if n.Kind == yaml.ScalarNode && n.Tag == "!!str" && decimal.MatchString(n.Value) {
			hint = "write it without quotes: " + n.Value
		}
		d.wrongType(n, at, "a number", hint)
		return
	}
	i, err := strconv.ParseInt(n.Value, 10, 64)
	if !decimal.MatchString(n.Value) || err != nil || v.OverflowInt(i) {
		d.fail(diag.WrongType, at, fmt.Sprintf("%s is not a plain decimal number of a sensible size", n.Value), "")
		return
	}
	v.SetInt(i)
}

func (d *decoder) text(n, at *yaml.Node, v reflect.Value) {
	quoted := n.Tag == "!!str" && digits.MatchString(n.Value)
	if n.Kind != yaml.ScalarNode || quoted || (n.Tag == "!!int" && !decimal.MatchString(n.Value)) || (n.Tag != "!!int" && n.Tag != "!!str") {
		hint := ""
		if quoted && decimal.MatchString(n.Value) {
			hint = "write it without quotes: " + n.Value
		}
		d.wrongType(n, at, "a number or a word", hint)
		return
	}
	if err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(n.Value)); err != nil {
		d.fail(diag.WrongType, at, err.Error(), "")
	}
}

func (d *decoder) structure(n, at *yaml.Node, p *plan, v reflect.Value) {
	if n.Kind != yaml.MappingNode || n.Tag != "!!map" {
		d.wrongType(n, at, "a map of fields", "")
		return
	}
	var seen [maxFields]*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := resolve(n.Content[i]), n.Content[i+1]
		f, ok := p.fields[key.Value]
		d.push(step{name: key.Value, index: -1})
		switch {
		case key.Kind != yaml.ScalarNode:
			d.fail(diag.UnknownField, n.Content[i], "the key of a field is a word, not "+describe(key), "")
		case key.Tag == "!!merge":
			d.fail(diag.UnknownField, key, "merge keys (<<) are not read", "write the fields out; an alias may stand for a whole value")
		case !ok:
			d.fail(diag.UnknownField, key, fmt.Sprintf("unknown field %q", key.Value), unknownHint(key.Value, p))
		case seen[f.slot] != nil:
			d.fail(diag.DuplicateField, key, fmt.Sprintf("field %q is given twice, first in line %d", key.Value, seen[f.slot].Line), "keep one of them")
		default:
			seen[f.slot] = key
			if !isNull(value) { // a field without a value is an absent one, as in Kubernetes
				d.value(value, f.plan, v.Field(f.slot))
			} else if f.required {
				d.fail(diag.MissingField, key, fmt.Sprintf("field %q has no value", key.Value), "")
			}
		}
		d.pop()
	}
	for _, f := range p.required {
		if seen[f.slot] == nil {
			d.push(step{name: f.name, index: -1})
			d.fail(diag.MissingField, at, fmt.Sprintf("field %q is missing", f.name), "")
			d.pop()
		}
	}
}

func unknownHint(name string, p *plan) string {
	if hint := diag.Suggest(name, p.names); hint != "" {
		return hint
	}
	return "fields here: " + strings.Join(p.names, ", ")
}

func (d *decoder) list(n, at *yaml.Node, p *plan, v reflect.Value) {
	if n.Kind != yaml.SequenceNode || n.Tag != "!!seq" {
		hint := ""
		if n.Kind == yaml.ScalarNode {
			hint = "write it as a list: [" + n.Value + "]"
			if p.elem.kind == stringPlan {
				hint = "write it as a list: [" + strconv.Quote(n.Value) + "]"
			}
		}
		d.wrongType(n, at, "a list", hint)
		return
	}
	v.Set(reflect.MakeSlice(p.typ, len(n.Content), len(n.Content)))
	for i, e := range n.Content {
		d.push(step{index: i})
		d.value(e, p.elem, v.Index(i))
		d.pop()
	}
}

// table decodes a map of strings to strings.
func (d *decoder) table(n, at *yaml.Node, p *plan, v reflect.Value) {
	if n.Kind != yaml.MappingNode || n.Tag != "!!map" {
		d.wrongType(n, at, "a map", "")
		return
	}
	v.Set(reflect.MakeMapWithSize(p.typ, len(n.Content)/2))
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := resolve(n.Content[i])
		d.push(step{name: key.Value, key: true})
		value := reflect.New(p.elem.typ).Elem() // a plain << is a key like others here: merging into a free map is not offered
		switch {
		case key.Kind != yaml.ScalarNode || key.Tag != "!!str" && key.Tag != "!!merge":
			d.wrongType(key, n.Content[i], "a string as key", "")
		case lines[key.Value] != 0:
			d.fail(diag.DuplicateField, key, fmt.Sprintf("key %q is given twice, first in line %d", key.Value, lines[key.Value]), "keep one of them")
		default:
			lines[key.Value] = key.Line
			d.value(n.Content[i+1], p.elem, value)
			v.SetMapIndex(reflect.ValueOf(key.Value), value)
		}
		d.pop()
	}
}

func isNull(n *yaml.Node) bool {
	n = resolve(n)
	return n.Kind == yaml.ScalarNode && n.Tag == "!!null"
}

// describe says what a node is, for people.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a map"
	case yaml.SequenceNode:
		return "a list"
	}
	words := map[string]string{"!!str": "the string", "!!int": "the number", "!!float": "the number", "!!bool": "the truth value", "!!timestamp": "the date"}
	if n.Tag == "!!null" {
		return "nothing"
	}
	if w, ok := words[n.Tag]; ok {
		return w + " " + shorten(n.Value)
	}
	return "a value tagged " + shorten(n.Tag)
}

func shorten(s string) string {
	if len(s) > 40 {
		return strconv.Quote(s[:40]) + "…"
	}
	return strconv.Quote(s)
}
