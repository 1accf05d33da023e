package server

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"danm.io/danm/cni/attach"
	"danm.io/danm/spec/diag"
	"danm.io/danm/spec/model"
)

// TestFunctionsThatAreAway: DEL succeeds and frees what the Pod had but the functions that are not back. They are awaited over restarts, nobody
// gets them before, and they are nothing to whoever looks for Pods.
func TestFunctionsThatAreAway(t *testing.T) {
	devices := map[string][]string{"danm.io/fast": {vf(0), vf(2)}, "danm.io/slow": {vf(4)}}
	with := func(o *Options) {
		o.BootID = "one"
		o.Devices = func(context.Context, string, string) (map[string][]string, error) { return devices, nil }
	}
	n := functionNode(t, devices, with)
	add := func(sandbox, network string) *types.Error {
		_, e := n.call(request("ADD", sandbox, "acme", "u-"+sandbox, on(network)))
		return e
	}
	mend := func() {
		t.Helper()
		_, err := n.server.Mend(t.Context())
		must(t, err)
	}
	away := func(functions ...string) { n.fake.set(func(f *fakeAttacher) { f.away = functions }) }
	if _, e := n.call(request("ADD", "a", "acme", "u-a", on("fast", "slow", "fast2"))); e != nil {
		t.Fatal(e)
	}
	away(vf(0), vf(2))
	for range 2 { // the runtime asks again when it lost the answer
		if _, e := n.call(request("DEL", "a", "acme", "u-a", "")); e != nil {
			t.Fatal(e)
		}
	}
	if log, _ := n.fake.log(); len(log) != 1 {
		t.Errorf("%v", log)
	}
	for _, restarted := range []bool{false, true} {
		if restarted {
			n.restart(with)
		}
		mend()
		old, err := n.ipam.Lookup("a")
		must(t, err)
		holdings, err := n.server.Holdings()
		must(t, err)
		if rec, err := decodeRecord(old.Data); err != nil || !rec.Away || len(rec.Interfaces) != 2 || len(old.Holds) != 0 || len(holdings) != 0 || len(n.server.Pods()) != 0 || len(n.server.Sandboxes("")) != 0 {
			t.Errorf("%+v, holds %v, holdings %v, %v: %v", rec, old.Holds, holdings, n.server.Pods(), err)
		}
		if held := fmt.Sprint(n.server.Held()); held != fmt.Sprintf("[{%s  container a, which is gone,} {%s  container a, which is gone,}]", vf(0), vf(2)) {
			t.Errorf("held are %s", held)
		}
		if e := add("b", "fast"); e == nil || e.Code != types.ErrTryAgainLater || e.Details != string(diag.PodDeviceBusy) || !strings.Contains(e.Msg, vf(0)) || !strings.Contains(e.Msg, "container a") {
			t.Errorf("given although it is away: %+v", e)
		}
		if e := add("a", "fast"); e == nil || e.Code != CodeAlreadyAttached {
			t.Errorf("%+v", e)
		}
		if _, e := n.call(request("CHECK", "a", "acme", "u-a", "")); e == nil || e.Code != types.ErrUnknownContainer {
			t.Errorf("%+v", e)
		}
	}
	if e := add("c", "slow"); e != nil {
		t.Errorf("what is back is awaited: %v", e)
	}
	n.fake.set(func(f *fakeAttacher) { f.survey = errInjected })
	if _, err := n.server.Mend(t.Context()); !errors.Is(err, errInjected) || len(n.records()) != 2 {
		t.Errorf("%v, records %v", err, n.records())
	}
	n.fake.set(func(f *fakeAttacher) { f.survey = nil })
	away(vf(2))
	if e := add("b", "fast"); e != nil { // the ADD finds it back by itself
		t.Errorf("%v", e)
	}
	n.restart(with) // it is not looked for again where it has another Pod
	n.fake.set(func(f *fakeAttacher) { f.away = nil })
	mend()
	n.fake.set(func(f *fakeAttacher) {
		if fmt.Sprint(f.returned) != fmt.Sprintf("[a %s a %s]", vf(0), vf(2)) {
			t.Errorf("%v", f.returned)
		}
	})
	if got := fmt.Sprint(n.records()); got != "[b c]" || n.away() != 0 {
		t.Errorf("records %s, away %d", got, n.away())
	}
}

// A record of what is away ends with the boot, and where another Pod's record names the function: no Pod loses what it has by it.
func TestFunctionsThatAreAwayNoMore(t *testing.T) {
	for _, why := range []string{"boot", "another Pod", "record"} {
		devices := map[string][]string{"danm.io/fast": {vf(0)}}
		with := func(boot string) func(*Options) {
			return func(o *Options) {
				o.BootID = boot
				o.Devices = func(context.Context, string, string) (map[string][]string, error) { return devices, nil }
			}
		}
		n := functionNode(t, devices, with("one"))
		if _, e := n.call(request("ADD", "a", "acme", "u-a", on("fast"))); e != nil {
			t.Fatal(e)
		}
		n.fake.set(func(f *fakeAttacher) { f.away = []string{vf(0)} })
		if _, e := n.call(request("DEL", "a", "acme", "u-a", "")); e != nil {
			t.Fatal(e)
		}
		n.fake.set(func(f *fakeAttacher) { f.away = nil })
		switch why {
		case "boot":
			n.restart(with("two"))
		case "another Pod":
			n.server.remember("b", podArgs{uid: "u-b"}, []model.Attachment{{Type: model.SRIOV, DeviceID: vf(0), VF: &model.Function{}}})
		case "record":
			must(t, n.ipam.Release(t.Context(), "a"))
		}
		_, err := n.server.Mend(t.Context())
		must(t, err)
		n.fake.set(func(f *fakeAttacher) {
			if len(f.returned) != 0 || len(n.records()) != 0 || n.away() != 0 {
				t.Errorf("%s: touched %v, records %v, away %d", why, f.returned, n.records(), n.away())
			}
		})
	}
}

// The Pod's next sandbox waits for what the former one had.
func TestFunctionIsAwayFromTheFormerSandbox(t *testing.T) {
	n := functionNode(t, map[string][]string{"danm.io/fast": {vf(0)}})
	if _, e := n.call(request("ADD", "a", "acme", "u-a", on("fast"))); e != nil {
		t.Fatal(e)
	}
	n.fake.set(func(f *fakeAttacher) { f.away = []string{vf(0)} })
	next := request("ADD", "a2", "acme", "u-a", on("fast"))
	if _, e := n.call(next); e == nil || e.Code != types.ErrTryAgainLater || e.Details != string(diag.PodFormerSandbox) || !strings.Contains(e.Msg, vf(0)) {
		t.Errorf("%+v", e)
	}
	if got := fmt.Sprint(n.records()); got != "[a]" {
		t.Errorf("records %s", got)
	}
	n.fake.set(func(f *fakeAttacher) { f.away = nil })
	if _, e := n.call(next); e != nil {
		t.Error(e)
	}
}

// What else went wrong with a Detach is not forgotten for what is away.
func TestSplit(t *testing.T) {
	at := []model.Attachment{{DeviceID: vf(0)}}
	if away, err := split(&attach.Away{Interfaces: at}); err != nil || len(away) != 1 {
		t.Errorf("%v %v", away, err)
	}
	for _, e := range []error{nil, errInjected} {
		if away, err := split(e); !errors.Is(err, e) || away != nil {
			t.Errorf("%v %v", away, err)
		}
	}
}
