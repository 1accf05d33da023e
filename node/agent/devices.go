package agent

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"danm.io/danm/node/devplugin"
	"danm.io/danm/node/plan"
	"danm.io/danm/node/podresources"
	"danm.io/danm/node/sriov"
	"danm.io/danm/spec/model"
	npwgv1 "danm.io/danm/spec/npwg/v1"
)

// devicePlugin is what the settings say of a device plugin, nil if nothing is offered.
func (a *Agent) devicePlugin(s Settings) *devplugin.Plugin {
	dir := s.devicePlugins()
	if dir == "" {
		return nil
	}
	p := devplugin.New(devplugin.Options{Dir: dir, InfoDir: onHost(s.SysRoot, filepath.Join(npwgv1.DeviceInfoDir, "dp")), Log: a.log, Registered: a.m.registered})
	a.opts.Offer, a.told = p.Set, p.Told
	a.m.registry.MustRegister(devices{p.Offered})
	return p
}

// devicePlugins is the kubelet's directory of device plugins, as this process reaches it; "" = nothing is offered.
func (s Settings) devicePlugins() string {
	switch {
	case s.DevicePlugins == devplugin.None || s.DevicePlugins == "" && s.API == nil: // the local home may have no kubelet
		return ""
	case s.DevicePlugins == "":
		return onHost(s.SysRoot, devplugin.UsualDir)
	}
	return s.DevicePlugins
}

// onHost is where a path of the host is found: in a container, where only some of its directories are mounted, through its first process
// (proc(5), /proc/pid/root).
func onHost(root, path string) string {
	if root = filepath.Join("/", root); root == "/" {
		return path
	}
	return filepath.Join(root, "proc/1/root", path)
}

// offer tells the device plugin what the confirmed plan's pools have, by what this round saw last. A round that did not look, or has
// changed the kernel since, looks for it, where there are pools.
func (a *Agent) offer(ctx context.Context) {
	o, st := a.observed, a.confirmed.Load()
	a.observed = nil
	defer a.astray.forget()
	if a.opts.Offer == nil || st == nil || a.undecided() {
		return
	}
	if len(st.Plan.Pools) == 0 {
		a.offers = nil
		a.opts.Offer(nil)
		return
	}
	if o == nil {
		now, err := a.opts.Kernel.Observe(ctx)
		if err != nil { // unknown is not none
			a.sayOnce(&a.offerProblem, "the devices of pools were not seen", err)
			return
		}
		o = &now
	}
	a.offerProblem = ""
	has := func(kubelet given, err error) given {
		a.astray.asked(err)
		return a.whoHas(kubelet, err)
	}
	list := offered(*st, *o, a.vfFiles.look, &a.astray, func() given { return has(a.holders.Known()) })
	if anew(a.offers, list) { // who got a device as what it was has kept it, and nobody gets it as that from the next list on
		list = offered(*st, *o, a.vfFiles.look, &a.astray, func() given { return has(a.holders.Fresh(ctx)) })
	}
	a.vfFiles.forget()
	list = withUnseen(list, a.offers, *o)
	a.offers = list
	a.opts.Offer(withheld(list, a.withheld))
}

// toldWithin is how long it is waited until the kubelet has heard that it is to give devices to nobody.
const toldWithin = time.Second

// withhold makes the kubelet give devices to nobody until lift, for what may happen to them: those of cards, by PCI address, with the reason.
// When it returns the kubelet was told, if that can be had within toldWithin; that a device is allocated all the same is refused from
// then on. Whom the kubelet gave one before is to be asked afterwards. It is for the goroutine of the rounds.
func (a *Agent) withhold(cards map[string]string) {
	a.withheld = cards
	if a.opts.Offer == nil || len(cards) == 0 || len(a.offers) == 0 {
		return
	}
	a.opts.Offer(withheld(a.offers, cards))
	if a.told == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), toldWithin)
	defer cancel()
	if err := a.told(ctx); err != nil {
		a.log.Warn("the kubelet may still give away devices that are about to change", "reason", err)
	}
}

// lift ends what withhold began, with the next offer: devices are then what they have become.
func (a *Agent) lift() { a.withheld = nil }

// withheld is a list with a problem of the devices that are to be had by nobody. The list itself stays as it is.
func withheld(list []devplugin.Resource, reasons map[string]string) []devplugin.Resource {
	if len(reasons) == 0 {
		return list
	}
	list = slices.Clone(list)
	for i := range list {
		devices := slices.Clone(list[i].Devices)
		for n := range devices {
			devices[n].Problem = cmp.Or(reasons[devices[n].ID], devices[n].Problem)
		}
		list[i].Devices = devices
	}
	return list
}

// undecided says whether the guard has a plan in its window that this process did not submit, or has lost: what it makes of devices is
// not known here, so nothing new is told of them.
func (a *Agent) undecided() bool {
	s := a.seen.Load()
	return s != nil && s.guardErr == nil && s.guard.Phase.Open()
}

// anew says whether a device is offered that was not, or as another resource.
func anew(before, now []devplugin.Resource) bool {
	was := map[string]string{}
	for _, r := range before {
		for _, d := range r.Devices {
			was[d.ID] = r.Name
		}
	}
	return slices.ContainsFunc(now, func(r devplugin.Resource) bool {
		return slices.ContainsFunc(r.Devices, func(d devplugin.Device) bool { return was[d.ID] != r.Name })
	})
}

// look is how a virtual function is read of sysfs.
type look func(plan.ObservedVF) (sriov.Function, error)

