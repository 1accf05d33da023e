package kill

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"danm.io/danm/ipam"
	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/spec/model"
	"danm.io/danm/test/ipamsim"
	"danm.io/danm/test/ipamsim/history"
	"danm.io/danm/test/ipamsim/world"
)

// patience is how long a DEL is repeated: longer than any restart takes on a busy machine.
const patience = 30 * time.Second

// Config of a run.
type Config struct {
	Nodes    []string
	Networks []model.Network // of IPv4; the first one is filled to its last address in the end
	Cooldown time.Duration
	Claimed  bool                          // the cluster home; else the local one
	Server   func(node string) *Server     // of the cluster home; nil: a world in memory, and a controller on it
	API      world.Store                   // what that server says, to an administrator
	For      time.Duration                 // how long Pods come and go
	Lives    time.Duration                 // how long a process lives at most
	Calls    int                           // ADDs and DELs after which they stop earlier; 0 = none
	Progress func(format string, a ...any) // nil: nobody is told
}

// run is one parent with its nodes.
type run struct {
	cfg    Config
	api    world.Store
	dir    string
	boot   time.Time
	world  *world.World
	server *http.Server
	broken chan struct{} // closed when a process ended by itself: nothing gets better by waiting
	once   sync.Once

	mu    sync.Mutex
	check *history.Checker
	nodes []*node
	stats map[string]int
}

// node is a machine: its sandboxes live on when its process is killed.
type node struct {
	r          *run
	name       string
	index      int
	http       *http.Client
	generation int // of the process that may speak; 0 = none
	started    int
	sandboxes  map[string]string // → Pod UID
	cmd        *exec.Cmd
	stdin      interface{ Close() error }
}

func newRun(dir string, cfg Config) (*run, error) {
	r := &run{cfg: cfg, api: cfg.API, dir: dir, boot: time.Now(), world: world.New(time.Now), broken: make(chan struct{}), check: history.New(), stats: map[string]int{}}
	if r.api == nil {
		r.api = &world.Client{World: r.world, Name: "test"}
	}
	for i, name := range cfg.Nodes {
		r.nodes = append(r.nodes, &node{r: r, name: name, index: i, http: unixClient(filepath.Join(dir, name)), sandboxes: map[string]string{}})
	}
	mux := http.NewServeMux()
	mux.Handle("/api", world.Handler(&world.Client{World: r.world, Name: "danm-node"}))
	mux.HandleFunc("/kernel", func(w http.ResponseWriter, req *http.Request) {
		var c kernelCall
		if err := json.NewDecoder(req.Body).Decode(&c); err != nil {
			answer(w, kernelAnswer{Error: err.Error()})
			return
		}
		answer(w, r.kernel(c))
	})
	var err error
	r.server, err = serve(filepath.Join(dir, "parent"), mux)
	return r, err
}

// kernel does what a node's process asks, unless that process is dead: then it never came to it.
func (r *run) kernel(c kernelCall) (out kernelAnswer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.IndexFunc(r.nodes, func(n *node) bool { return n.name == c.Node })
	if i < 0 || r.nodes[i].generation != c.Generation {
		return kernelAnswer{Error: "the process is dead"}
	}
	n := r.nodes[i]
	pod, there := n.sandboxes[c.Sandbox]
	switch {
	case c.List:
		out.Sandboxes = slices.Sorted(maps.Keys(n.sandboxes))
	case len(c.Addresses) == 0:
		r.check.Clear(time.Now(), n.name, c.Sandbox)
	case !there:
		out.Error = "the sandbox has no network namespace"
	default:
		for _, a := range c.Addresses {
			r.check.Set(time.Now(), history.Holder{Node: n.name, Sandbox: c.Sandbox, Pod: pod, IfName: a.IfName}, a.Where, a.Why)
		}
	}
	return out
}

// start starts the node's next process.
func (n *node) start() error {
	n.r.mu.Lock()
	n.started++
	n.generation = n.started
	s := spec{Dir: n.r.dir, Node: n.name, Index: n.index, Generation: n.generation, Boot: n.r.boot, Cooldown: n.r.cfg.Cooldown}
	if !n.r.cfg.Claimed {
		s.Slots = len(n.r.cfg.Nodes)
	} else if n.r.cfg.Server != nil {
		s.Server = n.r.cfg.Server(n.name)
	}
	n.r.mu.Unlock()
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), specVar+"="+string(text))
	cmd.Stderr = os.Stderr
	if n.stdin, err = cmd.StdinPipe(); err != nil {
		return err
	}
	n.cmd = cmd
	return cmd.Start()
}

