package devplugin

import (
	"context"
	"log/slog"
	"maps"
	"path/filepath"
	"reflect"
	"sync"
	"time"
)

// UsualDir is the kubelet's directory of device plugins, on the host, where its own is the usual one.
const UsualDir = "/var/lib/kubelet/device-plugins"

// None is the directory of a node on which nothing is offered.
const None = "none"

// Options of a Plugin. Dir is required.
type Options struct {
	Dir     string // the kubelet's, of device plugins' sockets, as this process reaches it; absolute
	InfoDir string // of device plugins' device-info files, as this process reaches it; "" = none are written
	Log     *slog.Logger
	// Registered is told of each registration of a resource that was tried; nil = nobody is. It may be called from several goroutines.
	Registered func(resource string, err error)
	// Look is how often it is looked whether sockets are there, where no event says so; 0 = 10 s.
	Look time.Duration
	// LookInfo is how often it is looked whether device-info files are as they were written; 0 = a minute.
	LookInfo time.Duration
}

// Plugin offers resources. Set may be called from anywhere, also before Run and after it.
type Plugin struct {
	opts   Options
	log    *slog.Logger
	info   infoFiles // Run's
	infoAt time.Time // Run's: when all of them were looked at
	told   string    // Run's: what was said of them last

	given   chan struct{} // has one when Set had another list
	mu      sync.Mutex
	want    []Resource
	sets    uint64                     // lists that Set had, the same ones left out
	handed  uint64                     // of those, the last that the offers have
	moved   chan struct{}              // closed when more of it was told
	offered []Resource                 // as checked
	offers  map[string]*offering       // those under way
	ending  map[string]<-chan struct{} // closed at the end of the last one that was taken back
}

// New makes ready; nothing is done before Run.
func New(o Options) *Plugin {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Registered == nil {
		o.Registered = func(string, error) {}
	}
	if o.Look == 0 {
		o.Look = 10 * time.Second
	}
	if o.LookInfo == 0 {
		o.LookInfo = time.Minute
	}
	return &Plugin{opts: o, log: o.Log, info: infoFiles{dir: o.InfoDir}, given: make(chan struct{}, 1), moved: make(chan struct{}), offers: map[string]*offering{}, ending: map[string]<-chan struct{}{}}
}

// Set says what there is from now on. It waits for nobody, and costs a comparison if nothing changed. Who called it changes the list no more.
func (p *Plugin) Set(resources []Resource) {
	p.mu.Lock()
	same := len(p.want) == 0 && len(resources) == 0 || reflect.DeepEqual(p.want, resources)
	p.want = resources
	if !same {
		p.sets++
	}
	p.mu.Unlock()
	if !same {
		wake(p.given)
	}
}

// Offered is one resource as it stands.
type Offered struct {
	Resource           string
	Healthy, Unhealthy int
	Connected          bool // the kubelet listens
}

// Offered tells of what Run offers, by name.
func (p *Plugin) Offered() []Offered {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []Offered
	for _, r := range p.offered {
		one := Offered{Resource: r.Name}
		for _, d := range r.Devices {
			if d.Problem == "" {
				one.Healthy++
			} else {
				one.Unhealthy++
			}
		}
		if o := p.offers[r.Name]; o != nil {
			one.Connected = o.connected.Load()
		}
		out = append(out, one)
	}
	return out
}

// Run offers what Set said until ctx ends. Whatever does not work is logged and tried again. Device-info files stay where they are when it
// ends: Pods are attached while an agent is replaced. Before Set had a resource it does nothing.
func (p *Plugin) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var events <-chan struct{}
	var look <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.given:
			p.mu.Lock()
			want, number := p.want, p.sets
			p.mu.Unlock()
			if look == nil && len(want) > 0 {
				removeLeftOver(p.opts.Dir, p.log)
				events = watch(ctx, &running, p.opts, p.log)
				ticker := time.NewTicker(p.opts.Look)
				defer ticker.Stop()
				look = ticker.C
			}
			p.offer(ctx, &running, want)
			p.note(func() { p.handed = number })
		case <-events:
			p.wakeAll()
		case <-look:
			if p.told != "" || time.Since(p.infoAt) >= p.opts.LookInfo {
				p.writeInfo()
			}
			p.wakeAll()
		}
	}
}

// offer makes the resources under way those that are wanted. A device's file is written before the kubelet hears of the device.
func (p *Plugin) offer(ctx context.Context, running *sync.WaitGroup, want []Resource) {
	resources, problems := checked(want)
	for _, err := range problems {
		p.log.Error("not all can be offered to the kubelet", "reason", err)
	}
	p.mu.Lock()
	before := p.offered
	p.offered = resources
	p.mu.Unlock()
	p.tell(before, resources)
	if p.told != "" || !sameInfo(before, resources) {
		p.writeInfo()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	maps.DeleteFunc(p.ending, func(_ string, end <-chan struct{}) bool { return closed(end) })
	wanted := map[string]bool{}
	for _, r := range resources {
		wanted[r.Name] = true
		if o := p.offers[r.Name]; o != nil {
			o.set(r, false)
			continue
		}
		o := newOffering(p, r)
		before := p.ending[r.Name]
		p.offers[r.Name] = o
		running.Go(func() { o.run(ctx, before) })
	}
	for name, o := range p.offers {
		if !wanted[name] {
			delete(p.offers, name)
			p.ending[name] = o.done
			o.set(Resource{Name: name}, true)
		}
	}
}

func (p *Plugin) wakeAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, o := range p.offers {
		wake(o.wake)
	}
}

// writeInfo makes the device-info files those of what is offered.
func (p *Plugin) writeInfo() {
	if p.opts.InfoDir == "" {
		return
	}
	p.mu.Lock()
	resources := p.offered
	p.mu.Unlock()
	p.infoAt = time.Now()
	text := ""
	if err := p.info.sync(resources); err != nil {
		text = err.Error()
		if text != p.told {
			p.log.Warn("whoever attaches Pods may not find out about their devices", "reason", err)
		}
	}
	p.told = text
}

// tell logs which devices no container can have, when that changes.
func (p *Plugin) tell(before, now []Resource) {
	last := map[string]map[string]string{}
	for _, r := range before {
		last[r.Name] = problemsOf(r)
	}
	for _, r := range now {
		is := problemsOf(r)
		if maps.Equal(is, last[r.Name]) {
			continue
		}
		if len(is) == 0 {
			p.log.Info("all devices of a resource can be had", "resource", r.Name, "devices", len(r.Devices))
		}
		for reason, first := range is {
			p.log.Warn("containers cannot have devices", "resource", r.Name, "first", first, "reason", reason)
		}
	}
}

// problemsOf are the problems of devices, each with the first device that has it.
func problemsOf(r Resource) map[string]string {
	out := map[string]string{}
	for _, d := range r.Devices {
		if _, known := out[d.Problem]; !known && d.Problem != "" {
			out[d.Problem] = d.ID
		}
	}
	return out
}

func (p *Plugin) kubelet() string { return filepath.Join(p.opts.Dir, kubeletSocket) }

// wake leaves one thing in a channel that takes one.
func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
