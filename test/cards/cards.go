//go:build linux

// Package cards is the test machine's two real cards with SR-IOV (Intel 82576, on one wire): kernel, drivers and namespaces are real. A test
// without them is skipped. What they are like is told by iproute2 and sysfs, and by no code of ours.
package cards

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"danm.io/danm/test/lab"
)

// Machine is a machine with cards. A subtest sets T to its own.
type Machine struct {
	T     testing.TB
	Host  *lab.NS  // the first namespace, where the kernel brings functions back to
	Cards []string // PCI addresses of the physical functions
}

// Devices is where sysfs has a directory for each PCI device.
const Devices = "/sys/bus/pci/devices/"

// New gives each card n virtual functions that nobody has used, until the test ends.
func New(t testing.TB, n int) *Machine {
	t.Helper()
	dirs, _ := filepath.Glob("/sys/bus/pci/drivers/igb/0000:*")
	if os.Getenv("DANM_BIN") == "" || len(dirs) < 2 { // those of another machine than the test machine are somebody's
		t.Skip("no card with SR-IOV")
	}
	m := &Machine{T: t, Host: &lab.NS{Name: "host", Path: "/proc/1/ns/net"}}
	for _, dir := range dirs {
		m.Cards = append(m.Cards, filepath.Base(dir))
	}
	t.Cleanup(func() {
		for _, pci := range m.Cards {
			_ = os.WriteFile(Devices+pci+"/sriov_numvfs", []byte("0"), 0)
		}
	})
	for card := range m.Cards {
		m.Write(Devices+m.Cards[card]+"/sriov_numvfs", "0")
		m.Start(card, n)
	}
	return m
}

// Write writes a file of sysfs.
func (m *Machine) Write(path, text string) {
	m.T.Helper()
	m.must(os.WriteFile(path, []byte(text), 0))
}

func (m *Machine) must(err error) {
	m.T.Helper()
	if err != nil {
		m.T.Fatal(err)
	}
}

// Start makes a card's functions, and has each reset once: before that the card does not tell their MACs.
func (m *Machine) Start(card, n int) {
	m.T.Helper()
	m.IP("link", "set", m.PF(card), "up")
	m.Write(Devices+m.Cards[card]+"/sriov_numvfs", fmt.Sprint(n))
	for i := range n {
		name := m.Link(card, i)
		m.IP("link", "set", name, "up")
		m.IP("link", "set", name, "down")
	}
}

// PF is the interface of a card.
func (m *Machine) PF(card int) string { return m.name(Devices + m.Cards[card]) }

// PCI is the address of a card's function.
func (m *Machine) PCI(card, number int) string {
	m.T.Helper()
	target, err := os.Readlink(fmt.Sprintf("%s%s/virtfn%d", Devices, m.Cards[card], number))
	m.must(err)
	return filepath.Base(target)
}

// Link is the interface of a card's function in the host.
func (m *Machine) Link(card, number int) string {
	m.T.Helper()
	return m.name(Devices + m.PCI(card, number))
}

// name is the interface of a device, which comes a little after its driver, or from a namespace that ends.
func (m *Machine) name(dir string) string {
	m.T.Helper()
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if names, _ := filepath.Glob(dir + "/net/*"); len(names) == 1 {
			return filepath.Base(names[0])
		}
		if time.Now().After(end) {
			m.T.Fatalf("%s has no interface", dir)
		}
	}
}

// IP runs ip(8) in the host.
func (m *Machine) IP(args ...string) string {
	m.T.Helper()
	return m.IPIn(m.Host, args...)
}

// IPIn runs ip(8) in a namespace, and returns what it prints.
func (m *Machine) IPIn(ns *lab.NS, args ...string) (out string) {
	m.T.Helper()
	m.must(ns.Do(func() error {
		text, err := exec.Command("ip", args...).CombinedOutput()
		if out = string(text); err != nil {
			err = fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, text)
		}
		return err
	}))
	return out
}

// Seen is what iproute2 says of the host's links and of the cards' functions, a line each: the witness that shares no code with ours.
func (m *Machine) Seen() string {
	m.T.Helper()
	var links []struct {
		Name      string `json:"ifname"`
		Address   string
		MTU       int
		Alias     string `json:"ifalias"`
		Flags     []string
		Parent    string `json:"parentdev"`
		Functions []struct {
			VF      int
			Address string
			VLANs   []struct{ VLAN, QoS int } `json:"vlan_list"`
			Spoof   bool                      `json:"spoofchk"`
			Trust   bool
		} `json:"vfinfo_list"`
	}
	m.must(json.Unmarshal([]byte(m.IP("-j", "-d", "link")), &links))
	var lines []string
	for _, l := range links {
		lines = append(lines, fmt.Sprintf("%s of %s: mac %s mtu %d alias %q up %v", l.Name, l.Parent, l.Address, l.MTU, l.Alias, slices.Contains(l.Flags, "UP")))
		for _, f := range l.Functions {
			lines = append(lines, fmt.Sprintf("%s function %d: mac %s vlan %v spoof %v trust %v", l.Name, f.VF, f.Address, f.VLANs, f.Spoof, f.Trust))
		}
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// As fails if the machine is not as it was.
func (m *Machine) As(before, when string) {
	m.T.Helper()
	if after := m.Seen(); after != before {
		m.T.Fatalf("%s:\n%s\nbefore:\n%s", when, after, before)
	}
}

// Says is what the card says of a function.
func (m *Machine) Says(card, number int) string {
	for line := range strings.Lines(m.Seen()) {
		if text, is := strings.CutPrefix(line, fmt.Sprintf("%s function %d: ", m.PF(card), number)); is {
			return strings.TrimSpace(text)
		}
	}
	return ""
}
