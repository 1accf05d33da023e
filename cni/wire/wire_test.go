package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"
)

// agent listens on a socket and answers each connection with handle.
func agent(t *testing.T, handle func(*net.UnixConn)) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.AcceptUnix()
			if err != nil {
				return
			}
			handle(conn)
			conn.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return socket
}

func TestCallCarriesEveryByteAndTheDescriptor(t *testing.T) {
	type arrival struct {
		req     Request
		content []byte
		err     error
	}
	arrivals := make(chan arrival, 1)
	result := bytes.Repeat([]byte("r"), 300_000)
	socket := agent(t, func(conn *net.UnixConn) {
		req, f, err := ReadRequest(conn)
		a := arrival{req: req, err: err}
		if f != nil {
			a.content, _ = io.ReadAll(f)
			f.Close()
		}
		arrivals <- a
		_ = WriteResponse(conn, Response{Result: result, Error: types.NewError(7, "m", "d")})
	})
	file := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(file, []byte("the very file"), 0o600); err != nil {
		t.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{0, 1, 4095, 70_000, MaxStdin} {
		stdin := make([]byte, size)
		for i := range stdin {
			stdin[i] = byte(random.Uint32())
		}
		want := Request{Command: "ADD", ContainerID: "c", Netns: "/n", IfName: "eth0", Args: "A=\"\x01;B=ü", Path: "/p", Stdin: stdin}
		for _, withFile := range []bool{true, false} {
			fd, wantContent := -1, ""
			if withFile {
				fd, _ = syscall.Open(file, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
				wantContent = "the very file"
			}
			resp, err := Call(time.Time{}, socket, time.Second, want, fd)
			if withFile {
				_ = syscall.Close(fd)
			}
			a := <-arrivals
			got := a.req
			if err != nil || a.err != nil {
				t.Fatalf("%d bytes: %v, %v", size, err, a.err)
			}
			if !bytes.Equal(want.Stdin, got.Stdin) || string(a.content) != wantContent {
				t.Errorf("%d bytes: differ, or descriptor gave %q", size, a.content)
			}
			got.Stdin, want.Stdin = nil, nil
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
			want.Stdin = stdin
			if !bytes.Equal(resp.Result, result) || resp.Error == nil || resp.Error.Code != 7 || resp.Error.Msg != "m" || resp.Error.Details != "d" {
				t.Errorf("answer arrived as %d bytes, %v", len(resp.Result), resp.Error)
			}
		}
	}
}

func TestCallWaitsForTheAgentAndGivesUp(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	start := time.Now()
	_, err := Call(time.Time{}, socket, 100*time.Millisecond, Request{}, -1)
	if took := time.Since(start); !errors.Is(err, ErrAway) || took < 20*time.Millisecond || took > 2*time.Second {
		t.Errorf("after %v: %v", took, err)
	}
	go func() {
		time.Sleep(100 * time.Millisecond)
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
		if err != nil {
			return
		}
		defer l.Close()
		conn, err := l.AcceptUnix()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _, _ = ReadRequest(conn)
		_ = WriteResponse(conn, Response{})
	}()
	if _, err := Call(time.Time{}, socket, 5*time.Second, Request{}, -1); err != nil {
		t.Errorf("an agent that starts late is not waited for: %v", err)
	}
}

func TestCallEndsAtItsDeadlineAndWhenTheAgentDies(t *testing.T) {
	silent := agent(t, func(conn *net.UnixConn) { _, _ = io.Copy(io.Discard, conn) })
	start := time.Now()
	_, err := Call(start.Add(100*time.Millisecond), silent, time.Second, Request{}, -1)
	if !errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, ErrAway) || time.Since(start) > 5*time.Second {
		t.Errorf("silent agent: %v", err)
	}
	dying := agent(t, func(conn *net.UnixConn) { _, _, _ = ReadRequest(conn) })
	if _, err := Call(time.Time{}, dying, time.Second, Request{}, -1); !errors.Is(err, io.EOF) || errors.Is(err, ErrAway) {
		t.Errorf("dying agent: %v", err)
	}
}

// An agent that sends byte by byte does not outlast the limit: each read has only what is left.
func TestCallEndsAtItsDeadlineBesideASlowAgent(t *testing.T) {
	slow := agent(t, func(conn *net.UnixConn) {
		for {
			if _, err := conn.Write(frame("DNMW", Version, "", "", 4, 0)[:1]); err != nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
	})
	deaf := agent(t, func(conn *net.UnixConn) { time.Sleep(3 * time.Second) })
	for name, socket := range map[string]string{"slow": slow, "deaf": deaf} {
		start := time.Now()
		_, err := Call(start.Add(150*time.Millisecond), socket, time.Second, Request{Stdin: make([]byte, MaxStdin)}, -1)
		if took := time.Since(start); err == nil || errors.Is(err, ErrAway) || took < 100*time.Millisecond || took > 2*time.Second {
			t.Errorf("%s: after %v: %v", name, took, err)
		}
	}
}

// A backlog that is full is waited for, and no longer than wait.
func TestCallWaitsForAFullBacklog(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Close(fd) }()
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrUnix{Name: socket}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	first, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	start := time.Now()
	if _, err := Call(time.Time{}, socket, 200*time.Millisecond, Request{}, -1); !errors.Is(err, ErrAway) || time.Since(start) > 2*time.Second {
		t.Errorf("full: %v after %v", err, time.Since(start))
	}
	go func() {
		time.Sleep(100 * time.Millisecond)
		for range 2 { // the first, and the one that waits
			conn, _, err := syscall.Accept(fd)
			if err != nil {
				return
			}
			f := os.NewFile(uintptr(conn), "conn")
			c, err := net.FileConn(f)
			f.Close()
			if err == nil {
				_ = WriteResponse(c.(*net.UnixConn), Response{})
				c.Close()
			}
		}
	}()
	if _, err := Call(time.Time{}, socket, 5*time.Second, Request{}, -1); err != nil {
		t.Errorf("room after a while: %v", err)
	}
}

// Signals do not end a call: the runtime sends its own threads some, and with a timeout the kernel restarts nothing.
func TestCallGoesOnAfterSignals(t *testing.T) {
	late := agent(t, func(conn *net.UnixConn) {
		time.Sleep(100 * time.Millisecond)
		_, _, _ = ReadRequest(conn)
		_ = WriteResponse(conn, Response{Result: []byte("late")})
	})
	tid := make(chan int)
	answer := make(chan string)
	go func() {
		runtime.LockOSThread()
		tid <- syscall.Gettid()
		resp, err := Call(time.Now().Add(5*time.Second), late, time.Second, Request{Stdin: make([]byte, MaxStdin)}, -1)
		answer <- fmt.Sprint(string(resp.Result), err)
	}()
	thread, sent := <-tid, 0
	for {
		select {
		case got := <-answer:
			if got != "late<nil>" || sent < 10 {
				t.Errorf("after %d signals: %s", sent, got)
			}
			return
		case <-time.After(time.Millisecond):
			if err := syscall.Tgkill(os.Getpid(), thread, syscall.SIGURG); err == nil {
				sent++
			}
		}
	}
}

func TestCallBoundsTheRequest(t *testing.T) {
	for _, r := range []Request{{Stdin: make([]byte, MaxStdin+1)}, {Args: strings.Repeat("a", MaxHeader)}} {
		if _, err := Call(time.Time{}, "/nowhere", 0, r, -1); !errors.Is(err, ErrTooBig) {
			t.Errorf("got %v", err)
		}
	}
}

// frame builds a frame by hand, sharing no code with the encoder.
func frame(magic string, version uint16, header, payload string, headerLen, payloadLen uint32) []byte {
	b := []byte(magic)
	b = binary.BigEndian.AppendUint16(b, version)
	b = append(b, 0, 0)
	b = binary.BigEndian.AppendUint32(b, headerLen)
	b = binary.BigEndian.AppendUint32(b, payloadLen)
	return append(append(b, header...), payload...)
}

func pair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	conns := make([]*net.UnixConn, 2)
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		conns[i] = c.(*net.UnixConn)
		t.Cleanup(func() { c.Close() })
	}
	return conns[0], conns[1]
}

