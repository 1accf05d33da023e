package git

import (
	"bufio"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"danm.io/danm/reconcile/source/snapshot"
	"danm.io/danm/spec/diag"
)

// Object types of gitformat-pack(5).
const (
	typeCommit   = 1
	typeTag      = 4
	typeOfsDelta = 6
	typeRefDelta = 7
)

var errPack = errors.New("malformed pack")

// checkPack reads a pack through and fails with RepositoryTooLarge before anything of it is inflated beyond max bytes in all, deltas
// counted with the size of what they make. 64 MiB of zlib can hold 64 GiB of zeros, and deltas multiply once more.
func checkPack(r *bufio.Reader, max int64) error {
	var head [12]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return fmt.Errorf("%w: header: %w", errPack, err)
	}
	if string(head[:4]) != "PACK" || binary.BigEndian.Uint32(head[4:]) != 2 {
		return fmt.Errorf("%w: not a version 2 pack", errPack)
	}
	left := max
	for n := binary.BigEndian.Uint32(head[8:]); n > 0; n-- {
		used, err := checkObject(r, left)
		if err != nil {
			return err
		}
		if left -= used; left < 0 {
			return tooLarge(max)
		}
	}
	return nil
}

func tooLarge(max int64) error {
	return snapshot.Errorf(diag.RepositoryTooLarge, "the transfer unpacks to more than %d bytes", max)
}

// checkObject reads one object and returns how many bytes it stands for.
func checkObject(r *bufio.Reader, left int64) (int64, error) {
	b, err := r.ReadByte()
	if err != nil {
		return 0, fmt.Errorf("%w: object: %w", errPack, err)
	}
	kind, size, shift := b>>4&7, int64(b&15), 4
	for b&0x80 != 0 {
		if b, err = r.ReadByte(); err != nil || shift > 50 {
			return 0, fmt.Errorf("%w: object size", errPack)
		}
		size |= int64(b&0x7f) << shift
		shift += 7
	}
	switch {
	case kind == typeOfsDelta:
		for b = 0x80; b&0x80 != 0; {
			if b, err = r.ReadByte(); err != nil {
				return 0, fmt.Errorf("%w: delta offset", errPack)
			}
		}
	case kind == typeRefDelta:
		if _, err := r.Discard(20); err != nil {
			return 0, fmt.Errorf("%w: delta base", errPack)
		}
	case kind < typeCommit || kind > typeTag:
		return 0, fmt.Errorf("%w: object type %d", errPack, kind)
	}
	if size > left {
		return 0, tooLarge(left)
	}
	made, err := inflate(r, size, kind >= typeOfsDelta)
	if err != nil {
		return 0, err
	}
	// Every object costs memory of its own, however small: tiny ones by the million count too.
	return size + made + 64, nil
}

// inflate reads a zlib stream that must hold exactly size bytes. For a delta it returns the size of the object it makes.
func inflate(r *bufio.Reader, size int64, delta bool) (made int64, err error) {
	z, err := zlib.NewReader(r)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errPack, err)
	}
	defer z.Close()
	body := bufio.NewReaderSize(io.LimitReader(z, size+1), 512)
	var read int64
	if delta {
		head := &counter{r: body}
		if _, err := binary.ReadUvarint(head); err == nil { // size of the base
			var u uint64
			if u, err = binary.ReadUvarint(head); err == nil && u < 1<<50 {
				made = int64(u)
			} else {
				return 0, fmt.Errorf("%w: delta size", errPack)
			}
		}
		read = head.n
	}
	n, err := io.Copy(io.Discard, body)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errPack, err)
	}
	if read+n != size {
		return 0, fmt.Errorf("%w: an object is not as long as it says", errPack)
	}
	return made, nil
}

type counter struct {
	r io.ByteReader
	n int64
}

func (c *counter) ReadByte() (byte, error) {
	b, err := c.r.ReadByte()
	if err == nil {
		c.n++
	}
	return b, err
}
