//go:build linux

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"danm.io/danm/test/lab"
)

// pod is a container's network namespace on a host, attached as a container runtime attaches it: through libcni.
type pod struct {
	name, namespace, network string
	host                     *host
	ns                       *lab.NS
	ip4, ip6                 netip.Addr
}

// hostExec runs CNI plugins inside the host's namespace, where a runtime would.
type hostExec struct {
	invoke.DefaultExec
	ns *lab.NS
}

func (e *hostExec) ExecPlugin(ctx context.Context, path string, stdin []byte, env []string) (out []byte, err error) {
	nsErr := e.ns.Do(func() error {
		out, err = e.DefaultExec.ExecPlugin(ctx, path, stdin, env)
		return nil
	})
	if nsErr != nil {
		return nil, nsErr
	}
	return out, err
}

func (p *pod) cni(ip string) (*libcni.CNIConfig, *libcni.NetworkConfigList, *libcni.RuntimeConf, error) {
	iface := map[string]string{"tenantNetwork": p.network, "ip": ip, "ip6": "dynamic"}
	conf, err := json.Marshal(map[string]any{
		"cniVersion": "1.0.0", "name": "danm", "type": "danm", "socket": p.host.socket(), "interfaces": []any{iface},
	})
	if err != nil {
		return nil, nil, nil, err
	}
	single, err := libcni.ConfFromBytes(conf)
	if err != nil {
		return nil, nil, nil, err
	}
	list, err := libcni.ConfListFromConf(single)
	if err != nil {
		return nil, nil, nil, err
	}
	run := &libcni.RuntimeConf{
		ContainerID: "demo-" + p.host.name + "-" + p.name, NetNS: p.ns.Path, IfName: "eth0",
		Args: [][2]string{{"K8S_POD_NAMESPACE", p.namespace}, {"K8S_POD_NAME", p.name}, {"IgnoreUnknown", "1"}},
	}
	exec := &hostExec{ns: p.host.ns}
	exec.RawExec = &invoke.RawExec{}
	return libcni.NewCNIConfigWithCacheDir([]string{p.host.bin}, filepath.Join(p.host.dir, "cni-cache"), exec), list, run, nil
}

// attach is CNI ADD; ip is "dynamic" or an address.
func (p *pod) attach(ip string) error {
	cni, list, run, err := p.cni(ip)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	raw, err := cni.AddNetworkList(ctx, list, run)
	if err != nil {
		return fmt.Errorf("attach Pod %s/%s to %s: %w", p.namespace, p.name, p.network, err)
	}
	result, err := types100.GetResult(raw)
	if err != nil {
		return err
	}
	for _, ip := range result.IPs {
		a, ok := netip.AddrFromSlice(ip.Address.IP)
		if a = a.Unmap(); ok && a.Is4() {
			p.ip4 = a
		} else {
			p.ip6 = a
		}
	}
	if !p.ip4.IsValid() || !p.ip6.IsValid() {
		return fmt.Errorf("attach Pod %s/%s: result without both address families: %v", p.namespace, p.name, result.IPs)
	}
	return nil
}

// check is CNI CHECK: everything in the Pod is still as the result said.
func (p *pod) check() error {
	cni, list, run, err := p.cni("dynamic")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := cni.CheckNetworkList(ctx, list, run); err != nil {
		return fmt.Errorf("check Pod %s/%s: %w", p.namespace, p.name, err)
	}
	return nil
}

// detach is CNI DEL.
func (p *pod) detach() error {
	cni, list, run, err := p.cni("dynamic")
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := cni.DelNetworkList(ctx, list, run); err != nil {
		return fmt.Errorf("detach Pod %s/%s: %w", p.namespace, p.name, err)
	}
	return nil
}
