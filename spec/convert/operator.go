package convert

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// The sriov-network-operator's API: what is read of it.
const (
	OperatorGroup  = "sriovnetwork.openshift.io"
	kindNodePolicy = "SriovNetworkNodePolicy"
	kindNetwork    = "SriovNetwork"
)

// NodePolicy is a SriovNetworkNodePolicy: how virtual functions are made on some nodes.
type NodePolicy struct {
	Metadata Metadata       `json:"metadata"`
	Spec     NodePolicySpec `json:"spec"`
	unknown  error          // a field of the spec that is not among those below
}

// Metadata is what is read of an object's.
type Metadata struct {
	Name      string `json:"name"`
	Namespace string `json:"namespace"`
}

// NodePolicySpec has the operator's fields. Raw ones are not carried over, whatever they say.
type NodePolicySpec struct {
	ResourceName      string            `json:"resourceName"`
	NodeSelector      map[string]string `json:"nodeSelector"`
	Priority          int               `json:"priority"` // of two policies for one card the smaller one wins
	MTU               int               `json:"mtu"`
	NumVFs            int               `json:"numVfs"`
	NICSelector       NICSelector       `json:"nicSelector"`
	DeviceType        string            `json:"deviceType"` // netdevice or vfio-pci
	IsRDMA            bool              `json:"isRdma"`
	NeedVhostNet      bool              `json:"needVhostNet"`
	VDPAType          string            `json:"vdpaType"`
	LinkType          string            `json:"linkType"` // eth or ib
	EswitchMode       string            `json:"eSwitchMode"`
	ExcludeTopology   bool              `json:"excludeTopology"`
	ExternallyManaged bool              `json:"externallyManaged"`
	Bridge            json.RawMessage   `json:"bridge"`
}

// NICSelector finds physical functions: all that is given must agree. Names may carry a range of functions, as in ens1f0#0-3.
type NICSelector struct {
	Vendor      string   `json:"vendor"`
	DeviceID    string   `json:"deviceID"`
	RootDevices []string `json:"rootDevices"`
	PFNames     []string `json:"pfNames"`
	NetFilter   string   `json:"netFilter"`
}

// OperatorNetwork is a SriovNetwork: the operator makes a NetworkAttachmentDefinition of it.
type OperatorNetwork struct {
	Metadata Metadata            `json:"metadata"`
	Spec     OperatorNetworkSpec `json:"spec"`
	unknown  error
}

// OperatorNetworkSpec has the operator's fields.
type OperatorNetworkSpec struct {
	NetworkNamespace string `json:"networkNamespace"`
	ResourceName     string `json:"resourceName"`
	Capabilities     string `json:"capabilities"` // JSON
	IPAM             string `json:"ipam"`         // JSON
	VLAN             int    `json:"vlan"`
	VLANQoS          int    `json:"vlanQoS"`
	VLANProto        string `json:"vlanProto"`
	SpoofChk         string `json:"spoofChk"` // on, off; "" leaves it
	Trust            string `json:"trust"`    // on, off; "" leaves it
	LinkState        string `json:"linkState"`
	MinTxRate        int64  `json:"minTxRate"`
	MaxTxRate        int64  `json:"maxTxRate"`
	MetaPlugins      string `json:"metaPlugins"` // JSON objects, separated by commas
	LogLevel         string `json:"logLevel"`
	LogFile          string `json:"logFile"`
}

// leftOut are the operator's other kinds that a person may miss, and what is in their place.
var leftOut = map[string]string{
	"SriovIBNetwork":         "InfiniBand is not supported: left out",
	"OVSNetwork":             "Open vSwitch is not supported: left out",
	"SriovNetworkPoolConfig": "left out: how many nodes change at a time is the Bundle's rollout.maxUnavailable",
	"SriovOperatorConfig":    "is the operator's own configuration: left out",
}

// OperatorObject reads an object of the operator's group from JSON: a pointer to a NodePolicy or an OperatorNetwork, or nil and
// what to say of another kind, "" if nothing.
func OperatorObject(kind string, data []byte) (object any, note string, err error) {
	var spec struct {
		Spec json.RawMessage `json:"spec"`
	}
	if err := json.Unmarshal(data, &spec); err != nil {
		return nil, "", err
	}
	switch kind {
	case kindNodePolicy:
		p := &NodePolicy{unknown: strict(spec.Spec, &NodePolicySpec{})}
		return p, "", json.Unmarshal(data, p)
	case kindNetwork:
		n := &OperatorNetwork{unknown: strict(spec.Spec, &OperatorNetworkSpec{})}
		return n, "", json.Unmarshal(data, n)
	}
	return nil, leftOut[kind], nil
}

// strict says which field of a spec is not known.
func strict(spec json.RawMessage, into any) error {
	if len(spec) == 0 {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(spec))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	return nil
}

// DevicePlugin is what a configuration of the sr-iov device plugin offers, by name. It does not say how many functions there are.
func DevicePlugin(config []byte) []string {
	var c struct {
		ResourceList []struct {
			ResourcePrefix string `json:"resourcePrefix"`
			ResourceName   string `json:"resourceName"`
		} `json:"resourceList"`
	}
	if json.Unmarshal(config, &c) != nil {
		return nil
	}
	var out []string
	for _, r := range c.ResourceList {
		if r.ResourcePrefix == "" {
			r.ResourcePrefix = "intel.com" // the plugin's own default
		}
		out = append(out, fmt.Sprintf("%s/%s", r.ResourcePrefix, r.ResourceName))
	}
	return out
}
