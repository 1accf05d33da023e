// Package tenancy is how TenantConfigs are read: which of them speak for a namespace, what they let its networks use, and what
// is on record for a network. It is pure; whoever gives numbers out, makes links, or judges, reads them the same way.
//
// It chooses nothing (reconcile/tenancy does).
package tenancy

import (
	"cmp"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"danm.io/danm/spec/api/v1alpha1"
	danmv1 "danm.io/danm/spec/danm/v1"
)

// ConditionAssigned on a TenantNetwork says whether its device and number are its own. It is of the tenancy loop alone.
const ConditionAssigned = "Assigned"

// Kinds of numbers, as a profile's vniType has them.
const (
	VLAN  = "vlan"
	VXLAN = "vxlan"
)

// Number is a VLAN id or VNI where it must be unique: a VLAN id on its device, a VNI everywhere, since the kernel refuses a
// second one on a node and UDP port, whatever the device (Device is empty then).
type Number struct {
	Kind   string
	Device string
	ID     int64
}

// NumberOf is the number with this id on a device; kind is VLAN or VXLAN.
func NumberOf(kind, device string, id int64) Number {
	if kind == VXLAN {
		device = ""
	}
	return Number{Kind: kind, Device: device, ID: id}
}

// Numbers of a network's parameters; none, one, or, where rules were broken, two.
func Numbers(o danmv1.NetworkOptions) []Number {
	device := cmp.Or(o.Device, o.DevicePool)
	var out []Number
	if o.Vlan > 0 {
		out = append(out, NumberOf(VLAN, device, int64(o.Vlan)))
	}
	if o.Vxlan > 0 {
		out = append(out, NumberOf(VXLAN, device, int64(o.Vxlan)))
	}
	return out
}

// For returns the TenantConfigs that speak for a namespace, sorted by name: those that list it; or are labelled with its name
// and list none; where there are none, all without the label.
func For(configs []danmv1.TenantConfig, namespace string) []*danmv1.TenantConfig {
	var own, common []*danmv1.TenantConfig
	for i := range configs {
		c := &configs[i]
		tenant, labelled := c.Labels[danmv1.LabelTenant]
		switch names := Namespaces(c); {
		case slices.Contains(names, namespace), len(names) == 0 && labelled && tenant == namespace:
			own = append(own, c)
		case !labelled && len(names) == 0:
			common = append(common, c)
		}
	}
	if len(own) == 0 {
		own = common
	}
	slices.SortFunc(own, func(a, b *danmv1.TenantConfig) int { return strings.Compare(a.Name, b.Name) })
	return own
}

// Namespaces that a TenantConfig lists.
func Namespaces(c *danmv1.TenantConfig) []string {
	if c.Extension == nil {
		return nil
	}
	return c.Extension.Namespaces
}

// Dynamic says whether a network's interfaces stand on a device of the host that we choose: DANM's own types and our bridge. A
// type with a delegate is a CNI plugin whatever its name.
func Dynamic(s danmv1.NetworkSpec) bool {
	if s.Extension != nil && s.Extension.Delegate != nil {
		return false
	}
	return slices.Contains([]string{"", "ipvlan", "macvlan", "sriov", "bridge"}, strings.ToLower(s.NetworkType))
}

// EffectiveNetworkID is the NetworkID that a network is used by: what the networkIds of its TenantConfigs say of its type
// (in any case; the first config by name), else its own. As in DANM the tenant's word counts where the administrator has none.
func EffectiveNetworkID(configs []danmv1.TenantConfig, network *danmv1.TenantNetwork) string {
	kind := cmp.Or(network.Spec.NetworkType, "ipvlan")
	for _, c := range For(configs, network.Namespace) {
		for _, k := range sortedKeys(c.NetworkIds) {
			if strings.EqualFold(k, kind) && c.NetworkIds[k] != "" {
				return c.NetworkIds[k]
			}
		}
	}
	return network.Spec.NetworkID
}

func sortedKeys(m map[string]string) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// Made are the TenantNetworks that NetworkBundles made.
type Made map[string]bool

// MadeBy reads the inventories of bundles.
func MadeBy(bundles []v1alpha1.NetworkBundle) Made {
	out := Made{}
	for i := range bundles {
		label := v1alpha1.LabelValue(bundles[i].Name)
		for _, r := range bundles[i].Status.Inventory {
			if r.Kind == danmv1.KindTenantNetwork {
				out[label+" "+r.Namespace+"/"+r.Name] = true
			}
		}
	}
	return out
}

// Has says whether a bundle made the network. The label alone does not: whoever may make a network may write it, and would be
// free of every rule for networks made through the API. The bundle's inventory, which is written before its objects are, has
// the last word.
func (m Made) Has(network *danmv1.TenantNetwork) bool {
	return m[network.Labels[v1alpha1.LabelBundle]+" "+network.Namespace+"/"+network.Name]
}

// Usable is what a network may use: its reservation, once that was held against all others, whatever the network's spec says now.
func Usable(configs []danmv1.TenantConfig, network *danmv1.TenantNetwork) (danmv1.ReservedNumber, bool) {
	for _, c := range network.Status.Conditions {
		if c.Type == ConditionAssigned && (c.Status == metav1.ConditionTrue || c.Reason == ReasonChanged) {
			return Reserved(configs, network)
		}
	}
	return danmv1.ReservedNumber{}, false
}

// ReasonChanged is the reason of Assigned when a network says another device or number than it was given; spec/diag explains it.
const ReasonChanged = "AssignmentChanged"

// Reserved is what is on record for a network. It may be given up yet: see Usable.
func Reserved(configs []danmv1.TenantConfig, network *danmv1.TenantNetwork) (danmv1.ReservedNumber, bool) {
	for i := range configs {
		for _, r := range configs[i].Status.Reserved {
			if r.Network == network.Namespace+"/"+network.Name && r.UID == string(network.UID) {
				return r, true
			}
		}
	}
	return danmv1.ReservedNumber{}, false
}