func TestReadRequestRefusesWhatIsNoRequest(t *testing.T) {
	rows := []struct {
		name string
		in   []byte
		want error
	}{
		{"nothing", nil, io.EOF},
		{"half a start", []byte("DNMW\x00"), io.ErrUnexpectedEOF},
		{"another protocol", []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), ErrFrame},
		{"a newer version", frame("DNMW", Version+1, "{}", "", 2, 0), ErrVersion},
		{"an older version than the last", frame("DNMW", Oldest-1, "{}", "", 2, 0), ErrVersion},
		{"huge header", frame("DNMW", 1, "", "", MaxHeader+1, 0), ErrTooBig},
		{"huge content", frame("DNMW", 1, "", "", 0, MaxStdin+1), ErrTooBig},
		{"overflowing lengths", frame("DNMW", 1, "", "", 1<<32-1, 1<<32-1), ErrTooBig},
		{"cut off", frame("DNMW", 1, "{}", "abc", 2, 4), io.ErrUnexpectedEOF},
		{"header is no JSON", frame("DNMW", 1, "{]", "", 2, 0), ErrFrame},
	}
	for _, r := range rows {
		a, b := pair(t)
		if _, err := a.Write(r.in); err != nil {
			t.Fatal(err)
		}
		a.Close()
		if _, f, err := ReadRequest(b); !errors.Is(err, r.want) || f != nil {
			t.Errorf("%s: got %v, want %v", r.name, err, r.want)
		}
	}
}

