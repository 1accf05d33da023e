package server

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"slices"
	"time"

	"danm.io/danm/cni/wire"
	"danm.io/danm/spec/diag"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/utils"
	"github.com/containernetworking/cni/pkg/version"
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
	result, err := s.answer(ctx, req, netns)
	resp := wire.Response{Result: result, Error: cniError(err)}
	_ = conn.SetWriteDeadline(time.Now().Add(readTime))
	werr := wire.WriteResponse(conn, resp)
	s.report(req, time.Since(start), resp.Error) // after the answer: nobody waits for a log
	if werr != nil && err == nil && req.Command == "ADD" {
		s.log.Warn("nobody took the answer, the Pod is detached again", "container", req.ContainerID, "reason", werr)
		s.forsake(req)
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

// answer checks the form of a call and makes it. A panic fails this call alone.
func (s *Server) answer(ctx context.Context, req wire.Request, netns *os.File) (result []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("CNI call panicked", "command", req.Command, "container", req.ContainerID, "reason", p, "stack", string(debug.Stack()))
			err = fmt.Errorf("internal: %v", p)
		}
	}()
	if req.Command == "VERSION" {
		return versionAnswer(), nil
	}
	c := call{Request: req, netns: netns}
	if c.conf, err = parseConf(req.Stdin); err != nil {
		return nil, err
	}
	switch req.Command {
	case "STATUS":
		return nil, s.status(c)
	case "GC":
		return nil, s.gc(ctx, c)
	case "ADD", "CHECK", "DEL":
	default:
		return nil, fail(types.ErrInvalidEnvironmentVariables, diag.ConfInvalid, fmt.Errorf("unknown command %q", clip(req.Command)))
	}
	if e := utils.ValidateContainerID(req.ContainerID); e != nil {
		return nil, fail(types.ErrInvalidEnvironmentVariables, diag.ConfInvalid, e)
	}
	if e := utils.ValidateInterfaceName(req.IfName); e != nil {
		return nil, fail(types.ErrInvalidEnvironmentVariables, diag.ConfInvalid, e)
	}
	if c.args, err = parseArgs(req, c.conf); err != nil {
		return nil, err
	}
	unlock, err := s.locks.lock(ctx, lockOf(keyOf(req, c.conf)))
	if err != nil {
		return nil, fmt.Errorf("wait for the sandbox's other call: %w", err)
	}
	defer unlock()
	if c.conf.ipam != nil {
		return s.addressesOnly(ctx, c)
	}
	switch req.Command {
	case "ADD":
		return s.add(ctx, c)
	case "CHECK":
		return nil, s.check(ctx, c)
	}
	return nil, s.del(ctx, c)
}

// status fails only until the agent was ready for the first time: what a runtime makes of a failure is a node that is
// NotReady, and evicted Pods.
func (s *Server) status(c call) error {
	if err := since11(c); err != nil {
		return err
	}
	if !s.ready() {
		return fail(types.ErrPluginNotAvailable, diag.AgentNotReady, errNotReady)
	}
	return nil
}

// since11 refuses verbs that a configuration's version does not have.
func since11(c call) error {
	if ok, err := version.GreaterThanOrEqualTo(c.conf.CNIVersion, "1.1.0"); err != nil || !ok {
		return fail(types.ErrIncompatibleCNIVersion, diag.ConfInvalid, fmt.Errorf("%s needs cniVersion 1.1.0", c.Command))
	}
	return nil
}

// gc frees what the runtime does not list any more.
func (s *Server) gc(ctx context.Context, c call) error {
	if err := since11(c); err != nil {
		return err
	}
	valid, err := c.conf.validContainers()
	if err != nil {
		return err
	}
	return s.GC(ctx, c.conf.Name, valid)
}

func clip(s string) string {
	if len(s) > 64 {
		return s[:64] + "..."
	}
	return s
}
