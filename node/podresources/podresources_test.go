package podresources

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	podresources "k8s.io/kubelet/pkg/apis/podresources/v1"
)

// kubelet answers as one of the given age does: old ones know List alone.
type kubelet struct {
	podresources.UnimplementedPodResourcesListerServer
	old  bool
	pods []*podresources.PodResources
}

func (k *kubelet) Get(_ context.Context, r *podresources.GetPodResourcesRequest) (*podresources.GetPodResourcesResponse, error) {
	for _, p := range k.pods {
		if !k.old && p.Name == r.PodName && p.Namespace == r.PodNamespace {
			return &podresources.GetPodResourcesResponse{PodResources: p}, nil
		}
	}
	return nil, status.Error(codes.Unknown, "PodResources API Get method disabled, or no such Pod")
}

func (k *kubelet) List(context.Context, *podresources.ListPodResourcesRequest) (*podresources.ListPodResourcesResponse, error) {
	return &podresources.ListPodResourcesResponse{PodResources: k.pods}, nil
}

func pod(namespace, name string, devices ...*podresources.ContainerDevices) *podresources.PodResources {
	half := len(devices) / 2
	return &podresources.PodResources{Namespace: namespace, Name: name, Containers: []*podresources.ContainerResources{{Name: "a", Devices: devices[:half]}, {Name: "b", Devices: devices[half:]}}}
}

func devices(resource string, ids ...string) *podresources.ContainerDevices {
	return &podresources.ContainerDevices{ResourceName: resource, DeviceIds: ids}
}

func TestDevices(t *testing.T) {
	for _, old := range []bool{false, true} {
		t.Run(fmt.Sprint("old ", old), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "k.sock")
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			s := grpc.NewServer()
			podresources.RegisterPodResourcesListerServer(s, &kubelet{old: old, pods: []*podresources.PodResources{
				pod("acme", "other", devices("x/fast", "0000:01:00.9")),
				pod("beta", "web", devices("x/fast", "0000:01:00.8")),
				pod("acme", "web", devices("x/fast", "0000:01:00.3", "0000:01:00.1"), devices("x/slow", "s1"), devices("x/fast", "0000:01:00.2"), devices("x/fast", "0000:01:00.1")),
				pod("acme", "plain"),
				pod("acme", "twice"), pod("acme", "twice", devices("x/slow", "s2")),
				pod("acme", "first", devices("x/slow", "0000:01:00.8"), devices("x/former", "0000:01:00.8")),
			}})
			go func() { _ = s.Serve(l) }()
			defer s.Stop()
			k := Kubelet{Socket: path}
			got, err := k.Devices(t.Context(), "acme", "web")
			if err != nil || fmt.Sprint(got) != "map[x/fast:[0000:01:00.1 0000:01:00.2 0000:01:00.3] x/slow:[s1]]" {
				t.Errorf("%v %v", got, err)
			}
			holders, err := k.Holders(t.Context())
			if want := "map[0000:01:00.1:[{acme/web x/fast}] 0000:01:00.2:[{acme/web x/fast}] 0000:01:00.3:[{acme/web x/fast}] " +
				"0000:01:00.8:[{acme/first x/former} {acme/first x/slow} {beta/web x/fast}] 0000:01:00.9:[{acme/other x/fast}] s1:[{acme/web x/slow}] s2:[{acme/twice x/slow}]]"; err != nil || fmt.Sprint(holders) != want {
				t.Errorf("%v %v", holders, err)
			}
			if got, err = k.Devices(t.Context(), "acme", "plain"); err != nil || len(got) != 0 {
				t.Errorf("%v %v", got, err)
			}
			if _, err = k.Devices(t.Context(), "acme", "none"); !errors.Is(err, ErrUnknown) {
				t.Errorf("a Pod that is not there: %v", err)
			}
			if _, err = k.Devices(t.Context(), "acme", "twice"); old && !errors.Is(err, ErrUnknown) {
				t.Errorf("two Pods of one name: %v", err)
			}
		})
	}
}

func TestNoKubelet(t *testing.T) {
	for _, k := range []Kubelet{{Socket: None}, {Root: t.TempDir()}} {
		if _, err := k.Devices(t.Context(), "a", "b"); !errors.Is(err, ErrNone) {
			t.Errorf("%+v: %v", k, err)
		}
	}
	if _, err := (Kubelet{Socket: filepath.Join(t.TempDir(), "gone")}).Devices(t.Context(), "a", "b"); err == nil || errors.Is(err, ErrNone) {
		t.Errorf("%v", err)
	}
}
