// Command reference writes docs/reference-*.md from the types, the allow-list of kernel parameters and the catalogue of
// diagnostics, so that they cannot tell another story than the program. `make generate` runs it, a test compares.
package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	v1 "danm.io/danm/spec/bundle/v1"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/validate"
)

//go:generate go run . ../../docs

// property is the part of JSON Schema that the reference shows.
type property struct {
	Description string               `json:"description"`
	Type        string               `json:"type"`
	Ref         string               `json:"$ref"`
	Const       any                  `json:"const"`
	Enum        []any                `json:"enum"`
	OneOf       []*property          `json:"oneOf"`
	Minimum     *json.Number         `json:"minimum"`
	Maximum     *json.Number         `json:"maximum"`
	Properties  map[string]*property `json:"properties"`
	Items       *property            `json:"items"`
	Additional  any                  `json:"additionalProperties"`
	Required    []string             `json:"required"`
}

// documents are listed first, in the order a reader meets them; the rest follows by name.
var documents = []string{"Bundle", "Topology", "Network", "Tenant", "SRIOVPool"}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: reference DIRECTORY")
		os.Exit(2)
	}
	if err := write(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "reference:", err)
		os.Exit(1)
	}
}

func write(dir string) error {
	pages, err := pages()
	if err != nil {
		return err
	}
	for name, text := range pages {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// pages are the generated documents by file name.
func pages() (map[string]string, error) {
	raw, err := v1.Schema()
	if err != nil {
		return nil, err
	}
	var schema struct {
		Defs map[string]*property `json:"$defs"`
	}
	if err := json.Unmarshal(raw, &schema); err != nil {
		return nil, fmt.Errorf("read schema: %w", err)
	}
	return map[string]string{"reference-bundle.md": bundlePage(schema.Defs), "reference-codes.md": codesPage(), "reference-sysctls.md": sysctlsPage()}, nil
}

func sysctlsPage() string {
	var b strings.Builder
	b.WriteString("# Reference: kernel parameters of a bundle\n\nGenerated (`make generate`): what `sysctls` of a node group may set. `*` is a link of the group, `all` or `default`; a dot in a\nlink's name is written as `/`. Those of a link\ncan be set in Pods too, by the `sysctls` of a network, with `IFNAME` in place of `*`. Meanings: ip-sysctl.rst, net.rst and\nnf_conntrack-sysctl.rst of the kernel's documentation.\n\n| key | takes |\n|---|---|\n")
	for _, s := range validate.Sysctls() {
		fmt.Fprintf(&b, "| `%s` | %s |\n", s.Key, s.Takes)
	}
	return b.String()
}

func bundlePage(defs map[string]*property) string {
	var b strings.Builder
	b.WriteString("# Reference: the documents of a bundle\n\nGenerated from the types (`make generate`); `danmctl schema` prints the same as JSON Schema for editors.\nDocuments have `apiVersion: bundle.danm.io/v1`. Unknown and duplicate fields are errors.\n")
	order := slices.Clone(documents)
	for _, name := range slices.Sorted(maps.Keys(defs)) {
		if !slices.Contains(order, name) {
			order = append(order, name)
		}
	}
	for _, name := range order {
		def := defs[name]
		if def == nil {
			continue
		}
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| field | type | |\n|---|---|---|\n", name, def.Description)
		for _, field := range slices.Sorted(maps.Keys(def.Properties)) {
			p := def.Properties[field]
			required := ""
			if slices.Contains(def.Required, field) {
				required = ", required"
			}
			fmt.Fprintf(&b, "| `%s` | %s%s | %s |\n", field, p.typeName(), required, strings.ReplaceAll(p.Description, "|", "\\|"))
		}
	}
	return b.String()
}

// typeName is a type as people say it.
func (p *property) typeName() string {
	switch {
	case p.Ref != "":
		name := p.Ref[strings.LastIndex(p.Ref, "/")+1:]
		return fmt.Sprintf("[%s](#%s)", name, strings.ToLower(name))
	case len(p.OneOf) > 0:
		choices := make([]string, len(p.OneOf))
		for i, o := range p.OneOf {
			choices[i] = o.typeName()
		}
		return strings.Join(choices, " or ")
	case p.Items != nil:
		return "list of " + p.Items.typeName()
	case p.Const != nil:
		return fmt.Sprintf("`%v`", p.Const)
	case len(p.Enum) > 0:
		values := make([]string, len(p.Enum))
		for i, v := range p.Enum {
			values[i] = fmt.Sprintf("`%v`", v)
		}
		return strings.Join(values, " or ")
	case p.Minimum != nil && p.Maximum != nil:
		return fmt.Sprintf("%s %s..%s", p.Type, *p.Minimum, *p.Maximum)
	case p.Type == "object":
		return "map"
	}
	return p.Type
}

func codesPage() string {
	var b strings.Builder
	b.WriteString("# Reference: diagnostics\n\nGenerated from the catalogue (`make generate`); `danmctl explain CODE` prints the same. Codes never change their meaning.\n")
	for _, e := range diag.All() {
		fmt.Fprintf(&b, "\n## %s\n\n**%s.** %s\n\nRemedy: %s\n", e.Code, strings.TrimSuffix(e.Title, "."), e.Text, e.Remedy)
	}
	return b.String()
}
