package render

import (
	"danm.io/danm/spec/model"
	npwgv1 "danm.io/danm/spec/npwg/v1"
)

// nadConf is the CNI configuration of a definition: our plugin with one interface. The runtime names the interface.
type nadConf struct {
	CNIVersion string         `json:"cniVersion"`
	Name       string         `json:"name"`
	Type       string         `json:"type"`
	Interfaces []nadInterface `json:"interfaces"`
}

// nadInterface is one entry of DANM's annotation danm.io/interfaces.
type nadInterface struct {
	TenantNetwork  string `json:"tenantNetwork,omitempty"`
	ClusterNetwork string `json:"clusterNetwork,omitempty"`
	IP             string `json:"ip,omitempty"`
	IP6            string `json:"ip6,omitempty"`
}

// definitions are the NetworkAttachmentDefinitions of a network that asks for them, see model.Network.DefinedIn.
func definitions(n *model.Network) []Object {
	namespaces := n.DefinedIn()
	if len(namespaces) == 0 {
		return nil
	}
	itf := nadInterface{TenantNetwork: n.Name}
	if n.Kind == model.ClusterNetwork {
		itf = nadInterface{ClusterNetwork: n.Name}
	}
	if n.IPv4 != nil {
		itf.IP = string(model.AddressDynamic)
	}
	if n.IPv6 != nil {
		itf.IP6 = string(model.AddressDynamic)
	}
	conf := string(mustJSON(nadConf{CNIVersion: "1.0.0", Name: n.Name, Type: "danm", Interfaces: []nadInterface{itf}}))
	var out []Object
	for _, namespace := range namespaces {
		o := Object{APIVersion: npwgv1.APIVersion, Kind: npwgv1.Kind, Namespace: namespace, Name: n.Name}
		d := &npwgv1.NetworkAttachmentDefinition{TypeMeta: o.typeMeta(), ObjectMeta: o.objectMeta(), Spec: npwgv1.Spec{Config: conf}}
		if n.DevicePool != "" {
			d.Annotations = map[string]string{npwgv1.ResourceName: n.DevicePool}
		}
		o.Value = d
		out = append(out, o)
	}
	return out
}
