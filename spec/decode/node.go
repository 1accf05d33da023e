package decode

import (
	"fmt"
	"strconv"
	"strings"

	"danm.io/danm/spec/diag"
	"go.yaml.in/yaml/v3"
)

// resolve follows an alias to what it stands for.
func resolve(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// field is the scalar under a key of a map, the first if there are several; nil if there is none.
func field(n *yaml.Node, name string) *yaml.Node {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if v := resolve(n.Content[i+1]); n.Content[i].Value == name && v.Kind == yaml.ScalarNode {
			return v
		}
	}
	return nil
}

// measure finds out how deep a document is and how many nodes its aliases add, without expanding any: each anchor is
// measured once. A bomb of a few hundred bytes would otherwise become billions of nodes.
type measure struct {
	anchors map[*yaml.Node]extent
	budget  int
	guilty  *yaml.Node // innermost node that passes the budget
	cycle   *yaml.Node // alias inside its own anchor
	deep    *yaml.Node
}

// extent of a node: all its nodes with aliases expanded, those that aliases added, and its height.
type extent struct{ size, added, height int }

var underway = extent{size: -1}

// enough keeps the sums from overflowing; it is above every budget.
const enough = 1 << 40

func (m *measure) of(n *yaml.Node, depth int) extent {
	if depth > MaxDepth { // aliases that lead deeper are found by the height of their anchor
		m.deep = n
		return extent{}
	}
	if n.Kind == yaml.AliasNode {
		e, known := m.anchors[n.Alias]
		switch {
		case !known || e == underway:
			m.cycle = n
			return extent{}
		case depth+e.height > MaxDepth:
			m.deep = n
		}
		e.added = e.size
		return m.judge(n, e)
	}
	if n.Anchor != "" {
		if m.anchors == nil {
			m.anchors = map[*yaml.Node]extent{}
		}
		m.anchors[n] = underway
	}
	e := extent{size: 1}
	for _, c := range n.Content {
		x := m.of(c, depth+1)
		e.size, e.added, e.height = min(e.size+x.size, enough), min(e.added+x.added, enough), max(e.height, x.height+1)
	}
	if n.Anchor != "" {
		m.anchors[n] = e
	}
	return m.judge(n, e)
}

func (m *measure) judge(n *yaml.Node, e extent) extent {
	if e.added > m.budget && m.guilty == nil {
		m.guilty = n
	}
	return e
}

// bounded says whether a document is safe to walk, and reports why not.
func (d *decoder) bounded(root *yaml.Node) bool {
	m := measure{budget: d.expansion}
	e := m.of(root, 0)
	switch {
	case m.cycle != nil:
		d.add(diag.AliasBomb, m.cycle.Line, m.cycle.Column, "", fmt.Sprintf("alias *%s stands inside its own anchor, or for an anchor of another document", m.cycle.Value), "write the value out")
	case m.guilty != nil:
		d.add(diag.AliasBomb, m.guilty.Line, m.guilty.Column, "", fmt.Sprintf("aliases expand to more than %d values", MaxExpansion), "write the values out")
	case m.deep != nil:
		d.add(diag.TooDeep, m.deep.Line, m.deep.Column, "", fmt.Sprintf("lists and maps are nested more than %d deep", MaxDepth), "")
	default:
		d.expansion -= e.added
		return true
	}
	return false
}

// At is the place of the field at path, such as `spec.fabrics[0].vxlan.port` or `spec.nodes[1].labels["site"]`; the
// nearest enclosing field that exists if the field itself does not.
func (w Where) At(path string) (line, col int) {
	if w.root == nil {
		return w.Line, 0
	}
	n, line, col := w.root, w.root.Line, w.root.Column
	for path != "" {
		var s step
		if s, path = nextStep(path); s.index >= 0 {
			if n.Kind != yaml.SequenceNode || s.index >= len(n.Content) {
				break
			}
			n = n.Content[s.index]
			line, col = n.Line, n.Column
		} else {
			key, value := lookup(n, s.name)
			if value == nil {
				break
			}
			n, line, col = value, value.Line, value.Column
			if (n.Kind == yaml.MappingNode || n.Kind == yaml.SequenceNode) && n.Style&yaml.FlowStyle == 0 {
				line, col = key.Line, key.Column // a block begins on the line below its name
			}
		}
		n = resolve(n)
	}
	return line, col
}

func lookup(n *yaml.Node, name string) (key, value *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		return nil, nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if resolve(n.Content[i]).Value == name {
			return n.Content[i], n.Content[i+1]
		}
	}
	return nil, nil
}

// nextStep cuts the first part off a path. Paths are made by this project: a malformed one ends the walk.
func nextStep(path string) (step, string) {
	path = strings.TrimPrefix(path, ".")
	if !strings.HasPrefix(path, "[") {
		end := strings.IndexAny(path, ".[")
		if end < 0 {
			end = len(path)
		}
		return step{name: path[:end], index: -1}, path[end:]
	}
	if quoted, err := strconv.QuotedPrefix(path[1:]); err == nil {
		name, _ := strconv.Unquote(quoted)
		return step{name: name, index: -1}, strings.TrimPrefix(path[1+len(quoted):], "]")
	}
	number, rest, _ := strings.Cut(path[1:], "]")
	i, err := strconv.Atoi(number)
	if err != nil || i < 0 {
		return step{name: number, index: -1}, ""
	}
	return step{index: i}, rest
}
