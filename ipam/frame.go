package ipam

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// A segment is a file of frames, one a transaction, followed by zeros up to the end of the file:
//
//	0  uint32 length of the body
//	4  uint32 CRC-32C of the body
//	8  uint64 sequence number of the frame, continuing over segments
//	16 uint64 generation of the segment
//	24 uint32 magic
//	28 uint32 CRC-32C of the 28 bytes before
//	32 body, padded with zeros to a multiple of 32
//
// All numbers are little endian. A header never crosses a sector boundary, so after a power cut it is there or it is not.
const (
	headerLen  = 32
	frameMagic = 0x4a4d4e44 // "DNMJ"
	sectorLen  = 512        // what a disk writes whole or not at all
	maxBody    = 64 << 20   // a longer length is damage
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type header struct {
	length, bodyCRC uint32
	seq, gen        uint64
}

func (h header) put(b []byte) {
	binary.LittleEndian.PutUint32(b, h.length)
	binary.LittleEndian.PutUint32(b[4:], h.bodyCRC)
	binary.LittleEndian.PutUint64(b[8:], h.seq)
	binary.LittleEndian.PutUint64(b[16:], h.gen)
	binary.LittleEndian.PutUint32(b[24:], frameMagic)
	binary.LittleEndian.PutUint32(b[28:], checksum(b[:28]))
}

func parseHeader(b []byte) (header, bool) {
	if binary.LittleEndian.Uint32(b[24:]) != frameMagic {
		return header{}, false
	}
	h := header{
		length: binary.LittleEndian.Uint32(b), bodyCRC: binary.LittleEndian.Uint32(b[4:]),
		seq: binary.LittleEndian.Uint64(b[8:]), gen: binary.LittleEndian.Uint64(b[16:]),
	}
	ok := h.length <= maxBody && binary.LittleEndian.Uint32(b[28:]) == checksum(b[:28])
	return h, ok
}

// frameLen is the room a frame takes.
func frameLen(body int) int64 { return (int64(headerLen+body) + headerLen - 1) / headerLen * headerLen }

// scanned is what reading a segment found.
type scanned struct {
	end    int64  // where the next frame goes
	next   uint64 // its sequence number
	frames int
	torn   bool // a last write was cut short; everything from end on must be cleared
}

// scan reads the frames of a segment and calls visit with each body and its offset. first 0 means any first sequence
// number. Damage is ErrCorrupt; a write cut short at the end is not damage, as nobody was told that it succeeded.
func scan(f file, gen, first uint64, visit func(body []byte, off int64) error) (scanned, error) {
	size, err := f.Size()
	if err != nil {
		return scanned{}, err
	}
	r := scanned{next: first}
	var buf []byte
	for {
		var head [headerLen]byte
		n, err := readAt(f, head[:], r.end, size)
		if err != nil {
			return r, err
		}
		h, ok := parseHeader(head[:])
		if !ok || h.gen != gen || first != 0 && h.seq != r.next || n < headerLen {
			return r, r.ending(f, size, head[:], header{}, nil)
		}
		buf = grow(buf, int(h.length))
		if _, err := readAt(f, buf, r.end+headerLen, size); err != nil {
			return r, err
		}
		if checksum(buf) != h.bodyCRC {
			return r, r.ending(f, size, head[:], h, buf)
		}
		if err := visit(buf, r.end+headerLen); err != nil {
			return r, fmt.Errorf("frame %d at %d: %w", h.seq, r.end, err)
		}
		first = h.seq
		r.end, r.next, r.frames = r.end+frameLen(int(h.length)), h.seq+1, r.frames+1
	}
}

// ending decides whether what stands at r.end is the clean end, a torn last write, or damage. A torn write lacks whole
// sectors, which read as zeros, or lies partly behind the end of the file; and nothing whole follows it.
func (r *scanned) ending(f file, size int64, head []byte, h header, body []byte) error {
	rest := make([]byte, 64<<10)
	empty := true
	for off := r.end; off < size; off += int64(len(rest)) {
		n, err := readAt(f, rest, off, size)
		if err != nil {
			return err
		}
		for i := 0; i < n; i += headerLen {
			// a whole frame header behind r.end: had the write at r.end been the last one, it could not be there, except
			// as the contents of a body
			if g, ok := parseHeader(rest[i : i+headerLen]); ok && off+int64(i) > r.end && g.seq > r.next {
				return fmt.Errorf("%w: frame at %d is unreadable, one at %d is not", ErrCorrupt, r.end, off+int64(i))
			}
		}
		empty = empty && allZero(rest[:n])
	}
	switch {
	case empty:
		return nil
	case allZero(head): // its first sector is missing
	case size < r.end+headerLen: // the file ends in it
	case body == nil:
		return fmt.Errorf("%w: frame header at %d", ErrCorrupt, r.end)
	case size >= r.end+headerLen+int64(h.length) && !missesSector(body, r.end+headerLen):
		return fmt.Errorf("%w: checksum of frame at %d", ErrCorrupt, r.end)
	}
	r.torn = true
	return nil
}

// missesSector says whether one of the sectors that hold the body, which starts at off, holds only zeros of it. The
// header's own sector is there. Bodies end in a byte that is not zero, see tagEnd.
func missesSector(body []byte, off int64) bool {
	if first := off % sectorLen; first != 0 {
		body = body[min(int64(len(body)), sectorLen-first):]
		off += sectorLen - first
	}
	for len(body) > 0 {
		n := min(int64(len(body)), sectorLen-off%sectorLen)
		if allZero(body[:n]) {
			return true
		}
		body, off = body[n:], off+n
	}
	return false
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// readAt fills b from off; what lies behind the end of the file reads as zeros. It returns how much was there.
func readAt(f file, b []byte, off, size int64) (int, error) {
	n := max(0, min(int64(len(b)), size-off))
	if n > 0 {
		if _, err := f.ReadAt(b[:n], off); err != nil {
			return 0, fmt.Errorf("read address journal: %w", err)
		}
	}
	clear(b[n:])
	return int(n), nil
}

func grow(b []byte, n int) []byte {
	if cap(b) < n {
		return make([]byte, n, n+n/4)
	}
	return b[:n]
}

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }
