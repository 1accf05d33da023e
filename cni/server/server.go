package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"danm.io/danm/cni/attach"
	"danm.io/danm/cni/delegate"
	"danm.io/danm/cni/wire"
	"danm.io/danm/ipam"
	"danm.io/danm/spec/model"
)

// IPAM gives addresses and keeps records; *ipam.Service.
type IPAM interface {
	// Acquire makes addresses and record durable in one write, or changes nothing. See ipam.Service.
	Acquire(ctx context.Context, in ipam.Intent) ([]ipam.Grant, error)
	// Release frees what exactly this sandbox holds; without a record it succeeds.
	Release(ctx context.Context, sandbox string) error
	// Lookup is the record of a sandbox, or ipam.ErrNotFound.
	Lookup(sandbox string) (ipam.Record, error)
	List() ([]ipam.Record, error)
}

// Attacher makes, takes down, compares and mends the interfaces of a Pod; *attach.Attacher. Its contract stands there.
type Attacher interface {
	Attach(ctx context.Context, pod attach.Pod, interfaces []model.Attachment) ([]attach.Link, error)
	Detach(ctx context.Context, pod attach.Pod, interfaces []model.Attachment) error
	Check(ctx context.Context, pod attach.Pod, interfaces []model.Attachment) ([]attach.Link, error)
	Mend(ctx context.Context, pod attach.Pod, interfaces []model.Attachment) (mended []string, err error)
	HostIndex(name string) (int, error)
	Reroute(ctx context.Context, pod attach.Pod, ifName string, families []netip.Prefix, gateways []netip.Addr) error
	CheckRerouted(ctx context.Context, pod attach.Pod, ifName string, families []netip.Prefix, gateways []netip.Addr) error
	Survey(device string) (*model.Moved, error)
	SurveyFunction(pci string) (attach.Function, error)
	FunctionIndex(pci string) (int, error)
	Differing(attached []model.Attachment) (functions []string, err error)
	Return(ctx context.Context, sandbox string, at model.Attachment) (done bool, err error)
	Homeless(ctx context.Context, devices []string) (names []string, err error)
}

// Pod is what the API says of a Pod.
type Pod struct {
	UID         string            // of the object in the API, which for a static Pod is not the runtime's
	Annotations map[string]string // those that ask for interfaces, at least
	Sticky      ipam.Sticky       // which Pod of which StatefulSet it is, the zero value for none
}

// Options of a Server. IPAM and Attacher are required.
type Options struct {
	Socket   string // absolute; "" = wire.DefaultSocket
	IPAM     IPAM
	Attacher Attacher
	// Delegates runs other CNI plugins; nil = none is run.
	Delegates *delegate.Plugins
	Log       *slog.Logger  // nil = none
	Timeout   time.Duration // of one call, 0 = 60 s
	Grace     time.Duration // for calls in progress when Serve ends, 0 = 5 s; then they are cancelled and undo their work
	// Pod tells what the API says of a Pod; uid is "" where the runtime names none. nil = there is no API to ask: attachments
	// stand in the CNI configuration.
	Pod func(ctx context.Context, namespace, name, uid string) (Pod, error)
	// Devices are the ids of the devices that a Pod has, by extended resource, sorted. nil = nobody can be asked.
	Devices func(ctx context.Context, namespace, pod string) (map[string][]string, error)
	// Report writes a Pod's network-status, for Pods that speak the NPWG's dialect; uid is Pod.UID. Errors: ErrPodGone, or why it is
	// tried again. nil = nobody reads it.
	Report func(ctx context.Context, namespace, name, uid, status string) error
	// Observe is told about each call: the CNI command ("other" for one unknown), how long it took, the error's CNI code (0 is success). nil = nobody.
	Observe func(command string, took time.Duration, code uint)
	// BootID is this boot's, as in /proc/sys/kernel/random/boot_id; "" = not known, then nothing is concluded from it.
	BootID string
	// SysRoot is where the host's /proc is found, "" = /.
	SysRoot string
	// Probe is asked for each address before it is given, nil = none is. Probed is told the results, nil = nobody.
	Probe  Prober
	Probed func(result string)
	// Changed is told of each sandbox that was attached, or seen for the first time since the start (true), and of each that is not
	// attached any more. It must not wait. nil = nobody.
	Changed func(sandbox string, attached bool)
	// Reclaimed is told about each record that GC freed, with the reason. nil = nobody.
	Reclaimed func(reason string)
}

