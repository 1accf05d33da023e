package hostlinks

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"danm.io/danm/spec/bundle/v1"
	"danm.io/danm/spec/convert"
	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
	npwgv1 "danm.io/danm/spec/npwg/v1"
	"danm.io/danm/spec/tenancy"
)

// Object is one network that was made with kubectl.
type Object struct {
	Kind      string // danmv1.Kind… or npwgv1.Kind
	Namespace string
	Name      string
	UID       string
	Created   time.Time
	Settled   bool // Ready as it stands: goes before what is new or changed
	Deleting  bool // has its links until Pods have left, and is told to no node
	Value     any  // pointer to the type of spec/danm/v1 or spec/npwg/v1

	doc    v1.Network
	device string // below its tag, "" if a fabric says it
	multi  bool   // its fabric was made up for the device, DANM's way
}

// Verdict is what became of an object. Code "" is good.
type Verdict struct {
	Code    diag.Code
	Message string
	Nodes   int // that have it
}

// Key is "Kind namespace/name".
func (o *Object) Key() string { return o.Kind + " " + o.key() }

func (o *Object) key() string {
	if o.Namespace == "" {
		return o.Name
	}
	return o.Namespace + "/" + o.Name
}

// byAge is who goes first when two exclude each other.
func byAge(a, b *Object) int {
	if a.Settled != b.Settled {
		return map[bool]int{true: -1, false: 1}[a.Settled]
	}
	return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Key(), b.Key()))
}

// read makes the document that an object stands for.
func (o *Object) read(configs []danmv1.TenantConfig) *Verdict {
	value := o.Value
	if t, ok := value.(*danmv1.TenantNetwork); ok {
		own, v := assigned(t, configs)
		if v != nil {
			return v
		}
		value = own
	}
	if d, ok := value.(*npwgv1.NetworkAttachmentDefinition); ok {
		value = withoutVXLAN(d)
	}
	made := convert.Objects(convert.Options{Name: "api"}, []any{value})
	if len(made.Networks) != 1 {
		v := Verdict{Code: diag.NetworkRefused, Message: "it stands for no network"}
		if len(made.Notes) > 0 {
			v.Message = made.Notes[0].Text
		}
		return &v
	}
	o.doc = made.Networks[0]
	spec := &o.doc.Spec
	if n := size(o.doc); n > maxObject {
		return tooBig(n)
	}
	spec.SharedWith, spec.AllowedTenants = explicit(value).SharedWith, nil
	o.device = spec.HostDevice
	if fabrics := made.Topology.Spec.Fabrics; len(fabrics) == 1 && fabrics[0].Name == spec.Fabric {
		o.device, o.multi = fabrics[0].Device, true
	}
	if spec.Fabric == "" && spec.HostDevice == "" && spec.Delegate == nil && spec.Type != string(model.SRIOV) {
		return &Verdict{Code: diag.FabricOrDevice, Message: "names no host_device and no fabric"}
	}
	return nil
}

// maxObject bounds what one object may say, in bytes of JSON: a plugin's configuration (64 KiB, as the rule book has it) and room
// for the rest. What no segment holds would stop the layer for everybody.
const maxObject = 96 << 10

func size(value any) int {
	b, err := json.Marshal(value)
	if err != nil {
		panic("hostlinks: does not marshal: " + err.Error())
	}
	return len(b)
}

func tooBig(n int) *Verdict {
	return &Verdict{Code: diag.NetworkRefused, Message: fmt.Sprintf("it has %d bytes, more than %d: give it fewer routes, ranges or namespaces", n, maxObject)}
}

// assigned is a TenantNetwork with the device and number that are its own, whatever its author wrote: a number of a tenant's own
// choice would reach another's wire.
func assigned(t *danmv1.TenantNetwork, configs []danmv1.TenantConfig) (*danmv1.TenantNetwork, *Verdict) {
	t = t.DeepCopy()
	t.Spec.NetworkID = tenancy.EffectiveNetworkID(configs, t)
	if v := beyondTenants(t.Spec.Extension); v != nil {
		return nil, v
	}
	if strings.EqualFold(t.Spec.NetworkType, string(model.HOSTDEVICE)) && t.Spec.Options.Device != "" {
		return nil, &Verdict{Code: diag.DeviceNotAllowed, Message: fmt.Sprintf("type host-device would take %s away from everybody else: such networks are a bundle's or the cluster's", t.Spec.Options.Device)}
	}
	o := &t.Spec.Options
	if !tenancy.Dynamic(t.Spec) && o.Device == "" && o.DevicePool == "" && len(tenancy.Numbers(*o)) == 0 { // another CNI plugin's own business
		return t, nil
	}
	r, ok := tenancy.Usable(configs, t)
	if !ok {
		for _, c := range t.Status.Conditions {
			if c.Type == tenancy.ConditionAssigned && c.Status == metav1.ConditionFalse && c.ObservedGeneration == t.Generation {
				return nil, &Verdict{Code: diag.Code(c.Reason), Message: c.Message}
			}
		}
		return nil, &Verdict{Code: diag.NotAssigned, Message: "waits for its device and number"}
	}
	o.Device, o.DevicePool, o.Vlan, o.Vxlan = "", "", 0, 0
	if strings.Contains(r.Device, "/") {
		o.DevicePool = r.Device
	} else {
		o.Device = r.Device
	}
	switch r.VniType {
	case tenancy.VLAN:
		o.Vlan = int(r.ID)
	case tenancy.VXLAN:
		o.Vxlan = int(r.ID)
	}
	return t, nil
}

