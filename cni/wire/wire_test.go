package wire

import (
	"bytes"
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
	if took := time.Since(start); !errors.Is(err, ErrAway) || took < 20*time.Millisecond || took > 20*time.Second {
		t.Errorf("after %v: %v", took, err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
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
	if _, err := Call(time.Time{}, socket, 30*time.Second, Request{}, -1); err != nil {
		t.Fatalf("an agent that starts late is not waited for: %v", err)
	}
	<-ended // others count descriptors
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
		next := frame("DNMW", Version, "", "", MaxHeader, 0)
		for range 1000 { // 20 seconds, and the header has not ended
			if _, err := conn.Write(next); err != nil {
				return
			}
			next = []byte(" ")
			time.Sleep(20 * time.Millisecond)
		}
	})
	over := make(chan struct{})
	deaf := agent(t, func(conn *net.UnixConn) {
		select {
		case <-over:
		case <-time.After(20 * time.Second):
		}
	})
	defer close(over)
	for socket, stdin := range map[string]int{slow: 0, deaf: MaxStdin} {
		start := time.Now()
		_, err := Call(start.Add(150*time.Millisecond), socket, time.Second, Request{Stdin: make([]byte, stdin)}, -1)
		if took := time.Since(start); !errors.Is(err, os.ErrDeadlineExceeded) || took < 100*time.Millisecond || took > 5*time.Second {
			t.Errorf("%d bytes: after %v: %v", stdin, took, err)
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
	if _, err := Call(time.Time{}, socket, 200*time.Millisecond, Request{}, -1); !errors.Is(err, ErrAway) || time.Since(start) > 20*time.Second {
		t.Errorf("full: %v after %v", err, time.Since(start))
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		time.Sleep(100 * time.Millisecond)
		for n := range 2 { // the first, and the one that waits
			conn, _, err := syscall.Accept(fd)
			if err != nil {
				return
			}
			f := os.NewFile(uintptr(conn), "conn")
			c, err := net.FileConn(f)
			f.Close()
			if err != nil {
				return
			}
			if n == 1 { // an answer before the question, and an end, would break the pipe under who asks
				_, _, _ = ReadRequest(c.(*net.UnixConn))
				_ = WriteResponse(c.(*net.UnixConn), Response{})
			}
			c.Close()
		}
	}()
	if _, err := Call(time.Time{}, socket, 30*time.Second, Request{}, -1); err != nil {
		t.Fatalf("room after a while: %v", err)
	}
	<-ended // others count descriptors
}

// Signals do not end a call: the runtime sends its own threads some, and with a timeout the kernel restarts nothing.
func TestCallGoesOnAfterSignals(t *testing.T) {
	const enoughSignals = 50
	connected, enough := make(chan struct{}), make(chan struct{})
	late := agent(t, func(conn *net.UnixConn) {
		close(connected)
		<-enough
		_, _, _ = ReadRequest(conn)
		_ = WriteResponse(conn, Response{Result: []byte("late")})
	})
	tid := make(chan int)
	answer := make(chan string)
	go func() {
		runtime.LockOSThread()
		tid <- syscall.Gettid()
		resp, err := Call(time.Now().Add(30*time.Second), late, time.Second, Request{Stdin: make([]byte, MaxStdin)}, -1)
		answer <- fmt.Sprint(string(resp.Result), err)
	}()
	thread, sent := <-tid, 0
	defer func() {
		if sent < enoughSignals {
			close(enough)
		}
	}()
	for {
		select {
		case got := <-answer:
			if got != "late<nil>" || sent < enoughSignals {
				t.Errorf("after %d signals: %s", sent, got)
			}
			return
		case <-time.After(time.Millisecond):
			if err := syscall.Tgkill(os.Getpid(), thread, syscall.SIGURG); err != nil {
				continue
			}
			select {
			case <-connected: // it waits for room, or for the answer
				if sent++; sent == enoughSignals {
					close(enough)
				}
			default:
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
