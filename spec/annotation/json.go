package annotation

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

type kind string

const (
	array  kind = "an array"
	object kind = "an object"
	text   kind = "a string"
	other  kind = "a number, true, false or null"
)

// maxDepth is more than any request needs; deeper values are refused before they cost memory.
const maxDepth = 8

// value is a JSON value that remembers where it stands, which encoding/json's Unmarshal does not: offsets, the case of
// keys and repeated keys are all lost there.
type value struct {
	kind    kind
	offset  int // of its first byte
	text    string
	items   []value
	members []member
}

type member struct {
	key    string
	offset int
	value  value
}

func parseJSON(raw []byte) (value, error) {
	if !utf8.Valid(raw) {
		return value{}, errors.New("not UTF-8")
	}
	var probe json.RawMessage
	if err := json.Unmarshal(raw, &probe); err != nil { // the grammar, whole, before a token is used
		if s := (*json.SyntaxError)(nil); errors.As(err, &s) {
			return value{}, fmt.Errorf("at byte %d: %s", s.Offset, s.Error())
		}
		return value{}, err
	}
	p := parser{raw: raw, dec: json.NewDecoder(bytes.NewReader(raw))}
	p.dec.UseNumber()
	return p.value(0)
}

type parser struct {
	raw []byte
	dec *json.Decoder
}

// next returns the next token and the offset of its first byte. InputOffset points behind the token before it.
func (p *parser) next() (json.Token, int, error) {
	start := int(p.dec.InputOffset())
	for start < len(p.raw) && bytes.IndexByte([]byte(" \t\r\n,:"), p.raw[start]) >= 0 {
		start++
	}
	t, err := p.dec.Token()
	return t, start, err
}

func (p *parser) value(depth int) (value, error) {
	t, offset, err := p.next()
	if err != nil {
		return value{}, err
	}
	if depth > maxDepth {
		return value{}, fmt.Errorf("at byte %d: nested too deeply", offset)
	}
	v := value{kind: other, offset: offset}
	switch t := t.(type) {
	case string:
		v.kind, v.text = text, t
	case json.Delim:
		if t == '[' {
			v.kind = array
			err = p.items(&v, depth)
		} else {
			v.kind = object
			err = p.members(&v, depth)
		}
	}
	return v, err
}

func (p *parser) items(v *value, depth int) error {
	for p.dec.More() {
		item, err := p.value(depth + 1)
		if err != nil {
			return err
		}
		v.items = append(v.items, item)
	}
	_, err := p.dec.Token()
	return err
}

func (p *parser) members(v *value, depth int) error {
	for p.dec.More() {
		t, offset, err := p.next()
		if err != nil {
			return err
		}
		m := member{offset: offset}
		m.key, _ = t.(string) // the grammar was checked: a key is a string
		if m.value, err = p.value(depth + 1); err != nil {
			return err
		}
		v.members = append(v.members, m)
	}
	_, err := p.dec.Token()
	return err
}
