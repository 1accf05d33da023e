package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"time"

	"danm.io/danm/ipam"
	"danm.io/danm/ipam/audit"
	"danm.io/danm/node/link"
	"danm.io/danm/node/state"
	"danm.io/danm/reconcile/live"
	"danm.io/danm/spec/model"
)

// IPAMOptions say where danmctl ipam looks: at a node's state directory, or at a cluster.
type IPAMOptions struct {
	StateDir string
	SysRoot  string // where the node's files are, "/" on the node
	Live     LiveOptions
	// OnNode says that the state directory is meant although a cluster is named: then check compares both.
	OnNode  bool
	Network string // "namespace/name" or "name"; "" is all
	Output  string // text or json
	All     bool   // also what is free
	Accept  bool
	Again   time.Duration // after which check looks once more at what differed; 0 = at once
}

func (o IPAMOptions) cluster() bool { return (o.Live.Wanted() || o.Accept) && !o.OnNode }

// journalDir is where the agent keeps its journal in a state directory.
const journalDir = "ipam"

// readNode reads journal and networks of a node, beside its agent.
func readNode(o IPAMOptions, now time.Time) (audit.Node, error) {
	snap, err := ipam.Read(filepath.Join(o.StateDir, journalDir))
	if errors.Is(err, fs.ErrNotExist) {
		return audit.Node{}, fmt.Errorf("%s has no address journal: no agent has run with it (--state-dir names another; --live asks a cluster)", o.StateDir)
	}
	if err != nil {
		return audit.Node{}, err
	}
	n := audit.Node{Journal: snap, Cooldown: ipam.DefaultCooldown, Now: now}
	s, err := state.Open(o.StateDir).Load()
	switch {
	case errors.Is(err, state.ErrNone):
	case err != nil:
		return n, fmt.Errorf("networks of the node: %w", err)
	default:
		n.Name, n.Networks = s.State.Node, s.State.Networks
		if s.State.Home == model.LocalHome {
			n.Slot, n.Slots = s.State.Slot, max(s.State.Slots, 1)
		}
	}
	return n, nil
}

// readCluster reads what the API says of addresses.
func readCluster(ctx context.Context, o LiveOptions, now time.Time) (*live.Client, live.Addresses, audit.Cluster, error) {
	client, err := o.connect()
	if err != nil {
		return nil, live.Addresses{}, audit.Cluster{}, err
	}
	a, err := client.Addresses(ctx)
	if err != nil {
		return nil, a, audit.Cluster{}, err
	}
	c := audit.Cluster{Blocks: a.Blocks, Plans: a.Plans, Endpoints: a.Endpoints, Networks: a.Networks, Nodes: map[string]bool{}, Now: now}
	for i := range a.Nodes {
		c.Nodes[a.Nodes[i].Name] = true
	}
	return client, a, c, nil
}

// attachment is what the agent's attachment record says, as far as it matters here (cni/server has the whole of it).
type attachment struct {
	Version    int                `json:"version"`
	Netns      string             `json:"netns"`
	NetnsID    string             `json:"netnsID"`
	Interfaces []model.Attachment `json:"interfaces"`
}

// attachmentVersion is the newest that is understood.
const attachmentVersion = 1

// linkTypes are the types of interfaces that are links in the Pod, whatever driver the device has.
var linkTypes = []model.NetworkType{model.MACVLAN, model.IPVLAN, model.BRIDGE, model.TAGGED, model.HOSTDEVICE}

// lookInside opens the network namespace of each record and lists its addresses. It enters none and changes nothing.
func lookInside(sysRoot string, records []ipam.Record) (map[string]audit.Attached, map[string]audit.Namespace) {
	attached, kernel := map[string]audit.Attached{}, map[string]audit.Namespace{}
	for _, r := range records {
		if len(r.Data) == 0 {
			continue
		}
		var a attachment
		err := json.Unmarshal(r.Data, &a)
		if err == nil && a.Version > attachmentVersion {
			err = fmt.Errorf("version %d, this program knows %d", a.Version, attachmentVersion)
		}
		if err != nil {
			attached[r.Sandbox] = audit.Attached{Error: err.Error()}
			continue
		}
		links := map[string]bool{}
		for _, i := range a.Interfaces {
			if slices.Contains(linkTypes, i.Type) {
				links[i.IfName] = true
			}
		}
		attached[r.Sandbox] = audit.Attached{Netns: a.Netns, Links: links}
		if a.Netns != "" {
			kernel[r.Sandbox] = lookAt(sysRoot, a)
		}
	}
	return attached, kernel
}

func lookAt(sysRoot string, a attachment) audit.Namespace {
	path := filepath.Join(sysRoot, a.Netns)
	id, err := link.NamespaceID(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return audit.Namespace{Gone: "is not there"}
	case err != nil:
		return audit.Namespace{Error: err.Error()}
	case a.NetnsID != "" && id != a.NetnsID:
		return audit.Namespace{Gone: "is another than the recorded one"}
	}
	k, err := link.At(path, sysRoot)
	if err != nil {
		return audit.Namespace{Error: err.Error()}
	}
	defer k.Close()
	have, err := k.Addresses()
	if err != nil {
		return audit.Namespace{Error: err.Error()}
	}
	return audit.Namespace{Addresses: have}
}

// NetworkNames lists the networks of a node or a cluster for a shell's completion: none if they cannot be had.
func NetworkNames(ctx context.Context, o IPAMOptions) []string {
	var all []model.Network
	if o.cluster() {
		_, _, c, err := readCluster(ctx, o.Live, time.Now())
		if err != nil {
			return nil
		}
		all = c.Networks
	} else if s, err := state.Open(o.StateDir).Load(); err == nil {
		all = s.State.Networks
	}
	var names []string
	for _, n := range all {
		names = append(names, n.Key())
	}
	slices.Sort(names)
	return slices.Compact(names)
}
