package server

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"danm.io/danm/cni/wire"
	"danm.io/danm/spec/annotation"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// pluginType is how CNI configurations name this plugin.
const pluginType = "danm"

var versions = []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"}

func versionAnswer() []byte {
	b, _ := json.Marshal(map[string]any{"cniVersion": versions[len(versions)-1], "supportedVersions": versions})
	return b
}

// netConf is the CNI configuration. Keys it does not name (kubeconfig, cniDir, comments, …) are tolerated: runtimes and
// DANM's users have them.
type netConf struct {
	CNIVersion   string          `json:"cniVersion"`
	Name         string          `json:"name"`
	Type         string          `json:"type"`
	Namespace    string          `json:"namespace"`    // tenant where the runtime names no Pod
	NamingScheme string          `json:"namingScheme"` // "legacy": the prefix alone is the name
	Interfaces   json.RawMessage `json:"interfaces"`
	IPAM         json.RawMessage `json:"ipam"`
	PrevResult   json.RawMessage `json:"prevResult"`
	Runtime      map[string]any  `json:"runtimeConfig"` // capability arguments, for the first interface
	// Valid is what a GC leaves alone; its first name was another one (CNI specification 1.1.0, section 2, "GC").
	Valid    json.RawMessage `json:"cni.dev/valid-attachments"`
	OldValid json.RawMessage `json:"cni.dev/attachments"`

	requests []model.InterfaceRequest // of Interfaces
	ipam     *annotation.IPAM         // of IPAM, if the call is one for addresses alone; then Interfaces are the other plugin's
}

func parseConf(stdin []byte) (c netConf, err error) {
	if len(stdin) > wire.MaxStdin {
		return c, fail(types.ErrInvalidNetworkConfig, diag.ConfInvalid, errors.New("the network configuration is over 1 MiB"))
	}
	if err := json.Unmarshal(stdin, &c); err != nil {
		return c, fail(types.ErrDecodingFailure, diag.ConfInvalid, fmt.Errorf("decode the network configuration: %w", err))
	}
	if !slices.Contains(versions, c.CNIVersion) {
		return c, fail(types.ErrIncompatibleCNIVersion, diag.ConfInvalid, fmt.Errorf("cniVersion %q is not supported", clip(c.CNIVersion)))
	}
	if c.Name == "" {
		return c, fail(types.ErrInvalidNetworkConfig, diag.ConfInvalid, errors.New("the network configuration has no name"))
	}
	if c.forIPAM() {
		asked, problems := annotation.ParseIPAM("ipam", c.IPAM)
		if err := problems.Err(); err != nil {
			return c, fail(types.ErrInvalidNetworkConfig, problems[0].Code, err)
		}
		c.ipam = &asked
		return c, nil
	}
	if c.Interfaces == nil {
		return c, nil
	}
	requests, problems := annotation.ParseInterfaces("interfaces", c.Interfaces)
	if err := problems.Err(); err != nil {
		return c, fail(types.ErrInvalidNetworkConfig, problems[0].Code, err)
	}
	c.requests = requests
	return c, nil
}

// validContainers are those whose attachments a GC leaves alone. null is nobody; without the key the runtime has not said who lives.
func (c netConf) validContainers() ([]string, error) {
	text := c.Valid
	if text == nil {
		text = c.OldValid
	}
	if text == nil {
		return nil, fail(types.ErrInvalidNetworkConfig, diag.ConfInvalid, errors.New("GC without cni.dev/valid-attachments"))
	}
	var list []types.GCAttachment
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, fail(types.ErrDecodingFailure, diag.ConfInvalid, fmt.Errorf("decode cni.dev/valid-attachments: %w", err))
	}
	var out []string
	for i, a := range list {
		if a.ContainerID == "" {
			return nil, fail(types.ErrInvalidNetworkConfig, diag.ConfInvalid, fmt.Errorf("cni.dev/valid-attachments[%d] names no container", i))
		}
		out = append(out, a.ContainerID)
	}
	return out, nil
}

// forIPAM says whether another plugin, whose configuration this is, has called us as its IPAM plugin: it hands on what it was
// called with (CNI specification, section 4, "Delegated plugins").
func (c netConf) forIPAM() bool {
	var section struct {
		Type string `json:"type"`
	}
	return c.Type != pluginType && json.Unmarshal(c.IPAM, &section) == nil && section.Type == pluginType
}

// podArgs is who is attached.
type podArgs struct {
	namespace, pod, uid string
	named, identified   bool // the runtime names a Pod, and its UID
	pairs               [][2]string
}

// parseArgs reads CNI_ARGS ("K=V;K=V"). Without a Pod's UID the container's ID stands for it, as every container is then
// a Pod of its own.
func parseArgs(req wire.Request, conf netConf) (a podArgs, err error) {
	a = podArgs{namespace: conf.Namespace, pod: req.ContainerID, uid: req.ContainerID}
	for pair := range strings.SplitSeq(req.Args, ";") {
		if pair == "" {
			continue
		}
		key, value, ok := strings.Cut(pair, "=")
		if !ok {
			return a, fail(types.ErrInvalidEnvironmentVariables, diag.ConfInvalid, fmt.Errorf("CNI_ARGS: %q is not KEY=VALUE", clip(pair)))
		}
		a.pairs = append(a.pairs, [2]string{key, value})
		if value == "" {
			continue
		}
		switch key {
		case "K8S_POD_NAMESPACE":
			a.namespace = value
		case "K8S_POD_NAME":
			a.pod, a.named = value, true
		case "K8S_POD_UID":
			if strings.Contains(value, "/") { // would be somebody else's record, see scopedKey
				return a, fail(types.ErrInvalidEnvironmentVariables, diag.ConfInvalid, fmt.Errorf("CNI_ARGS: %q is not a UID", clip(value)))
			}
			a.uid, a.identified = value, true
		}
	}
	return a, nil
}
