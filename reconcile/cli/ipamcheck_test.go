package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"danm.io/danm/ipam"
	"danm.io/danm/spec/api/v1alpha1"
	"danm.io/danm/spec/model"
)

// TestIPAMCheckNode: what stands where the record says a namespace is decides; a record of a newer agent is said to be one.
func TestIPAMCheckNode(t *testing.T) {
	root := t.TempDir()
	record := func(netns, id string, version int) func(string, netip.Addr) []byte {
		return func(ifName string, a netip.Addr) []byte {
			b, _ := json.Marshal(attachment{Version: version, Netns: netns, NetnsID: id, Interfaces: []model.Attachment{{Type: model.MACVLAN, IfName: ifName}}})
			return b
		}
	}
	for _, c := range []struct {
		name string
		data func(string, netip.Addr) []byte
		code int
		want string
	}{
		{"no record of links", nil, OK, "nothing differs: 1 record, 0 network namespaces"},
		{"gone", record("/run/netns/gone", "1:2", 1), Differences, "SandboxGone: its network namespace /run/netns/gone is not there"},
		{"another", record("/file", "1:2", 1), Differences, "is another than the recorded one"},
		{"no namespace", record("/file", "", 1), Differences, "Unreadable"},
		{"newer", record("/file", "", 9), Differences, "version 9"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := os.WriteFile(filepath.Join(root, "file"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			dir, _ := addressNode(t, c.data)
			var out, errs bytes.Buffer
			code := IPAMCheck(t.Context(), IPAMOptions{StateDir: dir, SysRoot: root, Output: "text"}, IO{Out: &out, Err: &errs})
			if code != c.code || !strings.Contains(out.String(), c.want) || code != OK && !strings.Contains(out.String(), "remedy: ") {
				t.Errorf("exit %d\n%s%s", code, out.String(), errs.String())
			}
		})
	}
}

func TestIPAMCheckCluster(t *testing.T) {
	check := func(o *objects, accept bool) (int, string, string) {
		l := o.serve(t)
		return command(func(ctx context.Context, io IO) int {
			return IPAMCheck(ctx, IPAMOptions{Live: l, Output: "text", Accept: accept}, io)
		}, t)
	}
	o := addressed(t)
	code, out, errs := check(o, false)
	if code != OK || !strings.Contains(out, "1 node waits and claims nothing: a") || !strings.Contains(out, "nothing differs: 3 IPBlocks, 1 DanmEp, 1 Node") || len(*o.writes) > 0 {
		t.Errorf("exit %d\n%s%s%v", code, out, errs, *o.writes)
	}
	code, out, errs = check(o, true)
	if code != Differences || !strings.Contains(out, "NodeUnheard") || !strings.Contains(out, "nothing is accepted: 1 difference in the way") || len(*o.writes) > 0 {
		t.Errorf("a node that is away, and accepted: exit %d\n%s%s%v", code, out, errs, *o.writes)
	}
	heard := func() *objects {
		o, now := addressed(t), metav1.NewMicroTime(time.Now())
		o.leases[0].Spec.RenewTime = &now
		return o
	}
	o = heard()
	code, out, errs = check(o, true)
	if code != OK || len(*o.writes) != 1 || !strings.Contains((*o.writes)[0], `PATCH danm-node-a`) || !strings.Contains((*o.writes)[0], `"danm.io/ipam-checked":"nonce"`) || !strings.Contains((*o.writes)[0], `"uid":"l"`) || strings.Contains((*o.writes)[0], "resourceVersion") {
		t.Errorf("exit %d\n%s%s%v", code, out, errs, *o.writes)
	}
	o = heard()
	o.plans[0].Status.Addresses = []v1alpha1.AddressUse{{Space: "elsewhere", Held: 9, Stray: 9, Strays: []string{"10.9.0.1", "\x1b[2J"}}}
	code, out, errs = check(o, true)
	if code != Differences || !strings.Contains(out, "space elsewhere: 10.9.0.1, \"\\x1b[2J\" and 7 more: OutsideBlocks: Pods of node a") || len(*o.writes) > 0 {
		t.Errorf("addresses out of blocks, and accepted: exit %d\n%s%s%v", code, out, errs, *o.writes)
	}
	o = heard()
	o.blocks[1].Spec.Ceded = append(o.blocks[1].Spec.Ceded, v1alpha1.IPCession{Address: "10.0.0.7", UID: "gone", Node: "b"})
	code, out, errs = check(o, true)
	if code != Differences || !strings.Contains(out, "CededWithoutSingle") || len(*o.writes) != 1 {
		t.Errorf("only untidy, and not accepted: exit %d\n%s%s%v", code, out, errs, *o.writes)
	}
	o = heard()
	o.endpoints[0].Spec.Host = "c"
	code, out, errs = check(o, true)
	if code != Differences || !strings.Contains(out, "OutsideBlocks") || len(*o.writes) > 0 {
		t.Errorf("not clean, and accepted: exit %d\n%s%s%v", code, out, errs, *o.writes)
	}
	o = addressed(t)
	o.refuse = map[string]int{"danmeps": 403}
	code, _, errs = check(o, true)
	if code != Failed || !strings.Contains(errs, "nothing is accepted") || len(*o.writes) > 0 {
		t.Errorf("not all seen, and accepted: exit %d %s%v", code, errs, *o.writes)
	}
	o.refuse = map[string]int{"ipblocks": 403}
	if code, _, errs = check(o, false); code != Failed || !strings.Contains(errs, "danm-viewer") {
		t.Errorf("exit %d %s", code, errs)
	}
}

// between calls f when --accept has looked once.
type between struct {
	bytes.Buffer
	f func()
}

func (b *between) Write(p []byte) (int, error) {
	if strings.Contains(string(p), "looking again") {
		b.f()
	}
	return b.Buffer.Write(p)
}

// What only the second look of --accept shows stands in the way, and so does another restore.
func TestIPAMAcceptLooksTwice(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*objects)
		code   int
		want   string
	}{
		"nothing": {func(*objects) {}, OK, "node a may go on"},
		"a stray": {func(o *objects) {
			o.plans[0].Status.Addresses = []v1alpha1.AddressUse{{Space: "s", Held: 1, Stray: 1, Strays: []string{"10.9.0.1"}}}
		}, Differences, "nothing is accepted: 1 difference in the way"},
		"a double":                            {func(o *objects) { o.endpoints[0].Spec.Host = "c" }, Differences, "nothing is accepted"},
		"a node that noticed another restore": {func(o *objects) { o.leases[0].Annotations[ipam.AnnotationSuspect] = "another" }, Failed, "went back in time again, as node a noticed"},
		"what could not be read":              {func(o *objects) { o.refuse = map[string]int{"danmeps": 403} }, Failed, "nothing is accepted"},
	} {
		t.Run(name, func(t *testing.T) {
			o, now := addressed(t), metav1.NewMicroTime(time.Now())
			o.leases[0].Spec.RenewTime = &now
			l := o.serve(t)
			var out bytes.Buffer
			looked := false
			errs := &between{f: func() { looked = true; c.change(o) }}
			code := IPAMCheck(t.Context(), IPAMOptions{Live: l, Output: "text", Accept: true}, IO{Out: &out, Err: errs})
			if code != c.code || !looked || !strings.Contains(out.String()+errs.String(), c.want) || (len(*o.writes) == 1) != (c.code == OK) {
				t.Errorf("exit %d\n%s%s%v", code, out.String(), errs, *o.writes)
			}
		})
	}
}
