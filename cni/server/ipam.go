package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"danm.io/danm/cni/attach"
	"danm.io/danm/cni/wire"
	"danm.io/danm/ipam"
	"danm.io/danm/spec/annotation"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// A call as another plugin's IPAM has a record of its own for each interface, beside that of danm's own ADD, if there is one:
// neither a container's ID nor a Pod's UID has a slash, so no two of them meet.
func scopedKey(of, ifName string) string { return of + "/" + ifName }

// keyOf is the sandbox under which IPAM knows what a call is about.
func keyOf(req wire.Request, conf netConf) string {
	if conf.ipam != nil {
		return scopedKey(req.ContainerID, req.IfName)
	}
	return req.ContainerID
}

// containerOf is the container that a sandbox key belongs to; scoped says that it is another plugin's.
func containerOf(key string) (container string, scoped bool) {
	container, _, scoped = strings.Cut(key, "/")
	return container, scoped
}

// lockOf is the lock for a sandbox key. A plugin that asks for addresses may have been called by an ADD of danm's own, which
// holds the container's lock and waits for that plugin, so it must not wait for that lock.
func lockOf(key string) string {
	if _, scoped := containerOf(key); scoped {
		return "ipam/" + key
	}
	return "sandbox/" + key
}

// addressesOnly answers a call as IPAM of another plugin: it keeps records and touches no link.
func (s *Server) addressesOnly(ctx context.Context, c call) ([]byte, error) {
	key := keyOf(c.Request, c.conf)
	old, err := s.opts.IPAM.Lookup(key)
	missing := errors.Is(err, ipam.ErrNotFound)
	switch {
	case err != nil && !missing:
		return nil, fmt.Errorf("look the addresses of %s up: %w", key, err)
	case missing && c.Command == "ADD":
		return s.give(ctx, c)
	case missing && c.Command == "DEL":
		return nil, nil
	case missing:
		return nil, fail(types.ErrUnknownContainer, diag.PodCheckFailed, fmt.Errorf("interface %s of container %s has no addresses from here", c.IfName, c.ContainerID))
	}
	rec, err := decodeRecord(old.Data)
	if err != nil {
		return nil, err
	}
	switch {
	case c.Command == "DEL":
		return nil, s.takeDown(ctx, attach.Pod{Sandbox: key}, rec)
	case rec.Given == nil:
		return nil, fmt.Errorf("the record of %s is no record of addresses alone", key)
	case c.Command == "CHECK":
		return nil, confirms(c.conf.PrevResult, *rec.Given)
	}
	return s.giveAgain(c, rec)
}

// give takes addresses for an interface that another plugin makes.
func (s *Server) give(ctx context.Context, c call) ([]byte, error) {
	if c.netns == nil {
		return nil, fail(types.ErrInvalidNetNS, diag.PodNetnsInvalid, errors.New("ADD without a network namespace"))
	}
	id, err := attach.Identity(c.netns)
	if err != nil {
		return nil, err
	}
	state, ok := s.confirmed()
	if !ok {
		return nil, fail(types.ErrTryAgainLater, diag.AgentNotReady, errNotReady)
	}
	s.everReady.Store(true)
	p, err := chooseAddresses(state, c)
	if err != nil {
		return nil, err
	}
	if p.items[0].network.Sticky {
		pod, err := s.pod(ctx, c)
		if err != nil {
			return nil, err
		}
		p.pod = pod
	}
	rec := record{Conf: c.conf.Name, CNIVersion: c.conf.CNIVersion, IfName: c.IfName, Netns: c.Netns, NetnsID: id, Boot: s.opts.BootID}
	given := func(g []ipam.Grant) model.Attachment {
		at := p.bare(g)
		if c.IfName == firstInterface {
			addDefaults(at, at)
		}
		return at[0]
	}
	grants, err := s.acquire(ctx, p, ipam.Intent{
		Sandbox: p.sandbox, PodUID: scopedKey(c.args.uid, c.IfName), Namespace: c.args.namespace, Pod: c.args.pod, Wants: p.wants(),
		Slot: p.state.Slot, Slots: p.state.Slots, Claimed: p.state.Home == model.ClusterHome,
		Record: func(g []ipam.Grant) ([]byte, error) {
			r, at := rec, given(g)
			r.Given = &at
			return r.encode()
		},
		Evict: s.evict,
	})
	if err != nil {
		return nil, fmt.Errorf("get addresses: %w", err)
	}
	at := given(grants)
	rec.Given = &at
	out, err := ipamResult(c.conf.CNIVersion, at)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, errors.Join(err, s.takeDown(context.WithoutCancel(ctx), attach.Pod{Sandbox: p.sandbox}, rec))
	}
	s.remember(p.sandbox, c.args, rec.all())
	return out, nil
}

