package wire

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
)

// maxDescriptors is what one message may bring; all but the first are closed.
const maxDescriptors = 8

// ReadRequest reads a request and the descriptor that came with it, nil if none did. The caller closes the descriptor and
// sets the connection's deadline.
func ReadRequest(conn *net.UnixConn) (req Request, netns *os.File, err error) {
	r := &rightsReader{conn: conn}
	req.Stdin, err = decodeFrame(r, &req, MaxHeader, MaxStdin)
	for i, fd := range r.fds {
		if i == 0 && err == nil {
			netns = os.NewFile(uintptr(fd), "netns")
			continue
		}
		_ = syscall.Close(fd)
	}
	return req, netns, err
}

// WriteResponse writes the answer.
func WriteResponse(conn *net.UnixConn, resp Response) error {
	frame, err := encodeFrame(resp, resp.Result, MaxHeader, MaxAnswer)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	_, err = conn.Write(frame)
	return err
}

// rightsReader collects the descriptors that arrive with the bytes. Reading without room for control messages would make
// the kernel drop them (unix(7), MSG_CTRUNC).
type rightsReader struct {
	conn *net.UnixConn
	fds  []int
	oob  [128]byte
}

func (r *rightsReader) Read(p []byte) (int, error) {
	n, oobn, flags, _, err := r.conn.ReadMsgUnix(p, r.oob[:])
	if errors.Is(err, io.EOF) { // it comes wrapped, and io.ReadFull knows the bare one only
		return n, io.EOF
	}
	if oobn > 0 {
		if oobErr := r.collect(r.oob[:oobn]); err == nil {
			err = oobErr
		}
	}
	if err == nil && flags&syscall.MSG_CTRUNC != 0 {
		err = errors.New("more descriptors than a request has")
	}
	if err != nil {
		return 0, err // io.ReadFull forgets an error that comes with enough bytes
	}
	return n, nil
}

func (r *rightsReader) collect(oob []byte) error {
	messages, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return fmt.Errorf("control message: %w", err)
	}
	for i := range messages {
		fds, err := syscall.ParseUnixRights(&messages[i])
		if err != nil {
			return fmt.Errorf("descriptors: %w", err)
		}
		r.fds = append(r.fds, fds...)
	}
	if len(r.fds) > maxDescriptors {
		return errors.New("more descriptors than a request has")
	}
	return nil
}
