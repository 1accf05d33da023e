package validate

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"danm.io/danm/spec/bundle/v1"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// networkTypes are the built-in drivers; everything else is a CNI plugin's name, and so are they with a delegate.
var networkTypes = []string{string(model.BRIDGE), string(model.HOSTDEVICE), string(model.IPVLAN), string(model.MACVLAN), string(model.SRIOV), string(model.TAGGED)}

// ourselves are CNI plugins that would call the agent again, which holds the Pod's lock.
var ourselves = []string{"danm", "fakeipam"}

// pluginWord is what names a CNI plugin, a network or a file to one. The CNI specification wants names of networks so
// (section 1), and plugins and files are joined to a directory: a slash would lead out of it.
var pluginWord = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$`)

// networkType checks the driver, and what another plugin is called with.
func (c *checker) networkType(n *network, s spot, v *v1.NetworkSpec) {
	n.Type = model.IPVLAN
	if v.Type != "" {
		n.Type = model.NetworkType(v.Type)
	}
	native := slices.Contains(networkTypes, string(n.Type))
	if v.Delegate == nil {
		c.mode(n, s, v)
		if n.odd = !native; n.odd && !s.broken() {
			c.error(diag.InvalidType, s.in("type"), fmt.Sprintf("%q is no network type", v.Type), typeHint(v.Type))
		}
		return
	}
	if v.Mode != "" {
		c.error(diag.FieldNotAllowed, s.in("mode"), fmt.Sprintf("network %s is made by the CNI plugin %s", n.Key(), v.Type), "remove mode, and say it in the plugin's configuration")
	}
	n.odd = v.Type == "" || !c.pluginName(s.in("type"), v.Type)
	if v.Type == "" && !s.broken() {
		c.error(diag.FieldNotAllowed, s.in("delegate"), fmt.Sprintf("network %s configures a CNI plugin that it does not name", n.Key()), "name the plugin in type, or remove delegate")
	}
	if linkChars(v.NetworkID) { // otherwise reported
		c.pluginID(s.in("networkID"), v.NetworkID)
	}
	n.Delegate = c.delegate(s.in("delegate"), v.Delegate, v.Type)
}

// mode checks the mode of a driver.
func (c *checker) mode(n *network, s spot, v *v1.NetworkSpec) {
	modes := model.Modes(n.Type)
	switch {
	case v.Mode == "":
	case len(modes) == 0:
		if slices.Contains(networkTypes, string(n.Type)) {
			c.error(diag.FieldNotAllowed, s.in("mode"), fmt.Sprintf("network %s of type %s has no modes", n.Key(), n.Type), "remove mode, or set type to macvlan or ipvlan")
		}
	default:
		if n.Mode = c.choice(s.in("mode"), v.Mode, modes...); n.Mode == modes[0] {
			n.Mode = ""
		}
	}
}

func typeHint(word string) string {
	if hint := diag.Suggest(word, networkTypes); hint != "" {
		return hint
	}
	return "one of " + strings.Join(networkTypes, ", ") + "; another CNI plugin needs delegate"
}

// pluginName checks the name of a CNI plugin. In another case a built-in type would be looked for as a plugin.
func (c *checker) pluginName(s spot, name string) bool {
	native := slices.ContainsFunc(networkTypes, func(t string) bool { return strings.EqualFold(t, name) && t != name })
	switch {
	case slices.Contains(networkTypes, name):
	case native:
		c.error(diag.InvalidType, s, fmt.Sprintf("%q differs from a built-in type in case only", name), typeHint(name))
		return false
	case slices.Contains(ourselves, name):
		c.error(diag.InvalidType, s, fmt.Sprintf("the plugin %s would call DANM again, which waits for this very call", name), "name the plugin that makes the interface")
		return false
	case !pluginWord.MatchString(name):
		c.error(diag.InvalidType, s, fmt.Sprintf("%q cannot name a CNI plugin", name), "it is the name of a program, without a path: letters, digits, dot, - and _")
		return false
	}
	return true
}

// pluginID checks a networkID that a plugin gets as the network's name.
func (c *checker) pluginID(s spot, id string) {
	if !pluginWord.MatchString(id) {
		c.error(diag.InvalidName, s, fmt.Sprintf("%q cannot name a network to a CNI plugin", id), "use letters, digits, dot, - and _, a letter or digit first")
	}
}

// standing checks what a network stands on: a device, a fabric, a device pool, or nothing that is known here.
func (c *checker) standing(n *network, s spot, v *v1.NetworkSpec) {
	n.SpaceDomain = n.Fabric + n.HostDevice
	if v.DevicePool != "" {
		c.resourceName(s.in("devicePool"), v.DevicePool)
	}
	if n.odd || s.broken() {
		return
	}
	if v.Fabric != "" && v.HostDevice != "" {
		c.error(diag.FabricOrDevice, s.in("hostDevice"), fmt.Sprintf("network %s names a fabric and a host device", n.Key()), "keep one of them")
	}
	switch {
	case n.Driver() == model.SRIOV:
		c.onFunction(n, s, v)
	case n.Driver() == model.HOSTDEVICE:
		c.onDevice(n, s, v)
	case n.Driver() == model.TAGGED:
		c.inThePod(n, s, v)
	case n.Delegate != nil:
		c.onDelegate(n, s, v)
	case v.Fabric == "" && v.HostDevice == "":
		c.error(diag.FabricOrDevice, s, fmt.Sprintf("network %s is on nothing", n.Key()), "give fabric or hostDevice")
	}
	if n.Driver() != model.SRIOV && n.Delegate == nil && v.DevicePool != "" {
		c.error(diag.FieldNotAllowed, s.in("devicePool"), fmt.Sprintf("network %s of type %s takes no device of a pool", n.Key(), n.Type), "remove devicePool, or set type to sriov")
	}
}

// onFunction checks a network of virtual functions.
func (c *checker) onFunction(n *network, s spot, v *v1.NetworkSpec) {
	if v.Fabric == "" && v.HostDevice == "" {
		n.SpaceDomain = v.DevicePool
	}
	if v.DevicePool == "" {
		c.error(diag.DevicePoolMissing, s, fmt.Sprintf("network %s of type sriov says no devicePool", n.Key()), "name the resource whose virtual functions its Pods get, such as danm.io/fast")
	}
	if v.HostDevice != "" {
		c.error(diag.PoolAndDevice, s.in("hostDevice"), fmt.Sprintf("network %s of type sriov names a host device, but its devices come from a pool", n.Key()), "remove hostDevice")
	}
	if v.VXLAN != nil {
		c.error(diag.FieldNotAllowed, s.in("vxlan"), fmt.Sprintf("network %s of type sriov has a VXLAN, which a virtual function cannot carry", n.Key()), "use a VLAN: the hardware tags and untags it")
	}
	if v.Fabric == "" && n.VLANAuto {
		c.error(diag.FieldNotAllowed, s.in("vlan"), fmt.Sprintf("network %s leaves its VLAN open, but is on no fabric whose ranges it could come from", n.Key()), "name the fabric, or write the number")
	}
}

// onDevice checks a network whose Pods get the host's device itself.
func (c *checker) onDevice(n *network, s spot, v *v1.NetworkSpec) {
	switch {
	case v.HostDevice == "" && v.Fabric == "":
		c.error(diag.FabricOrDevice, s, fmt.Sprintf("network %s of type host-device names no device", n.Key()), "give hostDevice, an interface that nothing else uses")
	case v.HostDevice == "":
		c.error(diag.FabricOrDevice, s.in("fabric"), fmt.Sprintf("network %s of type host-device names a fabric, whose device it would take away from all others", n.Key()), "give hostDevice instead, an interface that nothing else uses")
	}
	for _, field := range []struct {
		name  string
		given bool
	}{{"vlan", v.VLAN != nil}, {"vxlan", v.VXLAN != nil}} {
		if field.given {
			c.error(diag.FieldNotAllowed, s.in(field.name), fmt.Sprintf("network %s of type host-device gives Pods the device as it is, untagged", n.Key()), "remove "+field.name+", or set type to macvlan")
		}
	}
}

// inThePod checks a network whose VLAN link is made in the Pod.
func (c *checker) inThePod(n *network, s spot, v *v1.NetworkSpec) {
	if v.HostDevice == "" && v.Fabric == "" {
		c.error(diag.FabricOrDevice, s, fmt.Sprintf("network %s is on nothing", n.Key()), "give fabric or hostDevice")
	}
	switch {
	case v.VXLAN != nil:
		c.error(diag.FieldNotAllowed, s.in("vxlan"), fmt.Sprintf("network %s of type vlan has a VXLAN", n.Key()), "give vlan instead, or set type to macvlan")
	case v.VLAN == nil:
		c.error(diag.MissingField, s, fmt.Sprintf("network %s of type vlan has no vlan", n.Key()), "write the number")
	}
}

// onDelegate checks what is made for another plugin: a VLAN or VXLAN link needs something to stand on.
func (c *checker) onDelegate(n *network, s spot, v *v1.NetworkSpec) {
	if v.HostDevice != "" && v.DevicePool != "" {
		c.error(diag.PoolAndDevice, s.in("hostDevice"), fmt.Sprintf("network %s names a host device and a pool of devices", n.Key()), "keep one of them")
	}
	if v.Fabric != "" || v.HostDevice != "" {
		return
	}
	switch {
	case v.DevicePool != "":
		n.SpaceDomain = v.DevicePool
	case v.Delegate.File != "":
		n.SpaceDomain = "file:" + v.Delegate.File
	default:
		n.SpaceDomain = "network:" + n.Key()
	}
	if n.tagged {
		c.error(diag.FieldNotAllowed, n.idSpot(), fmt.Sprintf("network %s is on no fabric and no host device, so there is nothing to tag", n.Key()), "name one, or say it in the delegate's configuration")
	}
}

// choice checks a word that has few values, "" being none of them and allowed.
func (c *checker) choice(s spot, word string, known ...string) string {
	if word == "" || slices.Contains(known, word) {
		return word
	}
	hint := diag.Suggest(word, known)
	if hint == "" {
		hint = "one of " + strings.Join(known, ", ")
	}
	c.error(diag.InvalidChoice, s, fmt.Sprintf("%q has no meaning here", word), hint)
	return ""
}

// resourceName checks the name of an extended resource as Kubernetes does (apimachinery validation.IsQualifiedName,
// helper.IsExtendedResourceName): kubernetes.io is its own, and "requests." begins the names of quotas.
func (c *checker) resourceName(s spot, text string) bool {
	domain, name, _ := strings.Cut(text, "/")
	switch {
	case !isSubdomain(domain) || len(domain) > 253-len("requests.") || !resourceWord(name):
		c.error(diag.InvalidName, s, fmt.Sprintf("%q is no resource name", text), "write it as danm.io/fast")
	case strings.HasSuffix(domain, "kubernetes.io") || strings.HasPrefix(text, "requests."):
		c.error(diag.ResourceReserved, s, fmt.Sprintf("the resource %s would be Kubernetes' own", text), "take a domain of yours, or danm.io")
	default:
		return true
	}
	return false
}

var qualifiedWord = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$`)

// resourceWord is the part behind the slash of an extended resource: a qualified name (Kubernetes, validation.IsQualifiedName).
func resourceWord(s string) bool { return qualifiedWord.MatchString(s) }