// offered are the resources of a state's pools: each has those functions of the pools of its name that are there. A pool without any
// makes a resource, too. Who has devices is asked where there are any.
func offered(st model.NodeState, o plan.Observed, look look, stray *astray, whoHas func() given) []devplugin.Resource {
	pools, links := map[string]*model.SRIOVPool{}, map[string]*plan.ObservedLink{}
	byName := map[string]*devplugin.Resource{}
	for i := range st.Plan.Pools {
		p := &st.Plan.Pools[i]
		pools[p.Name] = p
		byName[p.ResourceName] = &devplugin.Resource{Name: p.ResourceName}
	}
	for i := range o.Links {
		links[o.Links[i].Name] = &o.Links[i]
	}
	var declared []model.Link // of the kind that a function's interface is of: plans have thousands of others
	for i := range st.Plan.Links {
		if st.Plan.Links[i].Kind == model.Physical {
			declared = append(declared, st.Plan.Links[i])
		}
	}
	var has given
	for _, v := range plan.PoolVFs(st.Plan.Pools, o) {
		if v.VF.PCI == "" { // steps are yet to make it, or its bus is another
			continue
		}
		if has == nil {
			has = whoHas()
		}
		f, err := look(v.VF)
		p := pools[v.Pool]
		r := byName[p.ResourceName]
		problem := cmp.Or(heldElsewhere(has[v.VF.PCI], p.ResourceName), usedByHost(links[v.VF.Link], v.VF, declared), stray.look(v.VF, len(has[v.VF.PCI]) > 0), problemOf(p, links[v.PF], v.VF, f, err))
		r.Devices = append(r.Devices, deviceOf(v, f, err, problem))
	}
	var out []devplugin.Resource
	for _, r := range byName {
		slices.SortFunc(r.Devices, func(a, b devplugin.Device) int { return cmp.Compare(a.ID, b.ID) })
		out = append(out, *r)
	}
	slices.SortFunc(out, func(a, b devplugin.Resource) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

func deviceOf(v plan.PoolVF, f sriov.Function, err error, problem string) devplugin.Device {
	d := devplugin.Device{ID: v.VF.PCI, Problem: problem, NUMA: -1, PF: v.PF, Driver: v.VF.Driver}
	if err == nil {
		d.NUMA, d.IOMMUGroup, d.RDMA = f.NUMA, f.IOMMUGroup, f.RDMA
		d.PF = cmp.Or(f.PFPCI, v.PF)
	}
	return d
}

// heldElsewhere says who has a device as another resource than this, or as none, "" if nobody: the kubelet counts each resource by itself,
// and would give it away once more.
func heldElsewhere(by []podresources.Holder, resource string) string {
	for _, h := range by {
		if h.Resource == "" {
			return h.Pod + " has it still"
		}
		if h.Resource != resource {
			return fmt.Sprintf("%s has it as %s", h.Pod, h.Resource)
		}
	}
	return ""
}

// usedByHost says what the host would miss if a Pod got a function with this interface, "" for nothing.
func usedByHost(l *plan.ObservedLink, vf plan.ObservedVF, declared []model.Link) string {
	if l == nil {
		return ""
	}
	if use := plan.HostUse(vf, plan.Observed{Links: []plan.ObservedLink{*l}}, model.NodePlan{Links: declared}); use != "" {
		return "the host uses it: " + use
	}
	return ""
}

// problemOf says why no container can have a function of a pool, "" if one can.
func problemOf(p *model.SRIOVPool, pf *plan.ObservedLink, vf plan.ObservedVF, f sriov.Function, err error) string {
	driver := cmp.Or(p.Driver, plan.DriverKernel)
	switch {
	case !pf.Up:
		return fmt.Sprintf("its physical function %s is down", pf.Name)
	case pf.NoCarrier && p.LinkState != linkEnabled:
		return fmt.Sprintf("its physical function %s has no carrier", pf.Name)
	case vf.Driver == plan.DriverBusy:
		return "a program has it open, and its driver waits for that"
	case vf.Driver == plan.DriverNone:
		return fmt.Sprintf("no driver has it, and pool %s says %s", p.Name, driver)
	case vf.Driver != driver:
		return fmt.Sprintf("its driver is %s, and pool %s says %s", vf.Driver, p.Name, driver)
	case driver == plan.DriverKernel && vf.Link == "" && !vf.Away: // its driver has made none; one in a Pod is away
		return "it has no interface"
	case err != nil:
		return err.Error()
	case driver == plan.DriverVFIO && f.IOMMUGroup == "":
		return "it has no IOMMU group, so no program can have it"
	}
	return ""
}

// linkEnabled is the link state of functions that reach one another whether or not the physical function reaches anybody.
const linkEnabled = "enable"

// devices are the metrics of what is offered.
type devices struct {
	offered func() []devplugin.Offered
}

var (
	devicesDesc   = prometheus.NewDesc("danm_devices", "Devices of a resource as the kubelet is told of them.", []string{"resource", "health"}, nil)
	connectedDesc = prometheus.NewDesc("danm_device_plugin_connected", "1 while the kubelet listens to what is offered of a resource.", []string{"resource"}, nil)
)

func (d devices) Describe(to chan<- *prometheus.Desc) { to <- devicesDesc; to <- connectedDesc }

func (d devices) Collect(to chan<- prometheus.Metric) {
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	for _, o := range d.offered() {
		gauge(devicesDesc, float64(o.Healthy), o.Resource, "healthy")
		gauge(devicesDesc, float64(o.Unhealthy), o.Resource, "unhealthy")
		gauge(connectedDesc, boolean(o.Connected), o.Resource)
	}
}

// registered counts a registration at the kubelet that was tried.
func (m *metrics) registered(resource string, err error) {
	result := "ok"
	if err != nil {
		result = "failed"
	}
	m.registrations.WithLabelValues(resource, result).Inc()
}
