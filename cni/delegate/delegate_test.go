package delegate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"danm.io/danm/spec/model"
	"github.com/containernetworking/cni/pkg/types"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// node is a host's files below a root of their own: plugins that write down how they are called.
type node struct {
	t       *testing.T
	root    string
	plugins *Plugins
}

const answers = `{"cniVersion":"1.0.0","interfaces":[{"name":"vethX"},{"name":"'$CNI_IFNAME'","sandbox":"'$CNI_NETNS'"}],"ips":[{"address":"10.9.0.2/24","interface":1}]}`

func newNode(t *testing.T) *node {
	n := &node{t: t, root: t.TempDir()}
	for _, dir := range []string{"opt/cni/bin", "etc/cni/net.d", "proc/1/ns"} {
		must(t, os.MkdirAll(filepath.Join(n.root, dir), 0o755))
	}
	own, err := os.Readlink("/proc/thread-self/ns/mnt")
	must(t, err)
	must(t, os.Symlink(own, filepath.Join(n.root, "proc/1/ns/mnt"))) // the host's namespace is this one
	must(t, os.Symlink(n.root, filepath.Join(n.root, "proc/1/root")))
	bin := filepath.Join(n.root, "opt/cni/bin")
	n.plugins = New(Options{PluginDirs: []string{bin}, ConfDir: filepath.Join(n.root, "etc/cni/net.d"), CacheDir: t.TempDir(), Exec: newHost("", 8)})
	n.plugin("first", `echo '`+answers+`'`)
	n.plugin("second", `echo '`+answers+`'`)
	return n
}

// plugin installs a plugin that writes a line for each call, and its configuration for ADD, and then does what is said for ADD.
func (n *node) plugin(name, add string) {
	n.t.Helper()
	script := `#!/bin/sh
in=$(cat)
echo "` + name + ` $CNI_COMMAND $CNI_CONTAINERID $CNI_IFNAME $CNI_NETNS $CNI_ARGS" >> ` + n.root + `/log
echo "$in" > ` + n.root + `/` + name + `.$CNI_COMMAND
[ "$CNI_COMMAND" = ADD ] || exit 0
` + add + "\n"
	must(n.t, os.WriteFile(filepath.Join(n.root, "opt/cni/bin", name), []byte(script), 0o755))
}

func (n *node) log() []string {
	text, _ := os.ReadFile(filepath.Join(n.root, "log"))
	_ = os.Remove(filepath.Join(n.root, "log"))
	return strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' })
}

func (n *node) got(file string) (out map[string]any) {
	n.t.Helper()
	text, err := os.ReadFile(filepath.Join(n.root, file))
	must(n.t, err)
	must(n.t, json.Unmarshal(text, &out))
	return out
}

func network(d model.Delegate) model.Network {
	return model.Network{Kind: model.TenantNetwork, Namespace: "acme", Name: "net", NetworkID: "netid", Type: "first", Delegate: &d}
}

