package guard

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"danm.io/danm/node/fake"
	"danm.io/danm/node/state"
	"danm.io/danm/spec/diag"
)

// process runs the guard behind its socket until stop, which is its SIGTERM.
func process(t *testing.T, dir string, k *fake.Kernel) (c Client, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, Options{Dir: dir, Kernel: k, BootID: "b"}) }()
	c = Client{Dir: dir}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := c.Status(ctx); err == nil {
			break
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	return c, func() error { cancel(); return <-done }
}

func TestSocket(t *testing.T) {
	k, dir, ctx := machine(t), scratch(t), context.Background()
	c, stop := process(t, dir, k)
	base := k.Dump()
	if fi, err := os.Stat(filepath.Join(dir, SocketName)); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("socket %v, %v", fi, err)
	}
	if err := Run(ctx, Options{Dir: dir, Kernel: k, BootID: "b"}); err == nil {
		t.Error("a second guard runs on the directory")
	}
	out, err := c.Submit(ctx, submission(planA()))
	if err != nil || len(out.Steps) == 0 || out.Deadline.IsZero() {
		t.Fatal(out, err)
	}
	st, err := c.Status(ctx)
	if err != nil || st.Phase != Waiting || st.Pending.Before != nil || !st.Until.Equal(out.Deadline) {
		t.Errorf("%+v %v", st, err)
	}
	for what, tc := range map[string]struct {
		err  error
		want error
	}{
		"busy":        {second(c.Submit(ctx, submission(planB()))), ErrBusy},
		"not waiting": {c.Confirm(ctx, "x"), ErrNotWaiting},
		"repair":      {second(c.Repair(ctx, submission(planA()).Desired, nil)), ErrBusy},
	} {
		if !errors.Is(tc.err, tc.want) {
			t.Errorf("%s: %v", what, tc.err)
		}
	}
	if err := c.Judge(ctx, "x", Guilty, "p"); err == nil {
		t.Error("judged nothing")
	}
	must(t, stop()) // SIGTERM in the window reverts
	if k.Dump() != base {
		t.Errorf("stopped in the window\n%s", k.Dump())
	}
	if _, err := c.Status(ctx); !errors.Is(err, ErrAway) {
		t.Errorf("without a guard: %v", err)
	}
	c, stop = process(t, dir, k) // over the old socket file
	if st, err := c.Status(ctx); err != nil || !strings.Contains(st.Undone.Reason, "stopped") {
		t.Errorf("undone %+v, %v", st.Undone, err)
	}
	_, err = c.Submit(ctx, submission(planA()))
	must(t, err)
	must(t, c.Confirm(ctx, planA().Digest()))
	must(t, c.Pause(ctx))
	if _, err := c.Submit(ctx, submission(planB())); !errors.Is(err, ErrPaused) {
		t.Error(err)
	}
	must(t, k.DeleteLink("br_a"))
	if steps, err := c.Restore(ctx); err != nil || len(steps) == 0 {
		t.Error(steps, err)
	}
	must(t, c.Resume(ctx))
	must(t, c.Retry(ctx, ""))
	must(t, stop())
	if k.Dump() != dumpOf(t, planA()) { // a confirmed plan stays
		t.Error(k.Dump())
	}
}

func second[T any](_ T, err error) error { return err }

func TestProtocolVersionsAndJunk(t *testing.T) {
	dir := scratch(t)
	_, stop := process(t, dir, machine(t))
	for name, tc := range map[string]struct{ send, want string }{
		"newer":      {`{"version":2,"op":"status"}`, "version 2"},
		"none":       {`{"op":"status"}`, "version 0"},
		"unknown":    {`{"version":1,"op":"format"}`, "unknown"},
		"incomplete": {`{"version":1,"op":"submit"}`, "incomplete"},
		"junk":       {"\x00\n", "read request"},
	} {
		conn, err := net.Dial("unix", filepath.Join(dir, SocketName))
		must(t, err)
		_, err = conn.Write([]byte(tc.send))
		must(t, err)
		var resp response
		must(t, json.NewDecoder(conn).Decode(&resp))
		_ = conn.Close()
		if resp.Version != ProtocolVersion || resp.Code == "" || !strings.Contains(resp.Message, tc.want) {
			t.Errorf("%s: %+v", name, resp)
		}
	}
	must(t, stop())
}

func TestDamagedFilesStopTheGuard(t *testing.T) {
	for _, name := range []string{"guard.json", "ledger.json"} {
		dir, k := scratch(t), machine(t)
		g := openGuard(t, dir, k, "b", nil)
		_, err := g.Submit(context.Background(), submission(planA()))
		must(t, err)
		writes := k.Writes()
		must(t, os.WriteFile(filepath.Join(dir, name), []byte("{"), 0o600))
		_, err = Open(context.Background(), Options{Dir: dir, Kernel: k, BootID: "b"})
		r := (*state.Refused)(nil)
		if !errors.As(err, &r) || r.Diagnostic.Code != diag.StateCorrupt || k.Writes() != writes {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLongSocketPathIsNamed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("x", 100))
	if err := Run(context.Background(), Options{Dir: dir, Kernel: fake.New(), BootID: "b"}); err == nil || !strings.Contains(err.Error(), "shorter") {
		t.Error(err)
	}
}
