package cli

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"danm.io/danm/node/plan"
	"danm.io/danm/spec/diag"
)

// text writes lines, coloured by their sign where that is wanted. What others wrote into objects and files is shown as it is, and
// tells a terminal nothing.
func (o IO) text(s string) error {
	s = printable(s)
	if o.Color {
		lines := strings.SplitAfter(s, "\n")
		for i, l := range lines {
			body := strings.TrimSuffix(l, "\n")
			lines[i] = paintSign(body) + l[len(body):]
		}
		s = strings.Join(lines, "")
	}
	_, err := io.WriteString(o.Out, s)
	return err
}

// printable is a text of lines with everything that is no character of it written as Go would.
func printable(s string) string {
	plain := func(r rune) bool { return r == '\n' || unicode.IsPrint(r) }
	if !strings.ContainsFunc(s, func(r rune) bool { return !plain(r) }) && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case plain(r):
			b.WriteRune(r)
		default:
			q := strconv.QuoteRune(r)
			b.WriteString(q[1 : len(q)-1])
		}
		s = s[size:]
	}
	return b.String()
}

// diffText is the form people read: a header, documents, nodes, totals.
func diffText(d Difference) string {
	if len(d.Changes)+len(d.Nodes) == 0 {
		return fmt.Sprintf("%s: %s -> %s  no differences\n", d.Bundle, shortRevision(d.Old), shortRevision(d.New))
	}
	t := nodeTable(d.Nodes)
	var b strings.Builder
	networks := 0
	for _, c := range d.Changes {
		if c.Kind == "Network" {
			networks++
		}
	}
	fmt.Fprintf(&b, "%s: %s -> %s     %s, %d of %s, %d disruptive\n", d.Bundle, shortRevision(d.Old), shortRevision(d.New),
		plural(networks, "network"), len(d.Nodes), plural(d.Total, "node"), t.disruptive)
	b.WriteString(changeLines(d.Changes))
	b.WriteString(t.String())
	return b.String()
}

func changeLines(changes []Change) string {
	cells := make([][]string, len(changes))
	for i, c := range changes {
		key := c.Key
		if c.Kind != "Network" {
			key = strings.ToLower(c.Kind) + " " + c.Key
		}
		cells[i] = []string{c.Sign, key, place(c), c.Text}
	}
	return columns("", []string{" ", "  ", " "}, cells)
}

func place(c Change) string {
	return diag.Diagnostic{File: c.File, Line: c.Line}.Position()
}

// table is the steps of several nodes, those alike written once.
type table struct {
	cells      [][]string
	disruptive int  // different steps of class link-down and above
	destroys   bool // one of them deletes Pods' links
	counts     [4]int
}

// signs are the totals' columns.
const signs = "+~-!"

func nodeTable(nodes []NodeDiff) table {
	t := table{}
	seen := map[string]string{} // text of rows → first node
	disruptive := map[string]bool{}
	for _, n := range nodes {
		rs := rows(n.Plan)
		for _, r := range rs {
			t.counts[strings.IndexByte(signs, r.sign)]++
			if r.sign != '!' && plan.Disruption(r.disruption).Rank() >= plan.LinkDown.Rank() {
				disruptive[r.text] = true
			}
			t.destroys = t.destroys || r.disruption == string(plan.DestroysPods)
		}
		t.addNode(n, rs, seen)
	}
	t.disruptive = len(disruptive)
	return t
}

func (t *table) addNode(n NodeDiff, rs []row, seen map[string]string) {
	name := n.Node
	line := func(text, disruption, pods string) {
		t.cells = append(t.cells, []string{name, text, disruption, pods})
		name = ""
	}
	if n.Note != "" {
		line(n.Note, "", "")
	}
	if len(rs) == 0 {
		return
	}
	var key []string
	var pods []string
	for _, r := range rs {
		key = append(key, r.text, r.disruption, r.more)
		if r.pods != "-" {
			pods = append(pods, r.pods)
		}
	}
	k := strings.Join(key, "\x00")
	if first, ok := seen[k]; ok {
		line("same as "+first, n.Worst, strings.Join(append(pods, "-")[:max(1, len(pods))], "; "))
		return
	}
	seen[k] = n.Node
	for _, r := range rs {
		line(r.text, r.disruption, r.pods)
		if r.more != "" {
			line("  "+r.more, "", "")
		}
	}
}

func (t table) String() string {
	var b strings.Builder
	if len(t.cells) > 0 {
		b.WriteString(columns("  ", []string{"  ", "  ", "  "}, slices.Concat([][]string{{"NODE", "STEP", "DISRUPTION", "PODS"}}, t.cells)))
	}
	if t.destroys {
		b.WriteString("Waits: destroys-pods steps wait until no Pod is attached (drain the node, or detach the Pods)\n")
	}
	if len(t.cells) > 0 {
		fmt.Fprintf(&b, "%d to add, %d to change, %d to remove, %d blocked\n", t.counts[0], t.counts[1], t.counts[2], t.counts[3])
	}
	return b.String()
}

// columns aligns cells. The last column is not padded, an empty tail not written.
func columns(indent string, gaps []string, cells [][]string) string {
	width := make([]int, len(gaps))
	for _, c := range cells {
		for i := range width {
			if empty(c[i+1:]) { // runs free: notes and remedies do not widen the column
				break
			}
			width[i] = max(width[i], utf8.RuneCountInString(c[i]))
		}
	}
	var b strings.Builder
	for _, c := range cells {
		line := indent
		for i, s := range c {
			line += s
			if i < len(gaps) {
				line += strings.Repeat(" ", max(0, width[i]-utf8.RuneCountInString(s))) + gaps[i]
			}
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	return b.String()
}

func empty(cells []string) bool {
	return !slices.ContainsFunc(cells, func(s string) bool { return s != "" })
}

// shortRevision is a revision as people say it: seven digits of a hash, "working tree" for a directory.
func shortRevision(r string) string {
	if strings.HasPrefix(r, "dir@") {
		return "working tree"
	}
	if i := strings.LastIndex(r, ":"); i >= 0 && len(r) > i+8 {
		return r[:i+8]
	}
	return r
}
