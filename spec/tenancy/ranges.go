package tenancy

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"

	danmv1 "danm.io/danm/spec/danm/v1"
	"danm.io/danm/spec/model"
)

// The largest ids: VLAN 4095 is reserved (IEEE 802.1Q, table 9-2), a VNI has 24 bits (RFC 7348, section 5).
const (
	maxVLAN = 4094
	maxVNI  = 1<<24 - 1
)

// Ranges of a profile, sorted and disjoint; empty for a profile without numbers. It is an error if a part of the text is no range,
// or goes beyond what the kind has; the rest is not used then either.
func Ranges(p danmv1.IfaceProfile) ([]model.Range32, error) {
	if p.VniType == "" && p.VniRange == "" {
		return nil, nil
	}
	top := uint64(maxVLAN)
	switch p.VniType {
	case VLAN:
	case VXLAN:
		top = maxVNI
	default:
		return nil, fmt.Errorf("vniType %q of device %s is neither vlan nor vxlan", p.VniType, p.Name)
	}
	var out []model.Range32
	for _, part := range strings.Split(p.VniRange, ",") {
		from, to, two := strings.Cut(strings.TrimSpace(part), "-")
		if !two {
			to = from
		}
		first, errFirst := strconv.ParseUint(from, 10, 32)
		last, errLast := strconv.ParseUint(to, 10, 32)
		if errFirst != nil || errLast != nil || first == 0 || first > last || last > top {
			return nil, fmt.Errorf("%q in the vniRange of device %s is no range of 1 to %d", part, p.Name, top)
		}
		out = append(out, model.Range32{First: uint32(first), Last: uint32(last)})
	}
	slices.SortFunc(out, func(a, b model.Range32) int { return int(int64(a.First) - int64(b.First)) })
	merged := out[:1]
	for _, r := range out[1:] {
		if end := &merged[len(merged)-1]; r.First <= end.Last+1 {
			end.Last = max(end.Last, r.Last)
		} else {
			merged = append(merged, r)
		}
	}
	return merged, nil
}

// Contains says whether an id lies in one of the ranges.
func Contains(ranges []model.Range32, id int64) bool {
	return slices.ContainsFunc(ranges, func(r model.Range32) bool { return int64(r.First) <= id && id <= int64(r.Last) })
}

// Bitmap reads DANM's record of ids in use: base64, bit k is id k, the most significant bit of a byte first (its package
// bitarray). The ids are sorted. An error means that nobody knows what is in use.
func Bitmap(alloc string) ([]int64, error) {
	if alloc == "" {
		return nil, nil
	}
	raw, err := base64.StdEncoding.DecodeString(alloc)
	if err != nil {
		return nil, fmt.Errorf("decode bitmap: %w", err)
	}
	var out []int64
	for i, b := range raw {
		for k := range 8 {
			if b&(1<<(7-k)) != 0 {
				out = append(out, int64(i*8+k))
			}
		}
	}
	return out, nil
}