// The next release may add a field; this one must still read the rest.
func TestReadRequestToleratesAddedFields(t *testing.T) {
	a, b := pair(t)
	header := `{"command":"DEL","colour":"blue","containerID":"c"}`
	if _, err := a.Write(frame("DNMW", 1, header, "{}", uint32(len(header)), 2)); err != nil {
		t.Fatal(err)
	}
	got, _, err := ReadRequest(b)
	if err != nil || got.Command != "DEL" || got.ContainerID != "c" || string(got.Stdin) != "{}" {
		t.Errorf("got %+v, %v", got, err)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// A sender that spreads descriptors must not exhaust the agent's.
func TestReadRequestLeaksNoDescriptor(t *testing.T) {
	whole := frame("DNMW", 1, "{}", "", 2, 0)
	for name, in := range map[string][]byte{"good": whole, "bad": frame("XXXX", 1, "{}", "", 2, 0), "cut off": whole[:17]} {
		a, b := pair(t)
		before := descriptors(t)
		many := syscall.UnixRights(0, 0, 0, 0, 0)
		if _, _, err := a.WriteMsgUnix(in[:1], many, nil); err != nil {
			t.Fatal(err)
		}
		if _, _, err := a.WriteMsgUnix(in[1:], syscall.UnixRights(0), nil); err != nil {
			t.Fatal(err)
		}
		_ = a.CloseWrite()
		_, f, err := ReadRequest(b)
		if (name == "good") != (err == nil && f != nil) {
			t.Errorf("%s: %v", name, err)
		}
		if f != nil {
			f.Close()
		}
		if after := descriptors(t); after != before {
			t.Errorf("%s: %d descriptors before, %d after", name, before, after)
		}
	}
}

func TestReadRequestRefusesMoreDescriptorsThanFit(t *testing.T) {
	a, b := pair(t)
	before := descriptors(t)
	if _, _, err := a.WriteMsgUnix(frame("DNMW", 1, "{}", "", 2, 0), syscall.UnixRights(make([]int, 60)...), nil); err != nil {
		t.Fatal(err)
	}
	if _, f, err := ReadRequest(b); err == nil || f != nil {
		t.Error("60 descriptors are accepted")
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// The descriptor must not be inherited by programs that the agent starts meanwhile.
func TestReceivedDescriptorClosesOnExec(t *testing.T) {
	a, b := pair(t)
	if _, _, err := a.WriteMsgUnix(frame("DNMW", 1, "{}", "", 2, 0), syscall.UnixRights(0), nil); err != nil {
		t.Fatal(err)
	}
	_, f, err := ReadRequest(b)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	var flags uint64
	for line := range strings.Lines(string(info)) {
		_, _ = fmt.Sscanf(line, "flags: %o", &flags)
	}
	if flags&syscall.O_CLOEXEC == 0 {
		t.Errorf("flags %o have no close-on-exec", flags)
	}
}

func FuzzReadRequest(f *testing.F) {
	f.Add(frame("DNMW", 1, "{}", "x", 2, 1))
	f.Add(frame("DNMW", 1, `{"command":"ADD"}`, "", 17, 0))
	f.Add([]byte("DNMW"))
	f.Fuzz(func(t *testing.T, in []byte) {
		var r Request
		payload, err := decodeFrame(bytes.NewReader(in), &r, MaxHeader, MaxStdin)
		if err == nil && len(payload)+frameSize > len(in) {
			t.Fatalf("%d bytes of content out of %d", len(payload), len(in))
		}
	})
}
