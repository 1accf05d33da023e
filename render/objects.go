package render

import (
	"cmp"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/model"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Object is one API object. Value is a pointer to a type of spec/danm/v1 or spec/npwg/v1 and marshals to the manifest.
type Object struct {
	APIVersion string
	Kind       string
	Namespace  string
	Name       string
	Value      any
}

// objects makes the API objects of a bundle: a TenantNetwork or ClusterNetwork a network, with definitions in the dialect of
// Multus where asked for, a TenantConfig a tenant.
func objects(b model.Bundle, networks []model.Network) []Object {
	out := make([]Object, 0, len(networks)+len(b.Tenants))
	for i := range networks {
		n := &networks[i]
		o := Object{APIVersion: danmv1.APIVersion, Kind: string(n.Kind), Namespace: n.Namespace, Name: n.Name}
		if n.Kind == model.ClusterNetwork {
			o.Value = &danmv1.ClusterNetwork{TypeMeta: o.typeMeta(), ObjectMeta: o.objectMeta(), Spec: networkSpec(b, n)}
		} else {
			o.Value = &danmv1.TenantNetwork{TypeMeta: o.typeMeta(), ObjectMeta: o.objectMeta(), Spec: networkSpec(b, n)}
		}
		out = append(out, o)
		out = append(out, definitions(n)...)
	}
	for _, t := range b.Tenants {
		o := Object{APIVersion: danmv1.APIVersion, Kind: danmv1.KindTenantConfig, Name: t.Name}
		o.Value = tenantConfig(b, t, o)
		out = append(out, o)
	}
	slices.SortFunc(out, func(x, y Object) int {
		return cmp.Or(cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.Namespace, y.Namespace), cmp.Compare(x.Name, y.Name))
	})
	return out
}

func (o Object) typeMeta() metav1.TypeMeta {
	return metav1.TypeMeta{APIVersion: o.APIVersion, Kind: o.Kind}
}

func (o Object) objectMeta() metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: o.Namespace, Name: o.Name}
}

// networkSpec says in DANM's fields what they can say, in the extension the rest.
func networkSpec(b model.Bundle, n *model.Network) danmv1.NetworkSpec {
	spec := danmv1.NetworkSpec{
		NetworkID: n.NetworkID, NetworkType: string(n.Type), AllowedTenants: n.AllowedNamespaces,
		Options: danmv1.NetworkOptions{
			Device: n.HostDevice, DevicePool: n.DevicePool, Vlan: int(n.VLAN), Vxlan: int(n.VNI),
			Prefix: n.InterfacePrefix, RTables: int64(n.Table), MTU: n.MTU,
		},
	}
	ext := danmv1.NetworkExtension{Mode: n.Mode, VLANQoS: int(n.QoS), Native: n.Driver() == model.TAGGED, Fabric: n.Fabric, BlockSize: n.BlockSize, SharedWith: n.SharedWith, AllowedTenants: n.AllowedTenants}
	if f, ok := fabricOf(b, n.Fabric); ok && n.DevicePool == "" { // DANM has one of host_device and device_pool
		spec.Options.Device = f.Device
	}
	if s := n.IPv4; s != nil {
		spec.Options.Cidr, spec.Options.Routes = s.CIDR.String(), routesMap(s.Routes)
		spec.Options.Pool, ext.Pools = pools(s.Pools)
		ext.Exclude, ext.Gateway = ranges(s.Exclude), addressText(s.Gateway)
	}
	if s := n.IPv6; s != nil {
		spec.Options.Net6, spec.Options.Routes6 = s.CIDR.String(), routesMap(s.Routes)
		spec.Options.PoolV6.IPPool, ext.PoolsV6 = pools(s.Pools)
		ext.ExcludeV6, ext.GatewayV6 = ranges(s.Exclude), addressText(s.Gateway)
	}
	for _, r := range n.Reserved {
		ext.Reserved = append(ext.Reserved, danmv1.ReservedAddress{Name: r.Name, Namespace: r.Namespace, IP: addressText(r.IP), IP6: addressText(r.IP6)})
	}
	for _, s := range n.Sysctls {
		if ext.Sysctls == nil {
			ext.Sysctls = map[string]string{}
		}
		ext.Sysctls[s.Key] = s.Value
	}
	if n.Sticky {
		ext.Sticky = "StatefulSet"
	}
	if d := n.Delegate; d != nil {
		ext.Delegate = &danmv1.Delegate{Conf: d.Conf, ConfList: d.ConfList, File: d.File}
	}
	if !reflect.DeepEqual(ext, danmv1.NetworkExtension{}) {
		spec.Extension = &ext
	}
	return spec
}

