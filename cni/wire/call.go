package wire

import (
	"context"
	"errors"
	"fmt"
	"net"
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

// Call makes one call. netns may be nil. Until wait has passed it waits for an agent to appear; ctx bounds the whole call.
// An error that is not ErrAway leaves open whether the agent has done its work.
func Call(ctx context.Context, socket string, wait time.Duration, req Request, netns *os.File) (Response, error) {
	frame, err := encodeFrame(req, req.Stdin, MaxHeader, MaxStdin)
	if err != nil {
		return Response{}, fmt.Errorf("encode request: %w", err)
	}
	conn, err := dial(ctx, socket, wait)
	if err != nil {
		return Response{}, err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return Response{}, err
		}
	}
	if err := send(conn, frame, netns); err != nil {
		return Response{}, fmt.Errorf("send request: %w", err)
	}
	var resp Response
	if resp.Result, err = decodeFrame(conn, &resp, MaxHeader, MaxAnswer); err != nil {
		return Response{}, fmt.Errorf("read answer: %w", err)
	}
	return resp, nil
}

// dial retries while the socket is missing (the agent starts), refuses (it has ended) or is full (EAGAIN, its backlog).
func dial(ctx context.Context, socket string, wait time.Duration) (*net.UnixConn, error) {
	end := time.Now().Add(wait)
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
		if err == nil {
			return conn, nil
		}
		again := errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EAGAIN)
		if !again || ctx.Err() != nil || time.Now().Add(pause).After(end) {
			return nil, fmt.Errorf("%w: %w", ErrAway, err)
		}
		time.Sleep(pause)
	}
}

func send(conn *net.UnixConn, frame []byte, netns *os.File) error {
	var rights []byte
	if netns != nil {
		rights = syscall.UnixRights(int(netns.Fd()))
	}
	n, _, err := conn.WriteMsgUnix(frame, rights, nil)
	if err != nil || n == len(frame) {
		return err
	}
	_, err = conn.Write(frame[n:]) // a stream socket may take less at once; the descriptor went with the first bytes
	return err
}
