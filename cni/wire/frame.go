package wire

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Version is the frame this release writes; Oldest is the oldest one it reads.
const (
	Version = 1
	Oldest  = 1
)

// MaxStdin bounds the CNI configuration, MaxHeader everything else of a request, MaxAnswer an answer. Bytes.
const (
	MaxStdin  = 1 << 20
	MaxHeader = 64 << 10
	MaxAnswer = 1 << 20
)

var (
	// ErrVersion says that the other end speaks a version this one does not read.
	ErrVersion = errors.New("the plugin and the agent are more than one release apart")
	// ErrTooBig says that a part of a frame is over its bound.
	ErrTooBig = errors.New("too big")
	// ErrFrame says that the bytes are no frame at all.
	ErrFrame = errors.New("not a frame of this protocol")
)

// A frame is magic (4 bytes), version (2), flags (2, zero), length of the JSON header (4), length of the payload (4), all
// big endian; then the header and the payload.
const frameSize = 16

var magic = [4]byte{'D', 'N', 'M', 'W'}

func encodeFrame(header any, payload []byte, maxHeader, maxPayload int) ([]byte, error) {
	h, err := json.Marshal(header)
	if err != nil {
		return nil, err
	}
	if err := checkLengths(len(h), len(payload), maxHeader, maxPayload); err != nil {
		return nil, err
	}
	out := make([]byte, frameSize, frameSize+len(h)+len(payload))
	copy(out, magic[:])
	binary.BigEndian.PutUint16(out[4:], Version)
	binary.BigEndian.PutUint32(out[8:], uint32(len(h)))
	binary.BigEndian.PutUint32(out[12:], uint32(len(payload)))
	return append(append(out, h...), payload...), nil
}

// decodeFrame reads one frame. Lengths are checked before memory is taken for them.
func decodeFrame(r io.Reader, header any, maxHeader, maxPayload int) (payload []byte, err error) {
	var start [frameSize]byte
	if _, err := io.ReadFull(r, start[:]); err != nil {
		return nil, fmt.Errorf("read frame: %w", err)
	}
	if [4]byte(start[:4]) != magic {
		return nil, ErrFrame
	}
	if v := binary.BigEndian.Uint16(start[4:]); v < Oldest || v > Version {
		return nil, fmt.Errorf("%w: got version %d, reads %d to %d", ErrVersion, v, Oldest, Version)
	}
	h, p := binary.BigEndian.Uint32(start[8:]), binary.BigEndian.Uint32(start[12:])
	if err := checkLengths(int(h), int(p), maxHeader, maxPayload); err != nil {
		return nil, err
	}
	body := make([]byte, int(h)+int(p))
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, fmt.Errorf("read frame: %w", err)
	}
	if err := json.Unmarshal(body[:h], header); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFrame, err)
	}
	return body[h:], nil
}

func checkLengths(header, payload, maxHeader, maxPayload int) error {
	switch {
	case header > maxHeader:
		return fmt.Errorf("header of %d bytes: %w, at most %d", header, ErrTooBig, maxHeader)
	case payload > maxPayload:
		return fmt.Errorf("content of %d bytes: %w, at most %d", payload, ErrTooBig, maxPayload)
	}
	return nil
}
