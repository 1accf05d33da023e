package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"danm.io/danm/node/state"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

const topology = `apiVersion: bundle.danm.io/v1
kind: Topology
metadata: {name: site}
spec:
  slots: 4
  nodes:
  - {name: edge-1, slot: 0}
  - {name: edge-2, slot: 1}
  groups:
  - name: all
    bridges:
    - name: br-lan
      addresses: [10.1.0.1/24]
`

// oneVNI is a node with a fabric that has one VNI to give; inVNI is a network that takes one.
const oneVNI = `apiVersion: bundle.danm.io/v1
kind: Topology
metadata: {name: site}
spec:
  slots: 4
  nodes:
  - {name: edge-1, slot: 0, interfaces: [{name: eth9, addresses: [192.0.2.1/24]}]}
  groups:
  - {name: all, interfaces: [{name: eth9, mtu: 1500}]}
  fabrics:
  - {name: f, groups: [all], device: eth9, vniRanges: ["5000-5000"], vxlan: {port: 4789}}
`

func inVNI(name string, subnet int) string {
	return fmt.Sprintf("apiVersion: bundle.danm.io/v1\nkind: Network\nmetadata: {name: %s}\nspec: {type: macvlan, fabric: f, vxlan: auto, ipv4: {cidr: 10.%d.0.0/24}}\n", name, subnet)
}

func good(mtu int) map[string]string {
	return map[string]string{
		"bundle.yaml":   "apiVersion: bundle.danm.io/v1\nkind: Bundle\nmetadata: {name: site}\nspec: {version: 1.0.0}\n",
		"topology.yaml": strings.Replace(topology, "- name: br-lan", fmt.Sprintf("- name: br-lan\n      mtu: %d", mtu), 1),
		"net/lan.yaml":  "apiVersion: bundle.danm.io/v1\nkind: Network\nmetadata: {name: lan}\nspec: {type: bridge, hostDevice: br-lan, ipv4: {cidr: 10.1.0.0/24, gateway: 10.1.0.1}}\n",
	}
}

// with is a copy of m with changes; an empty content removes the file.
func with(m map[string]string, pairs ...string) map[string]string {
	out := map[string]string{}
	for k, v := range m {
		out[k] = v
	}
	for i := 0; i < len(pairs); i += 2 {
		if out[pairs[i]] = pairs[i+1]; pairs[i+1] == "" {
			delete(out, pairs[i])
		}
	}
	return out
}

// put makes root hold exactly files.
func put(t *testing.T, root string, files map[string]string) {
	t.Helper()
	_ = filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(root, p)
		if _, keep := files[rel]; err == nil && !d.IsDir() && !keep {
			_ = os.Remove(p)
		}
		return nil
	})
	for name, data := range files {
		p := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func once(t *testing.T, location, stateDir, node string) error {
	t.Helper()
	return Run(t.Context(), Options{Location: location, StateDir: stateDir, Node: node, Once: true})
}

func read(t *testing.T, stateDir string) model.NodeState {
	t.Helper()
	st, err := state.Open(stateDir).Read()
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func mtu(st model.NodeState) int {
	for _, l := range st.Plan.Links {
		if l.Name == "br-lan" {
			return l.MTU
		}
	}
	return -1
}

// dump is every file of a state directory with its content and inode, without the status and the source's cache.
func dump(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() || e.Name() == StatusFile {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		out[e.Name()] = fmt.Sprintf("%s %v", b, reflect.ValueOf(info.Sys()).Elem().FieldByName("Ino"))
	}
	return out
}

func codes(err error) []diag.Code {
	var list *diag.ListError
	var out []diag.Code
	if errors.As(err, &list) {
		for _, d := range list.List {
			out = append(out, d.Code)
		}
	}
	return out
}

func stateMTU(dir string) int {
	st, err := state.Open(dir).Read()
	if err != nil {
		return -2
	}
	return mtu(st)
}
