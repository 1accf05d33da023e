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

	"danm.io/danm/ipam"
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
func Child(home func(nodes int) ipamsim.Home, nodes int) {
	text := os.Getenv(specVar)
	if text == "" {
		return
	}
	var s spec
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	if err := s.run(home(nodes)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

func (s spec) run(home ipamsim.Home) error {
	parent := unixClient(filepath.Join(s.Dir, "parent"))
	start := time.Now()
	env := ipamsim.Env{
		Node: s.Node, Index: s.Index, MachineID: "machine-" + s.Node, BootID: "boot", Dir: filepath.Join(s.Dir, "journal-"+s.Node),
		Kernel: remoteKernel{s, parent}, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		API:      &world.NodeAPI{Client: &world.Remote{HTTP: parent, URL: "http://unix/api"}, Node: s.Node, Machine: "machine-" + s.Node},
		Wall:     time.Now,
		Boottime: func() time.Duration { return start.Sub(s.Boot) + time.Since(start) },
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
