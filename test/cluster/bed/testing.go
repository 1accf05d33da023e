package bed

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

var shared struct {
	sync.Once
	api *API
	err error
}

// Main runs a package's tests and ends the API server that they share.
func Main(m *testing.M) {
	code := m.Run()
	if shared.api != nil {
		_ = shared.api.Stop()
		_ = os.RemoveAll(shared.api.Dir)
	}
	os.Exit(code)
}

// Shared is an API server with DANM's definitions for all tests of a package; TestMain must call Main. Without the programs
// the test is skipped.
func Shared(t *testing.T) *API {
	t.Helper()
	shared.Do(func() {
		dir, err := os.MkdirTemp("", "danm-bed-")
		if err != nil {
			shared.err = err
			return
		}
		if shared.api, shared.err = StartAPI(dir, "", nil); shared.err == nil {
			shared.err = shared.api.InstallCRDs(nil)
		}
	})
	if errors.Is(shared.err, ErrNotBuilt) {
		t.Skip(shared.err)
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.api
}

// ReleaseNetworks takes the finalizers off all networks of the shared API server, once the controllers that would have ended.
func ReleaseNetworks(t *testing.T) {
	for _, kind := range []string{"danmnets", "tenantnetworks", "clusternetworks"} {
		out, err := Shared(t).Kubectl(nil, "get", kind, "-A", "-o", `jsonpath={range .items[?(@.metadata.finalizers)]}{.metadata.namespace}/{.metadata.name}{"\n"}{end}`)
		if err != nil {
			continue
		}
		for _, line := range strings.Fields(string(out)) {
			namespace, name, _ := strings.Cut(line, "/")
			_, _ = Shared(t).Kubectl(nil, "patch", kind, name, "-n", namespace, "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)
		}
	}
}

// Root is the project's directory.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Join(filepath.Dir(file), "..", "..", "..")
}

// InstallCRDs applies deploy/crd and the foreign definitions that tests need, and waits until they are served.
func (a *API) InstallCRDs(fork Fork) error {
	for _, from := range [][]string{{"-k", filepath.Join(Root(), "deploy", "crd")}, {"-f", filepath.Join(Root(), "test", "cluster", "testdata", "crd")}} {
		if out, err := a.Kubectl(fork, append([]string{"apply", "--server-side"}, from...)...); err != nil {
			return errors.Join(err, errors.New(strings.TrimSpace(string(out))))
		}
	}
	if out, err := a.Kubectl(fork, "wait", "--for=condition=Established", "--timeout=60s", "crd", "--all"); err != nil {
		return errors.Join(err, errors.New(strings.TrimSpace(string(out))))
	}
	return nil
}