// firstInterface is what every runtime calls a Pod's first interface. It alone gets a default route by the network's gateway:
// a second one would stand in its way.
const firstInterface = "eth0"

// giveAgain answers an ADD that was answered before, with the same addresses.
func (s *Server) giveAgain(c call, rec record) ([]byte, error) {
	if c.netns == nil {
		return nil, fail(types.ErrInvalidNetNS, diag.PodNetnsInvalid, errors.New("ADD without a network namespace"))
	}
	id, err := attach.Identity(c.netns)
	if err != nil {
		return nil, err
	}
	if rec.Conf != c.conf.Name || rec.NetnsID != id || !strings.HasSuffix("/"+rec.Given.Network, "/"+c.conf.ipam.Request.Network) {
		return nil, fail(CodeAlreadyAttached, diag.PodAlreadyAttached, fmt.Errorf("interface %s of container %s has addresses of network %s by configuration %s in %s",
			c.IfName, c.ContainerID, rec.Given.Network, rec.Conf, rec.Netns))
	}
	return ipamResult(c.conf.CNIVersion, *rec.Given)
}

// chooseAddresses resolves what an ipam section asks for.
func chooseAddresses(state model.NodeState, c call) (choice, error) {
	n, err := addressNetwork(state, c.args.namespace, *c.conf.ipam)
	if err != nil {
		return choice{}, err
	}
	q := c.conf.ipam.Request
	for _, f := range []struct {
		asked  *model.AddressRequest
		subnet *model.Subnet
	}{{&q.IP, n.IPv4}, {&q.IP6, n.IPv6}} {
		if f.asked.Mode == model.NoAddress && f.subnet != nil {
			f.asked.Mode = model.AddressDynamic
		}
	}
	if !asked(q.IP) && !asked(q.IP6) {
		return choice{}, fail(CodeAddressUnusable, diag.PodAddressUnusable, fmt.Errorf("%s %s: no address of it is asked for", n.Kind, n.Key()))
	}
	if q, err = permitted(q, n, tenantOf(c.args.namespace, *c.conf.ipam)); err != nil {
		return choice{}, fail(CodeAddressUnusable, diag.PodAddressUnusable, err)
	}
	return choice{sandbox: keyOf(c.Request, c.conf), state: state, items: []chosen{{request: q, network: n, ifName: c.IfName}}}, nil
}

// tenantOf is the namespace whose networks may be used. Where the runtime names no Pod, the configuration's author decides.
func tenantOf(pods string, q annotation.IPAM) string {
	if pods == "" {
		return q.Namespace
	}
	return pods
}

// addressNetwork finds the network of an ipam section. It need not have a host link here, nor a type that we attach: the other
// plugin makes the link.
func addressNetwork(state model.NodeState, pods string, q annotation.IPAM) (model.Network, error) {
	tenant := tenantOf(pods, q)
	found := named(state.Networks, q.Request)
	if q.Request.Kind == model.DanmNet && q.Namespace == "" {
		found = append(found, named(state.Networks, model.InterfaceRequest{Kind: model.ClusterNetwork, Network: q.Request.Network})...)
	}
	for _, n := range found {
		if n.UsableFrom(tenant) && (q.Namespace == "" || n.Namespace == q.Namespace) {
			return n, nil
		}
	}
	name := q.Request.Network
	if q.Namespace != "" {
		name = q.Namespace + "/" + name
	}
	return model.Network{}, unknown(state, tenant, fmt.Sprintf("network %q does not exist for Pods of namespace %q", name, tenant))
}

// confirms compares what a CHECK says about an interface with what was given: all of it must be there. What the result has besides is
// not ours. A runtime that keeps no results sends none.
func confirms(prevResult []byte, at model.Attachment) error {
	if len(prevResult) == 0 || string(prevResult) == "null" {
		return nil
	}
	var prev struct {
		IPs []struct {
			Address string `json:"address"`
		} `json:"ips"`
	}
	if err := json.Unmarshal(prevResult, &prev); err != nil {
		return fail(types.ErrDecodingFailure, diag.ConfInvalid, fmt.Errorf("decode prevResult: %w", err))
	}
	var there []netip.Prefix
	for _, ip := range prev.IPs {
		if p, err := netip.ParsePrefix(ip.Address); err == nil {
			there = append(there, p)
		}
	}
	for _, p := range at.Addresses {
		if !slices.Contains(there, p) {
			return fail(CodeCheckFailed, diag.PodCheckFailed, fmt.Errorf("interface %s was given %s, and the result does not have it", at.IfName, p))
		}
	}
	return nil
}
