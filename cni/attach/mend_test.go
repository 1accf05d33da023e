package attach

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"danm.io/danm/spec/model"
	"golang.org/x/sys/unix"
)

// TestKernelMend: what the kernel deleted together with the host link is made again as recorded; at every kernel call a
// failure leaves an interface whole or not at all, and the next try ends it.
func TestKernelMend(t *testing.T) {
	for _, kind := range []model.NetworkType{model.MACVLAN, model.IPVLAN, model.BRIDGE} {
		t.Run(string(kind), func(t *testing.T) {
			for n := 1; ; n++ {
				s := newSite(t)
				host := s.hosts[0]
				must(t, host.Switch("par0"))
				ns, pod := s.pod("pod")
				lost := attachment(kind, pod.Sandbox, "net0", "10.60.0.5/24", "fd00:60::5/64")
				lost.Device, lost.IPv6 = "par0", true
				lost.Routes = routes("10.61.0.0/16", "10.60.0.1")
				kept := attachment(model.MACVLAN, pod.Sandbox, "net1", "10.62.0.5/24")
				both := []model.Attachment{lost, kept}
				_, err := s.on[0].Attach(t.Context(), pod, both)
				if kind == model.IPVLAN && errors.Is(err, unix.EOPNOTSUPP) {
					t.Skip("kernel lacks ipvlan")
				}
				must(t, err)
				before := strings.Count(dump(t, ns), "link ")
				old, err := s.on[0].HostIndex("par0")
				must(t, err)
				must(t, host.DeleteLink("par0"))
				if gone, err := s.on[0].HostIndex("par0"); err != nil || gone != 0 {
					t.Fatalf("index of a link that is gone: %d, %v", gone, err)
				}
				if _, err := s.on[0].Mend(t.Context(), pod, both); !errors.Is(err, ErrHostLink) {
					t.Fatalf("mended on nothing: %v", err)
				}
				must(t, host.Switch("par0"))
				if index, err := s.on[0].HostIndex("par0"); err != nil || index == old || index == 0 {
					t.Fatalf("index %d of the new link, %d of the old: %v", index, old, err)
				}
				f := &faulty{n: n, act: func() error { return errInjected }}
				mended, err := withFault(s.on[0], f).Mend(t.Context(), pod, both)
				if hit := f.count >= n; hit != errors.Is(err, errInjected) && kind != model.BRIDGE {
					t.Fatalf("call %d of %d: %v", n, f.count, err)
				}
				whole := err == nil
				if whole && !slices.Equal(mended, []string{"net0"}) {
					t.Fatalf("mended %v", mended)
				}
				_, err = s.on[0].Mend(t.Context(), pod, both)
				must(t, err)
				if _, err := s.on[0].Check(t.Context(), pod, both); err != nil {
					t.Fatalf("call %d: %v", n, err)
				}
				if links := strings.Count(dump(t, ns), "link "); links != before {
					t.Fatalf("call %d: %d links instead of %d", n, links, before)
				}
				if again, err := s.on[0].Mend(t.Context(), pod, both); err != nil || len(again) > 0 {
					t.Fatalf("mended again: %v, %v", again, err)
				}
				if f.count < n {
					break
				}
			}
		})
	}
}
