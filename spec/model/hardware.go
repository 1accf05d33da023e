package model

import "slices"

// NIC is one network card as a node found it: what no plan declares.
type NIC struct {
	Name     string   `json:"name"`
	AltNames []string `json:"altNames,omitempty"` // sorted
	MAC      string   `json:"mac,omitempty"`      // the one it was made with; lower case, colons
	PCI      string   `json:"pci,omitempty"`
	Driver   string   `json:"driver,omitempty"`
	Vendor   string   `json:"vendor,omitempty"` // PCI ids: four hexadecimal digits, lower case
	Device   string   `json:"device,omitempty"`
	Speed    int      `json:"speed,omitempty"` // Mbit/s; 0 = unknown, as without carrier
	MinMTU   int      `json:"minMTU,omitempty"`
	MaxMTU   int      `json:"maxMTU,omitempty"`   // 0 = unknown
	TotalVFs int      `json:"totalVFs,omitempty"` // what the device can have; 0 = no SR-IOV
	VFs      int      `json:"vfs,omitempty"`      // what it has now
	PF       string   `json:"pf,omitempty"`       // of a virtual function: PCI address of its physical one
}

// IsPF says whether virtual functions can be made of the card. Simulated cards have some without telling a maximum.
func (n NIC) IsPF() bool { return n.PF == "" && (n.TotalVFs > 0 || n.VFs > 0) }

// Finds says whether the selector means the card: every list given has a member that agrees. A virtual function is never meant,
// though it may have its physical one's vendor.
func (s PFSelector) Finds(n NIC) bool {
	agrees := func(list []string, is ...string) bool {
		return len(list) == 0 || slices.ContainsFunc(is, func(v string) bool { return v != "" && slices.Contains(list, v) })
	}
	return n.PF == "" && agrees(s.Names, append(slices.Clone(n.AltNames), n.Name)...) && agrees(s.PCI, n.PCI) &&
		agrees(s.Vendors, n.Vendor) && agrees(s.Devices, n.Device) && agrees(s.Drivers, n.Driver)
}
