package guard

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ioTimeout bounds the reading of a request and the writing of a response, so that a peer that hangs holds nothing.
const ioTimeout = 10 * time.Second

// Run is the guard process: it takes the directory's guard lock, finishes what is unfinished, serves the socket until ctx
// ends, and then reverts an open window. A second guard on the directory fails.
func Run(ctx context.Context, opts Options) (err error) {
	if err := os.MkdirAll(opts.Dir, 0o700); err != nil {
		return fmt.Errorf("create state directory: %w", err)
	}
	path, err := socketPath(opts.Dir)
	if err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(opts.Dir, "guard.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("lock guard: %w", err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("another guard runs on %s: %w", opts.Dir, err)
	}
	g, err := Open(ctx, opts)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Close(context.WithoutCancel(ctx))) }()
	// The lock is ours, so a socket that is there belongs to nobody.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove old guard socket: %w", err)
	}
	l, err := listen(path)
	if err != nil {
		return err
	}
	g.log.Info("guard is ready", "socket", path, "phase", g.journal().Phase)
	return g.serve(ctx, l)
}

// listen makes the socket under another name and renames it: it is never there with a wider mode or before it answers.
func listen(path string) (net.Listener, error) {
	tmp := strings.TrimSuffix(path, ".sock") + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove old guard socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen for the agent: %w", err)
	}
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(tmp, 0o600), os.Rename(tmp, path)); err != nil {
		return nil, errors.Join(fmt.Errorf("listen for the agent: %w", err), l.Close())
	}
	return l, nil
}

// serve answers until ctx ends and all answers are out.
func (g *Guard) serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	var open sync.WaitGroup
	defer open.Wait()
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			time.Sleep(10 * time.Millisecond) // out of file descriptors: others will be closed
			continue
		}
		open.Go(func() {
			defer c.Close()
			_ = c.SetReadDeadline(time.Now().Add(ioTimeout))
			var req request
			resp := response{}
			if err := json.NewDecoder(io.LimitReader(c, maxMessage)).Decode(&req); err != nil {
				resp.Code, resp.Message = "Failed", "read request: "+err.Error()
			} else {
				resp = g.handle(context.WithoutCancel(ctx), req)
			}
			resp.Version = ProtocolVersion
			_ = c.SetWriteDeadline(time.Now().Add(ioTimeout))
			_ = json.NewEncoder(c).Encode(resp) // a client that went away asks again
		})
	}
}

func (g *Guard) handle(ctx context.Context, req request) (resp response) {
	if req.Version < 1 || req.Version < ProtocolVersion-1 || req.Version > ProtocolVersion {
		return response{Code: "Failed", Message: fmt.Sprintf("protocol version %d is not served, only %d", req.Version, ProtocolVersion)}
	}
	var err error
	switch {
	case req.Op == opSubmit && req.Submit != nil:
		var out Outcome
		out, err = g.Submit(ctx, *req.Submit)
		resp.Outcome = &out
	case req.Op == opRepair && req.Desired != nil:
		var out Outcome
		out, err = g.Repair(ctx, *req.Desired, req.Skip)
		resp.Outcome = &out
	case req.Op == opStatus:
		var st Status
		st, err = g.Status(ctx)
		resp.Status = &st
	case req.Op == opConfirm:
		err = g.Confirm(ctx, req.Digest)
	case req.Op == opPause:
		err = g.Pause(ctx)
	case req.Op == opResume:
		err = g.Resume(ctx)
	case req.Op == opRestore:
		resp.Steps, err = g.Restore(ctx)
	case req.Op == opJudge:
		err = g.Judge(ctx, req.Digest, req.Verdict, req.Probe)
	case req.Op == opRetry:
		err = g.Retry(ctx, req.Digest)
	default:
		err = fmt.Errorf("operation %q is unknown or incomplete", req.Op)
	}
	if err != nil {
		resp.Code, resp.Message = codeOf(err), err.Error()
	}
	return resp
}

// BootID is the kernel's name for this boot, read below sysRoot (random(4)).
func BootID(sysRoot string) (string, error) {
	b, err := os.ReadFile(filepath.Join(sysRoot, "proc/sys/kernel/random/boot_id"))
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}
