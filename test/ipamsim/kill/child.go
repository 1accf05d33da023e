package kill

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"danm.io/danm/ipam"
	"danm.io/danm/ipam/kube"
	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/test/ipamsim"
	"danm.io/danm/test/ipamsim/history"
	"danm.io/danm/test/ipamsim/world"
)

// spec is what a child is told; it stands in its environment.
type spec struct {
	Dir        string // of all sockets, and of the journals by node
	Node       string
	Index      int
	Generation int // of this process
	Boot       time.Time
	Slots      int           // of the local home; 0: the cluster home
	Cooldown   time.Duration // of addresses
	Server     *Server       // the cluster home's API; nil: the parent
}

// Server is a real API server, and the token of a node for it.
type Server struct {
	Host, Token string
}

const specVar = "DANM_IPAMSIM_CHILD"

// Wire between parent and child: one JSON object each way.
type (
	kernelCall struct {
		Node, Sandbox string
		Generation    int
		Addresses     []ipamsim.Address // to be set; none: links down
		List          bool              // sandboxes
	}
	kernelAnswer struct {
		Error     string
		Sandboxes []string
	}
	nodeCall struct {
		Add *ipamsim.PodSpec
		Del string // sandbox
	}
	nodeAnswer struct {
		Error     string
		Exhausted bool
		Got       [][]netip.Prefix
		Entries   []history.Entry
	}
)

// unixClient reaches a server on a unix socket.
func unixClient(path string) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}}}
}

func post(ctx context.Context, c *http.Client, path string, in, out any) error {
	r, w := io.Pipe()
	go func() { _ = w.CloseWithError(json.NewEncoder(w).Encode(in)) }()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://unix"+path, r)
	if err != nil {
		return err
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(out)
}

func serve(path string, h http.Handler) (*http.Server, error) {
	_ = os.Remove(path) // of the process before
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	go func() { _ = s.Serve(l) }()
	return s, nil
}

func answer(w http.ResponseWriter, out any) { _ = json.NewEncoder(w).Encode(out) }

// remoteKernel is the parent.
type remoteKernel struct {
	spec spec
	http *http.Client
}

func (k remoteKernel) call(ctx context.Context, c kernelCall) (kernelAnswer, error) {
	c.Node, c.Generation = k.spec.Node, k.spec.Generation
	var out kernelAnswer
	if err := post(ctx, k.http, "/kernel", c, &out); err != nil {
		return out, err
	}
	if out.Error != "" {
		return out, errors.New(out.Error)
	}
	return out, nil
}

func (k remoteKernel) Up(ctx context.Context, sandbox string, addrs []ipamsim.Address) error {
	_, err := k.call(ctx, kernelCall{Sandbox: sandbox, Addresses: addrs})
	return err
}

func (k remoteKernel) Down(ctx context.Context, sandbox string) error {
	_, err := k.call(ctx, kernelCall{Sandbox: sandbox})
	return err
}

func (k remoteKernel) Sandboxes() []string {
	out, err := k.call(context.Background(), kernelCall{List: true})
	if err != nil {
		fmt.Fprintln(os.Stderr, "list sandboxes:", err)
		os.Exit(1) // an unknown list is not an empty one
	}
	return out.Sandboxes
}

// Child is one node's process, if this process is one: then it never returns. It ends with its standard input.
func Child() {
	text := os.Getenv(specVar)
	if text == "" {
		return
	}
	var s spec
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if err := s.run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// The cluster home, faster than it would be.
const (
	blockLease = 30 * time.Second
	idleBlock  = 500 * time.Millisecond
)

func machineOf(node string) string { return "machine-" + node }

// home is how the node gives addresses, and the API that it has for that.
func (s spec) home() (ipamsim.Home, ipam.API, error) {
	if s.Slots > 0 {
		return ipamsim.Local{Slots: s.Slots, Cooldown: s.Cooldown}, nil, nil
	}
	wake := make(chan struct{}, 1)
	home := ipamsim.Processes{Cooldown: s.Cooldown, Lease: blockLease, Idle: idleBlock, Wake: wake}
	if s.Server == nil {
		store := &world.Remote{HTTP: unixClient(filepath.Join(s.Dir, "parent")), URL: "http://unix/api"}
		home.Store = store
		go func() { // nobody watches this world
			for range time.Tick(20 * time.Millisecond) {
				select {
				case wake <- struct{}{}:
				default:
				}
			}
		}()
		return home, &world.NodeAPI{Client: store, Node: s.Node, Machine: machineOf(s.Node)}, nil
	}
	store, err := s.Server.store()
	if err != nil {
		return nil, nil, err
	}
	home.Store = store
	api, err := kube.New(s.Server.config(), s.Node, world.LeaseNamespace, machineOf(s.Node))
	if err != nil {
		return nil, nil, err
	}
	go api.Watch(context.Background(), wake, func(time.Duration) {})
	return home, api, nil
}

func (s *Server) config() *rest.Config {
	return &rest.Config{Host: s.Host, BearerToken: s.Token, TLSClientConfig: rest.TLSClientConfig{Insecure: true}, QPS: 1000, Burst: 2000}
}

func (s *Server) store() (world.Server, error) {
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{v1alpha1.AddToScheme, coordinationv1.AddToScheme, corev1.AddToScheme} {
		if err := add(scheme); err != nil {
			return world.Server{}, err
		}
	}
	c, err := client.New(s.config(), client.Options{Scheme: scheme})
	return world.Server{Client: c}, err
}

func (s spec) run() error {
	home, api, err := s.home()
	if err != nil {
		return err
	}
	start := time.Now()
	env := ipamsim.Env{
		Node: s.Node, Index: s.Index, MachineID: machineOf(s.Node), BootID: "boot", Dir: filepath.Join(s.Dir, "journal-"+s.Node),
		Kernel: remoteKernel{s, unixClient(filepath.Join(s.Dir, "parent"))}, Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
		API:      api,
		Wall:     time.Now,
		Boottime: func() time.Duration { return start.Sub(s.Boot) + time.Since(start) },
		BootWall: s.Boot,
	}
	stack, err := home.Start(context.Background(), env)
	if err != nil {
		return fmt.Errorf("start node %s: %w", s.Node, err)
	}
	_, err = serve(filepath.Join(s.Dir, s.Node), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var in nodeCall
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			answer(w, nodeAnswer{Error: err.Error()})
			return
		}
		answer(w, in.do(r.Context(), stack))
	}))
	return err
}

func (c nodeCall) do(ctx context.Context, stack ipamsim.Stack) (out nodeAnswer) {
	var err error
	switch {
	case c.Add != nil:
		out.Got, err = stack.Add(ctx, *c.Add)
	case c.Del != "":
		err = stack.Del(ctx, c.Del)
	default:
		out.Entries, err = stack.Entries()
	}
	if err != nil {
		out.Error, out.Exhausted = err.Error(), errors.Is(err, ipam.ErrExhausted)
	}
	return out
}
