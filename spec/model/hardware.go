package model

// NIC is one network card as a node found it: what no plan declares.
type NIC struct {
	Name     string   `json:"name"`
	AltNames []string `json:"altNames,omitempty"` // sorted
	MAC      string   `json:"mac,omitempty"`      // the one it was made with; lower case, colons
	PCI      string   `json:"pci,omitempty"`
	Driver   string   `json:"driver,omitempty"`
	Speed    int      `json:"speed,omitempty"` // Mbit/s; 0 = unknown, as without carrier
	MinMTU   int      `json:"minMTU,omitempty"`
	MaxMTU   int      `json:"maxMTU,omitempty"`   // 0 = unknown
	TotalVFs int      `json:"totalVFs,omitempty"` // what the device can have; 0 = no SR-IOV
	VFs      int      `json:"vfs,omitempty"`      // what it has now
	PF       string   `json:"pf,omitempty"`       // of a virtual function: PCI address of its physical one
}
