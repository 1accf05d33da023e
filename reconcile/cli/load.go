package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"danm.io/danm/reconcile/overlay"
	"danm.io/danm/reconcile/source"
	"danm.io/danm/render"
	"danm.io/danm/spec/decode"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"
)

// DocumentKind and DocumentVersion mark the output of render, so that it is known when it comes back as a PATH.
const (
	DocumentVersion = "bundle.danm.io/v1"
	DocumentKind    = "Rendered"
)

// Document is a rendered bundle: the output of render, and the common form of both sides of a diff.
type Document struct {
	APIVersion     string                  `json:"apiVersion"`
	Kind           string                  `json:"kind"`
	Bundle         string                  `json:"bundle"`
	Version        string                  `json:"version,omitempty"`
	Revision       string                  `json:"revision"`
	ConfirmTimeout string                  `json:"confirmTimeout"`
	Probes         []model.Probe           `json:"probes,omitempty"`
	VersionPolicy  string                  `json:"versionPolicy,omitempty"`
	Rollout        *model.Rollout          `json:"rollout,omitempty"`
	Prune          *model.Prune            `json:"prune,omitempty"`
	Objects        []map[string]any        `json:"objects,omitempty"`
	Networks       []model.Network         `json:"networks,omitempty"`
	Open           []string                `json:"open,omitempty"` // networks whose number is chosen when the bundle is published
	Tenants        []model.Tenant          `json:"tenants,omitempty"`
	Pools          []model.SRIOVPool       `json:"pools,omitempty"`
	Nodes          []model.NodeState       `json:"nodes,omitempty"`
	Origins        map[string]model.Origin `json:"origins,omitempty"`

	cards map[string][]model.NIC // by node, as the inventory has them
}

// load reads PATH: a rendered file, a directory, or a location of a Git repository. Problems of the bundle come back as
// an error that holds a *diag.ListError; warnings are dropped, validate shows them.
func load(ctx context.Context, path, inventory string) (Document, error) {
	inv, err := readInventory(inventory)
	if err != nil {
		return Document{}, err
	}
	if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
		d, err := readDocument(path)
		d.cards = inv.Hardware
		return d, err
	}
	snap, err := fetch(ctx, path)
	if err != nil {
		return Document{}, err
	}
	bundle, result, diags := compile(snap, inv)
	if err := diags.Err(); err != nil {
		return Document{}, err
	}
	d := newDocument(bundle, result, snap.Revision)
	d.cards = inv.Hardware
	return d, nil
}

// NodeNames lists the nodes of a bundle in a directory or a rendered file, for completion; none of one that is elsewhere or has errors.
func NodeNames(ctx context.Context, path, inventory string) (out []string) {
	if _, err := os.Stat(path); err != nil { // completion fetches nothing
		return nil
	}
	d, err := load(ctx, path, inventory)
	if err != nil {
		return nil
	}
	for _, n := range d.Nodes {
		if len(validation.IsDNS1123Subdomain(n.Node)) == 0 { // a rendered file may have been written by anybody
			out = append(out, n.Node)
		}
	}
	return out
}

func fetch(ctx context.Context, path string) (source.Snapshot, error) {
	f, err := source.Open(path, source.Options{})
	if err != nil {
		return source.Snapshot{}, err
	}
	return f.Fetch(ctx)
}

// compile is the way from files to a result: validate, then render if that found no error.
func compile(snap source.Snapshot, inv model.Inventory) (model.Bundle, render.Result, diag.List) {
	files := make([]decode.File, len(snap.Files))
	for i, f := range snap.Files {
		files[i] = decode.File{Path: f.Path, Data: f.Data}
	}
	bundle, diags := overlay.Validate(files, snap.Dir)
	diags = append(diags, snap.Warnings...)
	if diags.HasErrors() {
		return bundle, render.Result{}, diags.Sorted()
	}
	result := render.Render(bundle, inv)
	return bundle, result, append(diags, result.Diagnostics...).Sorted()
}

func newDocument(b model.Bundle, r render.Result, revision string) Document {
	d := Document{
		APIVersion: DocumentVersion, Kind: DocumentKind,
		Bundle: b.Name, Version: b.Version, Revision: revision, ConfirmTimeout: b.ConfirmTimeout.String(), Probes: b.Probes,
		Rollout: &b.Rollout, Pools: b.SRIOVPools,
		Networks: r.Networks, Tenants: b.Tenants, Nodes: r.Nodes, Origins: b.Origins,
	}
	if b.Prune != (model.Prune{}) {
		d.Prune = &b.Prune
	}
	if b.Slots == 0 { // in the local home the choice is made here
		d.Open = r.Open
	}
	if b.Monotonic {
		d.VersionPolicy = "Monotonic"
	}
	for _, o := range r.Objects {
		d.Objects = append(d.Objects, asGeneric(o.Value))
	}
	for i := range d.Nodes {
		d.Nodes[i].Revision = revision
	}
	return d
}

// readDocument reads a file made by render. YAML is a superset of JSON.
func readDocument(path string) (Document, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return Document{}, err
	}
	var d Document
	if err := unmarshalStrict(b, &d); err != nil {
		return Document{}, fmt.Errorf("%s is no output of danmctl render: %w", path, err)
	}
	if d.Kind != DocumentKind || d.APIVersion != DocumentVersion {
		return Document{}, fmt.Errorf("%s is no output of danmctl render: kind %q of %q, want %q of %q; a bundle is given by its directory",
			path, d.Kind, d.APIVersion, DocumentKind, DocumentVersion)
	}
	for _, n := range d.Nodes {
		if got := n.Plan.Digest(); got != n.Digest {
			return Document{}, fmt.Errorf("%s: the plan of node %s does not match its digest", path, n.Node)
		}
	}
	return d, nil
}

// readInventory reads what is known of the world besides the bundle; no file is an empty inventory.
func readInventory(path string) (model.Inventory, error) {
	var inv model.Inventory
	if path == "" {
		return inv, nil
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return inv, err
	}
	if err := unmarshalStrict(b, &inv); err != nil {
		return inv, fmt.Errorf("inventory %s: %w", path, err)
	}
	return inv, nil
}

// unmarshalStrict reads YAML or JSON and refuses fields that v has not. Errors are cut to one line: the reader's repeat
// whole documents.
func unmarshalStrict(b []byte, v any) error {
	err := yaml.UnmarshalStrict(b, v)
	if err == nil {
		return nil
	}
	line, _, _ := strings.Cut(err.Error(), "\n")
	return errors.New(line)
}

// asGeneric turns a value into maps and slices: to compare it field by field, or to write its keys in one order whether it
// was rendered here or read from a file.
func asGeneric(v any) map[string]any {
	b, err := json.Marshal(v)
	if err != nil { // plain data
		panic("cli: does not marshal: " + err.Error())
	}
	var out map[string]any
	if err := json.Unmarshal(b, &out); err != nil {
		panic("cli: does not unmarshal: " + err.Error())
	}
	return out
}
