package cri

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// None is the socket of a node whose runtime is not asked.
const None = "none"

// ErrNone says that there is no runtime to ask.
var ErrNone = errors.New("no container runtime to ask")

// usual are the sockets of containerd and CRI-O.
var usual = []string{"/run/containerd/containerd.sock", "/run/crio/crio.sock"}

const (
	patience = 10 * time.Second // for one list
	maxList  = 16 << 20         // bytes of a list, as in the kubelet
)

// Runtime is the container runtime of this node. The zero value looks for the usual sockets below /.
type Runtime struct {
	Socket string // path, None, or "" for the first of the usual ones that is there
	Root   string // where the host's files are found
}

// Sandboxes lists the ids of all Pod sandboxes, in whatever state. A sandbox that is being set up may be missing: containerd lists it
// once its network is there. ErrNone: there is nobody to ask.
func (r Runtime) Sandboxes(ctx context.Context) ([]string, error) {
	socket, err := r.find()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(),
		grpc.WithAuthority("localhost"), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxList)))
	if err != nil {
		return nil, fmt.Errorf("container runtime %s: %w", socket, err)
	}
	defer conn.Close()
	list, err := runtime.NewRuntimeServiceClient(conn).ListPodSandbox(ctx, &runtime.ListPodSandboxRequest{})
	if err != nil {
		return nil, fmt.Errorf("list sandboxes of the container runtime at %s: %w", socket, err)
	}
	ids := make([]string, 0, len(list.GetItems()))
	for _, s := range list.GetItems() {
		ids = append(ids, s.GetId())
	}
	return ids, nil
}

// find is looked at again for each list: the runtime may be installed, or started, after us.
func (r Runtime) find() (string, error) {
	switch r.Socket {
	case "":
	case None:
		return "", ErrNone
	default:
		return r.Socket, nil
	}
	for _, socket := range usual {
		path := filepath.Join("/", r.Root, socket)
		if info, err := os.Stat(path); err == nil && info.Mode().Type() == os.ModeSocket {
			return path, nil
		}
	}
	return "", fmt.Errorf("%w: neither %s nor %s is a socket below %s; --cri-socket names another", ErrNone, usual[0], usual[1], filepath.Join("/", r.Root))
}
