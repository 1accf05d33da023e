package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"danm.io/danm/node/fake"
	"danm.io/danm/node/guard"
	"danm.io/danm/node/plan"
	"danm.io/danm/node/state"
	"danm.io/danm/reconcile/local"
	"danm.io/danm/spec/model"
)

// aNode is a state directory with a guard that answers.
func aNode(t *testing.T) (dir string, submit func(model.NodePlan)) {
	t.Helper()
	dir, err := os.MkdirTemp("", "danm")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	k := fake.New()
	if err := k.AddLink(plan.ObservedLink{Link: model.Link{Name: "eth0", Kind: model.Physical, MTU: 1500, Up: true}}); err != nil {
		t.Fatal(err)
	}
	go func() { done <- guard.Run(ctx, guard.Options{Dir: dir, Kernel: k, BootID: "b"}) }()
	t.Cleanup(func() { cancel(); <-done; _ = os.RemoveAll(dir) })
	c := guard.Client{Dir: dir}
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if _, err = c.Status(ctx); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir, func(p model.NodePlan) {
		if _, err := c.Submit(ctx, guard.Submission{Desired: plan.Desired{Plan: p}, Digest: p.Digest(), Revision: "main@sha1:1"}); err != nil {
			t.Fatal(err)
		}
	}
}

func run(f func(IO) int) (out string, code int) {
	var b bytes.Buffer
	code = f(IO{Out: &b, Err: &b})
	return b.String(), code
}

func TestStatusOfANode(t *testing.T) {
	dir, submit := aNode(t)
	p := model.NodePlan{Links: []model.Link{{Name: "eth0", Kind: model.Physical, Up: true},
		{Name: "vx", Kind: model.VXLAN, Parent: "eth0", MTU: 1450, Up: true, VXLAN: &model.VXLANOptions{VNI: 5, Port: 4789, Local: netip.MustParseAddr("192.0.2.1")}}}}
	d := state.Open(dir)
	if _, err := d.Write(model.NodeState{Home: model.LocalHome, Node: "edge-1", Revision: "main@sha1:1", Plan: p, Digest: p.Digest()}); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		d.WriteReport(state.Report{BootID: "b", Problem: "PlanQuarantined: probe git failed", Pods: map[string][]string{"vx": {"acme/a", "acme/b"}, "br": {"acme/a"}}}),
		d.WriteInventory(model.Inventory{Hardware: map[string][]model.NIC{"edge-1": {{Name: "eth0", PCI: "0000:01:00.0", Driver: "ice", Speed: 25000, MaxMTU: 9702, TotalVFs: 64, VFs: 8}}}}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	submit(p)
	status := func(format string) func(IO) int {
		return func(to IO) int { return Status(context.Background(), StatusOptions{StateDir: dir, Output: format}, to) }
	}
	text, code := run(status("text"))
	for _, want := range []string{"node:      edge-1", "state:     main@sha1:1, plan " + p.Digest(), "phase:     waiting", "pods:      2 attached, on 2 links",
		"card:      eth0 pci 0000:01:00.0 driver ice 25000 Mbit/s mtu up to 9702 8 of 64 VFs", "agent:     PlanQuarantined: probe git failed"} {
		if !strings.Contains(text, want+"\n") && !strings.Contains(text, want+",") {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	raw, jsonCode := run(status("json"))
	var s NodeStatus
	if err := json.Unmarshal([]byte(raw), &s); err != nil || code != OK || jsonCode != OK || s.Guard.Phase != guard.Waiting || s.Guard.Pending.Before != nil || len(s.Problems) > 0 {
		t.Errorf("%v, codes %d %d: %s", err, code, jsonCode, raw)
	}
	if _, code := run(status("yaml")); code != Failed {
		t.Error("a format that is none")
	}
	leave, err := d.Attend()
	if err != nil {
		t.Fatal(err)
	}
	if text, _ := run(status("text")); !strings.Contains(text, "agent:     PlanQuarantined: probe git failed\n") {
		t.Errorf("an agent that waits:\n%s", text)
	}
	leave()
	if text, code := run(status("text")); code != OK || !strings.Contains(text, "agent:     does not run: ") || !strings.Contains(text, "\n           its last word: PlanQuarantined") {
		t.Errorf("an agent that is dead, %d:\n%s", code, text)
	}
}

func TestStatusOfANodeWithoutItsGuard(t *testing.T) {
	dir := t.TempDir()
	o := StatusOptions{StateDir: dir, Output: "text"}
	if text, code := run(func(to IO) int { return Status(context.Background(), o, to) }); code != Failed || !strings.Contains(text, "no state directory") {
		t.Errorf("%d: %s", code, text)
	}
	bundle := t.TempDir()
	if err := os.WriteFile(bundle+"/b.yaml", []byte("kind: Nonsense\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	_ = local.Run(context.Background(), local.Options{Location: bundle, StateDir: dir, Node: "edge-1", Once: true})
	text, code := run(func(to IO) int { return Status(context.Background(), o, to) })
	for _, want := range []string{"node:      edge-1", "b.yaml:1", "no state written yet", "problem:   GuardAway", "agent:     has not run here yet"} {
		if code != OK || !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if strings.Contains(text, "\n:") {
		t.Errorf("a line without a name:\n%s", text)
	}
}

func TestRetryNeedsSomethingHeld(t *testing.T) {
	dir, _ := aNode(t)
	if text, code := run(func(to IO) int { return Retry(context.Background(), dir, "sha256:0", to) }); code != Failed || !strings.Contains(text, "nothing is held") {
		t.Errorf("%d: %s", code, text)
	}
	if text, code := run(func(to IO) int { return Retry(context.Background(), dir, "", to) }); code != OK || text != "every plan may be tried again\n" {
		t.Errorf("%d: %s", code, text)
	}
}

// TestPlanNamesPods: a plan of this host names the Pods that its agent has attached.
func TestPlanNamesPods(t *testing.T) {
	dir := t.TempDir()
	if err := state.Open(dir).WriteReport(state.Report{Pods: map[string][]string{"vx": {"acme/a"}}}); err != nil {
		t.Fatal(err)
	}
	pods, err := attachedPods(dir)
	if err != nil || len(pods["vx"]) != 1 {
		t.Errorf("%v %v", pods, err)
	}
	if err := os.WriteFile(dir+"/"+state.ReportFile, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := attachedPods(dir); err == nil {
		t.Error("a damaged report is taken for nobody")
	}
}
