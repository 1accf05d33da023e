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
	// Away says that the container is gone, and Interfaces are those whose virtual functions are not back, see setAway.
	Away bool `json:"away,omitempty"`
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
		p.devices = append(p.devices, devicesOf(at)...)
		if at.Pool != "" && at.DeviceID != "" {
			p.held = append(p.held, Held{Device: at.DeviceID, Pool: at.Pool, Pod: p.name})
		}
		if at.Type == model.IPVLAN {
			if p.modes == nil {
				p.modes = map[string]string{}
			}
			p.modes[at.Device] = at.Mode
		}
		p.networks = append(p.networks, string(at.NetworkKind)+"/"+at.Network)
		if at.VF != nil && at.Delegate == nil {
			p.vfs = append(p.vfs, at)
		}
		if use := useOf(at); use != "" {
			p.sole = append(p.sole, use)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pods[sandbox] = p
}

// Keys of Server.Pods beside names of links, which have no slash: one virtual function by its PCI address, and all of a physical one by
// that one's interface.
const (
	FunctionKey = "vf/"
	PhysicalKey = "sriov/"
)

// devicesOf is what of the host an interface hangs on: its host link, a virtual function, and the physical one of that. A device that
// another plugin was given is taken for a virtual function, too; what is none is nobody's key.
func devicesOf(at model.Attachment) (out []string) {
	if at.Device != "" {
		out = append(out, at.Device)
	}
	if at.DeviceID != "" {
		out = append(out, FunctionKey+at.DeviceID)
	}
	if at.VF != nil {
		out = append(out, PhysicalKey+at.VF.PF)
	}
	return out
}

// claimed is what ADDs of a Pod in progress take.
type claimed struct {
	pod, uid string
	by       int // how many of them
}

// claim refuses what another Pod has, or is about to have, that one can have only, and what two of the Pod's own interfaces would have;
// else no other Pod gets it until unclaim. A Pod's own former sandbox gives it up; one of the same name is another Pod's, whose containers
// may be running still.
func (s *Server) claim(p choice, of podArgs) (unclaim func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var mine []string
	for _, it := range p.items {
		use := it.sole()
		if use == "" {
			continue
		}
		if slices.Contains(mine, use) {
			return nil, fail(CodeRequestRefused, diag.PodDeviceBusy, fmt.Errorf("interface %s on network %s would have %s, which another of the Pod's has: two device plugins offer it", it.ifName, it.network.Key(), use))
		}
		if holder := s.holder(use, of.uid); holder != "" {
			return nil, fail(types.ErrTryAgainLater, diag.PodDeviceBusy, fmt.Errorf("network %s: Pod %s has %s of this node, and one Pod at a time can", it.network.Key(), holder, use))
		}
		mine = append(mine, use)
	}
	for _, use := range mine {
		s.claims[use] = claimed{podName(of.namespace, of.pod), of.uid, s.claims[use].by + 1}
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, use := range mine {
			if c := s.claims[use]; c.by > 1 {
				c.by--
				s.claims[use] = c
			} else {
				delete(s.claims, use)
			}
		}
	}, nil
}

// holder is the other Pod that has, or is about to have, what one can have only; "" if none. The caller holds mu.
func (s *Server) holder(use, uid string) string {
	if c, is := s.claims[use]; is && c.uid != uid {
		return c.pod
	}
	for _, other := range s.pods {
		if of, _ := containerOf(other.uid); of != uid && slices.Contains(other.sole, use) { // see scopedKey
			return other.name
		}
	}
	return ""
}

// lost are the interfaces of a sandbox whose devices the record of another one names, too: it has got them since.
func (s *Server) lost(sandbox string, interfaces []model.Attachment) (names []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, at := range interfaces {
		use := useOf(at)
		for key, other := range s.pods {
			if use != "" && key != sandbox && slices.Contains(other.sole, use) {
				names = append(names, at.IfName)
				break
			}
		}
	}
	return names
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
