package validate

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"danm.io/danm/spec/bundle/v1"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// maxDelegate bounds a plugin's configuration, in bytes. It is passed to every call of the plugin.
const maxDelegate = 64 << 10

// delegateVersions are the versions of the CNI specification that plugins are called with.
var delegateVersions = []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"}

// delegate checks the configuration of a CNI plugin: one of conf, confList and file.
func (c *checker) delegate(s spot, v *v1.Delegate, plugin string) *model.Delegate {
	var given []string
	for _, f := range []struct{ name, text string }{{"conf", v.Conf}, {"confList", v.ConfList}, {"file", v.File}} {
		if f.text != "" {
			given = append(given, f.name)
		}
	}
	switch {
	case len(given) == 0 && !s.broken():
		c.error(diag.DelegateNotOne, s, "delegate says nothing", "give one of conf, confList, file")
	case len(given) > 1:
		c.error(diag.DelegateNotOne, s.in(given[1]), "delegate has several configurations: "+strings.Join(given, ", "), "keep one of them")
	}
	if v.Conf != "" {
		if conf, ok := c.delegateJSON(s.in("conf"), v.Conf); ok {
			c.conf(s.in("conf"), conf, plugin, "")
			c.confVersion(s.in("conf"), conf)
		}
	}
	if v.ConfList != "" {
		if list, ok := c.delegateJSON(s.in("confList"), v.ConfList); ok {
			c.confList(s.in("confList"), list, plugin)
			c.confVersion(s.in("confList"), list)
		}
	}
	if v.File != "" {
		c.confFile(s.in("file"), v.File)
	}
	return &model.Delegate{Conf: v.Conf, ConfList: v.ConfList, File: v.File}
}

// confFile: the name is joined to a directory of the node, so nothing in it may lead out of that directory.
func (c *checker) confFile(s spot, name string) {
	switch {
	case !pluginWord.MatchString(name):
		c.error(diag.DelegateFile, s, fmt.Sprintf("%q is no plain name of a file", name), "write the name alone, of letters, digits, dot, - and _; it is looked for in the node's CNI directory")
	case strings.HasSuffix(name, ".conf") || strings.HasSuffix(name, ".conflist"):
		c.error(diag.DelegateFile, s, fmt.Sprintf("the ending of %q is added by itself", name), "write "+strings.TrimSuffix(strings.TrimSuffix(name, ".conflist"), ".conf"))
	}
}

// object is a JSON object whose values are left for later.
type object = map[string]json.RawMessage

// delegateJSON reads a configuration as an object.
func (c *checker) delegateJSON(s spot, text string) (object, bool) {
	if len(text) > maxDelegate {
		c.error(diag.DelegateTooLarge, s, fmt.Sprintf("the configuration has %d bytes, more than %d", len(text), maxDelegate), "put it into a file of the node and name that")
		return nil, false
	}
	if why := strictJSON(text); why != "" {
		c.error(diag.DelegateSyntax, s, "the configuration is no JSON object: "+why, "write it in a block, beginning with conf: |")
		return nil, false
	}
	var out object
	if err := json.Unmarshal([]byte(text), &out); err != nil || out == nil {
		c.error(diag.DelegateSyntax, s, "the configuration is no JSON object", "begin it with { and end it with }")
		return nil, false
	}
	return out, true
}

// strictJSON says what is wrong with a JSON text, "" if nothing is. Parsers differ about keys that stand twice, and a
// plugin must not read something else than was checked.
func strictJSON(text string) string {
	type level struct {
		object, value bool // of an object: the next string is a value
		keys          map[string]bool
	}
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var open []level
	for begun := false; ; begun = true {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			if !begun || len(open) > 0 {
				return "it ends too early"
			}
			return ""
		}
		if err != nil {
			return fmt.Sprintf("%s (byte %d)", err, d.InputOffset())
		}
		if begun && len(open) == 0 {
			return fmt.Sprintf("something follows it (byte %d)", d.InputOffset())
		}
		if delim, ok := token.(json.Delim); ok && (delim == '}' || delim == ']') {
			open = open[:len(open)-1]
			continue
		}
		if n := len(open); n > 0 && open[n-1].object {
			top := &open[n-1]
			if !top.value {
				key := token.(string) // in an object keys are strings, the decoder sees to it
				if top.keys[key] {
					return fmt.Sprintf("the key %q stands twice (byte %d)", key, d.InputOffset())
				}
				top.keys[key] = true
			}
			top.value = !top.value
		}
		if delim, ok := token.(json.Delim); ok {
			open = append(open, level{object: delim == '{', keys: map[string]bool{}})
		}
	}
}

// word is a string of an object, "" if it is not there. It is not ok if there is something else, or a key that differs in
// case only: Go's parser, which most plugins use, takes one for the other.
func word(o object, key string) (text string, ok bool) {
	if o[key] == nil {
		return "", !misspelt(o, key)
	}
	return text, json.Unmarshal(o[key], &text) == nil && o[key][0] == '"' && !misspelt(o, key)
}

func misspelt(o object, key string) bool {
	for k := range o {
		if k != key && strings.EqualFold(k, key) {
			return true
		}
	}
	return false
}

// conf checks the configuration of one plugin; where tells which one of a list. Plugin "" is any.
func (c *checker) conf(s spot, conf object, plugin, where string) {
	kind, ok := word(conf, "type")
	switch {
	case !ok || kind == "":
		c.error(diag.DelegateType, s, fmt.Sprintf("the configuration%s has no type, the plugin's name", where), `add "type"`)
	case plugin != "" && kind != plugin:
		c.error(diag.DelegateType, s, fmt.Sprintf("the configuration%s is of type %q, the network of type %q", where, kind, plugin), "give both the same type")
	case plugin == "":
		c.pluginName(s, kind)
	}
	if name, ok := word(conf, "name"); !ok || name != "" && !pluginWord.MatchString(name) {
		c.error(diag.InvalidName, s, fmt.Sprintf("the configuration%s has a name that plugins refuse, or take for a path", where), "leave it out: plugins get the networkID; or use letters, digits, dot, - and _")
	}
}

// confList checks a list: plugins, the first of which makes the interface.
func (c *checker) confList(s spot, list object, plugin string) {
	var plugins []object
	if err := json.Unmarshal(list["plugins"], &plugins); err != nil || misspelt(list, "plugins") || len(plugins) == 0 || slices.ContainsFunc(plugins, func(o object) bool { return o == nil }) {
		c.error(diag.DelegateType, s, "the configuration list has no plugins", `add "plugins": [{"type": …}, …]; a configuration of one plugin is written as conf`)
		return
	}
	for i, conf := range plugins {
		c.conf(s, conf, plugin, fmt.Sprintf(" of plugin %d", i))
		plugin = "" // the others are what they are
	}
	if name, ok := word(list, "name"); !ok || name != "" && !pluginWord.MatchString(name) {
		c.error(diag.InvalidName, s, "the configuration list has a name that plugins refuse, or take for a path", "leave it out: plugins get the networkID; or use letters, digits, dot, - and _")
	}
}

func (c *checker) confVersion(s spot, conf object) {
	if v, ok := word(conf, "cniVersion"); !ok || v != "" && !slices.Contains(delegateVersions, v) {
		c.error(diag.DelegateVersion, s, "the configuration's cniVersion is none that plugins are called with", "leave it out, or take one of "+strings.Join(delegateVersions, ", "))
	}
}
