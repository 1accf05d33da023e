package git

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"

	"danm.io/danm/reconcile/source/snapshot"
	"danm.io/danm/spec/diag"
)

// object is one entry of a crafted pack: claimed size, and the bytes that are really in the zlib stream.
type packed struct {
	kind  byte
	claim uint64
	data  []byte
}

func pack(objects ...packed) []byte {
	var b bytes.Buffer
	b.WriteString("PACK\x00\x00\x00\x02")
	_ = binary.Write(&b, binary.BigEndian, uint32(len(objects)))
	for _, o := range objects {
		head, rest := o.kind<<4|byte(o.claim&15), o.claim>>4
		for rest > 0 {
			b.WriteByte(head | 0x80)
			head, rest = byte(rest&0x7f), rest>>7
		}
		b.WriteByte(head)
		switch o.kind {
		case typeOfsDelta:
			b.WriteByte(12)
		case typeRefDelta:
			b.Write(make([]byte, 20))
		}
		z := zlib.NewWriter(&b)
		_, _ = z.Write(o.data)
		_ = z.Close()
	}
	b.Write(make([]byte, 20)) // the checksum is not looked at here
	return b.Bytes()
}

// delta is the head of a delta stream: size of the base, size of the result.
func delta(base, result uint64, more ...byte) packed {
	d := binary.AppendUvarint(binary.AppendUvarint(nil, base), result)
	d = append(d, more...)
	return packed{kind: typeOfsDelta, claim: uint64(len(d)), data: d}
}

func TestCheckPack(t *testing.T) {
	const max = 10_000
	bomb := make([]byte, 4<<20)
	small := packed{3, 5, []byte("hello")}
	ref := delta(5, 5, 1)
	ref.kind = typeRefDelta
	rows := []struct {
		name string
		pack []byte
		code diag.Code
		bad  bool
	}{
		{name: "good", pack: pack(small, packed{1, 3, []byte("abc")}, delta(5, 100, 1, 2), ref, packed{3, 0, nil})},
		{name: "empty", pack: pack()},
		{name: "claims too much", pack: pack(packed{3, max + 1, nil}), code: diag.RepositoryTooLarge},
		{name: "claims the moon", pack: pack(packed{3, 1 << 48, nil}), code: diag.RepositoryTooLarge},
		{name: "holds more than it claims", pack: pack(packed{3, 5, bomb}), bad: true},
		{name: "holds less than it claims", pack: pack(packed{3, 6, []byte("hello")}), bad: true},
		{name: "adds up", pack: pack(packed{3, 6000, make([]byte, 6000)}, packed{3, 6000, make([]byte, 6000)}), code: diag.RepositoryTooLarge},
		{name: "delta makes too much", pack: pack(small, delta(5, 1<<40, 1)), code: diag.RepositoryTooLarge},
		{name: "deltas add up", pack: pack(small, delta(5, 5000), delta(5, 5000)), code: diag.RepositoryTooLarge},
		{name: "delta without a size", pack: pack(small, packed{typeOfsDelta, 1, []byte{5}}), bad: true},
		{name: "many tiny ones", pack: pack(make([]packed, 0)...), bad: false},
		{name: "type 0", pack: pack(packed{0, 1, []byte("x")}), bad: true},
		{name: "type 5", pack: pack(packed{5, 1, []byte("x")}), bad: true},
		{name: "no pack", pack: []byte("<html>and so on"), bad: true},
		{name: "nothing", pack: nil, bad: true},
		{name: "version 3", pack: bytes.Replace(pack(small), []byte{0, 0, 0, 2}, []byte{0, 0, 0, 3}, 1), bad: true},
	}
	for _, r := range rows {
		err := checkPack(bufio.NewReader(bytes.NewReader(r.pack)), max)
		if snapshot.Code(err) != r.code || errors.Is(err, errPack) != r.bad {
			t.Errorf("%s: got %v, want code %q, malformed %v", r.name, err, r.code, r.bad)
		}
	}
	whole := pack(small, delta(5, 100, 1), small)
	for cut := range len(whole) - 20 {
		if err := checkPack(bufio.NewReader(bytes.NewReader(whole[:cut])), max); !errors.Is(err, errPack) {
			t.Errorf("cut at %d of %d: got %v", cut, len(whole), err)
		}
	}
	many := make([]packed, 200)
	for i := range many {
		many[i] = packed{kind: 3}
	}
	if err := checkPack(bufio.NewReader(bytes.NewReader(pack(many...))), max); snapshot.Code(err) != diag.RepositoryTooLarge {
		t.Errorf("200 empty objects in 10,000 bytes of memory: %v", err)
	}
}

// FuzzCheckPack: no input panics, and none is read for longer than it is.
func FuzzCheckPack(f *testing.F) {
	f.Add(pack(packed{3, 5, []byte("hello")}, delta(5, 100, 1)))
	f.Add(pack(packed{3, 1 << 40, nil}))
	f.Fuzz(func(t *testing.T, b []byte) {
		_ = checkPack(bufio.NewReader(bytes.NewReader(b)), 1<<20)
	})
}

// TestCleanDropsCauses: the summary is scrubbed, so a cause that says more must not travel along; what callers ask for stays.
func TestCleanDropsCauses(t *testing.T) {
	for _, cause := range []error{errors.New("dial with T0KEN"), fs.ErrNotExist, context.DeadlineExceeded} {
		got := clean(snapshot.Errorf(diag.RepositoryUnreachable, "connect: %w", fmt.Errorf("with T0KEN: %w", cause)), []string{"T0KEN"})
		for err := error(got); err != nil; err = errors.Unwrap(err) {
			if strings.Contains(err.Error(), "T0KEN") {
				t.Errorf("%v: leaks %q", cause, err)
			}
		}
		if sentinel := cause == fs.ErrNotExist || cause == context.DeadlineExceeded; errors.Is(got, cause) != sentinel || got.Code != diag.RepositoryUnreachable {
			t.Errorf("%v: got %v", cause, got)
		}
	}
}

func TestScrub(t *testing.T) {
	long := make([]byte, 1000)
	for i := range long {
		long[i] = 'x'
	}
	for in, want := range map[string]string{
		"dial https://bob:pw@h/x: no":    "dial https://h/x: no",
		"a\x1b[31mb\r\nc":                "a [31mb  c",
		"token T0KEN and T0KEN":          "token [credentials] and [credentials]",
		string(long):                     string(long[:300]) + "...",
		"proxy http://u@p:3128 answered": "proxy http://p:3128 answered",
	} {
		if got := scrub(in, []string{"T0KEN"}); got != want {
			t.Errorf("%.40q: got %q", in, got)
		}
	}
}
