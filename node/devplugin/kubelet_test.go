package devplugin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	deviceplugin "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits until a thing is so.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it never came to be: %s", what)
		}
	}
}

// kubelet is one as far as device plugins see it (Kubernetes 1.37, pkg/kubelet/cm/devicemanager): it removes all sockets when it starts, it
// refuses a socket that it has seen for the resource and whose end it has not, and it asks for the list once a registration.
type kubelet struct {
	deviceplugin.UnimplementedRegistrationServer
	t   testing.TB
	dir string

	mu       sync.Mutex
	server   *grpc.Server
	requests []*deviceplugin.RegisterRequest
	seen     map[string]bool
	refuse   bool
	heardOf  map[string][]*listening // by resource, in the order of registrations
	clients  map[string]deviceplugin.DevicePluginClient
	hangUp   map[string]context.CancelFunc
	starts   int
	life     context.Context // of the one that listens
	kill     []context.CancelFunc
	watches  sync.WaitGroup
}

// listening is what one registration led to. What an older one ends with, however late, is not heard after what a newer one was told, as
// the kubelet knows which is the newest.
type listening struct {
	by   int      // which kubelet it was
	told []string // all that was told
}

// newKubelet makes one in a directory whose path is short enough for sockets, and does not start it.
func newKubelet(t testing.TB) *kubelet {
	t.Helper()
	dir, err := os.MkdirTemp("", "dp")
	must(t, err)
	k := &kubelet{t: t, dir: dir, heardOf: map[string][]*listening{}, clients: map[string]deviceplugin.DevicePluginClient{}, hangUp: map[string]context.CancelFunc{}}
	t.Cleanup(func() { k.stop(); _ = os.RemoveAll(dir) })
	return k
}

func (k *kubelet) start() {
	k.t.Helper()
	for _, name := range k.sockets() {
		if err := os.Remove(filepath.Join(k.dir, name)); !errors.Is(err, os.ErrNotExist) { // its plugin may be ending
			must(k.t, err)
		}
	}
	k.listenAnew()
}

// listenAnew replaces the kubelet's socket alone.
func (k *kubelet) listenAnew() {
	k.t.Helper()
	_ = os.Remove(filepath.Join(k.dir, kubeletSocket))
	l, err := net.Listen("unix", filepath.Join(k.dir, kubeletSocket))
	must(k.t, err)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.starts++
	k.seen = map[string]bool{}
	life, kill := context.WithCancel(context.Background())
	k.life, k.kill = life, append(k.kill, kill)
	k.server = grpc.NewServer(grpc.WaitForHandlers(true))
	deviceplugin.RegisterRegistrationServer(k.server, k)
	go func(s *grpc.Server) { _ = s.Serve(l) }(k.server)
}

// stop ends it as a kill does: connections break, and its socket stays. It hears nothing any more then.
func (k *kubelet) stop() {
	k.mu.Lock()
	server := k.server
	for _, kill := range k.kill {
		kill()
	}
	k.kill = nil
	clear(k.hangUp)
	k.mu.Unlock()
	if server != nil {
		server.Stop()
	}
	k.watches.Wait()
}

func (k *kubelet) Register(ctx context.Context, r *deviceplugin.RegisterRequest) (*deviceplugin.Empty, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.requests = append(k.requests, r)
	if k.refuse {
		return nil, errors.New("not now")
	}
	if k.seen[r.ResourceName+r.Endpoint] {
		return nil, errors.New("device plugin already connected: " + r.Endpoint)
	}
	k.seen[r.ResourceName+r.Endpoint] = true
	conn, err := grpc.NewClient("unix://"+filepath.Join(k.dir, r.Endpoint), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(), grpc.WithAuthority("localhost"))
	if err != nil {
		return nil, err
	}
	c := deviceplugin.NewDevicePluginClient(conn)
	options, err := c.GetDevicePluginOptions(ctx, &deviceplugin.Empty{})
	if err != nil || options.GetPreStartRequired() || !options.GetGetPreferredAllocationAvailable() || r.GetOptions().String() != options.String() || r.Version != "v1beta1" {
		return nil, fmt.Errorf("%v as registered %v: %w", options, r, err)
	}
	life, end := context.WithCancel(k.life)
	k.clients[r.ResourceName], k.hangUp[r.ResourceName+r.Endpoint] = c, end
	hears := &listening{by: k.starts}
	k.heardOf[r.ResourceName] = append(k.heardOf[r.ResourceName], hears)
	k.watches.Go(func() { k.listen(life, conn, c, hears) })
	return &deviceplugin.Empty{}, nil
}