// kill ends the process with SIGKILL, and with it what it was about to ask.
func (n *node) kill() error {
	if err := n.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	err := n.cmd.Wait()
	n.r.mu.Lock()
	n.generation = 0
	n.r.mu.Unlock()
	_ = n.stdin.Close()
	n.http.CloseIdleConnections()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() >= 0 {
		n.r.once.Do(func() { close(n.r.broken) })
		return fmt.Errorf("node %s ended by itself: %w", n.name, err)
	}
	return nil
}

func (n *node) call(ctx context.Context, c nodeCall) (nodeAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	var out nodeAnswer
	if err := post(ctx, n.http, "/", c, &out); err != nil {
		return out, err
	}
	if out.Error != "" {
		return out, errors.New(out.Error)
	}
	return out, nil
}

func (r *run) isBroken() bool {
	select {
	case <-r.broken:
		return true
	default:
		return false
	}
}

func (r *run) count(what string) {
	r.mu.Lock()
	r.stats[what]++
	r.mu.Unlock()
}

// pod lives one Pod's life: it is attached, perhaps again in a new sandbox, and goes; dwell is how long it stays. It
// reports whether it ever was attached before ctx ended.
func (r *run) pod(ctx context.Context, rng *rand.Rand, n *node, uid string, wants []ipam.Want, dwell time.Duration) (attached bool) {
	var old []string
	for made := 1; ; made++ {
		id := fmt.Sprintf("%s-sandbox-%d", uid, made)
		r.mu.Lock()
		n.sandboxes[id] = uid
		r.mu.Unlock()
		_, err := n.call(ctx, nodeCall{Add: &ipamsim.PodSpec{Sandbox: id, UID: uid, Namespace: "acme", Pod: uid, Wants: wants}})
		if err == nil {
			attached = true
			r.count("add ok")
			sleep(ctx, dwell)
			if rng.IntN(4) == 0 && ctx.Err() == nil { // its sandbox dies; the next one comes before the DEL
				old = append(old, id)
				continue
			}
		} else {
			r.count("add failed")
		}
		old = append(old, id)
		if err == nil || ctx.Err() != nil || wants[0].IP.Mode == model.AddressStatic && made >= 3 {
			break
		}
		if rng.IntN(2) == 0 { // the runtime cleans up first
			r.del(n, id)
		}
		sleep(ctx, time.Duration(20+rng.IntN(200))*time.Millisecond)
	}
	for _, id := range old {
		r.del(n, id)
		if rng.IntN(3) == 0 {
			r.del(n, id)
		}
	}
	return attached
}

// del repeats DEL until it succeeds; then the namespace goes.
func (r *run) del(n *node, id string) {
	for end := time.Now().Add(patience); ; {
		_, err := n.call(context.Background(), nodeCall{Del: id})
		if err == nil {
			break
		}
		r.count("del failed")
		if time.Now().After(end) || r.isBroken() {
			r.count("del given up: " + err.Error())
			return
		}
		time.Sleep(30 * time.Millisecond)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stats["del ok"]++
	r.check.Clear(time.Now(), n.name, id)
	delete(n.sandboxes, id)
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// books asks every node for its journal, and the API for its blocks.
func (r *run) books() (b history.Books, err error) {
	for _, n := range r.nodes {
		out, cerr := n.call(context.Background(), nodeCall{})
		err = errors.Join(err, cerr)
		b.Entries = append(b.Entries, out.Entries...)
	}
	if !r.cfg.Claimed {
		return b, err
	}
	ctx := context.Background()
	spaces := map[string]bool{}
	for _, n := range r.cfg.Networks {
		spaces[spaceOf(n).Hash()] = true
	}
	b.Nodes = map[string]string{}
	for _, n := range r.nodes {
		api := world.NodeAPI{Client: r.api, Node: n.name, Machine: machineOf(n.name)}
		id, ierr := api.Identity(ctx)
		err = errors.Join(err, ierr)
		b.Nodes[n.name] = id
	}
	list, _, lerr := r.api.List(ctx, world.IPBlock, nil)
	for _, o := range list {
		if x, ok := o.(*v1alpha1.IPBlock); ok && spaces[x.Spec.Space.Hash()] {
			b.Blocks = append(b.Blocks, ipamsim.BlockOf(x))
		}
	}
	return b, errors.Join(err, lerr)
}

func spaceOf(n model.Network) v1alpha1.IPSpace {
	return v1alpha1.IPSpace{Domain: n.SpaceDomain, ID: int64(n.ID()), VXLAN: n.VXLAN, CIDR: n.IPv4.CIDR.String()}
}