// maxCalls bounds the calls in progress; more wait in the socket's backlog.
const maxCalls = 256

// readTime is how long a caller may take to send its request, and to take its answer.
const readTime = 5 * time.Second

// ErrInUse says that another agent answers on the socket.
var ErrInUse = errors.New("another agent listens on the socket")

// Server answers CNI calls. See New.
type Server struct {
	opts      Options
	log       *slog.Logger
	locks     keyedLock
	slots     chan struct{}
	source    atomic.Pointer[func() (model.NodeState, bool)] // Serve's
	everReady atomic.Bool

	life       context.Context // of what goes on after an answer
	end        context.CancelFunc
	background sync.WaitGroup

	mu   sync.Mutex
	pods map[string]attachedPod // by sandbox key: a cache of the records, for Pods

	adds    uint64            // ADDs so far; guarded by mu, as what follows
	lastAdd map[string]uint64 // by record key: the number of the newest

	conflicts []Conflict // guarded by mu

	mendedOn map[string]int // host link → index under which all interfaces on it were there, see Mend

	repairs map[string][]time.Time // of what cards say of virtual functions, within the last minute

	claims map[string]claimed  // by what one Pod can have only, see claim; guarded by mu, as what follows
	away   map[string][]string // virtual functions that are not back, by the sandbox that had them: a cache of the records that say so
}

// confirmed is the state that Pods are attached by; false before there is one, or before Serve was called.
func (s *Server) confirmed() (model.NodeState, bool) {
	source := s.source.Load()
	if source == nil {
		return model.NodeState{}, false
	}
	return (*source)()
}

type attachedPod struct {
	end      context.CancelFunc // of what goes on only while it is attached, nil for nothing
	name     string             // "namespace/name"
	uid      string             // as podArgs.uid
	seen     []seen             // of each interface of the record; nil = not known yet
	devices  []string           // see devicesOf
	held     []Held             // of device pools
	modes    map[string]string  // of ipvlans, by device
	vfs      []model.Attachment // those with virtual functions, as recorded
	sole     []string           // what no other Pod can have meanwhile, see soleUse
	networks []string           // kind and key
}

