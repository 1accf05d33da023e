package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"danm.io/danm/node/plan"
	"danm.io/danm/reconcile/source"
	"danm.io/danm/spec/model"
)

// InitOptions are danmctl init's.
type InitOptions struct {
	Dir        string   // must not exist, or be empty
	Bundle     string   // name; "" = the directory's
	Node       string   // name; "" = the host's
	Interfaces []string // of this host; empty = its hardware
}

// Init writes a bundle of what this host has, and shows that its plan here is empty: OK, Differences if it is not, or Failed.
// Only interfaces, their MTU and their being up are declared. Addresses are written as comments: one that a DHCP server gave
// must not become permanent because a file says so.
func Init(ctx context.Context, o InitOptions, io IO) int {
	host, err := observeHost(ctx, "", model.NodePlan{})
	if err != nil {
		return io.fail(err)
	}
	if o.Node == "" {
		if o.Node, err = os.Hostname(); err != nil {
			return io.fail(fmt.Errorf("no --node, and the host's name is not known: %w", err))
		}
	}
	if o.Bundle == "" {
		abs, err := filepath.Abs(o.Dir)
		if err != nil {
			return io.fail(err)
		}
		o.Bundle = filepath.Base(abs)
	}
	o.Bundle, o.Node = documentName(o.Bundle), documentName(o.Node)
	chosen, err := chosenLinks(host, o.Interfaces)
	if err != nil {
		return io.fail(err)
	}
	files := initialBundle(o.Bundle, o.Node, chosen)
	if err := writeNew("init", o.Dir, files); err != nil {
		return io.fail(err)
	}
	for _, f := range files {
		fmt.Fprintln(io.Out, "wrote", filepath.Join(o.Dir, f.Path))
	}
	return showEmptyPlan(o, files, host, io)
}

// showEmptyPlan runs what was written through the whole way, against the host it was made from.
func showEmptyPlan(o InitOptions, files []source.File, host plan.Observed, io IO) int {
	_, result, diags := compile(source.Snapshot{Files: files}, model.Inventory{})
	if err := diags.Err(); err != nil {
		return io.fail(err)
	}
	p := plan.Diff(plan.Desired{Plan: result.Nodes[0].Plan}, host)
	if len(p.Steps)+len(p.Blocked) > 0 {
		fmt.Fprintf(io.Out, "the plan on this host is not empty; check before you use the bundle:\n%s", p.Text())
		return Differences
	}
	fmt.Fprintf(io.Out, "its plan on this host is empty. Next: add a network to %s, then danmctl plan %s --node %s --local\n", filepath.Join(o.Dir, "networks.yaml"), o.Dir, o.Node)
	return OK
}

var notInNames = regexp.MustCompile(`[^a-z0-9.-]+`)

// documentName makes a name of a document from one of a directory or host.
func documentName(s string) string {
	s = strings.Trim(notInNames.ReplaceAllString(strings.ToLower(s), "-"), "-.")
	if s == "" {
		return "site"
	}
	return s
}

// chosenLinks are the hardware interfaces that are up, or those named.
func chosenLinks(host plan.Observed, names []string) ([]plan.ObservedLink, error) {
	var out []plan.ObservedLink
	for _, l := range host.Links {
		hardware := l.Kind == model.Physical && l.KernelKind == "" && l.MAC != "" && l.MAC != net.HardwareAddr(make([]byte, 6)).String()
		if len(names) == 0 && hardware && l.Up || slices.Contains(names, l.Name) {
			out = append(out, l)
		}
	}
	for _, name := range names {
		i := slices.IndexFunc(out, func(l plan.ObservedLink) bool { return l.Name == name })
		switch {
		case i < 0:
			return nil, fmt.Errorf("this host has no interface %s", name)
		case out[i].Kind != model.Physical:
			return nil, fmt.Errorf("%s is a %s: init declares interfaces that exist before DANM, bridges and the like are written by hand", name, out[i].Kind)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("this host has no hardware interface that is up; name one with --interface")
	}
	return out, nil
}

// initialBundle is the text of the files. It is pure.
func initialBundle(bundle, node string, links []plan.ObservedLink) []source.File {
	head := func(kind, name string) string {
		return "apiVersion: bundle.danm.io/v1\nkind: " + kind + "\nmetadata: {name: " + name + "}\nspec:\n"
	}
	var interfaces, addresses strings.Builder
	for _, l := range links {
		fmt.Fprintf(&interfaces, "    - {name: %s, mtu: %d", quoted(l.Name), l.MTU)
		if l.Up {
			interfaces.WriteString(", up: true")
		}
		interfaces.WriteString("}\n")
		if len(l.Addresses) > 0 {
			var texts []string
			for _, a := range l.Addresses {
				texts = append(texts, quoted(a.String()))
			}
			fmt.Fprintf(&addresses, "    # - {name: %s, addresses: [%s]}\n", quoted(l.Name), strings.Join(texts, ", "))
		}
	}
	nodeAddresses := ""
	if addresses.Len() > 0 {
		nodeAddresses = "    # What the interfaces have now. Declare an address only if it is not DHCP's:\n    # interfaces:\n" + addresses.String()
	}
	return []source.File{
		{Path: "bundle.yaml", Data: []byte(head("Bundle", bundle) + "  version: 0.1.0\n  # A change that a probe does not survive is undone by the node itself.\n  probes:\n  - {name: gateway, gateway: true}\n")},
		{Path: "networks.yaml", Data: []byte("# What Pods attach to. An example, to be uncommented and adapted:\n#\n# apiVersion: bundle.danm.io/v1\n# kind: Network\n# metadata: {name: default}\n# spec:\n#   type: macvlan\n#   hostDevice: " + quoted(links[0].Name) + "\n#   ipv4: {cidr: 10.200.0.0/24, gateway: 10.200.0.1}\n")},
		{Path: "topology.yaml", Data: []byte(head("Topology", bundle) + "  slots: 8                      # shares of every address pool: one a node, never renumbered, so leave room\n  nodes:\n  - name: " + node + "\n    slot: 0\n" + nodeAddresses +
			"  groups:\n  - name: all                   # no selector: every node\n    interfaces:                 # only what is written here is managed\n" + interfaces.String())},
	}
}

// quoted is a plain word as it is, anything else in quotes.
func quoted(s string) string {
	if regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.-]*$`).MatchString(s) && !slices.Contains([]string{"null", "true", "false", "yes", "no", "on", "off", "y", "n"}, strings.ToLower(s)) {
		return s
	}
	return fmt.Sprintf("%q", s)
}

// writeNew makes the directory and the files for a command; it changes nothing that is there.
func writeNew(command, dir string, files []source.File) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(entries) > 0 {
		return fmt.Errorf("%s is not empty; %s writes into a new directory", dir, command)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, f := range files {
		w, err := os.OpenFile(filepath.Join(dir, f.Path), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return err
		}
		_, err = w.Write(f.Data)
		if err := errors.Join(err, w.Close()); err != nil {
			return err
		}
	}
	return nil
}
