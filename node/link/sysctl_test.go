package link

import (
	"errors"
	"testing"
)

// TestSysctlPath: only what stands below net, one step a part.
func TestSysctlPath(t *testing.T) {
	k := &Kernel{sysRoot: "/root"}
	for key, want := range map[string]string{
		"net.ipv4.conf.eth0/10.forwarding": "/root/proc/sys/net/ipv4/conf/eth0.10/forwarding",
		"net.core.somaxconn":               "/root/proc/sys/net/core/somaxconn",
	} {
		if got, err := k.sysctlPath(key); err != nil || got != want {
			t.Errorf("%s: %s %v", key, got, err)
		}
	}
	for _, key := range []string{"", "net", "net.core", "kernel.core_pattern.x", "net.ipv4.//.x", "net.ipv4./.x", "net..x", "net.core.a\x00b", "net.ipv4.conf.//./////.x"} {
		if got, err := k.sysctlPath(key); !errors.Is(err, ErrStep) {
			t.Errorf("%q: %s %v", key, got, err)
		}
	}
}