func text(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func TestConfigure(t *testing.T) {
	n := newNode(t)
	conf := filepath.Join(n.root, "etc/cni/net.d")
	must(t, os.WriteFile(filepath.Join(conf, "one.conf"), []byte(`{"cniVersion":"0.4.0","name":"other","type":"first","ipam":{"type":"host-local"}}`), 0o600))
	must(t, os.WriteFile(filepath.Join(conf, "many.conflist"), []byte(`{"cniVersion":"1.0.0","name":"other","plugins":[{"type":"first"},{"type":"second"}]}`), 0o600))
	must(t, os.WriteFile(filepath.Join(conf, "big.conf"), []byte(`{"type":"first","x":"`+strings.Repeat("x", maxConf)+`"}`), 0o600))
	must(t, os.WriteFile(filepath.Join(n.root, "etc/cni/secret.conf"), []byte(`{"type":"first"}`), 0o600))
	given := []netip.Prefix{netip.MustParsePrefix("10.0.0.5/24"), netip.MustParsePrefix("fd00::5/64")}
	routes := []model.PodRoute{{To: netip.MustParsePrefix("10.9.0.0/16"), Via: netip.MustParseAddr("10.0.0.1")}}
	const fake = `"ipam":{"ips":[{"ipcidr":"10.0.0.5/24","version":4},{"ipcidr":"fd00::5/64","version":6}],"routes":[{"dst":"10.9.0.0/16","gw":"10.0.0.1"}],"type":"fakeipam"}`
	for _, c := range []struct {
		name     string
		d        model.Delegate
		device   string
		mtu      int
		given    bool
		want     string
		problems string
	}{
		{"a configuration", model.Delegate{Conf: `{"cniVersion":"1.1.0","name":"x","type":"first"}`}, "", 0, false, `{"cniVersion":"1.1.0","name":"netid","plugins":[{"cniVersion":"1.1.0","name":"x","type":"first"}]}`, ""},
		{"its own addresses", model.Delegate{File: "one"}, "vlan.7", 1400, false, `{"cniVersion":"0.4.0","name":"netid","plugins":[{"cniVersion":"0.4.0","ipam":{"type":"host-local"},"master":"vlan.7","mtu":1400,"name":"other","type":"first"}]}`, ""},
		{"the network's addresses", model.Delegate{File: "one"}, "", 0, true, `{"cniVersion":"0.4.0","name":"netid","plugins":[{"cniVersion":"0.4.0",` + fake + `,"name":"other","type":"first"}]}`, ""},
		{"a list's first plugin makes the link", model.Delegate{File: "many"}, "eth0", 0, true, `{"cniVersion":"1.0.0","name":"netid","plugins":[{` + fake + `,"master":"eth0","type":"first"},{"type":"second"}]}`, ""},
		{"without a version, as DANM's files", model.Delegate{ConfList: `{"plugins":[{"type":"first"}]}`}, "", 0, false, `{"cniVersion":"0.3.1","name":"netid","plugins":[{"type":"first"}]}`, ""},
		{"no file", model.Delegate{File: "none"}, "", 0, false, "", "none.conflist"},
		{"a file elsewhere", model.Delegate{File: "../secret"}, "", 0, false, "", "cannot name a file"},
		{"too large", model.Delegate{File: "big"}, "", 0, false, "", "more than 65536 bytes"},
		{"no JSON", model.Delegate{Conf: `{`}, "", 0, false, "", "JSON"},
		{"null", model.Delegate{Conf: `null`}, "", 0, false, "", "no object"},
		{"no plugins", model.Delegate{ConfList: `{"plugins":[]}`}, "", 0, false, "", "no plugins"},
		{"plugins that are none", model.Delegate{ConfList: `{"plugins":["first"]}`}, "", 0, false, "", "plugin 0"},
		{"a program elsewhere", model.Delegate{ConfList: `{"plugins":[{"type":"first"},{"type":"../../../bin/sh"}]}`}, "", 0, false, "", "plugin 1"},
		{"DANM", model.Delegate{ConfList: `{"plugins":[{"type":"first"},{"type":"danm"}]}`}, "", 0, false, "", "call DANM again"},
		{"nothing", model.Delegate{}, "", 0, false, "", "cannot name a file"},
	} {
		net := network(c.d)
		net.Device, net.MTU = c.device, c.mtu
		var g []netip.Prefix
		if c.given {
			g = given
		}
		got, err := n.plugins.Configure(net, g, routes)
		if c.problems != "" {
			if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), c.problems) || !strings.Contains(err.Error(), "acme/net") {
				t.Errorf("%s: %v", c.name, err)
			}
			continue
		}
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %v\n%s\nwant\n%s", c.name, err, got, c.want)
		}
	}
	if _, err := n.plugins.Configure(model.Network{Name: "x"}, nil, nil); !errors.Is(err, ErrConfig) {
		t.Error(err)
	}
}