func fabricOf(b model.Bundle, name string) (model.Fabric, bool) {
	i := slices.IndexFunc(b.Fabrics, func(f model.Fabric) bool { return f.Name == name })
	if name == "" || i < 0 {
		return model.Fabric{}, false
	}
	return b.Fabrics[i], true
}

// pools is DANM's one range, which spans all, and the exact ranges where one is not enough.
func pools(all []model.AddrRange) (danmv1.IPPool, []string) {
	if len(all) == 0 {
		return danmv1.IPPool{}, nil
	}
	span := danmv1.IPPool{Start: all[0].First.String(), End: all[len(all)-1].Last.String()}
	if len(all) == 1 {
		return span, nil
	}
	return span, ranges(all)
}

func ranges(all []model.AddrRange) []string {
	var out []string
	for _, r := range all {
		if r.First == r.Last {
			out = append(out, r.First.String())
		} else {
			out = append(out, r.First.String()+"-"+r.Last.String())
		}
	}
	return out
}

func addressText(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func routesMap(routes []model.PodRoute) map[string]string {
	if len(routes) == 0 {
		return nil
	}
	out := make(map[string]string, len(routes))
	for _, r := range routes {
		out[r.To.String()] = r.Via.String()
	}
	return out
}

// tenantConfig lists the devices and ids of a tenant. A tenant that names no fabric may use all.
func tenantConfig(b model.Bundle, t model.Tenant, o Object) *danmv1.TenantConfig {
	c := &danmv1.TenantConfig{TypeMeta: o.typeMeta(), ObjectMeta: o.objectMeta(), NetworkIds: t.NetworkIDs}
	c.Labels = map[string]string{danmv1.LabelTenant: t.Name}
	shares := t.Fabrics
	if len(shares) == 0 {
		for _, f := range b.Fabrics {
			shares = append(shares, model.TenantFabric{Fabric: f.Name})
		}
	}
	for _, s := range shares {
		f, _ := fabricOf(b, s.Fabric)
		vlans, vnis := shareOf(f, s)
		if len(vlans) > 0 {
			c.HostDevices = append(c.HostDevices, danmv1.IfaceProfile{Name: f.Device, VniType: "vlan", VniRange: cpuset(vlans)})
		}
		if len(vnis) > 0 && f.VXLAN != nil {
			c.HostDevices = append(c.HostDevices, danmv1.IfaceProfile{Name: f.Device, VniType: "vxlan", VniRange: cpuset(vnis)})
		}
	}
	c.Extension = tenantExtension(t)
	for _, n := range t.Networks {
		c.AllowedClusterNetworks = append(c.AllowedClusterNetworks, danmv1.AllowedClusterNetwork{Name: n})
	}
	return c
}

func tenantExtension(t model.Tenant) *danmv1.TenantExtension {
	ext := &danmv1.TenantExtension{Namespaces: t.Namespaces, DefaultNetwork: t.DefaultNetwork}
	for _, f := range t.Fabrics {
		ext.Fabrics = append(ext.Fabrics, danmv1.TenantFabric{Name: f.Fabric, VLANRanges: cpuset(f.VLANRanges), VNIRanges: cpuset(f.VNIRanges)})
	}
	if q := t.Quotas; q != (model.Quotas{}) {
		ext.Quotas = &danmv1.Quotas{Networks: q.Networks, Endpoints: q.Endpoints, Addresses: q.Addresses}
	}
	return ext
}

// shareOf is a tenant's ids on a fabric: its own ranges, else the fabric's, else every id.
func shareOf(f model.Fabric, s model.TenantFabric) (vlans, vnis []model.Range32) {
	switch {
	case len(s.VLANRanges)+len(s.VNIRanges) > 0:
		return s.VLANRanges, s.VNIRanges
	case len(f.VLANRanges)+len(f.VNIRanges) > 0:
		return f.VLANRanges, f.VNIRanges
	}
	return []model.Range32{{First: 1, Last: maxVLAN}}, []model.Range32{{First: 1, Last: maxVNI}}
}

// cpuset is DANM's way of writing ranges: "2000-2500,2601".
func cpuset(ranges []model.Range32) string {
	var out []string
	for _, r := range ranges {
		if r.First == r.Last {
			out = append(out, fmt.Sprint(r.First))
		} else {
			out = append(out, fmt.Sprintf("%d-%d", r.First, r.Last))
		}
	}
	return strings.Join(out, ",")
}