// New reads the records of earlier lives. The server answers from Serve on.
func New(opts Options) (*Server, error) {
	if opts.Socket == "" {
		opts.Socket = wire.DefaultSocket
	}
	if !filepath.IsAbs(opts.Socket) {
		return nil, fmt.Errorf("socket %s: not an absolute path", opts.Socket)
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Timeout == 0 {
		opts.Timeout = 60 * time.Second
	}
	if opts.Grace == 0 {
		opts.Grace = 5 * time.Second
	}
	s := &Server{opts: opts, log: opts.Log, slots: make(chan struct{}, maxCalls), pods: map[string]attachedPod{}, lastAdd: map[string]uint64{}, mendedOn: map[string]int{}, claims: map[string]claimed{}, away: map[string][]string{}, repairs: map[string][]time.Time{}}
	s.life, s.end = context.WithCancel(context.Background())
	records, err := opts.IPAM.List()
	if err != nil {
		return nil, fmt.Errorf("list attachments: %w", err)
	}
	for _, r := range records {
		rec, err := decodeRecord(r.Data)
		if err != nil {
			return nil, fmt.Errorf("attachment of sandbox %s: %w", r.Sandbox, err)
		}
		if rec.Away {
			s.noteAway(r.Sandbox, rec.Interfaces)
			continue
		}
		s.remember(r.Sandbox, podArgs{namespace: r.Namespace, pod: r.Pod, uid: r.PodUID}, rec.all())
	}
	return s, nil
}

// Serve listens and answers until ctx ends; ready is closed once it listens. confirmed is the state whose plan the kernel
// has, false while there is none. Serve returns after the calls in progress have ended.
func (s *Server) Serve(ctx context.Context, ready chan<- struct{}, confirmed func() (model.NodeState, bool)) error {
	s.source.Store(&confirmed)
	l, err := s.listen()
	if err != nil {
		return err
	}
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() { l.Close(); close(closed) })
	defer func() { // whoever comes next must not find it answering: a second Close would not wait for the first
		if stop() {
			l.Close()
		} else {
			<-closed
		}
	}()
	close(ready)
	s.log.Info("answering CNI calls", "socket", s.opts.Socket)
	go s.showLife(ctx)

	calls, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var running sync.WaitGroup
	err = s.accept(ctx, calls, l, &running)
	done := make(chan struct{})
	go func() { running.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(s.opts.Grace):
		cancel()
		<-done
	}
	s.end()
	s.background.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (s *Server) accept(ctx, calls context.Context, l *net.UnixListener, running *sync.WaitGroup) error {
	for {
		select {
		case s.slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		conn, err := l.AcceptUnix()
		if err != nil {
			<-s.slots
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return err
			}
			s.log.Warn("accept a CNI call", "reason", err) // out of descriptors, perhaps: calls in progress will free some
			time.Sleep(50 * time.Millisecond)
			continue
		}
		running.Go(func() {
			defer func() { <-s.slots }()
			defer conn.Close()
			s.handle(calls, conn)
		})
	}
}

// listen makes the socket under another name with its mode, then renames it: there is no moment at which it can be
// connected to by others or is missing. A stale one is replaced; one that is answered is not.
func (s *Server) listen() (*net.UnixListener, error) {
	dir := filepath.Dir(s.opts.Socket)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory of the CNI socket: %w", err)
	}
	if conn, err := net.DialTimeout("unix", s.opts.Socket, time.Second); err == nil {
		conn.Close()
		return nil, fmt.Errorf("%s: %w", s.opts.Socket, ErrInUse)
	}
	born := time.Unix(0, 0)
	if info, err := os.Stat(s.opts.Socket); err == nil && info.ModTime().After(born) {
		s.everReady.Store(true) // an earlier life since the boot was ready, see showLife
		born = info.ModTime()
	}
	temporary := filepath.Join(dir, ".cni."+strconv.Itoa(os.Getpid()))
	_ = os.Remove(temporary)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: temporary, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen for CNI calls: %w", err)
	}
	l.SetUnlinkOnClose(false) // the file stays as the sign of life, and a successor may have replaced it
	err = errors.Join(os.Chmod(temporary, 0o600), os.Chtimes(temporary, born, born))
	if err == nil {
		err = os.Rename(temporary, s.opts.Socket)
	}
	if err != nil {
		l.Close()
		_ = os.Remove(temporary)
		return nil, fmt.Errorf("make CNI socket %s: %w", s.opts.Socket, err)
	}
	return l, nil
}

// showLife touches the socket file while the agent has been ready once: the plugin's STATUS believes in a file touched
// within wire.AliveFor, so that restarting the agent does not make the node NotReady.
func (s *Server) showLife(ctx context.Context) {
	tick := time.NewTicker(wire.AliveFor / 6)
	defer tick.Stop()
	for {
		if s.ready() {
			now := time.Now()
			if err := os.Chtimes(s.opts.Socket, now, now); err != nil {
				s.log.Warn("touch the CNI socket", "reason", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// ready says whether the agent has been ready at least once since the boot.
func (s *Server) ready() bool {
	if _, ok := s.confirmed(); ok {
		s.everReady.Store(true)
	}
	return s.everReady.Load()
}

// Pods names the attached Pods ("namespace/name") by what of the host they hang on: host links by name, and of virtual functions
// FunctionKey and PhysicalKey with what follows there.
func (s *Server) Pods() map[string][]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return byDevice(s.pods)
}
