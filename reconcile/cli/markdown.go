package cli

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxMarkdown keeps a comment below what forges take (GitHub: 65,536 characters).
const maxMarkdown = 60_000

// diffMarkdown is the diff as a comment on a pull request: a summary, the documents, and the nodes' steps folded away.
func diffMarkdown(d Difference) string {
	var b strings.Builder
	title := fmt.Sprintf("**%s**, %s → %s", markdownText(d.Bundle), markdownCode(shortRevision(d.Old)), markdownCode(shortRevision(d.New)))
	if len(d.Changes)+len(d.Nodes) == 0 {
		fmt.Fprintf(&b, "%s: no differences\n", title)
		return b.String()
	}
	t := nodeTable(d.Nodes)
	fmt.Fprintf(&b, "%s: %d of %s change, %d to add, %d to change, %d to remove, %d blocked", title,
		len(d.Nodes), plural(d.Total, "node"), t.counts[0], t.counts[1], t.counts[2], t.counts[3])
	if t.disruptive > 0 {
		fmt.Fprintf(&b, ", **%d disruptive**", t.disruptive)
	}
	b.WriteString("\n\n")
	if len(d.Changes) > 0 {
		b.WriteString("| | document | place | change |\n|---|---|---|---|\n")
		for _, c := range d.Changes {
			fmt.Fprintf(&b, "| `%s` | %s %s | %s | %s |\n", c.Sign, strings.ToLower(c.Kind), markdownText(c.Key), markdownText(place(c)), markdownText(c.Text))
		}
		b.WriteString("\n")
	}
	if len(t.cells) > 0 {
		open := ""
		if t.disruptive+t.counts[3] > 0 {
			open = " open"
		}
		fmt.Fprintf(&b, "<details%s><summary>Steps on the nodes</summary>\n\n| node | step | disruption | Pods |\n|---|---|---|---|\n", open)
		for _, c := range t.cells {
			fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", markdownText(c[0]), markdownCode(c[1]), markdownText(c[2]), markdownText(c[3]))
		}
		b.WriteString("\n</details>\n")
	}
	if t.destroys {
		b.WriteString("\nSteps of class `destroys-pods` wait until no Pod is attached.\n")
	}
	return shortened(b.String())
}

// shortened ends at a whole line and says that something is missing.
func shortened(s string) string {
	if utf8.RuneCountInString(s) <= maxMarkdown {
		return s
	}
	s = s[:maxMarkdown] // bytes are at least as many as characters
	s = s[:strings.LastIndexByte(s, '\n')+1]
	return s + "\n...cut: the whole diff is longer than a comment may be; run `danmctl diff` to see all of it\n"
}

// markdownText shows a text as it is: nothing in it is markup, a mention or a new table cell.
func markdownText(s string) string {
	return strings.NewReplacer("\\", "\\\\", "|", "\\|", "`", "\\`", "*", "\\*", "_", "\\_", "[", "\\[", "]", "\\]", "<", "&lt;", ">", "&gt;", "@", "@\u200b", "#", "\\#", "\n", " ").Replace(s)
}

func markdownCode(s string) string {
	if s = strings.TrimSpace(s); s == "" {
		return ""
	}
	return "`" + strings.NewReplacer("|", "\\|", "`", "'", "\n", " ").Replace(s) + "`"
}
