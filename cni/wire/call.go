package wire

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/types"
)

// DefaultSocket is where the agent listens when the configuration says nothing.
const DefaultSocket = "/run/danm/cni.sock"

// AliveFor is how long after an agent's last sign of life STATUS still says yes: a STATUS that fails makes the node
// NotReady and evicts its Pods (go-cni, containerd, kubelet), so an agent's restart must not look like a dead network.
// The agent touches its socket file at least three times in this time, from the moment it has been ready once.
const AliveFor = 60 * time.Second

// Request is one CNI call as the runtime made it: its environment and its standard input, unparsed.
type Request struct {
	Command     string `json:"command"` // CNI_COMMAND
	ContainerID string `json:"containerID,omitempty"`
	Netns       string `json:"netns,omitempty"` // the path, as the runtime knows it
	IfName      string `json:"ifName,omitempty"`
	Args        string `json:"args,omitempty"` // CNI_ARGS
	Path        string `json:"path,omitempty"` // CNI_PATH
	Stdin       []byte `json:"-"`              // the network configuration, at most MaxStdin bytes
}

// Response is the agent's answer: the result to print, or an error. Both are empty after a successful DEL or CHECK.
type Response struct {
	Error  *types.Error `json:"error,omitempty"`
	Result []byte       `json:"-"`
}

// ErrAway says that nobody took the call: it had no effect and may be made again.
var ErrAway = errors.New("the agent does not answer on its socket")

// Call makes one call. netns is a descriptor, or -1 for none. Until wait has passed it waits for an agent to appear; limit bounds the
// whole call, the zero time does not. An error that is not ErrAway leaves open whether the agent has done its work.
//
// It blocks in system calls of its own instead of package net's: the plugin is a process for each call, and the poller with the
// threads that it wakes cost a good part of starting the program (make bench, rows ipam-shim).
func Call(limit time.Time, socket string, wait time.Duration, req Request, netns int) (Response, error) {
	frame, err := encodeFrame(req, req.Stdin, MaxHeader, MaxStdin)
	if err != nil {
		return Response{}, fmt.Errorf("encode request: %w", err)
	}
	conn, err := dial(limit, socket, wait)
	if err != nil {
		return Response{}, err
	}
	defer conn.close()
	if err := conn.send(frame, netns); err != nil {
		return Response{}, fmt.Errorf("send request: %w", err)
	}
	var resp Response
	if resp.Result, err = decodeFrame(conn, &resp, MaxHeader, MaxAnswer); err != nil {
		return Response{}, fmt.Errorf("read answer: %w", err)
	}
	return resp, nil
}

// blockingConn is a connected UNIX stream socket. Each system call takes what is left until the limit at most (socket(7), SO_RCVTIMEO).
type blockingConn struct {
	fd    int
	limit time.Time
}

// dial retries while the socket is missing (the agent starts), refuses (it has ended) or is full (EAGAIN, its backlog).
func dial(limit time.Time, socket string, wait time.Duration) (*blockingConn, error) {
	end := time.Now().Add(wait)
	if !limit.IsZero() && limit.Before(end) {
		end = limit
	}
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		conn, err := connect(socket, limit, end)
		if err == nil {
			return conn, nil
		}
		again := errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EAGAIN)
		if !again || time.Now().Add(pause).After(end) {
			return nil, fmt.Errorf("%w: connect to %s: %w", ErrAway, socket, err)
		}
		time.Sleep(pause)
	}
}

// connect waits until end for room in a full backlog.
func connect(socket string, limit, end time.Time) (*blockingConn, error) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	c := &blockingConn{fd: fd, limit: end}
	err = c.within(syscall.SO_SNDTIMEO, func() error { return syscall.Connect(fd, &syscall.SockaddrUnix{Name: socket}) })
	if err != nil {
		c.close()
		return nil, err
	}
	c.limit = limit
	return c, nil
}

func (c *blockingConn) close() { _ = syscall.Close(c.fd) }

// within makes a system call that takes as long as is left at most. Interrupted ones are made again: with a timeout the kernel
// does not do that by itself (signal(7), "Interruption of system calls").
func (c *blockingConn) within(option int, call func() error) error {
	for {
		if !c.limit.IsZero() {
			left := max(time.Until(c.limit), time.Microsecond) // 0 would be without end
			tv := syscall.NsecToTimeval(left.Nanoseconds() + 999)
			if err := syscall.SetsockoptTimeval(c.fd, syscall.SOL_SOCKET, option, &tv); err != nil {
				return err
			}
		}
		if err := call(); err != syscall.EINTR {
			return err
		}
	}
}

// send writes a frame; the descriptor goes with its first bytes.
func (c *blockingConn) send(frame []byte, netns int) error {
	var rights []byte
	if netns >= 0 {
		rights = syscall.UnixRights(netns)
	}
	for len(frame) > 0 {
		err := c.within(syscall.SO_SNDTIMEO, func() error {
			n, err := syscall.SendmsgN(c.fd, frame, rights, nil, syscall.MSG_NOSIGNAL)
			if n > 0 {
				frame, rights = frame[n:], nil
			}
			return err
		})
		if err != nil {
			return timeout(err)
		}
	}
	return nil
}

// Read is io.Reader's.
func (c *blockingConn) Read(p []byte) (n int, err error) {
	err = c.within(syscall.SO_RCVTIMEO, func() (err error) {
		n, err = syscall.Read(c.fd, p)
		return err
	})
	switch {
	case err != nil:
		return 0, timeout(err)
	case n == 0 && len(p) > 0:
		return 0, io.EOF
	}
	return n, nil
}

// timeout gives a call that took until the limit the name that package net would have given it.
func timeout(err error) error {
	if err == syscall.EAGAIN {
		return os.ErrDeadlineExceeded
	}
	return err
}