func (k *kubelet) listen(ctx context.Context, conn io.Closer, c deviceplugin.DevicePluginClient, hears *listening) {
	defer conn.Close()
	stream, err := c.ListAndWatch(ctx, &deviceplugin.Empty{})
	for err == nil {
		var told *deviceplugin.ListAndWatchResponse
		if told, err = stream.Recv(); err == nil {
			k.note(hears, listText(told))
		}
	}
	k.note(hears, "end")
}

func (k *kubelet) note(hears *listening, what string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	hears.told = append(hears.told, fmt.Sprintf("%d:%s", hears.by, what))
}

// listText is a list as "<id>[!][@<node>] …", ! for an unhealthy device.
func listText(l *deviceplugin.ListAndWatchResponse) string {
	var out []string
	for _, d := range l.GetDevices() {
		text := d.GetID()
		if d.GetHealth() != "Healthy" {
			text += "!"
		}
		for _, n := range d.GetTopology().GetNodes() {
			text += fmt.Sprint("@", n.GetID())
		}
		out = append(out, text)
	}
	return "[" + strings.Join(out, " ") + "]"
}

// heard is what was told of a resource, in order, of the oldest registration first.
func (k *kubelet) heard(resource string) (out []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, hears := range k.heardOf[resource] {
		out = append(out, hears.told...)
	}
	return out
}

func (k *kubelet) last(resource string) string {
	all := k.heard(resource)
	if len(all) == 0 {
		return ""
	}
	return all[len(all)-1]
}

func (k *kubelet) registrations() []*deviceplugin.RegisterRequest {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.requests)
}

func (k *kubelet) client(resource string) deviceplugin.DevicePluginClient {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.clients[resource]
}

func (k *kubelet) setRefuse(yes bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.refuse = yes
}

// sockets are the names of plugins' sockets in the directory.
func (k *kubelet) sockets() (out []string) {
	entries, err := os.ReadDir(k.dir)
	must(k.t, err)
	for _, e := range entries {
		if e.Type() == os.ModeSocket && e.Name() != kubeletSocket {
			out = append(out, e.Name())
		}
	}
	return out
}

// creations counts the sockets of plugins that are made in the directory from now on.
func (k *kubelet) creations() func() int {
	w, err := fsnotify.NewWatcher()
	must(k.t, err)
	must(k.t, w.Add(k.dir))
	var n atomic.Int32
	go func() {
		for e := range w.Events {
			if e.Op.Has(fsnotify.Create) && filepath.Base(e.Name) != kubeletSocket {
				n.Add(1)
			}
		}
	}()
	k.t.Cleanup(func() { _ = w.Close() })
	return func() int { return int(n.Load()) }
}

// running is a plugin's process.
type running struct {
	*Plugin
	info string
	log  *record
	end  func() // returns when Run has
}

// run starts a plugin at a kubelet. change may be nil.
func (k *kubelet) run(info string, change func(*Options)) *running {
	r := &running{info: info, log: &record{}}
	o := Options{Dir: k.dir, InfoDir: info, Log: slog.New(slog.NewTextHandler(r.log, nil)), Look: time.Hour}
	if change != nil {
		change(&o)
	}
	r.Plugin = New(o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); r.Run(ctx) }()
	r.end = func() { cancel(); <-done }
	k.t.Cleanup(r.end)
	return r
}

// record is a log.
type record struct {
	mu   sync.Mutex
	text strings.Builder
}

func (r *record) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(b)
}

func (r *record) count(text string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Count(r.text.String(), text)
}

// ours is how many goroutines run code of this package that is not a test's. One that has said that its server ended, and is about to end
// itself, is none.
func ours() int {
	all := make([]byte, 1<<20)
	n := 0
	for _, g := range strings.Split(string(all[:runtime.Stack(all, true)]), "\n\n") {
		if strings.Contains(g, "devplugin.(*offering).serve.func") && !strings.Contains(g, "grpc.(*Server).Serve(") {
			continue
		}
		for _, mark := range []string{"devplugin.(*Plugin)", "devplugin.(*offering)", "devplugin.(*session)", "devplugin.watch"} {
			if strings.Contains(g, mark) {
				n++
				break
			}
		}
	}
	return n
}

// vf is the nth healthy device of a physical function on a NUMA node.
func vf(pf, n, node int) Device {
	return Device{ID: fmt.Sprintf("0000:%02x:02.%d", pf, n), PF: fmt.Sprintf("0000:%02x:00.0", pf), NUMA: node, Driver: "kernel"}
}
