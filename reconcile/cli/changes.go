package cli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"danm.io/danm/spec/model"
)

// Change is one document that differs between two sides of a diff.
type Change struct {
	Sign string `json:"sign"` // "+", "-" or "~"
	Kind string `json:"kind"` // Network, Tenant, SRIOVPool, Bundle
	Key  string `json:"key"`
	File string `json:"file,omitempty"` // where it stands on the new side, or stood
	Line int    `json:"line,omitempty"`
	Text string `json:"text"`
}

// changesOf lists every document that differs. Topologies have no line of their own: what they change is in the steps.
func changesOf(was, now Document) []Change {
	var out []Change
	if text := fieldChanges(bundleFields(was), bundleFields(now)); text != "" {
		out = append(out, located("~", "Bundle", now.Bundle, text, now))
	}
	out = append(out, compareAll("Network", was, now, networksByKey(was), networksByKey(now))...)
	out = append(out, compareAll("Tenant", was, now, tenantsByKey(was), tenantsByKey(now))...)
	out = append(out, compareAll("SRIOVPool", was, now, poolsByKey(was), poolsByKey(now))...)
	return out
}

// bundleFields is what a Bundle document says, without what its other documents say.
func bundleFields(d Document) map[string]any {
	probes := map[string]any{}
	for _, p := range d.Probes {
		probes[p.Name] = strings.TrimSpace(fmt.Sprintf("%s %s", p.Kind, p.Target)) + " within " + p.Timeout.String()
	}
	fields := map[string]any{"name": d.Bundle, "version": d.Version, "versionPolicy": d.VersionPolicy, "confirmTimeout": d.ConfirmTimeout, "probes": probes}
	if d.Rollout != nil {
		fields["rollout"] = rolloutFields(*d.Rollout)
	}
	if d.Prune != nil {
		fields["prune"] = asGeneric(d.Prune)
	}
	return fields
}

// rolloutFields spells a rollout as its document does.
func rolloutFields(r model.Rollout) map[string]any {
	fields := map[string]any{"maxUnavailable": r.MaxUnavailable.String(), "soak": r.Soak.String(), "onFailure": "Halt", "disruptive": "Deny"}
	if r.CanaryCount > 0 {
		fields["canary"] = fmt.Sprintf("%d of %s", r.CanaryCount, labelText(r.CanarySelector))
	}
	if r.RevertOnFailure {
		fields["onFailure"] = "Revert"
	}
	if r.AllowsDisruptive {
		fields["disruptive"] = "Allow"
	}
	return fields
}

func labelText(selector map[string]string) string {
	if len(selector) == 0 {
		return "all nodes"
	}
	var words []string
	for _, k := range slices.Sorted(maps.Keys(selector)) {
		words = append(words, k+"="+selector[k])
	}
	return strings.Join(words, ",")
}

func poolsByKey(d Document) map[string]described {
	out := map[string]described{}
	for _, p := range d.Pools {
		out[p.Name] = described{asGeneric(p), fmt.Sprintf("%s on %s, %s a function", p.ResourceName, labelText(p.NodeSelector), plural(p.NumVFs, "VF"))}
	}
	return out
}

// described is a document as fields, and in a few words for when it is new or gone.
type described struct {
	fields map[string]any
	words  string
}

func networksByKey(d Document) map[string]described {
	out := map[string]described{}
	for _, n := range d.Networks {
		fields := asGeneric(n)
		delete(fields, "spaceDomain") // follows fabric or hostDevice
		delete(fields, "vlanAuto")    // how the number came about
		if n.QoS != 0 {
			delete(fields, "qos")
			fields["vlanQoS"] = n.QoS
		}
		if n.VXLAN { // spelt as the user spells it
			fields["vxlan"] = n.VNI
			delete(fields, "vni")
		}
		if slices.Contains(d.Open, n.Key()) {
			fields[map[bool]string{true: "vxlan", false: "vlan"}[n.VXLAN]] = atPublish
		}
		out[n.Key()] = described{fields, networkWords(n, slices.Contains(d.Open, n.Key()))}
	}
	return out
}

// atPublish stands for a number that nobody has chosen yet: the cluster takes the lowest free one when it gets the bundle.
const atPublish = "<at publish>"

