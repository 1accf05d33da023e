package cli

import (
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"danm.io/danm/node/plan"
	"danm.io/danm/spec/model"
)

func TestMarkdown(t *testing.T) {
	step := plan.Step{Op: plan.DeleteLink, Link: &model.Link{Name: "vx_a", Kind: model.VXLAN, Parent: "eth0", VXLAN: &model.VXLANOptions{VNI: 5}}, Disruption: plan.DestroysPods, Pods: []string{"acme/a"}}
	d := Difference{
		Bundle: "edge", Old: "main@sha1:0123456789", New: "dir@sha256:0", Total: 3,
		Changes: []Change{{Sign: "~", Kind: "Network", Key: "acme/voice", File: "a.yaml", Line: 3, Text: "x|y `z` @admin #1 <b> -> _c_"}},
		Nodes:   []NodeDiff{{Node: "n1", Plan: plan.Plan{Steps: []plan.Step{step}}}, {Node: "n2", Plan: plan.Plan{Blocked: []plan.Blocked{{ID: "link/x", Reason: "exists | really", Remedy: "remove it"}}}}},
	}
	want := "**edge**, `main@sha1:0123456` → `working tree`: 2 of 3 nodes change, 0 to add, 0 to change, 1 to remove, 1 blocked, **1 disruptive**\n\n" +
		"| | document | place | change |\n|---|---|---|---|\n" +
		"| `~` | network acme/voice | a.yaml:3 | x\\|y \\`z\\` @\u200badmin \\#1 &lt;b&gt; -&gt; \\_c\\_ |\n\n" +
		"<details open><summary>Steps on the nodes</summary>\n\n| node | step | disruption | Pods |\n|---|---|---|---|\n" +
		"| n1 | `- link vx_a vxlan 5 dev eth0` | destroys-pods | 1 (acme/a) |\n" +
		"| n2 | `! blocked: link/x: exists \\| really` | - | - |\n|  | `remedy: remove it` |  |  |\n" +
		"\n</details>\n\nSteps of class `destroys-pods` wait until no Pod is attached.\n"
	if got := diffMarkdown(d); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if got := diffMarkdown(Difference{Bundle: "edge", Old: "a", New: "b"}); got != "**edge**, `a` → `b`: no differences\n" {
		t.Errorf("got %q", got)
	}
}

func TestMarkdownIsCutAtALine(t *testing.T) {
	d := Difference{Bundle: "edge"}
	for i := range 3000 {
		d.Changes = append(d.Changes, Change{Sign: "+", Kind: "Network", Key: fmt.Sprintf("ns/net-%d", i), Text: strings.Repeat("ä", 30)})
	}
	got := diffMarkdown(d)
	if n := utf8.RuneCountInString(got); n > 65_536 || n < 20_000 || !utf8.ValidString(got) || !strings.HasSuffix(got, "see all of it\n") {
		t.Errorf("%d characters, valid %v, ends %q", n, utf8.ValidString(got), got[len(got)-40:])
	}
}
