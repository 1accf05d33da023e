package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
)

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