func networkWords(n model.Network, open bool) string {
	var words []string
	number := strconv.FormatUint(uint64(n.ID()), 10)
	if open {
		number = atPublish
	}
	switch {
	case n.VXLAN && n.Fabric != "":
		words = append(words, fmt.Sprintf("vxlan %s on fabric %s", number, n.Fabric))
	case n.VXLAN:
		words = append(words, fmt.Sprintf("vxlan %s on %s", number, n.HostDevice))
	case n.VLAN != 0 && n.Fabric != "":
		words = append(words, fmt.Sprintf("vlan %s on fabric %s", number, n.Fabric))
	case n.VLAN != 0 && n.HostDevice == "" && n.DevicePool != "":
		words = append(words, fmt.Sprintf("vlan %s of %s from %s", number, n.Type, n.DevicePool))
	case n.VLAN != 0:
		words = append(words, fmt.Sprintf("vlan %s on %s", number, n.HostDevice))
	case n.Fabric != "":
		words = append(words, fmt.Sprintf("%s on fabric %s", n.Type, n.Fabric))
	case n.DevicePool != "":
		words = append(words, fmt.Sprintf("%s from %s", n.Type, n.DevicePool))
	case n.HostDevice == "":
		words = append(words, fmt.Sprintf("CNI plugin %s", n.Type))
	default:
		words = append(words, fmt.Sprintf("%s on %s", n.Type, n.HostDevice))
	}
	for _, s := range []*model.Subnet{n.IPv4, n.IPv6} {
		if s != nil {
			words = append(words, s.CIDR.String())
		}
	}
	return strings.Join(words, ", ")
}

func tenantsByKey(d Document) map[string]described {
	out := map[string]described{}
	for _, t := range d.Tenants {
		out[t.Name] = described{asGeneric(t), "namespaces " + strings.Join(t.Namespaces, ", ")}
	}
	return out
}

func compareAll(kind string, was, now Document, old, new map[string]described) []Change {
	keys := slices.Sorted(maps.Keys(old))
	for k := range new {
		if _, ok := old[k]; !ok {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	var out []Change
	for _, k := range keys {
		a, before := old[k]
		b, after := new[k]
		switch {
		case !before:
			out = append(out, located("+", kind, k, b.words, now))
		case !after:
			out = append(out, located("-", kind, k, a.words, was))
		default:
			if text := fieldChanges(a.fields, b.fields); text != "" {
				out = append(out, located("~", kind, k, text, now))
			}
		}
	}
	return out
}

func located(sign, kind, key, text string, d Document) Change {
	o := d.Origins[originKey(kind, key)]
	return Change{Sign: sign, Kind: kind, Key: key, File: o.File, Line: o.Line, Text: text}
}

// fieldChanges lists the fields that differ as "path old -> new", "" if none does.
func fieldChanges(a, b map[string]any) string {
	was, now := map[string]string{}, map[string]string{}
	flatten("", a, was)
	flatten("", b, now)
	paths := slices.Collect(maps.Keys(was))
	for p := range now {
		if _, ok := was[p]; !ok {
			paths = append(paths, p)
		}
	}
	slices.Sort(paths)
	var out []string
	for _, p := range paths {
		if was[p] != now[p] {
			out = append(out, fmt.Sprintf("%s %s -> %s", p, cmp.Or(was[p], "none"), cmp.Or(now[p], "none")))
		}
	}
	return strings.Join(out, ", ")
}

// flatten writes the leaves of v by their path. Lists are leaves: their order is part of them.
func flatten(path string, v any, out map[string]string) {
	m, ok := v.(map[string]any)
	if !ok {
		out[path] = leafText(v)
		return
	}
	for k, e := range m {
		p := k
		if path != "" {
			p = path + "." + k
		}
		flatten(p, e, out)
	}
}

func leafText(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case []any:
		texts := make([]string, len(v))
		for i, e := range v {
			texts[i] = leafText(e)
		}
		return "[" + strings.Join(texts, ", ") + "]"
	case map[string]any:
		if first, ok := v["first"]; ok {
			return rangeText(first, v["last"])
		}
		if to, ok := v["to"].(string); ok {
			if via, ok := v["via"].(string); ok {
				return to + " via " + via
			}
			return to
		}
		words := make([]string, 0, len(v))
		for _, k := range slices.Sorted(maps.Keys(v)) {
			words = append(words, k+" "+leafText(v[k]))
		}
		return "{" + strings.Join(words, ", ") + "}"
	}
	b, err := json.Marshal(v) // numbers, truth values
	if err != nil {
		panic("cli: does not marshal: " + err.Error())
	}
	return string(b)
}

func rangeText(first, last any) string {
	if first == last {
		return fmt.Sprint(first)
	}
	return fmt.Sprintf("%v-%v", first, last)
}

// originKey is the name under which a bundle's Origins know a document.
func originKey(kind, key string) string { return kind + "/" + key }