// beyondTenants refuses what leads a tenant past its TenantConfig at any time of the network's life: a fabric takes the place of
// the device that was reserved, and the configuration of a plugin says any device it likes.
func beyondTenants(e *danmv1.NetworkExtension) *Verdict {
	switch {
	case e == nil:
	case e.Fabric != "":
		return &Verdict{Code: diag.DeviceNotAllowed, Message: fmt.Sprintf("extension.fabric %s: fabrics are for networks of a bundle; name a host_device, or none", e.Fabric)}
	case e.Native:
		return &Verdict{Code: diag.DeviceNotAllowed, Message: "extension.native: VLAN links in Pods are for networks of a bundle or of the cluster"}
	case e.VLANQoS != 0:
		return &Verdict{Code: diag.DeviceNotAllowed, Message: "extension.vlanQoS is for networks of a bundle or of the cluster: on the wire every priority is at the cost of others"}
	case len(e.Sysctls) > 0:
		return &Verdict{Code: diag.DeviceNotAllowed, Message: "extension.sysctls is for networks of a bundle or of the cluster: proxy_arp, for one, answers for addresses of others"}
	case e.Delegate != nil:
		return &Verdict{Code: diag.DeviceNotAllowed, Message: "extension.delegate is for networks of a bundle: a plugin's configuration may name any device; name the plugin in NetworkType and its file by NetworkID"}
	}
	return nil
}

func explicit(value any) danmv1.NetworkExtension {
	var e *danmv1.NetworkExtension
	switch o := value.(type) {
	case *danmv1.DanmNet:
		e = o.Spec.Extension
	case *danmv1.TenantNetwork:
		e = o.Spec.Extension
	case *danmv1.ClusterNetwork:
		e = o.Spec.Extension
	}
	if e == nil {
		return danmv1.NetworkExtension{}
	}
	return *e
}

// allowed are the namespaces of a ClusterNetwork: those it lists, and those of the tenants it names.
func allowed(o *danmv1.ClusterNetwork, tenants []model.Tenant) ([]string, error) {
	out := slices.Clone(o.Spec.AllowedTenants)
	for _, name := range explicit(o).AllowedTenants {
		i := slices.IndexFunc(tenants, func(t model.Tenant) bool { return t.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("tenant %q does not exist", name)
		}
		out = append(out, tenants[i].Namespaces...)
	}
	for _, t := range tenants {
		if slices.Contains(t.Networks, o.Name) && len(out) > 0 {
			out = append(out, t.Namespaces...)
		}
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// withoutVXLAN moves what only DANM's netwatcher knows of a definition's config out of the plugin's sight: the keys vlan and
// vxlan ask for a host link, and the plugin is to stand on that. The object itself stays as its author wrote it.
func withoutVXLAN(d *npwgv1.NetworkAttachmentDefinition) *npwgv1.NetworkAttachmentDefinition {
	config := map[string]any{}
	if json.Unmarshal([]byte(d.Spec.Config), &config) != nil || config["vxlan"] == nil {
		return d
	}
	delete(config, "vxlan")
	text, err := json.Marshal(config)
	if err != nil {
		return d
	}
	out := *d
	out.Spec.Config = string(text)
	return &out
}

// watched is what netwatcher reads of a definition.
type watched struct {
	Name   string `json:"name"`
	Master string `json:"master"`
	VLAN   int    `json:"vlan"`
	VXLAN  int    `json:"vxlan"`
}

// tagOf puts a definition's own tag into its document: DANM made the link whatever the plugin was.
func (o *Object) tag() {
	d, ok := o.Value.(*npwgv1.NetworkAttachmentDefinition)
	if !ok {
		return
	}
	var w watched
	if json.Unmarshal([]byte(d.Spec.Config), &w) != nil || w.Master == "" || w.VLAN == 0 && w.VXLAN == 0 {
		return
	}
	spec := &o.doc.Spec
	if w.Name != "" && w.Name != o.Name {
		spec.NetworkID = w.Name
	}
	o.device, spec.HostDevice = w.Master, w.Master
	if w.VXLAN != 0 {
		o.multi, spec.Fabric, spec.HostDevice = true, w.Master, ""
		spec.VLAN, spec.VXLAN = nil, &v1.ID{Value: int64(w.VXLAN)}
		return
	}
	spec.VLAN = &v1.ID{Value: int64(w.VLAN)}
}
