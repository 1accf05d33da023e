package link

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"syscall"
)

// NamespaceID names the network namespace behind a file for as long as it lives ("device:inode", as attachment records have it).
// Errors are the operating system's.
func NamespaceID(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", errors.New("stat of " + path + " has no inode")
	}
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino), nil
}

// Addresses lists the addresses of every link of the namespace, by link name; a link without any has an empty list. It changes
// nothing.
func (k *Kernel) Addresses() (map[string][]netip.Addr, error) {
	links, err := completeDump(k.h.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	out := map[string][]netip.Addr{}
	for _, l := range links {
		have, err := AddressesOn(k.h, l)
		if isMissing(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list addresses of %s: %w", l.Attrs().Name, err)
		}
		list := []netip.Addr{}
		for _, a := range have {
			if addr, ok := netip.AddrFromSlice(a.IP); ok {
				list = append(list, addr.Unmap())
			}
		}
		out[l.Attrs().Name] = list
	}
	return out, nil
}
