package attach

import (
	"errors"
	"strings"
	"testing"
	"time"

	"danm.io/danm/spec/model"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Each mode is the kernel's of that name, and what it promises: neighbours on one device reach one another in bridge mode, not in
// private and vepa mode, where a switch that sends nothing back stands between; passthru has the device alone.
func TestKernelMacvlanModes(t *testing.T) {
	for mode, want := range map[string]struct {
		kernel netlink.MacvlanMode
		talk   bool
	}{"": {netlink.MACVLAN_MODE_BRIDGE, true}, model.PRIVATE: {netlink.MACVLAN_MODE_PRIVATE, false}, model.VEPA: {netlink.MACVLAN_MODE_VEPA, false}} {
		t.Run("mode "+mode, func(t *testing.T) {
			s := newSite(t)
			first, podA := s.pod("a")
			second, podB := s.pod("b")
			a, b := attachment(model.MACVLAN, "a", "eth0", "10.0.0.1/24"), attachment(model.MACVLAN, "b", "eth0", "10.0.0.2/24")
			a.Mode, b.Mode = mode, mode
			for _, x := range []struct {
				pod Pod
				at  model.Attachment
			}{{podA, a}, {podB, b}} {
				_, err := s.on[0].Attach(t.Context(), x.pod, []model.Attachment{x.at})
				must(t, err)
				_, err = s.on[0].Check(t.Context(), x.pod, []model.Attachment{x.at})
				must(t, err)
			}
			must(t, second.Do(func() error {
				l, err := netlink.LinkByName("eth0")
				if v, ok := l.(*netlink.Macvlan); err == nil && (!ok || v.Mode != want.kernel) {
					t.Errorf("the kernel has %+v", l)
				}
				return err
			}))
			limit := time.Second
			if want.talk {
				limit = 30 * time.Second
			}
			if err := first.Ping("10.0.0.2", limit); (err == nil) != want.talk {
				t.Errorf("reach one another: %v", err)
			}
			other := b
			other.Mode = map[string]string{"": model.PRIVATE, model.PRIVATE: model.VEPA, model.VEPA: ""}[mode]
			if _, err := s.on[0].Check(t.Context(), podB, []model.Attachment{other}); !errors.Is(err, ErrMismatch) || !strings.Contains(err.Error(), "instead of") || !strings.Contains(err.Error(), "mode ") {
				t.Errorf("CHECK against mode %q: %v", other.Mode, err)
			}
		})
	}
}

func TestKernelPassthruIsAlone(t *testing.T) {
	s := newSite(t)
	_, podA := s.pod("a")
	_, podB := s.pod("b")
	a, b := attachment(model.MACVLAN, "a", "eth0", "10.0.0.1/24"), attachment(model.MACVLAN, "b", "eth0", "10.0.0.2/24")
	a.Mode, b.Mode, a.MAC = model.PASSTHRU, model.PASSTHRU, ""
	if _, err := s.on[0].Attach(t.Context(), podA, []model.Attachment{a}); err != nil {
		t.Fatal(err)
	}
	before := dump(t, s.hosts[0])
	if _, err := s.on[0].Attach(t.Context(), podB, []model.Attachment{b}); err == nil || !strings.Contains(err.Error(), "create macvlan on eth0") {
		t.Errorf("a second one: %v", err)
	}
	if after := dump(t, s.hosts[0]); after != before {
		t.Errorf("left:\n%s", after)
	}
	must(t, s.on[0].Detach(t.Context(), podA, []model.Attachment{a}))
	if _, err := s.on[0].Attach(t.Context(), podB, []model.Attachment{b}); err != nil {
		t.Errorf("when the first has gone: %v", err)
	}
}

func TestKernelIPVLANModes(t *testing.T) {
	for mode, kernel := range map[string]netlink.IPVlanMode{"": netlink.IPVLAN_MODE_L2, model.L3: netlink.IPVLAN_MODE_L3, model.L3S: netlink.IPVLAN_MODE_L3S} {
		t.Run("mode "+mode, func(t *testing.T) {
			s := newSite(t)
			first, podA := s.pod("a")
			_, podB := s.pod("b")
			for i, pod := range []Pod{podA, podB} {
				at := attachment(model.IPVLAN, pod.Sandbox, "eth0", []string{"10.0.0.1/24", "10.0.0.2/24"}[i])
				at.Mode = mode
				_, err := s.on[0].Attach(t.Context(), pod, []model.Attachment{at})
				if errors.Is(err, unix.EOPNOTSUPP) {
					t.Skip("kernel lacks ipvlan")
				}
				must(t, err)
				_, err = s.on[0].Check(t.Context(), pod, []model.Attachment{at})
				must(t, err)
			}
			must(t, first.Do(func() error {
				l, err := netlink.LinkByName("eth0")
				if v, ok := l.(*netlink.IPVlan); err == nil && (!ok || v.Mode != kernel) {
					t.Errorf("the kernel has %+v", l)
				}
				return err
			}))
			if err := first.Ping("10.0.0.2", 30*time.Second); err != nil {
				t.Errorf("neighbours on one device: %v", err)
			}
		})
	}
}

func TestKernelUnknownModesAreRefused(t *testing.T) {
	s := newSite(t)
	_, pod := s.pod("a")
	for _, kind := range []model.NetworkType{model.MACVLAN, model.IPVLAN} {
		at := attachment(kind, "a", "eth0", "10.0.0.1/24")
		at.Mode = "odd"
		if _, err := s.on[0].Attach(t.Context(), pod, []model.Attachment{at}); !errors.Is(err, ErrType) {
			t.Errorf("%s: %v", kind, err)
		}
	}
	for _, kind := range []model.NetworkType{model.MACVLAN, model.IPVLAN} { // each mode that a network can have is known
		for _, mode := range model.Modes(kind)[1:] {
			_, macvlan := macvlanModes[mode]
			_, ipvlan := ipvlanModes[mode]
			if macvlan != (kind == model.MACVLAN) || ipvlan != (kind == model.IPVLAN) {
				t.Errorf("%s has no mode %s", kind, mode)
			}
		}
	}
}
