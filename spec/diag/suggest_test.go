package diag

import "testing"

func TestSuggest(t *testing.T) {
	known := []string{"vxlan", "vlan", "fabric", "hostDevice", "mtu", "ipv4", "ipv6", "allowedTenants"}
	for word, want := range map[string]string{
		"fabrci":         "fabric",
		"vxlna":          "vxlan",
		"vlann":          "vlan",
		"host_device":    "hostDevice",
		"hostdevice":     "hostDevice",
		"MTU":            "mtu",
		"mtuu":           "mtu",
		"alowedTenant":   "allowedTenants",
		"ipv5":           "ipv4", // the first of equals
		"bogus":          "",
		"x":              "",
		"":               "",
		"fabricFabric":   "",
		"completelyElse": "",
	} {
		hint := ""
		if want != "" {
			hint = `did you mean "` + want + `"?`
		}
		if got := Suggest(word, known); got != hint {
			t.Errorf("Suggest(%q) = %s, want %s", word, got, hint)
		}
	}
}

// naive is the textbook recursion (optimal string alignment), too slow for use and hard to get wrong.
func naive(a, b string) int {
	switch {
	case a == "":
		return len(b)
	case b == "":
		return len(a)
	}
	cost := 1
	if a[len(a)-1] == b[len(b)-1] {
		cost = 0
	}
	d := min(naive(a[:len(a)-1], b)+1, naive(a, b[:len(b)-1])+1, naive(a[:len(a)-1], b[:len(b)-1])+cost)
	if len(a) > 1 && len(b) > 1 && a[len(a)-1] == b[len(b)-2] && a[len(a)-2] == b[len(b)-1] {
		d = min(d, naive(a[:len(a)-2], b[:len(b)-2])+1)
	}
	return d
}

func TestDistance(t *testing.T) {
	words := []string{"", "a", "ab", "ba", "abc", "acb", "vlan", "vlna", "lvan", "vxlan", "nalv"}
	for _, a := range words {
		for _, b := range words {
			if got, want := distance(a, b, 100), naive(a, b); got != want {
				t.Errorf("distance(%q, %q) = %d, want %d", a, b, got, want)
			}
		}
	}
}

func TestCatalogue(t *testing.T) {
	seen := map[Code]bool{}
	for _, e := range All() {
		if seen[e.Code] {
			t.Errorf("%s is explained twice", e.Code)
		}
		seen[e.Code] = true
		if e.Title == "" || e.Text == "" || e.Remedy == "" {
			t.Errorf("%s is not explained in full", e.Code)
		}
		if got, ok := Explain(e.Code); !ok || got != e {
			t.Errorf("Explain(%s) = %v, %t", e.Code, got, ok)
		}
	}
	if _, ok := Explain("NoSuchCode"); ok {
		t.Error("an unknown code is explained")
	}
}
