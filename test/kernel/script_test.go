package kernel

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"danm.io/danm/node/fake"
	"danm.io/danm/node/plan"
	"danm.io/danm/spec/model"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	"sigs.k8s.io/yaml"
)

var update = flag.Bool("update", false, "write the texts and dumps that the fake shows into the scripts")

// host is a kernel and the hands of others on it.
type host interface {
	plan.Kernel
	AddLink(plan.ObservedLink) error
	DeleteLink(name string) error
	SetLink(name, property, value string) error
	AddAddress(name string, a netip.Prefix) error
	DeleteAddress(name string, a netip.Prefix) error
	AddRoute(plan.ObservedRoute) error
	DeleteRoute(plan.ObservedRoute) error
	AddRule(plan.ObservedRule) error
	DeleteRule(plan.ObservedRule) error
	SetSysctl(key, value string) error
}

// run is one script on one host.
type run struct {
	t       *testing.T
	host    host
	archive *txtar.Archive
	ledger  map[plan.ObjectID]plan.Record
	desired plan.Desired
	asked   []string
	before  plan.Observed
	last    plan.Plan
	done    []plan.Step
	marked  string
	rewrite bool
}

func scripts(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	return files
}

func TestFakeScripts(t *testing.T) {
	for _, file := range scripts(t) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a := play(t, file, fake.New())
			if *update {
				if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func play(t *testing.T, file string, h host) *txtar.Archive {
	t.Helper()
	a, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, isFake := h.(*fake.Kernel)
	r := &run{t: t, host: h, archive: a, ledger: map[plan.ObjectID]plan.Record{}, rewrite: *update && isFake}
	for i, line := range strings.Split(string(a.Comment), "\n") {
		if words := strings.Fields(line); len(words) > 0 && words[0] != "#" {
			if err := r.command(words); err != nil {
				t.Fatalf("%s:%d: %s: %v", file, i+1, line, err)
			}
		}
	}
	return a
}

func (r *run) command(w []string) error {
	switch w[0] {
	case "needs":
		if real, ok := r.host.(interface{ knows(kind string) bool }); ok && !real.knows(w[1]) {
			r.t.Skip("kernel lacks " + w[1])
		}
		return nil
	case "foreign":
		return r.foreign(w[1], w[2:])
	case "apply":
		return r.apply(w[1:])
	case "text":
		return r.want(w[1], r.last.Text())
	case "dump":
		return r.want(w[1], r.dump())
	case "ask":
		r.asked = w[1:]
		return nil
	case "mark":
		r.marked = r.dump()
		return nil
	case "same":
		return diff(r.marked, r.dump())
	case "revert":
		undo := plan.Revert(r.before, r.observe(), r.done)
		return r.steps(undo)
	case "quiet":
		if p := plan.Diff(r.desired, r.observe()); !p.Empty() {
			return fmt.Errorf("still to do:\n%s%v %v", p.Text(), p.Claims, p.Released)
		}
		return nil
	}
	return fmt.Errorf("unknown command")
}

func (r *run) file(name string) (*txtar.File, error) {
	for i, f := range r.archive.Files {
		if f.Name == name {
			return &r.archive.Files[i], nil
		}
	}
	return nil, fmt.Errorf("no file %s", name)
}

func (r *run) want(name, got string) error {
	f, err := r.file(name)
	if err != nil {
		return err
	}
	if r.rewrite {
		f.Data = []byte(got)
	}
	return diff(string(f.Data), got)
}

func diff(want, got string) error {
	if d := cmp.Diff(want, got); d != "" {
		return fmt.Errorf("(-want +got):\n%s", d)
	}
	return nil
}

func (r *run) apply(args []string) error {
	f, err := r.file(args[0])
	if err != nil {
		return err
	}
	var doc struct {
		Links   []model.Link   `json:"links"`
		Routes  []model.Route  `json:"routes"`
		Rules   []model.Rule   `json:"rules"`
		Sysctls []model.Sysctl `json:"sysctls"`
		Peers   []model.Peer   `json:"peers"`
	}
	if err := yaml.UnmarshalStrict(f.Data, &doc); err != nil {
		return err
	}
	r.desired = plan.Desired{Plan: model.NodePlan{Links: doc.Links, Routes: doc.Routes, Rules: doc.Rules, Sysctls: doc.Sysctls}, Peers: doc.Peers}
	r.before = r.observe()
	r.last = plan.Diff(r.desired, r.before)
	for _, c := range r.last.Claims {
		r.ledger[c.ID] = c
	}
	r.done = r.last.Steps
	if len(args) > 1 {
		n, err := strconv.Atoi(args[1])
		if err != nil || n > len(r.done) {
			return fmt.Errorf("the plan has %d steps", len(r.done))
		}
		r.done = r.done[:n]
		return r.steps(r.done)
	}
	if err := r.steps(r.done); err != nil {
		return err
	}
	for _, id := range r.last.Released {
		delete(r.ledger, id)
	}
	return nil
}

// steps applies each step twice: the second time must be no error, as after a crash.
func (r *run) steps(steps []plan.Step) error {
	for _, s := range steps {
		for range 2 {
			if err := r.host.Apply(context.Background(), s); err != nil {
				return err
			}
		}
	}
	return nil
}

// observe leaves out what the namespace brings and the far ends of cables.
func (r *run) observe() plan.Observed {
	var owned []plan.Record
	for _, id := range slices.Sorted(maps.Keys(r.ledger)) {
		owned = append(owned, r.ledger[id])
	}
	o, err := r.host.Observe(context.Background(), append(plan.SysctlKeys(r.desired, owned), r.asked...)...)
	if err != nil {
		r.t.Fatal(err)
	}
	o.Links = slices.DeleteFunc(o.Links, func(l plan.ObservedLink) bool {
		return slices.Contains([]string{"lo", "sit0", "tunl0", "gre0", "gretap0", "erspan0", "ip6tnl0", "ip6gre0", "ip_vti0", "ip6_vti0"}, l.Name) || strings.HasSuffix(l.Name, "-far")
	})
	o.Sysctls = slices.DeleteFunc(o.Sysctls, func(s model.Sysctl) bool { return bystander.MatchString(s.Key) })
	o.Owned = owned
	return o
}

// bystander matches the parameters of what the namespace brings and of far ends.
var bystander = regexp.MustCompile(`\.(lo|sit0|tunl0|gre0|gretap0|erspan0|ip6tnl0|ip6gre0|ip_vti0|ip6_vti0|[a-z0-9/]+-far)\.`)

var random = regexp.MustCompile(` mac \S+`)

func (r *run) dump() string { return random.ReplaceAllString(r.observe().Dump(), "") }

func (r *run) foreign(verb string, w []string) error {
	opt := options(w)
	switch verb {
	case "link":
		return r.host.AddLink(foreignLink(w[0], w[1], options(w[2:])))
	case "set":
		return r.host.SetLink(w[0], w[1], strings.TrimPrefix(w[2], "-"))
	case "unlink":
		return r.host.DeleteLink(w[0])
	case "address":
		return r.host.AddAddress(w[2], netip.MustParsePrefix(w[0]))
	case "unaddress":
		return r.host.DeleteAddress(w[2], netip.MustParsePrefix(w[0]))
	}
	if verb == "sysctl" {
		return r.host.SetSysctl(w[0], w[1])
	}
	if verb == "rule" || verb == "unrule" {
		rule := plan.ObservedRule{Rule: model.Rule{Family: 4, Priority: uint32(number(opt["priority"])), Table: uint32(number(opt["table"])), IIF: opt["iif"]}, Protocol: number(opt["proto"])}
		if opt["from"] != "" {
			rule.From = netip.MustParsePrefix(opt["from"])
		}
		if verb == "rule" {
			return r.host.AddRule(rule)
		}
		return r.host.DeleteRule(rule)
	}
	opt = options(w[1:])
	route := plan.ObservedRoute{Route: model.Route{To: netip.MustParsePrefix(w[0]), Dev: opt["dev"], Table: uint32(number(opt["table"])), Metric: uint32(number(opt["metric"]))}, Protocol: number(opt["proto"])}
	if opt["via"] != "" {
		route.Via = netip.MustParseAddr(opt["via"])
	}
	if verb == "route" {
		return r.host.AddRoute(route)
	}
	return r.host.DeleteRoute(route)
}

func foreignLink(name, kind string, opt map[string]string) plan.ObservedLink {
	l := plan.ObservedLink{Link: model.Link{Name: name, Kind: model.LinkKind(kind), Parent: opt["dev"], Master: opt["master"], MTU: number(opt["mtu"])}, KernelKind: kind, Group: uint32(number(opt["ifgroup"]))}
	_, l.Up = opt["up"]
	switch kind {
	case "bridge", "dummy":
	case "vlan":
		l.VLANID = uint16(number(opt["id"]))
	case "vxlan":
		l.VXLAN = &model.VXLANOptions{VNI: uint32(number(opt["vni"])), Port: number(opt["port"]), Learning: true}
		if opt["group"] != "" {
			l.VXLAN.Group = netip.MustParseAddr(opt["group"])
		}
	default:
		l.Kind = model.Physical
	}
	return l
}

func options(w []string) map[string]string {
	out := map[string]string{}
	for i := 0; i < len(w); i++ {
		if w[i] == "up" {
			out["up"] = ""
		} else if i+1 < len(w) {
			out[w[i]] = w[i+1]
			i++
		}
	}
	return out
}

func number(s string) int {
	n, _ := strconv.Atoi(s)
	return n
}
