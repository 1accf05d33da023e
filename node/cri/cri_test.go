package cri

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// fakeRuntime answers lists alone.
type fakeRuntime struct {
	runtime.UnimplementedRuntimeServiceServer
	items []*runtime.PodSandbox
	err   error
	modes map[string]runtime.NamespaceMode // of the network; not there: the sandbox has gone
}

func (f *fakeRuntime) PodSandboxStatus(_ context.Context, r *runtime.PodSandboxStatusRequest) (*runtime.PodSandboxStatusResponse, error) {
	mode, there := f.modes[r.GetPodSandboxId()]
	if !there {
		return nil, status.Error(codes.NotFound, "no such sandbox")
	}
	if mode == runtime.NamespaceMode_TARGET {
		return nil, errors.New("busy")
	}
	return &runtime.PodSandboxStatusResponse{Status: &runtime.PodSandboxStatus{Linux: &runtime.LinuxPodSandboxStatus{
		Namespaces: &runtime.Namespace{Options: &runtime.NamespaceOption{Network: mode}}}}}, nil
}

func (f *fakeRuntime) ListPodSandbox(_ context.Context, r *runtime.ListPodSandboxRequest) (*runtime.ListPodSandboxResponse, error) {
	if r.GetFilter() != nil {
		return nil, fmt.Errorf("filter %v: some states would be missing", r.GetFilter())
	}
	return &runtime.ListPodSandboxResponse{Items: f.items}, f.err
}

func serve(t *testing.T, socket string, f *fakeRuntime) (stop func()) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	runtime.RegisterRuntimeServiceServer(s, f)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	return s.Stop
}

func TestSandboxes(t *testing.T) {
	root := t.TempDir()
	if _, err := (Runtime{Root: root}).Sandboxes(t.Context()); !errors.Is(err, ErrNone) || !strings.Contains(err.Error(), "--cri-socket") {
		t.Errorf("no socket: %v", err)
	}
	if _, err := (Runtime{Root: root, Socket: None}).Sandboxes(t.Context()); !errors.Is(err, ErrNone) {
		t.Errorf("none: %v", err)
	}
	crio := &fakeRuntime{items: []*runtime.PodSandbox{{Id: "a", State: runtime.PodSandboxState_SANDBOX_NOTREADY}, {Id: "b"}}}
	serve(t, filepath.Join(root, "run/crio/crio.sock"), crio)
	got, err := Runtime{Root: root}.Sandboxes(t.Context())
	if err != nil || !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("%v, %v", got, err)
	}
	// containerd's socket comes first; one of 10,000 sandboxes with what the kubelet writes beside them is no problem.
	big := &fakeRuntime{}
	for i := range 10000 {
		big.items = append(big.items, &runtime.PodSandbox{Id: fmt.Sprintf("%064d", i), Annotations: map[string]string{"a": strings.Repeat("x", 1000)}})
	}
	stop := serve(t, filepath.Join(root, "run/containerd/containerd.sock"), big)
	if got, err = (Runtime{Root: root}).Sandboxes(t.Context()); err != nil || len(got) != 10000 {
		t.Errorf("%d, %v", len(got), err)
	}
	// An error is no empty list, and a runtime that is away is not another's business.
	big.items, big.err = nil, errors.New("not yet")
	if got, err = (Runtime{Root: root}).Sandboxes(t.Context()); err == nil || got != nil {
		t.Errorf("%v, %v", got, err)
	}
	big.err = nil
	if got, err = (Runtime{Root: root}).Sandboxes(t.Context()); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
	stop()
	l, err := net.Listen("unix", filepath.Join(root, "silent"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, socket := range []string{filepath.Join(root, "missing"), filepath.Join(root, "silent")} {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		if got, err = (Runtime{Socket: socket}).Sandboxes(ctx); err == nil || got != nil || errors.Is(err, ErrNone) {
			t.Errorf("%s: %v, %v", socket, got, err)
		}
		cancel()
	}
}

// TestSeparate: who is in the host's network has no address of a Pod; who cannot be asked about may have one.
func TestSeparate(t *testing.T) {
	root := t.TempDir()
	if _, err := (Runtime{Root: root}).Separate(t.Context()); !errors.Is(err, ErrNone) {
		t.Error(err)
	}
	f := &fakeRuntime{items: []*runtime.PodSandbox{{Id: "pod"}, {Id: "host"}, {Id: "gone"}, {Id: "other"}}}
	f.modes = map[string]runtime.NamespaceMode{"pod": runtime.NamespaceMode_POD, "host": runtime.NamespaceMode_NODE, "other": runtime.NamespaceMode_POD}
	serve(t, filepath.Join(root, "run/crio/crio.sock"), f)
	if got, err := (Runtime{Root: root}).Separate(t.Context()); err != nil || !slices.Equal(got, []string{"pod", "other"}) {
		t.Errorf("%v, %v", got, err)
	}
	f.modes["other"] = runtime.NamespaceMode_TARGET
	if got, err := (Runtime{Root: root}).Separate(t.Context()); err == nil || !strings.Contains(err.Error(), "other") {
		t.Errorf("%v, %v", got, err)
	}
}
