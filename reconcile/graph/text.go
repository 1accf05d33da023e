package graph

import (
	"fmt"
	"strings"
)

var columnNames = [columns]string{"nodes", "fabrics and devices", "networks", "tenants"}

// Mermaid is the picture for Markdown (https://mermaid.js.org/syntax/flowchart.html), which forges draw by themselves.
func (g Graph) Mermaid() string {
	var b strings.Builder
	b.WriteString("flowchart LR\n")
	ids := g.short()
	for column := range columns {
		if g.count(column) == 0 {
			continue
		}
		fmt.Fprintf(&b, "  subgraph c%d[\"%s\"]\n", column, columnNames[column])
		for _, x := range g.Boxes {
			if x.Column == column {
				fmt.Fprintf(&b, "    %s[\"%s\"]\n", ids[x.ID], mermaidText(strings.Join(x.Lines, "\n")))
			}
		}
		b.WriteString("  end\n")
	}
	for _, e := range g.Edges {
		if e.Label == "" {
			fmt.Fprintf(&b, "  %s --- %s\n", ids[e.From], ids[e.To])
		} else {
			fmt.Fprintf(&b, "  %s ---|\"%s\"| %s\n", ids[e.From], mermaidText(e.Label), ids[e.To])
		}
	}
	return b.String()
}

// mermaidText writes what Mermaid would take for syntax or HTML as its entities.
func mermaidText(s string) string {
	return strings.NewReplacer("#", "#35;", "\"", "#quot;", "<", "#lt;", ">", "#gt;", "&", "#amp;", "\n", "<br/>").Replace(s)
}

// Dot is the picture for Graphviz (https://graphviz.org/doc/info/lang.html).
func (g Graph) Dot() string {
	var b strings.Builder
	fmt.Fprintf(&b, "graph %s {\n  rankdir=LR;\n  node [shape=box, style=rounded, fontname=\"sans-serif\"];\n", dotText(g.Title))
	ids := g.short()
	for column := range columns {
		if g.count(column) == 0 {
			continue
		}
		b.WriteString("  { rank=same;\n")
		for _, x := range g.Boxes {
			if x.Column == column {
				fmt.Fprintf(&b, "    %s [label=%s];\n", ids[x.ID], dotText(strings.Join(x.Lines, "\n")))
			}
		}
		b.WriteString("  }\n")
	}
	for _, e := range g.Edges {
		fmt.Fprintf(&b, "  %s -- %s [label=%s];\n", ids[e.From], ids[e.To], dotText(e.Label))
	}
	b.WriteString("}\n")
	return b.String()
}

func dotText(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(s) + `"`
}

// short gives boxes names without anything that a format could take for syntax.
func (g Graph) short() map[string]string {
	out := map[string]string{}
	for i, x := range g.Boxes {
		out[x.ID] = fmt.Sprintf("b%d", i)
	}
	return out
}

func (g Graph) count(column int) (n int) {
	for _, x := range g.Boxes {
		if x.Column == column {
			n++
		}
	}
	return n
}
