package v1

import (
	"encoding/json"
	"testing"
)

func TestDeviceInfoName(t *testing.T) {
	const file = "danm.io-fast-0000:3b:02.1-device.json"
	if got := DeviceInfoName("danm.io/fast", "0000:3b:02.1"); got != file {
		t.Error(got)
	}
	for _, c := range []struct {
		resource, file, id string
		its                bool
	}{
		{"danm.io/fast", file, "0000:3b:02.1", true},
		{"danm.io/slow", file, "", false},
		{"danm.io/fast", "danm.io-fast-0000:3b:02.1-device.json.tmp", "", false},
		{"danm.io/fast", "danm.io-faster-0000:3b:02.1-device.json", "", false},
		{"danm.io/fast", "danm.io-fast-er-0000:3b:02.1-device.json", "er-0000:3b:02.1", true}, // of danm.io/fast-er: no PCI address
	} {
		id, its := DeviceOfInfoName(c.resource, c.file)
		if its != c.its || its && id != c.id {
			t.Errorf("%s of %s: %q %v", c.file, c.resource, id, its)
		}
	}
}

// TestDeviceInfo: the keys are the specification's.
func TestDeviceInfo(t *testing.T) {
	b, err := json.Marshal(DeviceInfo{Type: DeviceTypePCI, Version: DeviceInfoVersion, PCI: &PCIDevice{Address: "a", PFAddress: "p", RDMADevice: "r"}})
	if err != nil || string(b) != `{"type":"pci","version":"1.1.0","pci":{"pci-address":"a","pf-pci-address":"p","rdma-device":"r"}}` {
		t.Errorf("%s %v", b, err)
	}
}
