package alloc

import (
	"encoding/binary"
	"math"
	"math/bits"
	"net/netip"
)

// U128 is an unsigned 128-bit number: an offset inside a CIDR, or an index among a node's own addresses.
type U128 struct{ Hi, Lo uint64 }

func u64(v uint64) U128 { return U128{Lo: v} }

func (a U128) cmp(b U128) int {
	switch {
	case a.Hi < b.Hi || a.Hi == b.Hi && a.Lo < b.Lo:
		return -1
	case a == b:
		return 0
	}
	return 1
}

func (a U128) less(b U128) bool { return a.cmp(b) < 0 }

// add wraps at 2^128, as sub does at 0: callers stay inside a CIDR.
func (a U128) add(b U128) U128 {
	lo, c := bits.Add64(a.Lo, b.Lo, 0)
	hi, _ := bits.Add64(a.Hi, b.Hi, c)
	return U128{hi, lo}
}

func (a U128) sub(b U128) U128 {
	lo, c := bits.Sub64(a.Lo, b.Lo, 0)
	hi, _ := bits.Sub64(a.Hi, b.Hi, c)
	return U128{hi, lo}
}

func (a U128) inc() U128     { return a.add(u64(1)) }
func (a U128) dec() U128     { return a.sub(u64(1)) }
func (a U128) isMax() bool   { return a.Hi == math.MaxUint64 && a.Lo == math.MaxUint64 }
func (a U128) isZero() bool  { return a.Hi == 0 && a.Lo == 0 }
func minU128(a, b U128) U128 { return pick(a.less(b), a, b) }
func maxU128(a, b U128) U128 { return pick(a.less(b), b, a) }

func pick(first bool, a, b U128) U128 {
	if first {
		return a
	}
	return b
}

// divmod divides by d, which is not 0.
func (a U128) divmod(d uint64) (U128, uint64) {
	hi, r := a.Hi/d, a.Hi%d
	lo, r := bits.Div64(r, a.Lo, d)
	return U128{hi, lo}, r
}

// mul wraps at 2^128.
func (a U128) mul(m uint64) U128 {
	hi, lo := bits.Mul64(a.Lo, m)
	return U128{hi + a.Hi*m, lo}
}

// saturate is the number as uint64, or the largest one.
func (a U128) saturate() uint64 {
	if a.Hi != 0 {
		return math.MaxUint64
	}
	return a.Lo
}

// number reads an address as a number; IPv4 uses the low 32 bits.
func number(a netip.Addr) U128 {
	if a.Is4() {
		b := a.As4()
		return u64(uint64(binary.BigEndian.Uint32(b[:])))
	}
	b := a.As16()
	return U128{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

func address(v U128, is4 bool) netip.Addr {
	if is4 {
		return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, uint32(v.Lo))))
	}
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], v.Hi)
	binary.BigEndian.PutUint64(b[8:], v.Lo)
	return netip.AddrFrom16(b)
}

// lastOffset is the offset of the last address of a prefix with the given number of host bits.
func lastOffset(hostBits int) U128 {
	switch {
	case hostBits >= 128:
		return U128{math.MaxUint64, math.MaxUint64}
	case hostBits >= 64:
		return U128{1<<(hostBits-64) - 1, math.MaxUint64}
	}
	return u64(1<<hostBits - 1)
}
