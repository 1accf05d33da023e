package cli

import (
	"strings"
	"testing"
	"unicode/utf8"

	"danm.io/danm/spec/diag"
)

// TestExplainFields: every field of every document can be asked for by the path that leads to it, and is described.
func TestExplainFields(t *testing.T) {
	d, err := readFields()
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	var ask func(path string, f field, depth int)
	ask = func(path string, f field, depth int) {
		out, code := run(func(io IO) int { return Explain(path, io) })
		head, text, _ := strings.Cut(out, "\n\n")
		if code != OK || !strings.HasPrefix(head, path+" (") || len(strings.TrimSpace(text)) < 10 {
			t.Errorf("%s: %d\n%s", path, code, out)
		}
		asked++
		inside := d.inside(f)
		for name, p := range inside.Properties {
			if !strings.Contains(out, "\n  "+name+" ") {
				t.Errorf("%s does not list %s:\n%s", path, name, out)
			}
			if depth < 8 {
				ask(path+"."+name, p, depth+1)
			}
		}
	}
	for _, kind := range Kinds() {
		ask(kind, d.Defs[kind], 0)
	}
	if asked < 200 || len(Kinds()) != 5 {
		t.Errorf("%d fields of %v", asked, Kinds())
	}
	for path, want := range map[string]string{
		"network.spec.ipv4":  "\n  cidr     string, required\n      CIDR of the subnet, without host bits, such as 10.40.0.0/22.\n",
		"Network.spec.vlan":  "(integer 1 to 4094 or auto, ",
		"SRIOVPool.spec.vfs": "(list of string, ",
		"Network.spec.ipv5":  `Network.spec has no field "ipv5"; did you mean "ipv4"?`,
		"Network.spec.mtu.x": "Network.spec.mtu holds integer",
		"Network.spec.":      `Network.spec has no field ""; danmctl explain Network.spec lists them`,
		"Netwrok":            `did you mean "Network"?`,
		"":                   "kinds of documents, and fields as in Network.spec.ipv4: Bundle, ",
	} {
		if out, _ := run(func(io IO) int { return Explain(path, io) }); !strings.Contains(out, want) {
			t.Errorf("%s: no %q in\n%s", path, want, out)
		}
	}
}

// TestWrapped: no line is wider than it may be unless a word is, lines are as full as they can be, and every word is there.
func TestWrapped(t *testing.T) {
	for _, e := range diag.All() {
		for _, indent := range []string{"", "      "} {
			lines := strings.Split(strings.TrimSuffix(wrapped(e.Text, indent), "\n"), "\n")
			for i, line := range lines {
				if !strings.HasPrefix(line, indent) || utf8.RuneCountInString(line) > proseWidth && strings.Contains(line[len(indent):], " ") {
					t.Errorf("%s: %q", e.Code, line)
				}
				if i+1 < len(lines) {
					if next, _, _ := strings.Cut(lines[i+1][len(indent):], " "); utf8.RuneCountInString(line+" "+next) <= proseWidth {
						t.Errorf("%s: %q has room for %q", e.Code, line, next)
					}
				}
				lines[i] = strings.TrimPrefix(line, indent)
			}
			if got := strings.Join(lines, " "); got != e.Text {
				t.Errorf("%q became %q", e.Text, got)
			}
		}
	}
	if got := wrapped("", "  "); got != "  \n" {
		t.Errorf("nothing became %q", got)
	}
}
