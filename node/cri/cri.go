package cri

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// None is the socket of a node whose runtime is not asked.
const None = "none"

// ErrNone says that there is no runtime to ask.
var ErrNone = errors.New("no container runtime to ask")

// usual are the sockets of containerd and CRI-O.
var usual = []string{"/run/containerd/containerd.sock", "/run/crio/crio.sock"}

const (
	patience = 10 * time.Second // for one question
	maxList  = 16 << 20         // bytes of a list, as in the kubelet
)

// Runtime is the container runtime of this node. The zero value looks for the usual sockets below /.
type Runtime struct {
	Socket string // path, None, or "" for the first of the usual ones that is there
	Root   string // where the host's files are found
}

// Sandboxes lists the ids of all Pod sandboxes, in whatever state. A sandbox that is being set up may be missing: containerd lists it
// once its network is there. ErrNone: there is nobody to ask.
func (r Runtime) Sandboxes(ctx context.Context) (ids []string, err error) {
	err = r.ask(ctx, func(ctx context.Context, c runtime.RuntimeServiceClient) error {
		ids, err = list(ctx, c)
		return err
	})
	return ids, err
}

// Separate is Sandboxes without those that are in the host's own network namespace: they never have addresses from CNI.
func (r Runtime) Separate(ctx context.Context) (ids []string, err error) {
	err = r.ask(ctx, func(ctx context.Context, c runtime.RuntimeServiceClient) error {
		all, err := list(ctx, c)
		if err != nil {
			return err
		}
		ids = make([]string, 0, len(all))
		for _, id := range all {
			s, err := c.PodSandboxStatus(ctx, &runtime.PodSandboxStatusRequest{PodSandboxId: id})
			if status.Code(err) == codes.NotFound {
				continue // it has gone
			}
			if err != nil {
				return fmt.Errorf("status of sandbox %s: %w", id, err)
			}
			if s.GetStatus().GetLinux().GetNamespaces().GetOptions().GetNetwork() != runtime.NamespaceMode_NODE {
				ids = append(ids, id)
			}
		}
		return nil
	})
	return ids, err
}

func list(ctx context.Context, c runtime.RuntimeServiceClient) ([]string, error) {
	all, err := c.ListPodSandbox(ctx, &runtime.ListPodSandboxRequest{})
	if err != nil {
		return nil, fmt.Errorf("list sandboxes: %w", err)
	}
	ids := make([]string, 0, len(all.GetItems()))
	for _, s := range all.GetItems() {
		ids = append(ids, s.GetId())
	}
	return ids, nil
}

// ask has a question answered by the runtime.
func (r Runtime) ask(ctx context.Context, question func(context.Context, runtime.RuntimeServiceClient) error) error {
	socket, err := r.find()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(),
		grpc.WithAuthority("localhost"), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxList)))
	if err == nil {
		defer conn.Close()
		err = question(ctx, runtime.NewRuntimeServiceClient(conn))
	}
	if err != nil {
		return fmt.Errorf("container runtime at %s: %w", socket, err)
	}
	return nil
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
