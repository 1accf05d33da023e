package server

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// networkStatus is one interface in the annotation k8s.v1.cni.cncf.io/network-status (multi-net-spec v1.3, section 5), in the order
// in which Multus writes the keys.
type networkStatus struct {
	Name      string    `json:"name"`
	Interface string    `json:"interface,omitempty"`
	IPs       []string  `json:"ips,omitempty"`
	MAC       string    `json:"mac,omitempty"`
	MTU       int       `json:"mtu,omitempty"`
	Default   bool      `json:"default,omitempty"`
	DNS       statusDNS `json:"dns"`
	// DeviceInfo is what is known of the interface's device (device-info specification 1.1).
	DeviceInfo *deviceInfo `json:"device-info,omitempty"`
	Gateway    []string    `json:"gateway,omitempty"`
}

// deviceInfo has its keys in the order in which Multus writes them; what nobody defined is left out, as it is there.
type deviceInfo struct {
	Type    string   `json:"type,omitempty"`
	Version string   `json:"version,omitempty"`
	PCI     *pciInfo `json:"pci,omitempty"`
	VDPA    *struct {
		Parent      string `json:"parent-device,omitempty"`
		Driver      string `json:"driver,omitempty"`
		Path        string `json:"path,omitempty"`
		PCI         string `json:"pci-address,omitempty"`
		PF          string `json:"pf-pci-address,omitempty"`
		Representor string `json:"representor-device,omitempty"`
	} `json:"vdpa,omitempty"`
	VhostUser *struct {
		Mode string `json:"mode,omitempty"`
		Path string `json:"path,omitempty"`
	} `json:"vhost-user,omitempty"`
	Memif *struct {
		Role string `json:"role,omitempty"`
		Path string `json:"path,omitempty"`
		Mode string `json:"mode,omitempty"`
	} `json:"memif,omitempty"`
}

type pciInfo struct {
	Address     string `json:"pci-address,omitempty"`
	VhostNet    string `json:"vhost-net,omitempty"`
	RDMA        string `json:"rdma-device,omitempty"`
	PF          string `json:"pf-pci-address,omitempty"`
	Representor string `json:"representor-device,omitempty"`
}

type statusDNS struct {
	Nameservers []string `json:"nameservers,omitempty"`
	Domain      string   `json:"domain,omitempty"`
	Search      []string `json:"search,omitempty"`
	Options     []string `json:"options,omitempty"`
}

// statusOf is the annotation's text, byte for byte as Multus writes it: the first interface is the default network's. There is one
// result for each interface.
func statusOf(interfaces []chosen, each []*types100.Result, infos []json.RawMessage) (string, error) {
	var all []string
	for i, it := range interfaces {
		var info *deviceInfo
		if infos[i] != nil && json.Unmarshal(infos[i], &info) != nil {
			info = nil // a plugin's mistake; the rest is true all the same
		}
		for _, one := range statuses(nameOf(it.request), each[i], i == 0) {
			one.DeviceInfo = info
			text, err := json.MarshalIndent(one, "", "    ")
			if err != nil {
				return "", err
			}
			all = append(all, string(text))
		}
	}
	return "[" + strings.Join(all, ",") + "]", nil
}

// statuses are one for each of the Pod's interfaces in a result: plugins may make several. Addresses that say no interface are the last one's.
func statuses(network string, r *types100.Result, first bool) []networkStatus {
	if r == nil {
		return nil
	}
	common := networkStatus{Name: network, DNS: statusDNS{r.DNS.Nameservers, r.DNS.Domain, r.DNS.Search, r.DNS.Options}}
	for _, route := range r.Routes {
		if isDefault(route) && route.GW != nil {
			common.Gateway = append(common.Gateway, route.GW.String())
		}
	}
	var out []networkStatus
	place := map[int]int{}
	for i, in := range r.Interfaces {
		if in.Sandbox == "" {
			continue
		}
		one := common
		one.Interface, one.MAC, one.MTU = in.Name, in.Mac, in.Mtu
		place[i] = len(out)
		out = append(out, one)
	}
	if len(out) == 0 {
		return nil
	}
	routed := -1
	for _, ip := range r.IPs {
		to := len(out) - 1
		if ip.Interface != nil {
			found, inPod := place[*ip.Interface]
			if !inPod {
				continue // the host's end
			}
			to = found
			if ip.Gateway != nil && routed < 0 {
				routed = to
			}
		}
		out[to].IPs = append(out[to].IPs, ip.Address.IP.String())
	}
	out[max(routed, 0)].Default = first
	return out
}

func isDefault(r *types.Route) bool {
	ones, _ := r.Dst.Mask.Size()
	return r.Dst.IP == nil || ones == 0 && r.Dst.IP.IsUnspecified()
}

// Times of a network-status: how long an answer waits for it, and when it is given up. Both are for readers: who is attached is
// attached without it.
const (
	statusWait  = time.Second
	statusLimit = time.Minute
)

// ErrPodGone says that there is no Pod any more that a status could be written to.
var ErrPodGone = errors.New("the Pod is gone")

// tellPod writes the network-status of a Pod that speaks the NPWG's dialect: before the answer if it takes no longer than statusWait,
// else afterwards.
func (s *Server) tellPod(c call, p choice, each []*types100.Result, infos []json.RawMessage) {
	text, err := statusOf(p.items, each, infos)
	if err != nil {
		s.log.Warn("network-status", "container", c.ContainerID, "reason", err)
		return
	}
	ctx, cancel := context.WithTimeout(s.life, statusLimit)
	if !s.whileAttached(c.ContainerID, cancel) {
		cancel()
		return
	}
	done := make(chan struct{})
	s.background.Go(func() {
		defer close(done)
		defer cancel()
		s.writeStatus(ctx, c, p.pod.UID, text)
	})
	select {
	case <-done:
	case <-time.After(statusWait):
	}
}

// writeStatus tries until it is written, there is no Pod to write it to, or ctx ends.
func (s *Server) writeStatus(ctx context.Context, c call, uid, text string) {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 10*time.Second) {
		err := s.opts.Report(ctx, c.args.namespace, c.args.pod, uid, text)
		if err == nil {
			return
		}
		if errors.Is(err, ErrPodGone) {
			s.log.Info("no network-status", "namespace", c.args.namespace, "pod", c.args.pod, "reason", err)
			return
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				s.log.Warn("a Pod is attached and has no network-status", "namespace", c.args.namespace, "pod", c.args.pod, "reason", err)
			}
			return
		case <-time.After(pause):
		}
	}
}

// whileAttached ends something with the sandbox's attachment: a later sandbox of the Pod has a status of its own. false if it has
// ended already.
func (s *Server) whileAttached(sandbox string, end context.CancelFunc) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, is := s.pods[sandbox]
	p.end = end
	if is {
		s.pods[sandbox] = p
	}
	return is
}
