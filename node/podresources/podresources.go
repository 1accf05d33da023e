// Package podresources asks the kubelet which devices of which extended resources it gave to a Pod (Kubernetes, "Monitoring device plugin
// resources"). It keeps no connection and changes nothing.
package podresources

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"
)

// socket is the kubelet's, on the host, where its directory is the usual one.
const socket = "/var/lib/kubelet/pod-resources/kubelet.sock"

// None is the socket of a node whose kubelet is not asked.
const None = "none"

const (
	patience = 5 * time.Second // for one question; somebody waits for a Pod
	maxList  = 16 << 20        // bytes of a list, as the kubelet's own clients take
)

var (
	// ErrNone says that there is no kubelet to ask.
	ErrNone = errors.New("no kubelet to ask for a Pod's devices")
	// ErrUnknown says that the kubelet does not tell of the Pod, or of two with its name.
	ErrUnknown = errors.New("the kubelet does not say which devices the Pod has")
)

// Kubelet is that of this node. The zero value looks for the usual socket.
type Kubelet struct {
	Socket string // path, None, or "" for the usual one
	Root   string // where the host's files are found, "" = /
}

// Devices are the ids of the devices that a Pod's containers have, by resource, sorted and each once. Errors: ErrNone, ErrUnknown, or why
// there is no answer.
func (k Kubelet) Devices(ctx context.Context, namespace, pod string) (map[string][]string, error) {
	conn, path, err := k.dial()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c := podresources.NewPodResourcesListerClient(conn)
	if one, err := c.Get(ctx, &podresources.GetPodResourcesRequest{PodName: pod, PodNamespace: namespace}); err == nil && one.GetPodResources() != nil {
		return devicesOf(one.GetPodResources()), nil
	}
	all, err := c.List(ctx, &podresources.ListPodResourcesRequest{}) // Get is young, and off in older kubelets
	if err != nil {
		return nil, fmt.Errorf("kubelet at %s: %w", path, err)
	}
	mine := slices.DeleteFunc(all.GetPodResources(), func(p *podresources.PodResources) bool {
		return p.GetNamespace() != namespace || p.GetName() != pod
	})
	if len(mine) != 1 {
		return nil, fmt.Errorf("%w: it lists %d Pods called %s/%s", ErrUnknown, len(mine), namespace, pod)
	}
	return devicesOf(mine[0]), nil
}

// Holder is a Pod that has a device.
type Holder struct {
	Pod      string // "namespace/name"
	Resource string // as which it has it
}

// Holders are the Pods of this node that have devices, by the devices' ids, sorted. A device has several where more than one resource
// offers it. Errors: ErrNone, or why there is no answer.
func (k Kubelet) Holders(ctx context.Context) (map[string][]Holder, error) {
	conn, path, err := k.dial()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	all, err := podresources.NewPodResourcesListerClient(conn).List(ctx, &podresources.ListPodResourcesRequest{})
	if err != nil {
		return nil, fmt.Errorf("kubelet at %s: %w", path, err)
	}
	out := map[string][]Holder{}
	for _, p := range all.GetPodResources() {
		for resource, ids := range devicesOf(p) {
			for _, id := range ids {
				out[id] = append(out[id], Holder{Pod: p.GetNamespace() + "/" + p.GetName(), Resource: resource})
			}
		}
	}
	for id, holders := range out {
		slices.SortFunc(holders, func(a, b Holder) int {
			return cmp.Or(cmp.Compare(a.Pod, b.Pod), cmp.Compare(a.Resource, b.Resource))
		})
		out[id] = slices.Compact(holders)
	}
	return out, nil
}

// dial prepares a connection, which is made when it is used; path is where to.
func (k Kubelet) dial() (conn *grpc.ClientConn, path string, err error) {
	if path, err = k.find(); err != nil {
		return nil, path, err
	}
	conn, err = grpc.NewClient("unix://"+path, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(),
		grpc.WithAuthority("localhost"), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxList)))
	if err != nil {
		return nil, path, fmt.Errorf("kubelet at %s: %w", path, err)
	}
	return conn, path, nil
}

func devicesOf(p *podresources.PodResources) map[string][]string {
	out := map[string][]string{}
	for _, c := range p.GetContainers() {
		for _, d := range c.GetDevices() {
			out[d.GetResourceName()] = append(out[d.GetResourceName()], d.GetDeviceIds()...)
		}
	}
	for resource, ids := range out { // the kubelet says a device once for each NUMA node of its topology
		slices.Sort(ids)
		out[resource] = slices.Compact(ids)
	}
	return out
}

func (k Kubelet) find() (string, error) {
	switch k.Socket {
	case None:
		return "", ErrNone
	case "":
	default:
		return k.Socket, nil
	}
	path := socket
	if root := filepath.Join("/", k.Root); root != "/" { // in a container: through the host's first process (proc(5), /proc/pid/root)
		path = filepath.Join(root, "proc/1/root", socket)
	}
	if _, err := os.Stat(path); err != nil {
		return "", fmt.Errorf("%w: %w; --pod-resources-socket names another", ErrNone, err)
	}
	return path, nil
}
