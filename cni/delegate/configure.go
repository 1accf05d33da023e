package delegate

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"

	"danm.io/danm/spec/model"
)

// maxConf bounds a configuration in bytes, as the bundle's rules do.
const maxConf = 64 << 10

// fileName is a configuration's file without its ending: it is joined to a directory, and a slash would lead out of it.
var fileName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// Configure is the list that a network's plugins are called with: its delegate's configuration with the network's ID as name, and for
// the first plugin the host link as master, the MTU where one is known, and, if there are any, the addresses that the Pod was given, with
// the routes of their subnets. Without addresses the plugin's own address management stays. Errors: ErrConfig.
func (p *Plugins) Configure(n model.Network, given []netip.Prefix, routes []model.PodRoute) (json.RawMessage, error) {
	list, err := p.load(n)
	if err != nil {
		return nil, fmt.Errorf("network %s: %w", n.Key(), err)
	}
	plugins, ok := list["plugins"].([]any)
	if !ok || len(plugins) == 0 {
		return nil, fmt.Errorf("network %s: no plugins in its configuration: %w", n.Key(), ErrConfig)
	}
	for i, one := range plugins {
		plugin, ok := one.(map[string]any)
		name, _ := plugin["type"].(string)
		if !ok || !fileName.MatchString(name) {
			return nil, fmt.Errorf("network %s: plugin %d has no usable type (%q): %w", n.Key(), i, name, ErrConfig)
		}
		if name == "danm" {
			return nil, fmt.Errorf("network %s: plugin %d would call DANM again, which waits for this very call: %w", n.Key(), i, ErrConfig)
		}
	}
	first := plugins[0].(map[string]any) //nolint:forcetypeassert // looked at above
	if n.Device != "" {
		first["master"] = n.Device
	}
	if n.MTU != 0 {
		first["mtu"] = n.MTU
	}
	if len(given) > 0 {
		first["ipam"] = fakeIPAM(given, routes)
	}
	list["name"] = n.NetworkID
	if _, has := list["cniVersion"].(string); !has {
		list["cniVersion"] = "0.3.1" // DANM's own, where its files say nothing
	}
	return json.Marshal(list)
}

// fakeIPAM is what DANM gives its delegates: an IPAM plugin that answers with what stands in its configuration.
func fakeIPAM(given []netip.Prefix, routes []model.PodRoute) map[string]any {
	ips := make([]any, 0, len(given))
	for _, p := range given {
		v := 4
		if p.Addr().Is6() {
			v = 6
		}
		ips = append(ips, map[string]any{"ipcidr": p.String(), "version": v})
	}
	out := map[string]any{"type": "fakeipam", "ips": ips}
	var list []any
	for _, r := range routes {
		route := map[string]any{"dst": r.To.String()}
		if r.Via.IsValid() {
			route["gw"] = r.Via.String()
		}
		list = append(list, route)
	}
	if list != nil {
		out["routes"] = list
	}
	return out
}

// Declares says whether a plugin of the list takes a capability (CNI conventions, "Dynamic Plugin specific fields"). list is
// Configure's.
func Declares(list json.RawMessage, capability string) bool {
	type plugin struct {
		Capabilities map[string]bool `json:"capabilities"`
	}
	var of struct {
		Plugins []plugin `json:"plugins"`
	}
	return json.Unmarshal(list, &of) == nil && slices.ContainsFunc(of.Plugins, func(p plugin) bool { return p.Capabilities[capability] })
}

// maxArgs bounds what a Pod's args make of a list in bytes: each plugin gets them all.
const maxArgs = 256 << 10

// WithArgs is the list with args.cni of every plugin made to hold args too, which go before what stands there (CNI conventions,
// "args"). list is Configure's; without args it stays as it is. Errors: ErrConfig, also for args that are too much for so many plugins.
func WithArgs(list json.RawMessage, args map[string]json.RawMessage) (json.RawMessage, error) {
	if len(args) == 0 {
		return list, nil
	}
	var all map[string]any
	if err := json.Unmarshal(list, &all); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	plugins, _ := all["plugins"].([]any)
	size := 0
	for key, value := range args {
		size += len(key) + len(value)
	}
	if size*len(plugins) > maxArgs {
		return nil, fmt.Errorf("cni-args of %d bytes for %d plugins, at most %d bytes together: %w", size, len(plugins), maxArgs, ErrConfig)
	}
	for i, one := range plugins {
		plugin, ok := one.(map[string]any)
		if !ok {
			return nil, fmt.Errorf("plugin %d is no object: %w", i, ErrConfig)
		}
		theirs, err := object(plugin, "args")
		if err != nil {
			return nil, fmt.Errorf("plugin %d: %w", i, err)
		}
		cni, err := object(theirs, "cni")
		if err != nil {
			return nil, fmt.Errorf("plugin %d: %w", i, err)
		}
		for key, value := range args {
			cni[key] = value
		}
	}
	return json.Marshal(all)
}

// object finds the object under a key, and makes it if there is none.
func object(in map[string]any, key string) (map[string]any, error) {
	switch v := in[key].(type) {
	case nil:
		made := map[string]any{}
		in[key] = made
		return made, nil
	case map[string]any:
		return v, nil
	}
	return nil, fmt.Errorf("%s is no object: %w", key, ErrConfig)
}

// load reads a delegate's configuration as a list.
func (p *Plugins) load(n model.Network) (map[string]any, error) {
	d := n.Delegate
	switch {
	case d == nil:
		return nil, fmt.Errorf("it is made by no other plugin: %w", ErrConfig)
	case d.Conf != "":
		return asList([]byte(d.Conf), false)
	case d.ConfList != "":
		return asList([]byte(d.ConfList), true)
	case !fileName.MatchString(d.File):
		return nil, fmt.Errorf("%q cannot name a file: %w", d.File, ErrConfig)
	}
	for _, ending := range []string{".conflist", ".conf", ".json"} {
		path := filepath.Join(p.opts.ConfDir, d.File+ending)
		text, err := readAtMost(onHost(p.opts.Root, path), maxConf)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w: %w", path, ErrConfig, err)
		}
		list, err := asList(text, ending == ".conflist")
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return list, nil
	}
	return nil, fmt.Errorf("neither %[1]s.conflist nor %[1]s.conf is there on this node: %w", filepath.Join(p.opts.ConfDir, d.File), ErrConfig)
}

func readAtMost(path string, most int) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a named pipe would have the Pod wait for a writer
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, fmt.Errorf("%s is no regular file", filepath.Base(path)))
	}
	text, err := io.ReadAll(io.LimitReader(f, int64(most)+1))
	if err == nil && len(text) > most {
		err = fmt.Errorf("more than %d bytes", most)
	}
	return text, err
}

func asList(text []byte, list bool) (map[string]any, error) {
	var all map[string]any
	if err := json.Unmarshal(text, &all); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrConfig, err)
	}
	if all == nil {
		return nil, fmt.Errorf("it is no object: %w", ErrConfig)
	}
	if _, is := all["plugins"]; list || is {
		return all, nil
	}
	out := map[string]any{"plugins": []any{all}}
	if v, has := all["cniVersion"]; has {
		out["cniVersion"] = v
	}
	return out, nil
}
