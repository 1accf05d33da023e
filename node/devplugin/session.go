package devplugin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"reflect"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	deviceplugin "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// maxRequest bounds what is read of a request in bytes; the ids of all devices that there can be are far less.
const maxRequest = 1 << 20

// maxStreams is how many calls a connection has at once; a kubelet has two or three.
const maxStreams = 64

// session is one registration: a server of its own, on a socket of its own.
type session struct {
	deviceplugin.UnimplementedDevicePluginServer
	of     *offering
	socket string // name
	file   identity
	server *grpc.Server
	served chan struct{} // closed when the server has ended

	heard chan struct{} // closed when somebody has asked for the list
	lost  chan struct{} // closed when nobody listens any more

	mu      sync.Mutex
	streams int
}

// serve begins a session.
func (o *offering) serve() (*session, error) {
	name, err := socketName(o.p.opts.Dir, o.name)
	if err != nil {
		return nil, err
	}
	s := &session{of: o, socket: name, served: make(chan struct{}), heard: make(chan struct{}), lost: make(chan struct{}),
		server: grpc.NewServer(grpc.MaxRecvMsgSize(maxRequest), grpc.MaxConcurrentStreams(maxStreams), grpc.WaitForHandlers(true),
			grpc.ConnectionTimeout(endWithin))} // a server that is stopped waits for connections that have not begun
	l, err := net.Listen("unix", s.path())
	if err != nil {
		return nil, err
	}
	s.file = identify(s.path())
	deviceplugin.RegisterDevicePluginServer(s.server, s)
	go func() {
		defer close(s.served)
		_ = s.server.Serve(l) // ends when the server is stopped, or nobody listens and that is seen
	}()
	return s, nil
}

func (s *session) path() string { return filepath.Join(s.of.p.opts.Dir, s.socket) }

// end stops the server and removes its socket. Where the resource is taken back, whoever listens hears so first.
func (s *session) end() {
	if _, last, _ := s.of.now(); last {
		late := time.AfterFunc(endWithin, s.server.Stop)
		s.server.GracefulStop()
		late.Stop()
	}
	s.server.Stop()
	<-s.served
}

func options() *deviceplugin.DevicePluginOptions {
	return &deviceplugin.DevicePluginOptions{GetPreferredAllocationAvailable: true}
}

// GetDevicePluginOptions says that nothing has to be done before a container starts, and that there is a preference.
func (s *session) GetDevicePluginOptions(context.Context, *deviceplugin.Empty) (*deviceplugin.DevicePluginOptions, error) {
	return options(), nil
}

// ListAndWatch tells of all devices at once and after each change.
func (s *session) ListAndWatch(_ *deviceplugin.Empty, to stream) error {
	s.of.sent(to, nil)
	defer s.of.left(to)
	s.listens(1)
	defer s.listens(-1)
	for {
		r, last, changed := s.of.now()
		if err := to.Send(listOf(r)); err != nil {
			return err
		}
		s.of.sent(to, changed)
		if last {
			return nil
		}
		select {
		case <-changed:
		case <-to.Context().Done():
			return nil
		}
	}
}

// listens counts who listens. A person who looks at the list, and goes, ends nothing as long as the kubelet stays.
func (s *session) listens(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams += n
	switch {
	case n > 0 && !closed(s.heard):
		close(s.heard)
	case s.streams == 0 && !closed(s.lost):
		close(s.lost)
	}
}

func closed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// listOf is a resource as the kubelet hears of it.
func listOf(r Resource) *deviceplugin.ListAndWatchResponse {
	out := &deviceplugin.ListAndWatchResponse{}
	for _, d := range r.Devices {
		one := &deviceplugin.Device{ID: d.ID, Health: deviceplugin.Healthy}
		if d.Problem != "" {
			one.Health = deviceplugin.Unhealthy
		}
		if d.NUMA >= 0 {
			one.Topology = &deviceplugin.TopologyInfo{Nodes: []*deviceplugin.NUMANode{{ID: int64(d.NUMA)}}}
		}
		out.Devices = append(out.Devices, one)
	}
	return out
}

// Allocate says what containers get with devices. Which devices those are, and that nobody else has them, is the kubelet's.
func (s *session) Allocate(_ context.Context, r *deviceplugin.AllocateRequest) (*deviceplugin.AllocateResponse, error) {
	is, _, _ := s.of.now()
	out := &deviceplugin.AllocateResponse{}
	for _, c := range r.GetContainerRequests() {
		got, err := is.allocate(c.GetDevicesIds())
		switch {
		case errors.Is(err, errUnhealthy):
			return nil, status.Error(codes.FailedPrecondition, err.Error())
		case err != nil:
			return nil, status.Error(codes.InvalidArgument, err.Error())
		}
		out.ContainerResponses = append(out.ContainerResponses, got)
	}
	return out, nil
}

// GetPreferredAllocation says which of the available devices containers had best get.
func (s *session) GetPreferredAllocation(_ context.Context, r *deviceplugin.PreferredAllocationRequest) (*deviceplugin.PreferredAllocationResponse, error) {
	is, _, _ := s.of.now()
	out := &deviceplugin.PreferredAllocationResponse{}
	for _, c := range r.GetContainerRequests() {
		ids, err := is.preferred(c.GetAvailableDeviceIDs(), c.GetMustIncludeDeviceIDs(), int(c.GetAllocationSize()))
		if err != nil {
			return nil, status.Error(codes.InvalidArgument, fmt.Sprintf("prefer devices: %v", err))
		}
		out.ContainerResponses = append(out.ContainerResponses, &deviceplugin.ContainerPreferredAllocationResponse{DeviceIDs: ids})
	}
	return out, nil
}

func sameDevices(a, b Resource) bool { return reflect.DeepEqual(a.Devices, b.Devices) }
