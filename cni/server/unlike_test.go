package server

import (
	"context"
	"strings"
	"testing"
	"time"
)

// TestSettingsAreMended: functions of which a card says something else than the record are mended at once, whatever drives them; where that
// does not last it is not tried for ever, and said.
func TestSettingsAreMended(t *testing.T) {
	n := functionNode(t, map[string][]string{"danm.io/fast": {vf(0), vf(1)}})
	if _, e := n.call(request("ADD", "a", "acme", "u-a", on("fast", "fast2", "shared"))); e != nil {
		t.Fatal(e)
	}
	devices := n.server.opts.Devices
	n.restart(func(o *Options) { o.Devices = devices })
	mend := func(what string, unlike []string, looked int, problem string) {
		t.Helper()
		n.fake.set(func(f *fakeAttacher) {
			f.unlike, f.looked, f.lost = unlike, 0, map[string]bool{"a/eth0": true, "a/eth1": true, "a/eth2": true}
		})
		mended, err := n.server.Mend(context.Background())
		n.fake.set(func(f *fakeAttacher) {
			if (err != nil) != (problem != "") || err != nil && !strings.Contains(err.Error(), problem) || f.looked != looked || mended != min(looked, 1)*len(unlike) || f.asked != 2 {
				t.Errorf("%s: mended %d, looked %d times, asked about %d, %v", what, mended, f.looked, f.asked, err)
			}
		})
	}
	mend("as recorded", nil, 0, "")
	mend("one of a program", []string{vf(1)}, 1, "")
	mend("both", []string{vf(0), vf(1)}, 1, "")
	unlock, _ := n.server.locks.tryLock("sandbox/a")
	mend("a call is in progress", []string{vf(1)}, 0, "")
	unlock()
	mend("again", []string{vf(1)}, 1, "")
	mend("and again", []string{vf(1)}, 0, vf(1))
	n.server.mu.Lock()
	for i := range n.server.repairs[FunctionKey+vf(1)] {
		n.server.repairs[FunctionKey+vf(1)][i] = time.Now().Add(-repairWindow)
	}
	n.server.mu.Unlock()
	mend("later", []string{vf(1)}, 1, "")
	if _, e := n.call(request("DEL", "a", "acme", "u-a", "")); e != nil {
		t.Fatal(e)
	}
	n.fake.set(func(f *fakeAttacher) { f.unlike, f.asked = nil, 0 })
	_, err := n.server.Mend(context.Background())
	n.fake.set(func(f *fakeAttacher) {
		if err != nil || f.asked != 0 {
			t.Errorf("nobody has a function: asked about %d, %v", f.asked, err)
		}
	})
}
