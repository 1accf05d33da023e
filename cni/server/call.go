package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"slices"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/utils"
	"github.com/containernetworking/cni/pkg/version"

	"danm.io/danm/cni/wire"
	"danm.io/danm/spec/diag"
)

// call is one CNI call after its form was checked.
type call struct {
	wire.Request
	conf  netConf
	args  podArgs
	netns *os.File // nil where the runtime gave none
}

var commands = []string{"ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"}

// handle answers one connection.
func (s *Server) handle(ctx context.Context, conn *net.UnixConn) {
	start := time.Now()
	_ = conn.SetDeadline(start.Add(readTime))
	req, netns, err := wire.ReadRequest(conn)
	if netns != nil {
		defer netns.Close()
	}
	if err != nil {
		s.log.Warn("read a CNI call", "reason", err)
		_ = wire.WriteResponse(conn, wire.Response{Error: types.NewError(types.ErrTryAgainLater, "read the call: "+err.Error(), "")})
		return
	}
	_ = conn.SetDeadline(time.Time{})
	ctx, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	go func() { // the plugin sends nothing more: whatever ends this read is its end
		_, _ = conn.Read(make([]byte, 1))
		cancel()
	}()
	result, number, err := s.answer(ctx, req, netns)
	resp := wire.Response{Result: result, Error: cniError(err)}
	_ = conn.SetWriteDeadline(time.Now().Add(readTime))
	werr := wire.WriteResponse(conn, resp)
	s.report(req, time.Since(start), resp.Error) // after the answer: nobody waits for a log
	if werr != nil && err == nil && req.Command == "ADD" {
		s.log.Warn("nobody took the answer, the Pod is detached again", "container", req.ContainerID, "reason", werr)
		s.forsake(req, number)
	}
}

func (s *Server) report(req wire.Request, took time.Duration, e *types.Error) {
	code := uint(0)
	if e != nil {
		code = e.Code
		s.log.Warn("CNI call failed", "command", req.Command, "container", req.ContainerID, "code", e.Code, "diagnostic", e.Details, "reason", e.Msg, "took", took)
	} else {
		s.log.Info("CNI call", "command", req.Command, "container", req.ContainerID, "took", took)
	}
	if s.opts.Observe != nil {
		command := "other" // what a caller makes up must not become a metric's label
		if slices.Contains(commands, req.Command) {
			command = req.Command
		}
		s.opts.Observe(command, took, code)
	}
}

// answer checks the form of a call and makes it. A panic fails this call alone. number counts the ADDs of the sandbox.
func (s *Server) answer(ctx context.Context, req wire.Request, netns *os.File) (result []byte, number uint64, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("CNI call panicked", "command", req.Command, "container", req.ContainerID, "reason", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("internal: %v", p)
		}
	}()
	if req.Command == "VERSION" {
		return versionAnswer(), 0, nil
	}
	c := call{Request: req, netns: netns}
	if c.conf, err = parseConf(req.Stdin); err != nil {
		return nil, 0, err
	}
	switch req.Command {
	case "STATUS":
		return nil, 0, s.status(c)
	case "GC":
		return nil, 0, s.gc(ctx, c)
	}
	key, err := s.checked(&c)
	if err != nil {
		return nil, 0, err
	}
	unlock, err := s.locks.lock(ctx, lockOf(key))
	if err != nil {
		return nil, 0, fmt.Errorf("wait for the sandbox's other call: %w", err)
	}
	defer unlock()
	if req.Command == "ADD" {
		number = s.count(key)
	}
	if result, err = s.attachment(ctx, c); err != nil && req.Command == "ADD" {
		s.uncount(key, number)
	}
	return result, number, err
}

// checked completes a call about one attachment, and says by which key that is recorded.
func (s *Server) checked(c *call) (key string, err error) {
	switch c.Command {
	case "ADD", "DEL":
	case "CHECK":
		if err := since(*c, "0.4.0"); err != nil {
			return "", err
		}
	default:
		return "", fail(types.ErrInvalidEnvironmentVariables, diag.ConfInvalid, fmt.Errorf("unknown command %q", clip(c.Command)))
	}
	if e := utils.ValidateContainerID(c.ContainerID); e != nil {
		return "", fail(types.ErrInvalidEnvironmentVariables, diag.ConfInvalid, e)
	}
	if e := utils.ValidateInterfaceName(c.IfName); e != nil {
		return "", fail(types.ErrInvalidEnvironmentVariables, diag.ConfInvalid, e)
	}
	if c.args, err = parseArgs(c.Request, c.conf); err != nil {
		return "", err
	}
	return keyOf(c.Request, c.conf), nil
}

// attachment makes a call about one attachment, under its lock.
func (s *Server) attachment(ctx context.Context, c call) ([]byte, error) {
	if c.conf.ipam != nil {
		return s.addressesOnly(ctx, c)
	}
	switch c.Command {
	case "ADD":
		return s.add(ctx, c)
	case "CHECK":
		return nil, s.check(ctx, c)
	}
	return nil, s.del(ctx, c)
}

// count numbers the ADDs of a sandbox, so that one whose answer nobody took is not undone when the next has been answered.
func (s *Server) count(key string) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.adds++
	s.lastAdd[key] = s.adds
	return s.adds
}

// uncount forgets an ADD that failed.
func (s *Server) uncount(key string, number uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lastAdd[key] == number {
		delete(s.lastAdd, key)
	}
}

// newest says whether no ADD of the sandbox came after the one of that number.
func (s *Server) newest(key string, number uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lastAdd[key] == number
}

// status fails only until the agent was ready for the first time: what a runtime makes of a failure is a node that is
// NotReady, and evicted Pods.
func (s *Server) status(c call) error {
	if err := since(c, "1.1.0"); err != nil {
		return err
	}
	if !s.ready() {
		return fail(types.ErrPluginNotAvailable, diag.AgentNotReady, errNotReady)
	}
	return nil
}

// since refuses a verb that a configuration's version does not have.
func since(c call, first string) error {
	if ok, err := version.GreaterThanOrEqualTo(c.conf.CNIVersion, first); err != nil || !ok {
		return fail(types.ErrIncompatibleCNIVersion, diag.ConfInvalid, fmt.Errorf("%s needs cniVersion %s", c.Command, first))
	}
	return nil
}

// gc frees what the runtime does not list any more.
func (s *Server) gc(ctx context.Context, c call) error {
	if err := since(c, "1.1.0"); err != nil {
		return err
	}
	valid, err := c.conf.validContainers()
	if err != nil {
		return err
	}
	return errors.Join(s.GC(ctx, c.conf.Name, valid), s.forwardGC(ctx))
}

func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "..."
	}
	return s
}