// A Pod's args are every plugin's, so they are bounded by how many there are; what is no object is not written over.
func TestArgs(t *testing.T) {
	list := func(plugins ...string) json.RawMessage {
		return json.RawMessage(`{"plugins":[` + strings.Join(plugins, ",") + `]}`)
	}
	long := map[string]json.RawMessage{"k": json.RawMessage(`"` + strings.Repeat("x", maxArgs/2-10) + `"`)}
	if out, err := WithArgs(list(`{"type":"a"}`, `{"type":"b"}`), long); err != nil || len(out) < maxArgs-30 {
		t.Errorf("%d bytes, %v", len(out), err)
	}
	short := map[string]json.RawMessage{"k": json.RawMessage(`1`)}
	for _, c := range []struct {
		list json.RawMessage
		args map[string]json.RawMessage
		says string
	}{
		{list(`{}`, `{}`, `{}`), long, "3 plugins"}, {list(`{"args":[]}`), short, "args is no object"},
		{list(`{"args":{"cni":"x"}}`), short, "cni is no object"}, {list(`1`), short, "plugin 0 is no object"}, {json.RawMessage(`{`), short, "JSON"},
	} {
		if out, err := WithArgs(c.list, c.args); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), c.says) || out != nil {
			t.Errorf("%.40s: %v", c.list, err)
		}
	}
	if out, err := WithArgs(list(`1`), nil); err != nil || string(out) != `{"plugins":[1]}` {
		t.Errorf("%s %v", out, err)
	}
}

// Each plugin of a list is called with the result of the one before, DEL the other way round, and each gets the capabilities that it
// declares and no other.
func TestListsAreCalledInOrder(t *testing.T) {
	n := newNode(t)
	list, err := n.plugins.Configure(network(model.Delegate{ConfList: `{"cniVersion":"1.1.0","plugins":[{"type":"first"},{"type":"second","capabilities":{"portMappings":true,"bandwidth":false}}]}`}), nil, nil)
	must(t, err)
	c := Call{Container: "c1", Netns: "/proc/self/ns/net", IfName: "net1", Args: [][2]string{{"K8S_POD_NAME", "p"}, {"IgnoreUnknown", "1"}},
		Capabilities: map[string]any{"portMappings": []int{80}, "bandwidth": 1, "mac": "x"}}
	r, err := n.plugins.Add(t.Context(), list, c)
	must(t, err)
	if len(r.Interfaces) != 2 || r.Interfaces[1].Name != "net1" || r.IPs[0].Address.String() != "10.9.0.2/24" {
		t.Errorf("%+v", r)
	}
	if got := n.got("second.ADD"); got["name"] != "netid" || got["prevResult"] == nil || text(got["runtimeConfig"]) != `{"portMappings":[80]}` || got["cniVersion"] != "1.1.0" {
		t.Errorf("%v", got)
	}
	if got := n.got("first.ADD"); got["runtimeConfig"] != nil || got["prevResult"] != nil {
		t.Errorf("%v", got)
	}
	must(t, n.plugins.Check(t.Context(), list, c))
	if cached, err := n.plugins.Result(list, c); err != nil || cached == nil || len(cached.IPs) != 1 {
		t.Errorf("%+v %v", cached, err)
	}
	must(t, n.plugins.GC(t.Context(), list, []types.GCAttachment{{ContainerID: "c1", IfName: "net1"}}))
	if got := text(n.got("first.GC")["cni.dev/valid-attachments"]); got != `[{"containerID":"c1","ifname":"net1"}]` {
		t.Errorf("GC with %s", got)
	}
	for range 2 {
		must(t, n.plugins.Del(t.Context(), list, c))
	}
	if cached, err := n.plugins.Result(list, c); err != nil || cached != nil {
		t.Errorf("after DEL %+v %v", cached, err)
	}
	var verbs []string
	for _, line := range n.log() {
		verbs = append(verbs, strings.Join(strings.Fields(line)[:2], " "))
	}
	want := []string{"first ADD", "second ADD", "first CHECK", "second CHECK", "first GC", "second GC", "second DEL", "first DEL", "second DEL", "first DEL"}
	if !slices.Equal(verbs, want) {
		t.Errorf("%v", verbs)
	}
	must(t, n.plugins.GC(t.Context(), list, nil))
	if got := text(n.got("first.GC")["cni.dev/valid-attachments"]); got != `[]` {
		t.Errorf("GC with %s", got)
	}
	// CHECK came with 0.4.0; who is attached by older versions is not theirs to judge at a GC.
	middle, err := n.plugins.Configure(network(model.Delegate{Conf: `{"cniVersion":"0.4.0","type":"first"}`}), nil, nil)
	must(t, err)
	_, err = n.plugins.Add(t.Context(), middle, c)
	must(t, err)
	n.log()
	must(t, n.plugins.GC(t.Context(), middle, nil))
	must(t, n.plugins.Check(t.Context(), middle, c))
	if log := n.log(); len(log) != 1 || !strings.HasPrefix(log[0], "first CHECK") {
		t.Error(log)
	}
	// Older versions have neither CHECK nor GC.
	old, err := n.plugins.Configure(network(model.Delegate{Conf: `{"cniVersion":"0.3.1","type":"first"}`}), nil, nil)
	must(t, err)
	n.log()
	must(t, n.plugins.Check(t.Context(), old, c))
	must(t, n.plugins.GC(t.Context(), old, nil))
	if log := n.log(); len(log) != 0 {
		t.Error(log)
	}
}

