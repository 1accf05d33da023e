package decode

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"

	"danm.io/danm/spec/bundle/v1"
)

type planKind int

const (
	structPlan planKind = iota
	listPlan
	mapPlan
	pointerPlan
	textPlan
	stringPlan
	boolPlan
	intPlan
)

// maxFields bounds the fields of one struct, so that "seen before?" needs no map.
const maxFields = 24

// plan is how a Go type is decoded, worked out once.
type plan struct {
	kind     planKind
	typ      reflect.Type
	elem     *plan
	fields   map[string]fieldPlan
	required []fieldPlan
	names    []string // sorted, for hints
}

type fieldPlan struct {
	name     string
	slot     int
	plan     *plan
	required bool
}

var plans = sync.OnceValue(func() map[reflect.Type]*plan {
	made := map[reflect.Type]*plan{}
	for _, t := range []reflect.Type{
		reflect.TypeFor[v1.Bundle](), reflect.TypeFor[v1.Topology](), reflect.TypeFor[v1.Network](),
		reflect.TypeFor[v1.Tenant](), reflect.TypeFor[v1.SRIOVPool](),
	} {
		made[t] = makePlan(t)
	}
	return made
})

func planOf(t reflect.Type) *plan { return plans()[t] }

var textType = reflect.TypeFor[encoding.TextUnmarshaler]()

func makePlan(t reflect.Type) *plan {
	p := &plan{typ: t}
	switch {
	case reflect.PointerTo(t).Implements(textType):
		p.kind = textPlan
	case t.Kind() == reflect.Struct:
		p.kind = structPlan
		p.fill(t)
	case t.Kind() == reflect.Slice:
		p.kind, p.elem = listPlan, makePlan(t.Elem())
	case t.Kind() == reflect.Map:
		p.kind, p.elem = mapPlan, makePlan(t.Elem())
	case t.Kind() == reflect.Pointer:
		p.kind, p.elem = pointerPlan, makePlan(t.Elem())
	case t.Kind() == reflect.String:
		p.kind = stringPlan
	case t.Kind() == reflect.Bool:
		p.kind = boolPlan
	case t.Kind() == reflect.Int, t.Kind() == reflect.Int64:
		p.kind = intPlan
	default: // a programming error, seen by the first test that decodes anything
		panic(fmt.Sprintf("decode: no plan for %s", t))
	}
	return p
}

func (p *plan) fill(t reflect.Type) {
	if t.NumField() > maxFields {
		panic(fmt.Sprintf("decode: %s has more than %d fields", t, maxFields))
	}
	p.fields = map[string]fieldPlan{}
	for i := range t.NumField() {
		sf := t.Field(i)
		name, _, _ := strings.Cut(sf.Tag.Get("json"), ",")
		f := fieldPlan{name: name, slot: i, plan: makePlan(sf.Type)}
		f.required = slices.Contains(strings.Split(sf.Tag.Get("schema"), ","), "required")
		p.fields[name] = f
		p.names = append(p.names, name)
		if f.required {
			p.required = append(p.required, f)
		}
	}
	slices.Sort(p.names)
}
