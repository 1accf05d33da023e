package sync

import (
	"strings"
	"testing"

	"danm.io/danm/reconcile/fail"
	"danm.io/danm/spec/diag"
)

// TestASecretOfNoUse: a misspelt key, and a certificate that is none, are told as such and not as what a fetch without them meets.
func TestASecretOfNoUse(t *testing.T) {
	for _, r := range []struct {
		data map[string]string
		want []string // "" = fine
	}{
		{map[string]string{"user": "u", "pass": "hunter2"}, []string{"git", "username", "pass, user"}},
		{nil, []string{"its keys: none"}},
		{map[string]string{"password": "", "token": "hunter2"}, []string{"bearerToken", "password, token"}},
		{map[string]string{"bearerToken": "t", "ca.crt": "hunter2"}, []string{"git", "ca.crt holds no certificate"}},
		{map[string]string{"username": "u"}, nil},
		{map[string]string{"identity": "k", "known_hosts": "h", "more": "x"}, nil},
	} {
		data := map[string][]byte{}
		for k, v := range r.data {
			data[k] = []byte(v)
		}
		err := known("git", data)
		if (err == nil) != (r.want == nil) {
			t.Errorf("%v: %v", r.data, err)
			continue
		}
		if err == nil {
			continue
		}
		if f := fail.Of(err, ""); f.Reason != string(diag.SecretMissing) || !f.Terminal || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v: %+v", r.data, f)
		}
		for _, w := range r.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%v: %v does not say %q", r.data, err, w)
			}
		}
	}
}
