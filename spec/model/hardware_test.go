package model

import "testing"

func TestSelectorFinds(t *testing.T) {
	card := NIC{Name: "ens1f0", AltNames: []string{"enp59s0f0"}, PCI: "0000:3b:00.0", Vendor: "8086", Device: "158b", Driver: "i40e", TotalVFs: 64}
	for name, tc := range map[string]struct {
		s    PFSelector
		edit func(*NIC)
		want bool
	}{
		"by name":                       {s: PFSelector{Names: []string{"ens9", "ens1f0"}}, want: true},
		"by another of its names":       {s: PFSelector{Names: []string{"enp59s0f0"}}, want: true},
		"by another card's name":        {s: PFSelector{Names: []string{"ens1f1"}}},
		"by address":                    {s: PFSelector{PCI: []string{"0000:3b:00.0"}}, want: true},
		"by another address":            {s: PFSelector{PCI: []string{"0000:3b:00.1"}}},
		"by vendor":                     {s: PFSelector{Vendors: []string{"15b3", "8086"}}, want: true},
		"by another vendor":             {s: PFSelector{Vendors: []string{"15b3"}}},
		"by device":                     {s: PFSelector{Devices: []string{"158b"}}, want: true},
		"by another device":             {s: PFSelector{Devices: []string{"1572"}}},
		"by driver":                     {s: PFSelector{Drivers: []string{"i40e"}}, want: true},
		"by another driver":             {s: PFSelector{Drivers: []string{"ice"}}},
		"by all of it":                  {s: PFSelector{Names: []string{"ens1f0"}, PCI: []string{"0000:3b:00.0"}, Vendors: []string{"8086"}, Devices: []string{"158b"}, Drivers: []string{"i40e"}}, want: true},
		"by name, but another driver":   {s: PFSelector{Names: []string{"ens1f0"}, Drivers: []string{"ice"}}},
		"a virtual one of its vendor":   {s: PFSelector{Vendors: []string{"8086"}}, edit: func(n *NIC) { n.PF = "0000:3b:00.1" }},
		"what the node does not know":   {s: PFSelector{Vendors: []string{"8086"}}, edit: func(n *NIC) { n.Vendor = "" }},
		"an empty word is no agreement": {s: PFSelector{Vendors: []string{""}}, edit: func(n *NIC) { n.Vendor = "" }},
	} {
		n := card
		if tc.edit != nil {
			tc.edit(&n)
		}
		if got := tc.s.Finds(n); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestPFs(t *testing.T) {
	for _, tc := range []struct {
		n    NIC
		want bool
	}{{NIC{TotalVFs: 8}, true}, {NIC{VFs: 4}, true}, {NIC{}, false}, {NIC{TotalVFs: 8, PF: "0000:3b:00.0"}, false}} {
		if tc.n.IsPF() != tc.want {
			t.Errorf("%+v", tc.n)
		}
	}
}
