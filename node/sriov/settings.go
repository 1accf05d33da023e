package sriov

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"syscall"

	"danm.io/danm/node/plan"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// WithVFs is the IFLA_EXT_MASK of a question about a card with its virtual functions (linux/rtnetlink.h: RTEXT_FILTER_VF and
// RTEXT_FILTER_SKIP_STATS). Counters of functions are left out: they are long, and those of many do not fit.
const WithVFs uint32 = 1<<0 | 1<<3

const (
	unknownSetting = 1<<32 - 1
	typeMask       = 0x3fff // NLA_TYPE_MASK of linux/netlink.h
)

// settings are those that the card's driver tells of its virtual functions (IFLA_VFINFO_LIST), n of them; what it does not tell is "".
func (k *Kernel) settings(pf string, n int) ([]plan.VFSettings, error) {
	out := make([]plan.VFSettings, n)
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_ACK)
	req.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	req.AddData(nl.NewRtAttr(unix.IFLA_IFNAME, nl.ZeroTerminated(pf)))
	req.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(WithVFs)))
	messages, err := k.Ask(req, unix.RTM_NEWLINK)
	if err != nil {
		return nil, fmt.Errorf("list virtual functions: %w", err)
	}
	for _, m := range messages {
		all, err := ParseVFs(m)
		if err != nil {
			return make([]plan.VFSettings, n), nil // some 300 of them do not fit into an attribute, whose length then is wrong
		}
		for _, vf := range all {
			if vf.Number < n { // else it was made since the number was read
				out[vf.Number] = vf.VFSettings
			}
		}
	}
	return out, nil
}

// VF is what a card's driver tells of one virtual function.
type VF struct {
	Number          int              // from 0
	plan.VFSettings                  // "" = not told
	MAC             net.HardwareAddr // set through the physical function, all zeros = none; nil = not told
	VLAN, QoS       int              // 0 = none, or not told
}

// ErrShort says that an answer of the kernel ends before what it announces.
var ErrShort = errors.New("answer of the kernel cut short")

// ParseVFs reads the virtual functions of one RTM_NEWLINK (IFLA_VFINFO_LIST), in the order in which it has them: all of them, or none
// and an error. Some 300 of them are too many for the attribute.
func ParseVFs(message []byte) (out []VF, err error) {
	if len(message) < unix.SizeofIfInfomsg {
		return nil, ErrShort
	}
	attrs, err := nl.ParseRouteAttr(message[unix.SizeofIfInfomsg:])
	if err != nil {
		return nil, err
	}
	for _, a := range attrs {
		if a.Attr.Type&typeMask != unix.IFLA_VFINFO_LIST {
			continue
		}
		list, err := nl.ParseRouteAttr(a.Value)
		if err != nil {
			return nil, err
		}
		for _, one := range list {
			fields, err := nl.ParseRouteAttr(one.Value)
			if err != nil {
				return nil, err
			}
			if vf, is := parseVF(fields); is {
				out = append(out, vf)
			}
		}
	}
	return out, nil
}

// parseVF reads one IFLA_VF_INFO; false if no field says whose it is. Each begins with the function's number (struct ifla_vf_* of
// linux/if_link.h).
func parseVF(fields []syscall.NetlinkRouteAttr) (vf VF, is bool) {
	for _, f := range fields {
		kind := f.Attr.Type & typeMask
		word := func(i int) uint32 { return binary.NativeEndian.Uint32(f.Value[4*i:]) }
		if need, read := fieldSizes[kind]; !read || len(f.Value) < need || word(0) >= maxVFs {
			continue // a kind that we do not read
		}
		vf.Number, is = int(word(0)), true
		switch kind {
		case nl.IFLA_VF_MAC:
			vf.MAC = slices.Clone(f.Value[4:10])
		case nl.IFLA_VF_VLAN:
			vf.VLAN, vf.QoS = int(word(1)), int(word(2))
		case nl.IFLA_VF_SPOOFCHK:
			vf.SpoofCheck = switchOf(word(1))
		case nl.IFLA_VF_TRUST:
			vf.Trust = switchOf(word(1))
		case nl.IFLA_VF_LINK_STATE:
			for name, state := range linkStates {
				if state == word(1) {
					vf.LinkState = name
				}
			}
		case nl.IFLA_VF_RATE:
			vf.Rate = plan.RateText(int(word(1)), int(word(2)))
		}
	}
	return vf, is
}

// fieldSizes are the bytes that are read of each field.
var fieldSizes = map[uint16]int{nl.IFLA_VF_MAC: 10, nl.IFLA_VF_VLAN: 12, nl.IFLA_VF_SPOOFCHK: 8, nl.IFLA_VF_TRUST: 8, nl.IFLA_VF_LINK_STATE: 8, nl.IFLA_VF_RATE: 12}

// switchOf: a driver that does not know leaves the kernel's -1.
func switchOf(v uint32) string {
	switch v {
	case unknownSetting:
		return ""
	case 0:
		return "off"
	}
	return "on"
}