// A failing ADD is undone; what the plugin says is told, and so is one that says nothing.
func TestPluginsThatFail(t *testing.T) {
	n := newNode(t)
	for add, says := range map[string]string{
		`echo '{"code":11,"msg":"not now","details":"d"}'; exit 1`: "not now",
		`exit 3`:                             "exit status 3",
		`echo '{"code":3}'; exit 1`:          "ended with code 3 and said nothing",
		`echo nonsense`:                      "second",
		`kill -9 $$`:                         "second",
		`echo '{"cniVersion":"9"}'`:          "second",
		`echo "$in" >&2; sleep 0.01; exit 1`: "second",
	} {
		n.plugin("second", add)
		list, err := n.plugins.Configure(network(model.Delegate{ConfList: `{"cniVersion":"1.0.0","plugins":[{"type":"first"},{"type":"second"}]}`}), nil, nil)
		must(t, err)
		n.log()
		_, err = n.plugins.Add(t.Context(), list, Call{Container: "c", Netns: "/n", IfName: "eth0"})
		if !errors.Is(err, ErrPlugin) || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "netid") {
			t.Errorf("%s: %v", add, err)
		}
		var e *types.Error
		if strings.Contains(add, `"code":11`) && (!errors.As(err, &e) || e.Code != types.ErrTryAgainLater) {
			t.Errorf("the plugin's code is lost: %v", err)
		}
		log := n.log()
		if len(log) != 4 || !strings.HasPrefix(log[2], "second DEL") || !strings.HasPrefix(log[3], "first DEL") {
			t.Errorf("%s: %q", add, log)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	n.plugin("first", `exec sleep 60`)
	list, err := n.plugins.Configure(network(model.Delegate{Conf: `{"cniVersion":"1.0.0","type":"first"}`}), nil, nil)
	must(t, err)
	began := time.Now()
	if _, err := n.plugins.Add(ctx, list, Call{Container: "c", Netns: "/n", IfName: "eth0"}); err == nil || time.Since(began) > 10*time.Second {
		t.Errorf("%v after %s", err, time.Since(began))
	}
}

// A plugin that is not installed any more does not hold up a Pod's end; one that is not installed yet is named.
func TestPluginsThatAreNotThere(t *testing.T) {
	n := newNode(t)
	list, err := n.plugins.Configure(network(model.Delegate{ConfList: `{"cniVersion":"1.0.0","plugins":[{"type":"first"},{"type":"third"}]}`}), nil, nil)
	must(t, err)
	if got := n.plugins.Missing(list); got != "third" {
		t.Error(got)
	}
	c := Call{Container: "c", Netns: "/n", IfName: "eth0"}
	if _, err := n.plugins.Add(t.Context(), list, c); !errors.Is(err, ErrPlugin) || !strings.Contains(err.Error(), "third") {
		t.Error(err)
	}
	must(t, n.plugins.Del(t.Context(), list, c))
	h := newHost("", 1)
	for _, name := range []string{"", "../first", "/bin/sh", "../bin/sh", "opt/cni/bin/first"} {
		if path, err := h.FindInPath(name, []string{"/bin"}); err == nil {
			t.Errorf("%q is %s", name, path)
		}
	}
	inContainer := New(Options{Root: n.root, CacheDir: t.TempDir()})
	if got := inContainer.Missing(list); got != "third" {
		t.Errorf("from a container: %q", got)
	}
	must(t, os.WriteFile(filepath.Join(n.root, "etc/cni/net.d/x.conf"), []byte(`{"type":"first"}`), 0o600))
	if _, err := inContainer.Configure(network(model.Delegate{File: "x"}), nil, nil); err != nil {
		t.Errorf("from a container: %v", err)
	}
	if path, err := newHost(n.root, 1).FindInPath("first", []string{"/opt/cni/bin"}); err != nil || path != "/opt/cni/bin/first" {
		t.Errorf("%q %v: the path is the host's", path, err)
	}
}

// Never more than the bound run at once, and who waits gives up with its context.
func TestAFewAtATime(t *testing.T) {
	n := newNode(t)
	n.plugin("first", `d=`+n.root+`/running; mkdir -p $d; touch $d/$CNI_CONTAINERID
i=0; until [ -e $d.three ] || [ $(ls $d | wc -l) -ge 3 ] || [ $i = 300 ]; do i=$((i+1)); sleep 0.1; done; touch $d.three # starts take their time
ls $d | wc -l >> `+n.root+`/counts; sleep 0.2; rm $d/$CNI_CONTAINERID
echo '`+answers+`'`)
	p := New(Options{PluginDirs: n.plugins.opts.PluginDirs, CacheDir: t.TempDir(), Exec: newHost("", 3)})
	list, err := p.Configure(network(model.Delegate{Conf: `{"cniVersion":"1.0.0","type":"first"}`}), nil, nil)
	must(t, err)
	var wg sync.WaitGroup
	for i := range 12 {
		wg.Go(func() {
			if _, err := p.Add(t.Context(), list, Call{Container: fmt.Sprintf("c%d", i), Netns: "/n", IfName: "eth0"}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	counts, err := os.ReadFile(filepath.Join(n.root, "counts"))
	must(t, err)
	most := slices.Max(strings.Fields(string(counts)))
	if most != "3" {
		t.Errorf("%s at once", most)
	}
	h := newHost("", 1)
	h.slots <- struct{}{}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := h.ExecPlugin(ctx, "/bin/true", nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

// In a PID namespace of the container's no plugin is called: it would not find itself in the host's /proc, and say so in other words.
func TestOwnPIDsAreRefused(t *testing.T) {
	n := newNode(t)
	must(t, os.Remove(filepath.Join(n.root, "proc/1/ns/mnt")))
	must(t, os.Symlink("mnt:[1]", filepath.Join(n.root, "proc/1/ns/mnt"))) // the host's namespace is another one
	pids := filepath.Join(n.root, "proc/1/ns/pid")
	must(t, os.Symlink("pid:[1]", pids))
	if err := newHost(n.root, 1).enter(); err == nil || !strings.Contains(err.Error(), "hostPID") {
		t.Errorf("in another PID namespace: %v", err)
	}
	own, err := os.Readlink("/proc/thread-self/ns/pid")
	must(t, err)
	must(t, os.Remove(pids))
	must(t, os.Symlink(own, pids))
	if err := newHost(n.root, 1).enter(); !errors.Is(err, os.ErrNotExist) { // it goes on to what is no namespace here
		t.Errorf("in the host's PID namespace: %v", err)
	}
}
