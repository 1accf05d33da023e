package server

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/containernetworking/cni/pkg/types"

	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// recordVersion is the form of attachment records that this release writes; it reads the one before, once there is one.
const recordVersion = 1

var errRecordVersion = errors.New("attachment record of an unknown version")

// record is what stands in the journal about one attached sandbox, written before the kernel is touched. DEL and CHECK
// need nothing else.
type record struct {
	Version    int                `json:"version"`
	Conf       string             `json:"conf"` // name of the CNI configuration
	CNIVersion string             `json:"cniVersion"`
	IfName     string             `json:"ifName"` // CNI_IFNAME
	Netns      string             `json:"netns"`
	NetnsID    string             `json:"netnsID"` // attach.Identity: paths through /proc come to mean other namespaces
	Boot       string             `json:"boot,omitempty"`
	Interfaces []model.Attachment `json:"interfaces"`
	// Given is what another plugin was given addresses by; the link is that plugin's, so it is not among Interfaces.
	Given *model.Attachment `json:"given,omitempty"`
}

// all are the attachments that the record speaks of, whoever made the links.
func (r record) all() []model.Attachment {
	if r.Given == nil {
		return r.Interfaces
	}
	return append(slices.Clone(r.Interfaces), *r.Given)
}

func (r record) encode() ([]byte, error) {
	r.Version = recordVersion
	return json.Marshal(r)
}

func decodeRecord(data []byte) (r record, err error) {
	if len(data) == 0 {
		return r, nil // addresses without links
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return r, fmt.Errorf("decode attachment record: %w", err)
	}
	if r.Version != recordVersion {
		return r, fmt.Errorf("version %d: %w", r.Version, errRecordVersion)
	}
	return r, nil
}

// remember and forget keep the cache behind Pods.
func (s *Server) remember(sandbox string, of podArgs, interfaces []model.Attachment) {
	p := attachedPod{name: podName(of.namespace, of.pod), uid: of.uid}
	for _, at := range interfaces {
		p.devices = append(p.devices, at.Device)
		if at.Type == model.IPVLAN {
			if p.modes == nil {
				p.modes = map[string]string{}
			}
			p.modes[at.Device] = at.Mode
		}
		p.networks = append(p.networks, string(at.NetworkKind)+"/"+at.Network)
		if use := soleUse(model.Network{Type: at.Type, Mode: at.Mode, Device: at.Device, VLAN: at.VLAN}); use != "" {
			p.sole = append(p.sole, use)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pods[sandbox] = p
}

// alone refuses what another Pod has that one can have only. A Pod's own former sandbox gives it up.
func (s *Server) alone(p choice, pod string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, it := range p.items {
		use := soleUse(it.network)
		for _, other := range s.pods {
			if use != "" && other.name != pod && slices.Contains(other.sole, use) {
				return fail(types.ErrTryAgainLater, diag.PodDeviceBusy, fmt.Errorf("network %s: Pod %s has %s of this node, and one Pod at a time can", it.network.Key(), other.name, use))
			}
		}
	}
	return nil
}

// oneMode refuses an ipvlan in another mode than those that Pods have on the same device: the kernel would change them all (Linux,
// ipvlan_set_port_mode).
func (s *Server) oneMode(p choice) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, it := range p.items {
		if it.network.Driver() != model.IPVLAN {
			continue
		}
		for _, other := range s.pods {
			if mode, on := other.modes[it.network.Device]; on && mode != it.network.Mode {
				want := cmp.Or(it.network.Mode, model.DefaultMode(model.IPVLAN))
				return fail(CodeRequestRefused, diag.PodModeBusy, fmt.Errorf("network %s wants ipvlans of %s in mode %s, and Pods that were attached before it changed have them in mode %s",
					it.network.Key(), it.network.Device, want, cmp.Or(mode, model.DefaultMode(model.IPVLAN))))
			}
		}
	}
	return nil
}

// podName is a Pod's name for people; a container that is in no Pod has its own.
func podName(namespace, pod string) string {
	if namespace == "" {
		return "container " + pod
	}
	return namespace + "/" + pod
}

func (s *Server) forget(sandbox string) {
	s.mu.Lock()
	if end := s.pods[sandbox].end; end != nil {
		end()
	}
	delete(s.pods, sandbox)
	delete(s.lastAdd, sandbox)
	s.mu.Unlock()
	s.changed(sandbox, false)
}

// Attached counts the interfaces of Pods by network: "ClusterNetwork/oam", "TenantNetwork/acme/voice".
func (s *Server) Attached() map[string]int32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := map[string]int32{}
	for _, p := range s.pods {
		for _, n := range p.networks {
			out[n]++
		}
	}
	return out
}

func byDevice(pods map[string]attachedPod) map[string][]string {
	out := map[string][]string{}
	for _, p := range pods {
		for _, d := range p.devices {
			out[d] = append(out[d], p.name)
		}
	}
	for d, names := range out {
		slices.Sort(names)
		out[d] = slices.Compact(names)
	}
	return out
}
