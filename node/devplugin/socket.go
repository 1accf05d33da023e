package devplugin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	deviceplugin "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// kubeletSocket is the name of the kubelet's own socket in the directory.
const kubeletSocket = "kubelet.sock"

const (
	maxPath       = 107 // bytes of a socket's path (unix(7), sun_path)
	maxReadable   = 24  // bytes of a resource's name in that of its socket, for people
	reachWithin   = 2 * time.Second
	acceptsWithin = 20 * time.Second // a kubelet tries for 10 s to reach a plugin before it answers
)

// ourSocket is the name of a socket that this package made.
var ourSocket = regexp.MustCompile(`^danm-.*-[0-9a-f]{8}\.sock$`)

// socketName is a new one for a resource.
func socketName(dir, resource string) (string, error) {
	random := fmt.Sprintf("-%08x.sock", rand.Uint32())
	room := maxPath - len(filepath.Join(dir, "danm-"+random))
	if room < 0 {
		return "", fmt.Errorf("directory %s: a socket's path has at most %d bytes: %w", dir, maxPath, syscall.ENAMETOOLONG)
	}
	readable := resource[strings.LastIndexByte(resource, '/')+1:]
	return "danm-" + readable[:min(len(readable), maxReadable, room)] + random, nil
}

// identity says which file a path leads to; the zero value, that there is none. Numbers of files are used again, times are not.
type identity struct {
	device, file uint64
	made         int64
}

func identify(path string) identity {
	is, err := os.Lstat(path)
	if err != nil {
		return identity{}
	}
	id := identity{made: is.ModTime().UnixNano()}
	if st, ok := is.Sys().(*syscall.Stat_t); ok {
		id.device, id.file = uint64(st.Dev), st.Ino //nolint:unconvert // Dev has another type elsewhere
	}
	return id
}

// reachable is nil when somebody listens on a socket.
func reachable(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, reachWithin)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return err
	}
	return c.Close()
}

// register tells the kubelet of a resource that is served on a socket beside its own.
func register(ctx context.Context, kubelet, socket, resource string) error {
	ctx, cancel := context.WithTimeout(ctx, acceptsWithin)
	defer cancel()
	conn, err := grpc.NewClient("unix:"+kubelet, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(), grpc.WithAuthority("localhost"))
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = deviceplugin.NewRegistrationClient(conn).Register(ctx, &deviceplugin.RegisterRequest{
		Version: deviceplugin.Version, Endpoint: socket, ResourceName: resource, Options: options()})
	return err
}

// removeLeftOver removes the sockets of processes that were killed: those of ours that nobody listens on.
func removeLeftOver(dir string, log *slog.Logger) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // whoever needs the directory says so
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if e.Type() != os.ModeSocket || !ourSocket.MatchString(e.Name()) || !errors.Is(reachable(context.Background(), path), syscall.ECONNREFUSED) {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			log.Warn("a socket is left over", "socket", e.Name(), "reason", err)
		}
	}
}

// watch tells when something happened to the kubelet's socket or one of ours, until ctx ends. Where the directory cannot be watched,
// nothing is told; while it is away it is looked for as often as opts say.
func watch(ctx context.Context, running *sync.WaitGroup, opts Options, log *slog.Logger) <-chan struct{} {
	told := make(chan struct{}, 1)
	w, err := fsnotify.NewWatcher()
	if err != nil {
		log.Warn("the kubelet's sockets are not watched, only looked at", "reason", err)
		return told
	}
	_ = w.Add(opts.Dir)
	running.Go(func() {
		defer w.Close()
		again := time.NewTicker(opts.Look)
		defer again.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case e := <-w.Events:
				name := filepath.Base(e.Name)
				if e.Op&(fsnotify.Create|fsnotify.Remove|fsnotify.Rename) != 0 && (name == kubeletSocket || ourSocket.MatchString(name)) {
					wake(told)
				}
			case <-w.Errors: // events were lost
				wake(told)
			case <-again.C:
				if len(w.WatchList()) == 0 && w.Add(opts.Dir) == nil {
					wake(told)
				}
			}
		}
	})
	return told
}
